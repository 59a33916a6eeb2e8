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
    if node.op_type == "Gather":
        chosen = context.constants.ints(node.inputs[1])
        if chosen is None or not all(-len(lengths.axes) <= index < len(lengths.axes) for index in chosen):
            return None
        return Lengths(lengths.x, tuple(lengths.axes[index] for index in chosen))
    bounds = _bounds(context, node)
    if bounds is None or len(bounds) != 1 or bounds[0][2] != 1:
        return None
    return Lengths(lengths.x, lengths.axes[bounds[0][0] : bounds[0][1]])


def keeps_all(context: Context, node: ir.Node) -> bool:
    """Whether a Slice takes every element, as tf2onnx writes it for a new axis."""
    bounds, x = _bounds(context, node), node.inputs[0]
    shape = context.facts.shape(x) if x is not None else None
    if bounds is None or x is None:
        return False
    if shape is not None and context.facts.same_shape(x, node.outputs[0]) and all(step == 1 for _, _, step in bounds):
        return True
    return all(start == 0 and end >= _BEYOND and step == 1 for start, end, step in bounds)


#: An end that no axis reaches: exporters write 10**9, 2**31 - 1 or 2**63 - 1 for all of it.
_BEYOND = 10**9


def _bounds(context: Context, node: ir.Node) -> list[tuple[int, int, int]] | None:
    """Start, end and step of a Slice along each of its axes; None where they are not constant."""
    if "starts" in node.attributes:
        starts, ends = (tuple(node.attributes[name].as_ints()) for name in ("starts", "ends"))
        return [(start, end, 1) for start, end in zip(starts, ends, strict=True)]
    given = [context.constants.ints(value) for value in node.inputs[1:3]]
    steps = context.constants.ints(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    if len(given) < 2 or given[0] is None or given[1] is None or (len(node.inputs) > 4 and steps is None):
        return None
    bounds = (given[0], given[1], steps or (1,) * len(given[0]))
    return list(zip(*bounds, strict=True)) if len({len(part) for part in bounds}) == 1 else None


def product(context: Context, node: ir.Node) -> Meaning | None:
    """ReduceProd over the lengths."""
    lengths = context.meaning(node.inputs[0])
    return Lengths(lengths.x, lengths.axes, multiplied=True) if isinstance(lengths, Lengths) else None


def together(a: Lengths, b: Lengths) -> Lengths | None:
    """The product of the lengths of different axes."""
    are_numbers = all(lengths.multiplied or len(lengths.axes) == 1 for lengths in (a, b))
    if a.x is not b.x or a.inverted or b.inverted or not are_numbers or set(a.axes) & set(b.axes):
        return None
    return Lengths(a.x, (*a.axes, *b.axes), multiplied=True)


def is_shape_of(context: Context, value: ir.Value | None, x: ir.Value) -> bool:
    """Whether ``value`` holds all lengths of ``x``, in order."""
    lengths, rank = context.meaning(value), context.facts.rank(x)
    whole = isinstance(lengths, Lengths) and rank is not None and lengths.axes == tuple(range(rank))
    if not whole or not isinstance(lengths, Lengths) or lengths.multiplied:
        return False
    return context.uncast(lengths.x) is context.uncast(x)


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
