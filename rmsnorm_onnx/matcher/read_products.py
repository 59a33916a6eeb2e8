"""Reading rules for sums of squares that are written as products: of a row with itself, or of squares with ones."""

from __future__ import annotations

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.context import Context, Meaning
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS
from rmsnorm_onnx.matcher.read_quotient import settle
from rmsnorm_onnx.matcher.read_statistic import square
from rmsnorm_onnx.matcher.statistic import Flaw, Squared, Statistic


def matmul(context: Context, node: ir.Node) -> Meaning | None:
    """MatMul of squares with a column of equal numbers (or several), or of each row of x with itself as a column."""
    a, b = node.inputs
    if a is None or b is None:
        return None
    squares = context.meaning(a)
    if isinstance(squares, Squared):
        return _weighted(context, node, squares, b)
    x = _spread(context, a, row=True)
    if x is None or x is not _spread(context, b, row=False):
        return None
    squared = square(context, node, x)
    # One axis too many, until a Squeeze or Reshape takes it away.
    misfit = Flaw(spec.Why.KEEPDIMS, node, "MatMul gives it one axis more than x has")
    return Statistic(squared.x, squared.dtype, (node,), (-1,), True, False, misfit=misfit, flaw=squared.flaw)


def _weighted(context: Context, node: ir.Node, squares: Squared, weights: ir.Value) -> Statistic | None:
    shape, x_shape = context.facts.shape(weights), context.facts.shape(squares.x)
    if not shape or not x_shape or shape[0] != x_shape[-1] or shape[1:] not in {(), (1,), shape[:1]}:
        return None
    number = context.constants.uniform(weights)
    factor = squares.factor * number if number else 1.0
    nodes = (*squares.nodes, node)
    summed = Statistic(squares.x, squares.dtype, nodes, (-1,), len(shape) == 2, False, factor, flaw=squares.flaw)
    if number is None or not number > 0:
        return summed.flawed(spec.Why.NOT_A_MEAN, node, f"'{weights.name}' weighs the squares")
    return settle(context, summed)


def _spread(context: Context, value: ir.Value, *, row: bool) -> ir.Value | None:
    """The value whose last axis became the row, or the column, of a matrix of ``value``."""
    node = context.origin(value).producer()
    if node is None or node.domain not in DEFAULT_DOMAINS or not node.inputs or node.inputs[0] is None:
        return None
    if node.op_type == "Transpose" and not row:
        transposed = context.facts.shape(value), context.facts.shape(node.inputs[0])
        swapped = transposed[1] is not None and transposed[0] == (*transposed[1][:-2], *transposed[1][:-3:-1])
        return _spread(context, node.inputs[0], row=True) if swapped else None
    x = context.origin(node.inputs[0])
    shape = context.facts.shape(x)
    if node.op_type not in {"Reshape", "Unsqueeze"} or not shape or None in shape:
        return None
    lengths = (1, shape[-1]) if row else (shape[-1], 1)
    return x if context.facts.shape(value) == (*shape[:-1], *lengths) else None


def contract(context: Context, node: ir.Node) -> Meaning | None:
    """Einsum of a value with itself, some of its axes summed: 'bsd,bsd->bs', '...d,...d->...'."""
    # Bytes, where it is no text; then it equals none.
    terms, _, kept = str(node.attributes["equation"].value).replace(" ", "").partition("->")
    first, _, second = terms.partition(",")
    open_ended = all(part.startswith("...") for part in (first, second, kept))
    if open_ended:  # axes are counted from the end: those in front need no letters
        first, second, kept = first[3:], second[3:], kept[3:]
    if len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None or "." in first + second + kept:
        return None
    summed = [index for index, axis in enumerate(first) if axis not in kept]
    in_order = kept == "".join(axis for axis in first if axis in kept)
    same = first == second and context.origin(node.inputs[0]) is context.origin(node.inputs[1])
    rank = context.facts.rank(node.inputs[0])
    fits = rank is None or rank == len(first) or (open_ended and rank > len(first))
    if not same or not in_order or not summed or len(set(first)) != len(first) or not fits:
        return None
    squared = square(context, node, node.inputs[0])
    axes = tuple(index - len(first) for index in summed)
    return Statistic(squared.x, squared.dtype, (node,), axes, False, False, flaw=squared.flaw)
