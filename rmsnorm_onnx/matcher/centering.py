"""Whether what is normalized had its mean subtracted: then it is LayerNorm."""

from __future__ import annotations

import math
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.context import RESHAPES, Context
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS, producer
from rmsnorm_onnx.matcher.read_statistic import read_axes
from rmsnorm_onnx.matcher.statistic import Flaw, Lengths, Statistic


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
    node = producer(value, "Sub", "Add")
    if node is None or node.inputs[0] is None or node.inputs[1] is None:
        return False
    sign = -1 if node.op_type == "Add" else 1
    return any(_is_mean(context, mean, x, axes, sign) for x, mean in (node.inputs, tuple(reversed(node.inputs))))


def _is_mean(context: Context, value: ir.Value | None, x: ir.Value | None, axes: tuple[int, ...], sign: int) -> bool:
    """Whether ``value`` is the mean of ``x`` over ``axes``, times ``sign``: a mean, or a sum over its count."""
    if value is None or x is None:
        return False
    factor: float = sign
    while (node := context.uncast(value).producer()) is not None and node.domain in DEFAULT_DOMAINS:
        source = node.inputs[0] if node.inputs else None
        if node.op_type in {"Mul", "Div"}:
            source, number = _by_constant(context, node)
            factor *= number
        elif node.op_type == "Neg":
            factor = -factor
        elif node.op_type not in RESHAPES:
            break
        if source is None:
            return False
        value = source
    mean = producer(context.uncast(value), "ReduceMean", "ReduceSum", "GlobalAveragePool")
    if mean is None or mean.inputs[0] is None or context.uncast(x) is not context.uncast(mean.inputs[0]):
        return False
    if mean.op_type != "GlobalAveragePool":
        over = read_axes(context, mean, context.facts.rank(mean.inputs[0]))
        if axes and over is not None and over != axes:
            return False
    if mean.op_type == "ReduceSum":
        factor *= _count(context, mean.inputs[0], axes)
    return math.isnan(factor) or abs(factor - 1) < _ROUNDED


#: What a count's reciprocal may be off by where it was rounded to bfloat16.
_ROUNDED: Final = 2.0**-7


def _by_constant(context: Context, node: ir.Node) -> tuple[ir.Value | None, float]:
    """What a Mul or Div multiplies, and by how much; NaN where that is computed, of a length for instance."""
    pairs = (node.inputs, tuple(reversed(node.inputs))) if node.op_type == "Mul" else (node.inputs,)
    for value, other in pairs:
        number = context.constants.single(other)
        if number is None and isinstance(context.meaning(other), Lengths):
            number = math.nan
        if number:
            return value, number if node.op_type == "Mul" else 1 / number
    return None, math.nan


def _count(context: Context, x: ir.Value, axes: tuple[int, ...]) -> float:
    """How many elements of ``x`` each sum over ``axes`` holds; NaN where that is not known."""
    shape = context.facts.shape(x) or ()
    lengths = [shape[axis] if -len(shape) <= axis else None for axis in axes]
    return math.prod(length if isinstance(length, int) else math.nan for length in lengths)
