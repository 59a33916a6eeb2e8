"""One walk over a model that gives every value its meaning; each node is looked at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import groups, read_lengths, read_nodes, read_products, read_quotient, read_statistic
from rmsnorm_onnx.matcher.context import Context, Meaning, describe
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS, producer
from rmsnorm_onnx.matcher.normalized import Normalized, Sigmoid, Silu
from rmsnorm_onnx.matcher.statistic import Lengths, Squared, Statistic

Rule = Callable[[Context, ir.Node], Meaning | None]


def read(model: ir.Model, adopt: bool) -> Context:
    """Read the main graph, its subgraphs and the functions of ``model``.

    Args:
        model: the model; it is not changed.
        adopt: whether nodes that are RMS norms already are read as such.
    """
    context = Context(model)
    rules = {**_RULES, **_ADOPTED} if adopt else _RULES
    functions = (function for function in model.functions.values() if function.domain != spec.DOMAIN)
    for graph in (model.graph, *(function.graph for function in functions)):
        for node in graph.all_nodes():
            if not node.outputs or node.domain not in _DOMAINS:
                continue
            context.note_twin(node)
            rule = rules.get(node.op_type) if node.domain in DEFAULT_DOMAINS or node.op_type in _MICROSOFT else None
            meaning = rule(context, node) if rule is not None and _is_whole(node) else None
            if meaning is None:
                meaning = _alienated(context, node)
            if meaning is not None:
                context.meanings[node.outputs[0]] = meaning
    return context


def _alienated(context: Context, node: ir.Node) -> Statistic | None:
    """A statistic that this node turns into something else: read on, so that a quotient by it can say why."""
    if context.near_misses and context.near_misses[-1].node is node:
        return None
    read = next(((v, m) for v in node.inputs if isinstance(m := context.meaning(v), Statistic)), None)
    if read is None or context.constants.array(node.outputs[0]) is not None:
        return None  # CastLike may ask for a statistic's type only
    value, statistic = read
    assert value is not None
    numbers = all(_is_number_like(context, other) for other in node.inputs if other is not None)
    # Times a whole tensor it is no number per row any more; rows of one element cannot tell.
    per_row = context.facts.same_shape(value, node.outputs[0]) and not context.facts.same_shape(value, statistic.x)
    if not numbers and not per_row:
        return None
    detail = f"{describe(node)} makes something else of it"
    return statistic.flawed(spec.Why.NOT_A_MEAN, node, detail).computed_by(node)


def _is_number_like(context: Context, value: ir.Value) -> bool:
    return isinstance(context.meaning(value), Statistic | Lengths) or context.constants.array(value) is not None


def _is_whole(node: ir.Node) -> bool:
    """Whether the node says all that a rule reads; in a function, a caller may still have to say it."""
    return bool(node.inputs) and node.inputs[0] is not None and not any(a.is_ref() for a in node.attributes.values())


def _multiply(context: Context, node: ir.Node) -> Meaning | None:
    a, b = node.inputs
    if a is None or b is None:
        return None
    if context.origin(a) is context.origin(b) or _same_magnitude(context, a, b):
        statistic = context.meaning(a)
        squared = statistic.square() if isinstance(statistic, Statistic) else None
        return squared.computed_by(node) if squared is not None else read_statistic.square(context, node, a)
    for first, second in ((a, b), (b, a)):
        statistic = context.meaning(first)
        divides = isinstance(statistic, Statistic) and statistic.inverted
        if isinstance(statistic, Statistic) and divides and context.unsigned_origin(second) is statistic.x:
            return read_quotient.quotient(context, node, second, statistic)
    for first, second in ((a, b), (b, a)):
        meaning, other = context.meaning(first), context.meaning(second)
        if isinstance(meaning, Lengths) and isinstance(other, Lengths):
            return read_lengths.together(meaning, other)
        if isinstance(meaning, Sigmoid) and not isinstance(meaning, Silu) and context.origin(second) is meaning.z:
            return Silu(meaning.z, meaning.argument, meaning.dtype, (*meaning.nodes, node))
        number = context.constants.single(second)
        if isinstance(meaning, Squared) and number is not None:
            return meaning.times(number).computed_by(node)
        if isinstance(meaning, Statistic):
            if number is not None:
                return _scaled_statistic(context, node, meaning, second, number)
            if not meaning.is_mean and read_lengths.counts(context, second, meaning, inverted=True):
                averaged = meaning.averaged()
                return averaged.computed_by(node) if averaged is not None else None
            if meaning.rooted and meaning.inverted and not isinstance(other, Statistic):
                return read_quotient.quotient(context, node, second, meaning)
        if isinstance(meaning, Normalized) and (not isinstance(other, Normalized) or other.parent is None):
            product_meaning = read_quotient.multiply_normalized(context, node, meaning, second)
            if product_meaning is not None:
                return product_meaning
    return None


def _same_magnitude(context: Context, a: ir.Value, b: ir.Value) -> bool:
    """Whether both are Abs of one value."""
    nodes = [producer(context.origin(v), "Abs") for v in (a, b)]
    sources = [context.origin(n.inputs[0]) for n in nodes if n is not None and n.inputs[0] is not None]
    return len(sources) == len(nodes) and sources[0] is sources[1]


def _divide(context: Context, node: ir.Node) -> Meaning | None:
    a, b = node.inputs
    if a is None or b is None:
        return None
    above, below = context.meaning(a), context.meaning(b)
    if isinstance(below, Lengths) and context.constants.single(a) == 1:
        return below.inverse()
    if isinstance(below, Statistic):
        number = context.constants.single(a)
        if number is not None:
            return _scaled_statistic(context, node, below.inverse(), a, number)
        itself = context.unsigned_origin(a) is below.x  # x, whatever it means besides
        if not below.inverted and (itself or (below.rooted and not isinstance(above, Statistic))):
            return read_quotient.quotient(context, node, a, below)
        return None
    number = context.constants.single(b)
    if number is None and isinstance(above, Statistic) and not above.is_mean:
        averaged = above.averaged() if read_lengths.counts(context, b, above) else None
        return averaged.computed_by(node) if averaged is not None else None
    if number is None or not 0 < number < math.inf:
        return None
    if isinstance(above, Normalized) and above.gain != 1:
        return read_quotient.make_up(above, 1 / number, node)
    if isinstance(above, Squared):
        return above.times(1 / number).computed_by(node)
    if isinstance(above, Statistic):
        divided = above.times(1 / number)
        return read_quotient.settle(context, divided).computed_by(node) if divided is not None else None
    return None


def _scaled_statistic(
    context: Context, node: ir.Node, statistic: Statistic, factor: ir.Value, number: float
) -> Meaning | None:
    """A statistic times a constant: part of the mean, or, once 1/n is there and the root inverted, a scale."""
    # One element is its own mean: then nothing has to be divided by n.
    statistic = read_quotient.settle(context, statistic)
    if number == 1:
        return statistic.computed_by(node)
    if statistic.is_mean and statistic.rooted and statistic.inverted and statistic.scale is None:
        return statistic.multiplied_by(factor, node)
    product = statistic.times(number)
    return read_quotient.settle(context, product).computed_by(node) if product is not None else None


def _add(context: Context, node: ir.Node) -> Meaning | None:
    for value, other in (node.inputs, reversed(node.inputs)):
        meaning = context.meaning(value)
        if isinstance(meaning, Statistic) and other is not None:
            return read_statistic.shift(context, node, meaning, other)
    return None


def _subtract(context: Context, node: ir.Node) -> Meaning | None:
    meaning, other = context.meaning(node.inputs[0]), node.inputs[1]
    if isinstance(meaning, Statistic) and other is not None:
        return read_statistic.shift(context, node, meaning, other, sign=-1)
    return None


def _reshape(context: Context, node: ir.Node) -> Meaning | None:
    meaning = context.meaning(node.inputs[0])
    if isinstance(meaning, Statistic):
        return (
            read_statistic.expand(context, node) if node.op_type == "Expand" else read_statistic.reshape(context, node)
        )
    if isinstance(meaning, Lengths) or context.exact_source(node.outputs[0]) is not None:
        return read_quotient.carry(context, node)
    if isinstance(meaning, Normalized):
        return groups.flatten(context, node, meaning) if groups.is_reshape(node) else None
    return None


def _slice(context: Context, node: ir.Node) -> Meaning | None:
    meaning = context.meaning(node.inputs[0])
    if isinstance(meaning, Statistic):
        return meaning.computed_by(node) if read_lengths.keeps_all(context, node) else None
    return read_lengths.gather(context, node)


#: Those of the operators read here that onnxruntime has in its own domain.
_MICROSOFT: Final = frozenset({"GatedRMSNorm", "QuickGelu", "SkipSimplifiedLayerNormalization"})
_DOMAINS: Final = DEFAULT_DOMAINS | {"com.microsoft"}
_RULES: Final[dict[str, Rule]] = {
    "Abs": read_statistic.magnitude,
    "Add": _add,
    "Cast": read_quotient.carry,
    "CastLike": read_quotient.carry,
    "Clip": read_statistic.bound,
    "Div": _divide,
    "Dropout": read_quotient.carry,
    "Einsum": read_products.contract,
    "Expand": _reshape,
    "Gather": read_lengths.gather,
    "GlobalAveragePool": read_statistic.pool,
    "Identity": read_quotient.carry,
    "LpNormalization": read_nodes.lp_normalization,
    "MatMul": read_products.matmul,
    "Max": read_statistic.bound,
    "Min": read_statistic.bound,
    "Mul": _multiply,
    "Pow": read_statistic.power,
    "QuickGelu": read_quotient.swish,
    "Reciprocal": read_statistic.reciprocal,
    "ReduceL2": read_statistic.reduce,
    "ReduceMean": read_statistic.reduce,
    "ReduceSum": read_statistic.reduce,
    "ReduceSumSquare": read_statistic.reduce,
    "ReduceProd": read_lengths.product,
    "Relu": read_statistic.bound,
    "Reshape": _reshape,
    "Shape": read_lengths.shape,
    "Sigmoid": read_quotient.sigmoid,
    "Size": read_lengths.shape,
    "Slice": _slice,
    "Sqrt": read_statistic.root,
    "Squeeze": _reshape,
    "Sub": _subtract,
    "Swish": read_quotient.swish,
    "Unsqueeze": _reshape,
}
_ADOPTED: Final[dict[str, Rule]] = {
    "GatedRMSNorm": read_nodes.gated_norm,
    "RMSNormalization": read_nodes.norm,
    "SimplifiedLayerNormalization": read_nodes.norm,
    "SkipSimplifiedLayerNormalization": read_nodes.skip_norm,
}
