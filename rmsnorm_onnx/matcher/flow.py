"""Element types and shapes that follow from one node's own inputs, for the operators around a norm.

ONNX's shape inference says the same and more, but only for a whole serialized model, and neither through
computed axes nor, in branches and loops, through constants from outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import zip_longest
from typing import Final, TypeAlias

import onnx_ir as ir

from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS, Dim, Dims, Known
from rmsnorm_onnx.matcher.lengths import lengths_in

#: Element type and lengths; None where unknown.
Stated: TypeAlias = tuple[ir.DataType | None, Dims | None]

UNKNOWN: Final[Stated] = (None, None)

#: More axes than any tensor has: a shape input declared so long is an error.
_MOST_AXES: Final = 64

Rule: TypeAlias = Callable[[Known, ir.Node], Stated]


def has_rule(value: ir.Value) -> bool:
    """Whether ``follow`` can say anything of ``value``."""
    node = value.producer()
    if node is None or not node.inputs:
        return False
    return _rule(node) is not None and (value is node.outputs[0] or node.op_type in _OF_ONE_TYPE)


def follow(known: Known, value: ir.Value) -> Stated:
    """Type and shape of a value that has a rule, as far as its node's inputs tell."""
    node = value.producer()
    rule = _rule(node) if node is not None else None
    if node is None or rule is None or node.inputs[0] is None or any(a.is_ref() for a in node.attributes.values()):
        return UNKNOWN
    return rule(known, node)


def _rule(node: ir.Node) -> Rule | None:
    if node.domain in DEFAULT_DOMAINS:
        return _RULES.get(node.op_type)
    return _ORT_RULES.get(node.op_type) if node.domain in _ORT_DOMAINS else None


def broadcast(*shapes: Dims) -> Dims:
    """The shape that values of ``shapes`` have together."""
    columns = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return tuple(_together(column) for column in columns)[::-1]


def _together(lengths: tuple[Dim, ...]) -> Dim:
    longer = {length for length in lengths if length != 1}
    if len(longer) <= 1:
        return longer.pop() if longer else 1
    # What is not 1 must be the same; an unknown length may be 1.
    numbers = [length for length in longer if isinstance(length, int)]
    return numbers[0] if len(numbers) == 1 else None


def _like(known: Known, node: ir.Node) -> Stated:
    x = _first(node)
    return known.dtype(x), known.shape(x)


def _elementwise(known: Known, node: ir.Node) -> Stated:
    operands = [value for value in node.inputs if value is not None]
    shapes = [known.shape(value) for value in operands]
    whole = [shape for shape in shapes if shape is not None]
    return known.dtype(operands[0]), broadcast(*whole) if len(whole) == len(shapes) else None


def _cast(known: Known, node: ir.Node) -> Stated:
    return ir.DataType(node.attributes["to"].as_int()), known.shape(_first(node))


def _cast_like(known: Known, node: ir.Node) -> Stated:
    like = node.inputs[1]
    return known.dtype(like) if like is not None else None, known.shape(_first(node))


def _reduce(known: Known, node: ir.Node) -> Stated:
    x = _first(node)
    dtype, shape = known.dtype(x), known.shape(x)
    axes = _axes(known, node)
    if axes is None or shape is None:
        return dtype, None
    rank = len(shape)
    if not axes:
        axes = () if _flag(node, "noop_with_empty_axes", 0) == 1 else tuple(range(rank))
    reduced = {axis % rank for axis in axes} if rank else set()
    if _flag(node, "keepdims", 1) == 1:
        return dtype, tuple(1 if i in reduced else length for i, length in enumerate(shape))
    return dtype, tuple(length for i, length in enumerate(shape) if i not in reduced)


def _unsqueeze(known: Known, node: ir.Node) -> Stated:
    x, axes = _first(node), _axes(known, node)
    dtype, shape = known.dtype(x), known.shape(x)
    if not axes or shape is None:
        return dtype, None
    rank = len(shape) + len(axes)
    added = {axis % rank for axis in axes}
    lengths = iter(shape)
    return dtype, tuple(1 if i in added else next(lengths) for i in range(rank)) if len(added) == len(axes) else None


def _squeeze(known: Known, node: ir.Node) -> Stated:
    x, axes = _first(node), _axes(known, node)
    dtype, shape = known.dtype(x), known.shape(x)
    if not axes or not shape:
        return dtype, None
    gone = {axis % len(shape) for axis in axes}
    return dtype, tuple(length for i, length in enumerate(shape) if i not in gone)


def _reshape(known: Known, node: ir.Node) -> Stated:
    x, target = _first(node), node.inputs[1] if len(node.inputs) > 1 else None
    dtype, shape = known.dtype(x), known.shape(x)
    if target is None:
        return dtype, None
    lengths = lengths_in(known, target)
    if lengths is None:
        # How many lengths are asked for is known more often than which.
        count = known.shape(target)
        return dtype, (None,) * count[0] if count and isinstance(count[0], int) and count[0] <= _MOST_AXES else None
    if _flag(node, "allowzero", 0) or shape is None:
        return dtype, tuple(None if isinstance(length, int) and length <= 0 else length for length in lengths)
    # Without allowzero, 0 keeps the length that stands at its place.
    copied: list[Dim] = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(lengths)]
    left_over = _left_over(shape, [length for length in copied if length != -1])
    return dtype, tuple(left_over if length == -1 else length for length in copied)


def _left_over(shape: Dims, lengths: list[Dim]) -> Dim:
    """What -1 stands for: the elements of ``shape`` over those of the other ``lengths``."""
    above, below = list(shape), []
    for length in lengths:
        if isinstance(length, str) and length in above:
            above.remove(length)
        else:
            below.append(length)
    elements = [math.prod(n for n in side if isinstance(n, int)) for side in (above, below)]
    names = [n for n in above if not isinstance(n, int)]
    if not all(isinstance(n, int) for n in below) or elements[1] == 0 or elements[0] % elements[1]:
        return None
    ratio = elements[0] // elements[1]
    if names:
        return names[0] if len(names) == 1 and ratio == 1 else None
    return ratio


def _expand(known: Known, node: ir.Node) -> Stated:
    x, target = _first(node), node.inputs[1]
    shape, lengths = known.shape(x), lengths_in(known, target) if target is not None else None
    return known.dtype(x), broadcast(shape, lengths) if shape is not None and lengths is not None else None


def _transpose(known: Known, node: ir.Node) -> Stated:
    x = _first(node)
    dtype, shape = known.dtype(x), known.shape(x)
    if shape is None:
        return dtype, None
    order = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(shape))[::-1]
    return dtype, tuple(shape[i] for i in order) if sorted(order) == list(range(len(shape))) else None


def _matmul(known: Known, node: ir.Node) -> Stated:
    a, b = node.inputs
    if a is None or b is None:
        return UNKNOWN
    dtype, shapes = known.dtype(a), (known.shape(a), known.shape(b))
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) < 2 or len(shapes[1]) < 2:
        return dtype, None
    return dtype, (*broadcast(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])


def _shape(known: Known, node: ir.Node) -> Stated:
    shape = known.shape(_first(node))
    if shape is None:
        return ir.DataType.INT64, None
    start, end = _flag(node, "start", 0), _flag(node, "end", len(shape))
    return ir.DataType.INT64, (len(shape[start:end]),)


def _pool(known: Known, node: ir.Node) -> Stated:
    x = _first(node)
    dtype, shape = known.dtype(x), known.shape(x)
    return dtype, (*shape[:2], *(1,) * (len(shape) - 2)) if shape is not None else None


def _type_only(known: Known, node: ir.Node) -> Stated:
    return known.dtype(_first(node)), None


def _where(known: Known, node: ir.Node) -> Stated:
    chosen = [value for value in node.inputs[1:] if value is not None]
    return known.dtype(chosen[0]) if chosen else None, None


def _matmul_by_blocks(known: Known, node: ir.Node) -> Stated:
    x = _first(node)
    dtype, shape = known.dtype(x), known.shape(x)
    return dtype, (*shape[:-1], node.attributes["N"].as_int()) if shape and "N" in node.attributes else None


def _dequantize(known: Known, node: ir.Node) -> Stated:
    scale = node.inputs[1]
    return known.dtype(scale) if scale is not None else None, known.shape(_first(node))


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _axes(known: Known, node: ir.Node) -> tuple[int, ...] | None:
    if "axes" in node.attributes:
        return tuple(node.attributes["axes"].as_ints())
    given = node.inputs[1] if len(node.inputs) > 1 else None
    return () if given is None else known.ints(given)


def _flag(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


_LIKE: Final = (
    *("Abs", "Clip", "Cos", "CumSum", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization"),
    *("Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Sqrt"),
    *("Swish", "Tanh"),
)
_REDUCTIONS: Final = (
    *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
#: Every output has the type of the first input; the shape is left to ONNX.
_OF_ONE_TYPE: Final = frozenset(
    {
        *("AveragePool", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Einsum", "Flatten", "Gather"),
        *("GatherElements", "GatherND", "Gemm", "Pad", "PRelu", "Resize", "ScatterElements", "ScatterND", "Slice"),
        *("SpaceToDepth", "Split", "Tile", "Trilu"),
    }
)
#: onnxruntime's own: ONNX's inference stops at them, and with it the types of all that follows.
_ORT_OF_ONE_TYPE: Final = (
    *("Attention", "GroupQueryAttention", "MultiHeadAttention", "RotaryEmbedding"),
    *("BiasGelu", "BiasSoftmax", "BiasSplitGelu", "FastGelu", "Gelu", "QuickGelu", "SkipLayerNormalization"),
    *("Conv", "FusedConv", "NhwcConv", "ReorderInput", "ReorderOutput"),
    *("DynamicQuantizeMatMul", "FusedGemm", "FusedMatMul", "GemmFastGelu", "MoE", "QMoE", "TransposeMatMul"),
)
_ORT_DOMAINS: Final = frozenset({"com.microsoft", "com.microsoft.nchwc"})
_ORT_RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_ORT_OF_ONE_TYPE, _type_only),
    "DequantizeLinear": _dequantize,
    **dict.fromkeys(("MatMulBnb4", "MatMulNBits"), _matmul_by_blocks),
}
_RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_OF_ONE_TYPE, _type_only),
    **dict.fromkeys(_LIKE, _like),
    **dict.fromkeys(("Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum"), _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "Cast": _cast,
    "CastLike": _cast_like,
    "GlobalAveragePool": _pool,
    "Expand": _expand,
    "MatMul": _matmul,
    "MaxPool": _type_only,
    "Reshape": _reshape,
    "Shape": _shape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
