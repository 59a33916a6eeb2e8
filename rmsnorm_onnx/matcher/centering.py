"""Whether what is normalized had its mean subtracted: then it is LayerNorm."""

from __future__ import annotations

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.context import Context
from rmsnorm_onnx.matcher.known import producer
from rmsnorm_onnx.matcher.read_statistic import read_axes
from rmsnorm_onnx.matcher.statistic import Flaw, Statistic


def mean_subtracted(context: Context, statistic: Statistic, node: ir.Node) -> Flaw | None:
    """Whether x is another value minus its mean: in whatever types, and also where that is masked."""
    x = context.uncast(statistic.x)
    masked = producer(x, "Where")
    candidates = [x] if masked is None else [context.uncast(v) for v in masked.inputs[1:] if v is not None]
    if not any(_is_centered(context, candidate, statistic.axes) for candidate in candidates):
        return None
    return Flaw(spec.Why.MEAN_SUBTRACTED, node, f"'{statistic.x.name}' is x minus its mean")


def _is_centered(context: Context, value: ir.Value, axes: tuple[int, ...]) -> bool:
    """Whether another value's mean over ``axes`` was subtracted; over others it is a difference like any other."""
    node = producer(value, "Sub")
    if node is None or node.inputs[0] is None or node.inputs[1] is None:
        return False
    mean = producer(context.uncast(node.inputs[1]), "ReduceMean", "GlobalAveragePool")
    if mean is None or mean.inputs[0] is None:
        return False
    if mean.op_type == "ReduceMean":
        over = read_axes(context, mean, context.facts.rank(mean.inputs[0]))
        if axes and over is not None and over != axes:
            return False
    return context.uncast(node.inputs[0]) is context.uncast(mean.inputs[0])
