"""Reading rules from the root to the final value: quotient, scale, gate, casts, and norm nodes that exist."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum, auto

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import groups
from rmsnorm_onnx.matcher.centering import mean_subtracted
from rmsnorm_onnx.matcher.context import Context, Meaning
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS
from rmsnorm_onnx.matcher.match import Scale
from rmsnorm_onnx.matcher.normalized import Normalized, Sigmoid, Silu
from rmsnorm_onnx.matcher.statistic import Flaw, Lengths, Statistic
from rmsnorm_onnx.reference import is_rounded


class Fit(Enum):
    """How a factor's shape stands to the value it multiplies."""

    SCALE = auto()
    WIDENS = auto()
    UNKNOWN = auto()


def fit(context: Context, factor: ir.Value, x: ir.Value) -> Fit:
    """Whether ``factor`` is a scale of ``x``: never wider, and constant or smaller than x.

    A computed factor of x's full shape is another activation: multiplying by it stays a Mul.
    """
    shape, x_shape = context.facts.shape(factor), context.facts.shape(x)
    parameter = context.constants.is_parameter(factor)
    if shape is None or (
        context.facts.float_type(x) is spec.DType.FLOAT and not context.constants.fits_float32(factor)
    ):
        return Fit.UNKNOWN
    if x_shape is None:
        # A parameter that turned out wider would be an error of the kernel, never a wrong result.
        return Fit.SCALE if parameter else Fit.UNKNOWN
    if len(shape) > len(x_shape):
        return Fit.WIDENS
    smaller = len(shape) < len(x_shape)
    for length, x_length in zip(reversed(shape), reversed(x_shape), strict=False):
        if length == 1:
            smaller = smaller or x_length != 1
        elif length is None or length != x_length:
            if isinstance(length, int) and isinstance(x_length, int):
                return Fit.WIDENS
            if not parameter:
                return Fit.UNKNOWN
    return Fit.SCALE if parameter or smaller else Fit.UNKNOWN


def quotient(context: Context, node: ir.Node, numerator: ir.Value, statistic: Statistic) -> Meaning | None:
    """``numerator`` divided by the root: the norm, if it is what was squared."""
    if not statistic.rooted:
        context.report(node, statistic.flaw or Flaw(spec.Why.EXPONENT, node, "no root of the mean is taken"))
        return None
    scale: Scale | None = statistic.scale
    number = 1.0
    if context.unsigned_origin(numerator) is statistic.x:
        statistic = replace(statistic, x=context.origin(numerator))
    elif (doubled := _of_double(context, statistic, numerator)) is not None:
        statistic = doubled
    elif context.unrounded(numerator) is not statistic.x:
        x, factor = _factors(context, numerator, statistic.x)
        constant = context.constants.single(factor)
        if constant is not None and constant > 0 and not statistic.is_mean:
            statistic, number = replace(statistic, x=x), constant
        elif factor is not None and scale is None and _scales(context, factor, statistic.x):
            statistic, scale = replace(statistic, x=x), factor
        elif (of_numerator := _of_numerator(context, statistic, numerator)) is not None:
            statistic = of_numerator
        elif (scaled := _scaled_inverse(context, statistic, numerator, node)) is not None:
            return scaled
        else:
            detail = f"'{statistic.x.name}' is squared, '{numerator.name}' is divided"
            different = Flaw(spec.Why.DIFFERENT_VALUE, node, detail)
            context.report(node, mean_subtracted(context, statistic, node) or statistic.flaw or different)
            return None
    flaw = mean_subtracted(context, statistic, node) or statistic.flaw or _bad_value(context, statistic, node)
    dtype = context.facts.float_type(node.outputs[0])
    if flaw is None and dtype is None:
        flaw = Flaw(spec.Why.UNKNOWN_TYPE, node, f"'{node.outputs[0].name}' has no known float type")
    if flaw is not None or dtype is None:
        assert flaw is not None
        context.report(node, flaw)
        return None
    statistic, gain = as_mean(context, statistic)
    gain = _made_up_for(gain, number, statistic, statistic.dtype)
    nodes = (*statistic.nodes, node)
    exact = statistic.dtype is spec.DType.DOUBLE or spec.float32_pair(gain)[0] == gain
    if statistic.is_mean and gain != 1 and scale is None and exact:
        scale, gain = gain, 1.0
    normalized = Normalized(node.outputs[0], None, statistic, gain, dtype, dtype, nodes)
    return normalized.with_scale(scale, statistic.dtype) if scale is not None else normalized


def _of_double(context: Context, statistic: Statistic, numerator: ir.Value) -> Statistic | None:
    """The statistic of a float64 numerator that was squared in float32, as T5 does: computed in float64, too."""
    rounding, double = context.origin(statistic.x).producer(), context.origin(numerator)
    in_float = context.facts.float_type(statistic.x) is spec.DType.FLOAT
    if rounding is None or not in_float or context.unrounded(statistic.x) is not double:
        return None
    return replace(statistic, x=double, dtype=spec.DType.DOUBLE, nodes=(rounding, *statistic.nodes))


def _of_numerator(context: Context, statistic: Statistic, numerator: ir.Value) -> Statistic | None:
    """The statistic of ``numerator``, where it was multiplied by a constant before it was squared."""
    node = statistic.x.producer()
    if node is None or node.op_type not in {"Mul", "Div"} or node.domain not in DEFAULT_DOMAINS:
        return None
    pairs = (node.inputs, tuple(reversed(node.inputs))) if node.op_type == "Mul" else (node.inputs,)
    for value, factor in pairs:
        number = context.constants.single(factor)
        if value is None or not number or not math.isfinite(number):
            continue
        squared = number * number
        if 0 < squared < math.inf and context.unsigned_origin(value) is context.unsigned_origin(numerator):
            squared = squared if node.op_type == "Mul" else 1 / squared
            nodes = (node, *statistic.nodes)
            return replace(statistic, x=context.origin(numerator), factor=statistic.factor * squared, nodes=nodes)
    return None


def _scaled_inverse(context: Context, statistic: Statistic, factor: ir.Value, node: ir.Node) -> Statistic | None:
    """A scale of the columns of x times the inverse root, or over the root; None if ``factor`` is no such scale."""
    if statistic.scale is not None or fit(context, factor, statistic.x) is not Fit.SCALE:
        return None
    inverse = statistic if statistic.inverted else statistic.inverse()
    scaled = inverse.multiplied_by(factor, node)
    if statistic.lines_up(context.facts.rank(statistic.x)):
        return scaled
    flaw = _not_lined_up(statistic, node)
    return scaled.flawed(flaw.why, flaw.node, flaw.detail)


def _not_lined_up(statistic: Statistic, node: ir.Node) -> Flaw:
    plain = Flaw(spec.Why.KEEPDIMS, node, f"the mean over axes {list(statistic.axes)} has keepdims=0")
    return statistic.misfit or plain


def _scales(context: Context, factor: ir.Value, x: ir.Value) -> bool:
    """Whether a factor of x itself can be the scale: one of x's full shape too, as no node would be left for it."""
    return fit(context, factor, x) is Fit.SCALE or context.facts.same_shape(factor, x)


def _factors(context: Context, product: ir.Value, x: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """X, or its negative or magnitude, and the other factor that ``product`` is made of; None if it is not."""
    node = context.uncast(product).producer()
    if node is None or node.op_type != "Mul" or node.domain not in DEFAULT_DOMAINS:
        return x, None
    for value, factor in (node.inputs, tuple(reversed(node.inputs))):
        if value is not None and context.unsigned_origin(value) is x:
            return context.origin(value), factor
    return x, None


def _bad_value(context: Context, statistic: Statistic, node: ir.Node) -> Flaw | None:
    flaw = statistic.bad_epsilon(node)
    if flaw is not None:
        return flaw
    if not statistic.lines_up(context.facts.rank(statistic.x)):
        return _not_lined_up(statistic, node)
    if math.isinf(statistic.floor) or not 0 < statistic.factor < math.inf:
        return Flaw(spec.Why.NOT_A_MEAN, node, f"the mean is multiplied by {statistic.factor:g}")
    return None


def as_mean(context: Context, statistic: Statistic) -> tuple[Statistic, float]:
    """The same quotient over a true mean of squares, and the constant that this leaves over."""
    elements = 1
    if not statistic.is_mean:
        shape = context.facts.shape(statistic.x) or ()
        rank = len(shape)
        lengths = [shape[a] if -rank <= a < rank else None for a in statistic.axes]
        if not all(isinstance(n, int) for n in lengths):
            return statistic, math.nan
        elements = math.prod(n for n in lengths if isinstance(n, int))
    ratio = statistic.factor * elements
    if not 0 < ratio < math.inf:
        return statistic, math.nan
    short = any(_is_short(statistic.factor**p, elements**-p, statistic.dtype) for p in (1, -1, 0.5, -0.5))
    if short or abs(ratio - 1) <= 2.0 ** (1 - statistic.dtype.bits_of_precision):
        return statistic, 1.0
    upright = statistic.inverse() if statistic.inverted else statistic
    scaled = upright.times(ratio**-0.5)
    assert scaled is not None
    return (scaled.inverse() if statistic.inverted else scaled), ratio**-0.5


def settle(context: Context, statistic: Statistic) -> Statistic:
    """A sum that has just been divided by the number of its elements is a mean from here on."""
    mean, gain = (statistic, math.nan) if statistic.is_mean else as_mean(context, statistic)
    return replace(mean, is_mean=True, factor=1.0) if gain == 1 else statistic


def multiply_normalized(context: Context, node: ir.Node, normalized: Normalized, other: ir.Value) -> Meaning | None:
    """A norm times something: the scale, the gate, or the constant that makes up for a missing 1/n."""
    number = context.constants.single(other)
    if number == 1 and context.exact_source(node.outputs[0]) is not None:
        return normalized.cast(node, normalized.dtype)
    if normalized.gain != 1 and number is not None and number > 0:
        return make_up(normalized, number, node)
    meaning = context.meaning(other)
    if isinstance(meaning, Silu):
        z = groups.gate_of_type(context, meaning, context.facts.float_type(normalized.x))
        gate = groups.gate(context, normalized, z) if z is not None else None
        precise = meaning.dtype.bits_of_precision >= normalized.statistic.dtype.bits_of_precision
        return normalized.gated(meaning, gate, node) if gate is not None and precise else None
    if normalized.scale is not None or normalized.gate is not None:
        return None
    if normalized.gain != 1:
        normalized, other = _without_constant(context, normalized, other)
    fitness = fit(context, other, normalized.x if normalized.flat is None else normalized.value)
    scale = groups.scale(context, normalized, other)
    if fitness is Fit.SCALE and scale is not None:
        return normalized.scaled(scale, node)
    if fitness is Fit.WIDENS and (other.is_graph_input() or context.constants.is_parameter(other)):
        shapes = [list(context.facts.shape(v) or ()) for v in (other, normalized.x)]
        flaw = Flaw(spec.Why.SCALE_WIDENS, node, f"scale '{other.name}' is {shapes[0]}, x is {shapes[1]}")
        context.report(node, flaw)
        context.refused.add(normalized.value)
    return None


def make_up(normalized: Normalized, number: float, node: ir.Node) -> Normalized:
    """A norm that a constant is left over of, times a constant: the one that makes up for it, or not."""
    gain = _made_up_for(normalized.gain, number, normalized.statistic, normalized.dtype)
    return normalized.times(number, node).with_gain(gain)


def _made_up_for(gain: float, number: float, statistic: Statistic, dtype: spec.DType) -> float:
    """What is left of ``gain`` after a multiplication by ``number``: 1 where they differ by roundings only.

    Only a missing 1/n says which number was meant before it was rounded to 16 bits. A mean's gain is any constant.
    """
    bits = max(24, dtype.bits_of_precision) if statistic.is_mean else dtype.bits_of_precision
    short = not statistic.is_mean and _is_short(number, 1 / gain, dtype)
    alike = abs(gain * number - 1) <= 2.0 ** (2 - bits)
    return 1.0 if number != 1 and (alike or short) else gain * number


def _is_short(number: float, exact: float, dtype: spec.DType) -> bool:
    """Whether ``number`` was rounded to 16 bits; what float64 computes with was not."""
    return dtype is not spec.DType.DOUBLE and is_rounded(number, exact)


def _without_constant(context: Context, normalized: Normalized, factor: ir.Value) -> tuple[Normalized, ir.Value]:
    """A factor that is a product, without the constant in it that makes up for a missing 1/n."""
    node = context.origin(factor).producer()
    if node is None or node.op_type != "Mul" or node.domain not in DEFAULT_DOMAINS:
        return normalized, factor
    for constant, rest in (node.inputs, tuple(reversed(node.inputs))):
        number = context.constants.single(constant)
        if number is None or rest is None:
            continue
        if _made_up_for(normalized.gain, number, normalized.statistic, normalized.dtype) == 1:
            return normalized.with_gain(1.0), rest
    return normalized, factor


def sigmoid(context: Context, node: ir.Node) -> Meaning | None:
    """Sigmoid(z), half of a SiLU."""
    z = node.inputs[0]
    dtype = context.facts.float_type(z) if z is not None else None
    return Sigmoid(context.origin(z), z, dtype, (node,)) if z is not None and dtype is not None else None


def swish(context: Context, node: ir.Node) -> Meaning | None:
    """Swish with alpha 1, as one node (opset 24, or onnxruntime's QuickGelu)."""
    alpha = node.attributes["alpha"].as_float() if "alpha" in node.attributes else _DEFAULT_ALPHA[node.op_type]
    half = sigmoid(context, node) if alpha == 1 else None
    return Silu(half.z, half.argument, half.dtype, half.nodes) if isinstance(half, Sigmoid) else None


_DEFAULT_ALPHA = {"Swish": 1.0, "QuickGelu": 1.702}


def carry(context: Context, node: ir.Node) -> Meaning | None:
    """Cast, CastLike, Identity, Dropout: the meaning goes through, perhaps rounded."""
    meaning = context.meaning(node.inputs[0])
    if meaning is None or (node.op_type == "Dropout" and not context.is_copy(node)):
        return None
    if isinstance(meaning, Lengths):
        return meaning
    dtype = context.facts.float_type(node.outputs[0])
    if dtype is None:
        return None
    if isinstance(meaning, Normalized):
        return meaning.cast(node, dtype)
    if isinstance(meaning, Sigmoid | Silu):
        return meaning.computed_by(node, dtype)
    return meaning.computed_by(node)
