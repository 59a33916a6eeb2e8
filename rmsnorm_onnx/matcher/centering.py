"""Whether what is normalized had its mean subtracted: then it is LayerNorm."""

from __future__ import annotations

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.context import Context
from rmsnorm_onnx.matcher.read_statistic import read_axes
from rmsnorm_onnx.matcher.statistic import Flaw, Statistic


def mean_subtracted(context: Context, statistic: Statistic, node: ir.Node) -> Flaw | None:
    """Whether x is another value minus its mean: in whatever types, and also where that is masked."""
    subtraction = context.uncast(statistic.x).producer()
    candidates = [subtraction]
    if subtraction is not None and subtraction.op_type == "Where":
        candidates = [context.uncast(value).producer() for value in subtraction.inputs[1:] if value is not None]
    if not any(_is_centering(context, candidate, statistic.axes) for candidate in candidates):
        return None
    return Flaw(spec.Why.MEAN_SUBTRACTED, node, f"'{statistic.x.name}' is x minus its mean")


def _is_centering(context: Context, node: ir.Node | None, axes: tuple[int, ...]) -> bool:
    """Whether ``node`` subtracts a value's mean over ``axes``; over others it is a difference like any other."""
    if node is None or node.op_type != "Sub" or node.inputs[0] is None or node.inputs[1] is None:
        return False
    mean = context.uncast(node.inputs[1]).producer()
    if mean is None or mean.op_type not in {"ReduceMean", "GlobalAveragePool"} or mean.inputs[0] is None:
        return False
    if mean.op_type == "ReduceMean":
        over = read_axes(context, mean, context.facts.rank(mean.inputs[0]))
        if axes and over is not None and over != axes:
            return False
    return context.uncast(node.inputs[0]) is context.uncast(mean.inputs[0])
