"""Reading rules from x to the (inverse) root: squares, means, epsilon, bounds, roots."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import read_lengths
from rmsnorm_onnx.matcher.context import Context, Meaning
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS, Dims, producer
from rmsnorm_onnx.matcher.statistic import Flaw, Lengths, Squared, Statistic


def square(context: Context, node: ir.Node, operand: ir.Value, flaw: Flaw | None = None) -> Squared:
    """``node`` squares ``operand`` element by element."""
    dtype = context.facts.float_type(operand)
    if dtype is None:
        flaw = flaw or _type_flaw(context, node, operand)
        dtype = spec.DType.FLOAT
    return Squared(context.unsigned_origin(operand), dtype, (node,), flaw=flaw)


def _product(context: Context, value: ir.Value) -> Squared | None:
    """The product of two values where a square is expected: a flaw, should it turn out to matter."""
    node = value.producer()
    if node is None or node.op_type != "Mul" or node.domain not in DEFAULT_DOMAINS or None in node.inputs:
        return None
    a, b = (v.name for v in node.inputs if v is not None)
    x = node.inputs[0]
    assert x is not None
    flaw = Flaw(spec.Why.DIFFERENT_VALUE, node, f"'{a}' is multiplied by '{b}', not by itself")
    return square(context, node, x, flaw)


def _own_square(context: Context, value: ir.Value) -> Squared | None:
    """The square that the producer of ``value`` computes, whatever its operand means."""
    node = value.producer()
    if node is None or node.op_type not in {"Mul", "Pow"} or node.domain not in DEFAULT_DOMAINS:
        return None
    a, b = node.inputs
    if a is None or b is None:
        return None
    squares = context.constants.single(b) == 2 if node.op_type == "Pow" else context.origin(a) is context.origin(b)
    return square(context, node, a) if squares else None


def _type_flaw(context: Context, node: ir.Node, value: ir.Value) -> Flaw:
    dtype = context.facts.dtype(value)
    if dtype is None:
        return Flaw(spec.Why.UNKNOWN_TYPE, node, f"'{value.name}' has no known element type")
    return Flaw(spec.Why.NOT_FLOAT, node, f"'{value.name}' is {dtype.name}")


def power(context: Context, node: ir.Node) -> Meaning | None:
    """Pow: a square of x, or a root of a statistic."""
    base, exponent = node.inputs[0], context.constants.single(node.inputs[1])
    if base is None:
        return None
    meaning = context.meaning(base)
    shown = context.constants.why_not(node.inputs[1]) if exponent is None else f"{exponent:g}"
    if isinstance(meaning, Statistic):
        raised = meaning.power(exponent) if exponent is not None else None
        if raised is None:
            # Read on as if it were a root, so that the quotient shows the flaw.
            flawed = meaning.flawed(spec.Why.EXPONENT, node, f"the exponent of the mean is {shown}")
            raised = replace(flawed, rooted=True, inverted=exponent is not None and exponent < 0)
        return raised.computed_by(node)
    flaw = None if exponent == 2 else Flaw(spec.Why.EXPONENT, node, f"the exponent is {shown}, not 2")
    return square(context, node, base, flaw)


def read_axes(context: Context, node: ir.Node, rank: int | None) -> tuple[int, ...] | None:
    """Axes of a reduction, Squeeze or Unsqueeze, negative where the rank is known, or None when not constant."""
    attribute = node.attributes.get("axes")
    if attribute is not None:
        axes = None if attribute.is_ref() else tuple(attribute.as_ints())
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = context.constants.ints(node.inputs[1])
    else:
        axes = ()
    if axes == ():
        every = tuple(range(-rank, 0)) if rank is not None else None
        return () if _flag(node, "noop_with_empty_axes", 0) == 1 else every
    if axes is None or rank is None:
        return axes
    within = all(-rank <= a < rank for a in axes)
    return tuple(sorted({a - rank if a >= 0 else a for a in axes})) if within else None


def _flag(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def reduce(context: Context, node: ir.Node) -> Meaning | None:
    """ReduceMean, ReduceSum, ReduceSumSquare, ReduceL2: the statistic begins."""
    operand = node.inputs[0]
    if operand is None:
        return None
    squares_itself = node.op_type in {"ReduceSumSquare", "ReduceL2"}
    meaning = square(context, node, operand) if squares_itself else context.meaning(operand)
    if not isinstance(meaning, Squared):
        # What is squared may mean something itself: x may be a contraction, or a norm's length.
        meaning = _own_square(context, operand) or (_product(context, operand) if meaning is None else None)
    if not isinstance(meaning, Squared):
        return None
    axes = read_axes(context, node, context.facts.rank(meaning.x))
    if axes == ():
        return None
    flaw = meaning.flaw
    if axes is None:
        flaw = flaw or Flaw(spec.Why.AXES_NOT_CONSTANT, node, "the axes, or the rank they count from, are not known")
    statistic = Statistic(
        meaning.x,
        context.facts.float_type(operand) or meaning.dtype,
        meaning.nodes if squares_itself else (*meaning.nodes, node),
        axes or (),
        keepdims=_flag(node, "keepdims", 1) == 1,
        is_mean=node.op_type == "ReduceMean",
        factor=meaning.factor,
        flaw=flaw,
    )
    return replace(statistic, rooted=True) if node.op_type == "ReduceL2" else statistic


def pool(context: Context, node: ir.Node) -> Meaning | None:
    """GlobalAveragePool: the mean over all axes from the third on (tf2onnx writes means so)."""
    operand = node.inputs[0]
    meaning = context.meaning(operand)
    rank = context.facts.rank(meaning.x) if isinstance(meaning, Squared) else None
    if not isinstance(meaning, Squared) or rank is None or rank < 3:
        return None
    axes = tuple(range(2 - rank, 0))
    nodes = (*meaning.nodes, node)
    return Statistic(meaning.x, meaning.dtype, nodes, axes, True, True, meaning.factor, flaw=meaning.flaw)


def shift(context: Context, node: ir.Node, statistic: Statistic, other: ir.Value, sign: int = 1) -> Meaning | None:
    """Add or Sub of a constant: epsilon."""
    number = context.constants.single(other)
    if number is not None:
        shifted = statistic.plus(sign * number)
        return shifted.computed_by(node) if shifted is not None else None
    if isinstance(context.meaning(other), Statistic):
        return None
    constant = context.constants.array(other)
    if constant is not None or context.constants.is_parameter(other):
        detail = f"'{other.name}' has shape {list(context.facts.shape(other) or ())}"
        return statistic.flawed(spec.Why.EPSILON_NOT_SINGLE, node, detail).computed_by(node)
    if sign < 0 and _is_squared_mean(context, other):
        detail = f"'{other.name}' is the square of a mean"
        return statistic.flawed(spec.Why.MEAN_SUBTRACTED, node, detail).computed_by(node)
    detail = f"'{other.name}' is {context.constants.why_not(other)}"
    return statistic.flawed(spec.Why.EPSILON_NOT_CONSTANT, node, detail).computed_by(node)


def _is_squared_mean(context: Context, value: ir.Value) -> bool:
    meaning = context.meaning(value)
    return isinstance(meaning, Squared) and producer(meaning.x, "ReduceMean", "GlobalAveragePool") is not None


def bound(context: Context, node: ir.Node) -> Meaning | None:
    """Clip, Max, Min or Relu: a lower bound of the root is the floor; an upper bound of its inverse says the same."""
    operands = node.inputs[:1] if node.op_type == "Clip" else node.inputs
    found = ((value, m) for value in operands if isinstance(m := context.meaning(value), Statistic))
    value, statistic = next(found, (None, None))
    if statistic is None:
        return None
    least, most = _interval(context, node, value)
    if statistic.inverted:
        least, most = _inverse(most), _inverse(least)
    if not most >= _LARGEST:
        return statistic.flawed(spec.Why.NOT_A_MEAN, node, "the mean has an upper bound").computed_by(node)
    if math.isnan(least):
        detail = "the lower bound is not one constant"
        return statistic.flawed(spec.Why.EPSILON_NOT_CONSTANT, node, detail).computed_by(node)
    bounded = (statistic.inverse() if statistic.inverted else statistic).at_least(least)
    if bounded is None:
        return None
    return (bounded.inverse() if statistic.inverted else bounded).computed_by(node)


def _interval(context: Context, node: ir.Node, bounded: ir.Value | None) -> tuple[float, float]:
    """The least and the most that the node lets through; NaN where that is not one constant."""
    if node.op_type == "Clip":
        return _limit(context, node, "min", -math.inf), _limit(context, node, "max", math.inf)
    if node.op_type == "Relu":
        return 0.0, math.inf
    numbers = [context.constants.single(other) for other in node.inputs if other is not bounded]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        known = [math.nan]
    return (
        (max(known, default=-math.inf), math.inf)
        if node.op_type == "Max"
        else (-math.inf, min(known, default=math.inf))
    )


def _limit(context: Context, node: ir.Node, name: str, none: float) -> float:
    """One limit of a Clip, an attribute up to opset 10 and an input after that."""
    if name in node.attributes:
        return node.attributes[name].as_float()
    given = dict(zip(("x", "min", "max"), node.inputs, strict=False)).get(name)
    number = context.constants.single(given)
    return none if given is None else math.nan if number is None else number


def _inverse(limit: float) -> float:
    """What bounds 1 / s where ``limit`` bounds s, on the other side."""
    return 0.0 if limit >= _LARGEST else math.inf if limit <= 0 else 1 / limit


#: Of float32, as exporters shorten it.
_LARGEST = 3.4e38


def root(context: Context, node: ir.Node) -> Meaning | None:
    """Sqrt of a statistic."""
    statistic = context.meaning(node.inputs[0])
    rooted = statistic.root() if isinstance(statistic, Statistic) else None
    return rooted.computed_by(node) if rooted is not None else None


def magnitude(context: Context, node: ir.Node) -> Meaning | None:
    """Abs of a statistic."""
    statistic = context.meaning(node.inputs[0])
    same = statistic.magnitude() if isinstance(statistic, Statistic) else None
    return same.computed_by(node) if same is not None else None


def reciprocal(context: Context, node: ir.Node) -> Meaning | None:
    """1 / statistic, or 1 / the number of averaged elements."""
    statistic = context.meaning(node.inputs[0])
    if isinstance(statistic, Lengths):
        return statistic.inverse()
    return statistic.inverse().computed_by(node) if isinstance(statistic, Statistic) else None


def expand(context: Context, node: ir.Node) -> Meaning | None:
    """Expand of a statistic: harmless where each number goes along its own row of x."""
    statistic = context.meaning(node.inputs[0])
    if not isinstance(statistic, Statistic):
        return None
    x_shape = context.facts.shape(statistic.x)
    if statistic.lines_up(len(x_shape) if x_shape is not None else None):
        shape = context.facts.shape(node.outputs[0])
        whole = read_lengths.is_shape_of(context, node.inputs[1], statistic.x)
        if whole or _stands_along(statistic, shape, x_shape):
            return replace(statistic, keepdims=True).computed_by(node)
    return statistic.flawed(spec.Why.KEEPDIMS, node, _gives_shape(context, node)).computed_by(node)


def reshape(context: Context, node: ir.Node) -> Meaning | None:
    """Reshape, Unsqueeze, Squeeze of a statistic: the same numbers in the same order, lined up with x's rows or not."""
    statistic = context.meaning(node.inputs[0])
    if not isinstance(statistic, Statistic):
        return None
    before = node.inputs[0]
    if statistic.scale is not None and before is not None and not context.facts.same_shape(before, node.outputs[0]):
        # No number per row any more: the scale would go along other axes.
        return statistic.flawed(spec.Why.KEEPDIMS, node, _gives_shape(context, node)).computed_by(node)
    shape, x_shape = context.facts.shape(node.outputs[0]), context.facts.shape(statistic.x)
    rank = len(x_shape) if x_shape is not None else None
    undoes = statistic.misfit is None and {"Unsqueeze": False, "Squeeze": True}.get(node.op_type) is statistic.keepdims
    if undoes and read_axes(context, node, rank) == statistic.axes:
        return replace(statistic, keepdims=not statistic.keepdims).computed_by(node)
    one_number = rank is not None and len(statistic.axes) == rank and shape is not None and len(shape) <= rank
    if one_number or _stands_along(statistic, shape, x_shape):
        return replace(statistic, keepdims=True, misfit=None).computed_by(node)
    kept = tuple(x for i, x in enumerate(x_shape or ()) if i - (rank or 0) not in statistic.axes)
    if x_shape is not None and shape == kept and None not in kept:
        return replace(statistic, keepdims=False, misfit=None).computed_by(node)
    # Another such node may still line it up: the quotient will see.
    misfit = Flaw(spec.Why.KEEPDIMS, node, _gives_shape(context, node))
    return replace(statistic, misfit=misfit).computed_by(node)


def _stands_along(statistic: Statistic, shape: Dims | None, x_shape: Dims | None) -> bool:
    """Whether a value of ``shape`` has x's lengths where x was not reduced, and 1 or x's where it was."""
    if shape is None or x_shape is None or len(shape) != len(x_shape):
        return False
    reduced = {a % len(x_shape) for a in statistic.axes}
    pairs = enumerate(zip(shape, x_shape, strict=True))
    return all(s == 1 or s == x if i in reduced else s is not None and s == x for i, (s, x) in pairs)


def _gives_shape(context: Context, node: ir.Node) -> str:
    shape = context.facts.shape(node.outputs[0])
    return f"{node.op_type} gives it shape {list(shape) if shape is not None else 'unknown'}"
