"""Reading rules for the number of averaged elements where a graph computes it from Shape."""

from __future__ import annotations

import onnx_ir as ir

from rmsnorm_onnx.matcher.context import Context, Meaning
from rmsnorm_onnx.matcher.statistic import Lengths, Statistic


def shape(context: Context, node: ir.Node) -> Meaning | None:
    """Shape and Size: all lengths of a value."""
    x = node.inputs[0]
    rank = context.facts.rank(x) if x is not None else None
    if x is None or rank is None:
        return None
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else rank
    return Lengths(context.origin(x), tuple(range(rank))[start:end], node.op_type == "Size")


def gather(context: Context, node: ir.Node) -> Meaning | None:
    """Gather and Slice: the lengths of chosen axes."""
    lengths = context.meaning(node.inputs[0])
    if not isinstance(lengths, Lengths) or lengths.multiplied:
        return None
    bounds = [context.constants.ints(value) for value in node.inputs[1:]]
    if not bounds or any(bound is None for bound in bounds):
        return None
    numbers = [bound for bound in bounds if bound is not None]
    if node.op_type == "Gather":
        chosen = numbers[0]
        if not all(-len(lengths.axes) <= index < len(lengths.axes) for index in chosen):
            return None
        return Lengths(lengths.x, tuple(lengths.axes[index] for index in chosen))
    if len(numbers) != 3 and not (len(numbers) == 4 and numbers[3] == (1,)):
        return None
    return Lengths(lengths.x, lengths.axes[numbers[0][0] : numbers[1][0]])


def product(context: Context, node: ir.Node) -> Meaning | None:
    """ReduceProd over the lengths."""
    lengths = context.meaning(node.inputs[0])
    return Lengths(lengths.x, lengths.axes, multiplied=True) if isinstance(lengths, Lengths) else None


def is_shape_of(context: Context, value: ir.Value | None, x: ir.Value) -> bool:
    """Whether ``value`` holds all lengths of ``x``, in order."""
    lengths, rank = context.meaning(value), context.facts.rank(x)
    whole = isinstance(lengths, Lengths) and rank is not None and lengths.axes == tuple(range(rank))
    return whole and isinstance(lengths, Lengths) and lengths.x is x and not lengths.multiplied


def counts(context: Context, value: ir.Value, statistic: Statistic, *, inverted: bool = False) -> bool:
    """Whether ``value`` is the number of elements that ``statistic`` sums, or 1 over it."""
    lengths, rank = context.meaning(value), context.facts.rank(statistic.x)
    if not isinstance(lengths, Lengths) or rank is None or lengths.inverted is not inverted:
        return False
    if context.unsigned_origin(lengths.x) is not statistic.x:
        return False
    if not lengths.multiplied and len(lengths.axes) != 1:
        return False
    return sorted(lengths.axes) == sorted(axis % rank for axis in statistic.axes)
