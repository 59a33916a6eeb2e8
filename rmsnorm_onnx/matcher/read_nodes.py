"""Reading rules for nodes that are norms already: ONNX's and onnxruntime's own operators."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.context import Context
from rmsnorm_onnx.matcher.match import Biased
from rmsnorm_onnx.matcher.normalized import Normalized
from rmsnorm_onnx.matcher.read_quotient import Fit, as_mean, fit
from rmsnorm_onnx.matcher.statistic import Flaw, Statistic

#: Smallest normal float32: turns 0 / 0 into 0 / tiny, and nothing else.
_TINY: Final = 2.0**-126

#: Where it is not 1e-5, as in ONNX-23 and most of onnxruntime's schemas.
_DEFAULT_EPSILON: Final = {"SkipSimplifiedLayerNormalization": 1e-12}


def norm(context: Context, node: ir.Node) -> Normalized | None:
    """RMSNormalization (opset 23) and onnxruntime's SimplifiedLayerNormalization: x, root and scale at once."""
    x, scale = node.inputs[0], node.inputs[1]
    if x is None or scale is None:
        return None
    if _are_read(node.outputs[1:]):
        _refuse(context, node, "its root mean square is read")
        return None
    return _scaled_norm(context, node, x, scale, _number(node, "axis", -1))


def skip_norm(context: Context, node: ir.Node) -> Normalized | None:
    """Onnxruntime's SkipSimplifiedLayerNormalization(input, skip, gamma, bias): the norm of a sum, and the sum."""
    x, skip, scale, bias = (*node.inputs, None)[:4]
    if x is None or skip is None or scale is None:
        return None
    if _are_read(node.outputs[1:3]):
        _refuse(context, node, "its statistics are read")
        return None
    normalized = _scaled_norm(context, node, x, scale, -1)
    if normalized is None:
        return None
    total = node.outputs[3] if _are_read(node.outputs[3:]) else None
    return replace(normalized, addends=(x if bias is None else Biased(x, bias), skip), total=total)


def gated_norm(context: Context, node: ir.Node) -> Normalized | None:
    """The operator GatedRMSNorm(X, scale, gate) of onnxruntime: one mean per row, times scale, times silu(gate)."""
    x, scale, gate = node.inputs
    activation = node.attributes["activation"].value if "activation" in node.attributes else "silu"
    if x is None or scale is None or gate is None:
        return None
    if activation not in {"silu", "swish"}:
        _refuse(context, node, f"its activation is {activation}")
        return None
    # The mean is taken over as many elements as the scale has, which may be a part of the row.
    shapes = context.facts.shape(x), context.facts.shape(scale)
    if shapes[0] is None or shapes[1] is None or len(shapes[1]) != 1 or shapes[0][-1:] != shapes[1]:
        _refuse(context, node, f"'{scale.name}' is not known to have the length of the last axis of '{x.name}'")
        return None
    if not context.facts.same_shape(x, gate):
        _refuse(context, node, f"'{x.name}' and '{gate.name}' are not known to have one shape")
        return None
    normalized = _scaled_norm(context, node, x, scale, -1)
    if normalized is None:
        return None
    return replace(normalized, gate=context.origin(gate), scaled_type=normalized.stash_type)


def _refuse(context: Context, node: ir.Node, detail: str) -> None:
    context.report(node, Flaw(spec.Why.TARGET, node, detail))


def lp_normalization(context: Context, node: ir.Node) -> Normalized | None:
    """LpNormalization with p=2: x over the root of the sum of squares, and 0 where that is 0."""
    x = node.inputs[0]
    axis = _number(node, "axis", -1)
    rank = context.facts.rank(x) if x is not None else None
    dtype = context.facts.float_type(node.outputs[0])
    if x is None or _number(node, "p", 2) != 2 or dtype is None or not _is_axis(axis, rank):
        return None
    axes = (axis if axis < 0 or rank is None else axis - rank,)
    statistic = Statistic(context.origin(x), dtype, (node,), axes, True, False, floor=_TINY, rooted=True)
    statistic, gain = as_mean(context, statistic)
    return Normalized(node.outputs[0], None, statistic, gain, dtype, dtype, (node,))


def _scaled_norm(context: Context, node: ir.Node, x: ir.Value, scale: ir.Value, axis: int) -> Normalized | None:
    default = _DEFAULT_EPSILON.get(node.op_type, 1e-5)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else default
    rank = context.facts.rank(x)
    t, v = context.facts.float_type(x), context.facts.float_type(scale)
    if t is None or v is None or not _is_axis(axis, rank):
        context.report(node, Flaw(spec.Why.UNKNOWN_TYPE, node, f"type or rank of '{x.name}' or '{scale.name}'"))
        return None
    if fit(context, scale, x) is Fit.WIDENS:
        context.report(node, Flaw(spec.Why.SCALE_WIDENS, node, f"scale '{scale.name}' is wider than '{x.name}'"))
        return None
    axes = tuple(range(axis if axis < 0 or rank is None else axis - rank, 0))
    stash = spec.DType.DOUBLE if t is spec.DType.DOUBLE else spec.DType.FLOAT
    statistic = Statistic(context.origin(x), stash, (node,), axes, True, True, epsilon=epsilon, rooted=True)
    flaw = statistic.bad_epsilon(node)
    if flaw is not None:
        context.report(node, flaw)
        return None
    # ONNX rounds the normalized value to T before the scale, unless the types differ: then its text does not
    # type-check, and exporters mean one rounding. onnxruntime's own operators always round once.
    twice = node.op_type == "RMSNormalization" and t is v
    normalized_type = t if twice else stash
    result = context.facts.float_type(node.outputs[0]) or v
    normalized = Normalized(node.outputs[0], None, statistic, 1.0, result, result, (node,))
    if t is v and context.constants.uniform(scale) == 1:
        return normalized  # the operator must have a scale; a real one may still follow
    return normalized.with_scale(scale, normalized_type)


def _is_axis(axis: int, rank: int | None) -> bool:
    """Whether it is clear which axis is meant, as far as that can be told."""
    return axis < 0 if rank is None else -rank <= axis < rank


def _number(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _are_read(outputs: Iterable[ir.Value]) -> bool:
    return any(list(output.uses()) or output.is_graph_output() for output in outputs)
