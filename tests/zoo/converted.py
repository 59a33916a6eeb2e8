"""Norms as conversion, quantization and rewriting tools leave them: copies per reader, rounded constants, detours."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from rmsnorm_onnx.spec import RMS, DType, Why

from .case import Case, Program, case
from .spelling import Shape, Spelling
from .structures import BARE, DYNAMO, PLAIN, X
from .tape import Tape, Value

F16, F32 = DType.FLOAT16, DType.FLOAT
INT64 = TensorProto.INT64

HALF = Spelling(dtype=F16, epsilon=1e-3)
#: The end of a Slice that takes all.
ALL = 2**31 - 1


def axes_of(g: Tape, *axes: int) -> Value:
    return g.constant(list(axes), INT64)


def finish(g: Tape, numerator: Value, mean: Value, s: Spelling = PLAIN, shape: Shape | None = None) -> None:
    """Root, quotient and scale of a mean square that was spelled by hand."""
    g.output(g.scaled(g.normalized(numerator, g.root(mean, s), s), s), "y", s.output_type, shape)


def length_of(g: Tape, x: Value) -> Value:
    """The 2-norm, bounded as F.normalize does it."""
    return g.op("Clip", g.op("ReduceL2", x, axes_of(g, -1)), g.constant(1e-12))


# one copy per reader


def twin_casts(g: Tape) -> None:
    """A tool lowered the graph to float16 and wrote one Cast per reader."""
    x = g.input("x", X)
    mean = g.mean_square(g.cast(x, F16), HALF)
    finish(g, g.cast(x, F16), mean, HALF)


def twin_dequantize(g: Tape) -> None:
    """Quantizers give each reader its own DequantizeLinear."""
    q, parameters = g.input("x", X, TensorProto.UINT8), (g.constant(0.03), g.constant(128, TensorProto.UINT8))
    squared, divided = (g.op("DequantizeLinear", q, *parameters) for _ in range(2))
    finish(g, divided, g.mean_square(squared, PLAIN))


# constants


def sqrtd_in_half(g: Tape) -> None:
    """The model was float16 once, and its sqrt(d) still is."""
    x = g.input("x", X)
    y = g.op("Mul", g.op("Div", x, length_of(g, x)), g.constant(float(np.float16(8**0.5))))
    g.output(g.op("Mul", y, g.weight("scale", (8,))), "y")


def inverse_sqrtd_in_half(g: Tape) -> None:
    """The same inside: x over the 2-norm times a rounded 1/sqrt(d)."""
    x = g.input("x", ("B", "S", 12))
    rms = g.op("Mul", g.op("ReduceL2", x, axes_of(g, -1)), g.constant(float(np.float16(12**-0.5))))
    rms = g.op("Add", rms, g.constant(1e-4))
    g.output(g.op("Mul", g.op("Div", x, rms), g.weight("scale", (12,))), "y")


def sqrtd_in_numerator(g: Tape) -> None:
    """What is divided by the 2-norm is sqrt(d) * x."""
    x = g.input("x", X)
    length = g.op("Add", g.op("ReduceL2", x, axes_of(g, -1)), g.constant(1e-4))
    y = g.op("Div", g.op("Mul", g.constant(8**0.5), x), length)
    g.output(g.op("Mul", y, g.weight("scale", (8,))), "y")


def sqrtd_in_scale(g: Tape) -> None:
    """Unit vectors are multiplied once, by sqrt(d) * w."""
    x = g.input("x", X)
    scale = g.op("Mul", g.constant(8**0.5), g.weight("scale", (8,)))
    g.output(g.op("Mul", g.op("Div", x, length_of(g, x)), scale), "y")


def square_of_sixteenth(g: Tape) -> None:
    """Made smaller before the square and larger after the mean, so that float16 holds it."""
    x = g.input("x", X)
    mean = g.op("ReduceMean", g.op("Pow", g.op("Div", x, g.constant(16)), g.constant(2)), axes_of(g, -1))
    finish(g, x, g.op("Mul", mean, g.constant(256)))


# what x is


def of_contraction(g: Tape) -> None:
    """The normalized value x is itself a sum of products."""
    a, b = (g.input(name, ("B", "S", 8, 4)) for name in ("a", "b"))
    x = g.op("ReduceSum", g.op("Mul", a, b), axes_of(g, -1), keepdims=0)
    finish(g, x, g.mean_square(x, PLAIN))


def of_energy(g: Tape) -> None:
    """The normalized value x is itself a mean of squares, over another axis."""
    y = g.input("x", ("B", 3, 8))
    x = g.op("ReduceMean", g.op("Mul", y, y), axes_of(g, 1))
    finish(g, x, g.mean_square(x, PLAIN))


def centred_over_another_axis(g: Tape) -> None:
    """A mean over the positions is subtracted, which makes no LayerNorm of a norm over the channels."""
    x = g.input("x", ("B", 3, 8))
    difference = g.op("Sub", x, g.op("ReduceMean", x, axes_of(g, 1)))
    finish(g, difference, g.mean_square(difference, DYNAMO), DYNAMO)


def zero_mean_expanded(g: Tape) -> None:
    """Converters of LayerNorm without centring subtract a mean of zeros, of x's shape."""
    x = g.input("x", X)
    zeros = g.op("Expand", g.constant(0), g.op("Shape", x))
    finish(g, g.op("Sub", x, zeros), g.mean_square(x, PLAIN))


# detours of the statistic


def mean_of_all_squeezed(g: Tape) -> None:
    """The mean over all axes, without any axis left."""
    x = g.input("x", (2, 3, 8))
    mean = g.op("Squeeze", g.op("ReduceMean", g.op("Pow", x, g.constant(2))))
    finish(g, x, mean, BARE)


def mean_of_all_flattened(g: Tape) -> None:
    """The same with one axis left, of an x of unknown lengths."""
    x = g.input("x", X)
    mean = g.reshape(g.op("ReduceMean", g.op("Pow", x, g.constant(2))), [-1])
    finish(g, x, mean, BARE)


def slice_of_everything(g: Tape) -> None:
    """tf2onnx writes a new axis as Unsqueeze and a Slice that keeps all."""
    x = g.input("x", X)
    mean = g.op("ReduceMean", g.op("Mul", x, x), axes_of(g, -1), keepdims=0)
    mean = g.op("Unsqueeze", mean, axes_of(g, 2))
    mean = g.op("Slice", mean, *(axes_of(g, *bounds) for bounds in ((0, 0, 0), (ALL, ALL, ALL), (0, 1, 2), (1, 1, 1))))
    finish(g, x, mean)


def einsum_of_itself(g: Tape) -> None:
    x = g.input("x", X)
    total = g.op("Unsqueeze", g.op("Einsum", x, x, equation="bsd,bsd->bs"), axes_of(g, -1))
    finish(g, x, g.op("Div", total, g.constant(8)))


def scale_over_root(g: Tape) -> None:
    """Keras multiplies x by scale / root."""
    x = g.input("x", X)
    inverse = g.op("Div", g.weight("scale", (8,)), g.root(g.mean_square(x, PLAIN), PLAIN))
    g.output(g.op("Mul", inverse, x), "y")


def clip_up_to_infinity(g: Tape) -> None:
    """A lower bound of the mean, written with an upper one that bounds nothing."""
    x = g.input("x", X)
    mean = g.op("Clip", g.mean_square(x, PLAIN), g.constant(1e-3), g.constant(np.inf))
    finish(g, x, mean, Spelling(epsilon=None))


def inverse_root_bounded(g: Tape) -> None:
    """Keras' normalize bounds 1 / root from above; the smallest rows reach the bound."""
    x = g.input("x", X)
    inverse = g.op("Reciprocal", g.root(g.mean_square(x, BARE), Spelling(epsilon=None)))
    y = g.op("Mul", x, g.op("Min", inverse, g.constant(50)))
    g.output(g.op("Mul", y, g.weight("scale", (8,))), "y")


def expand_to_shape_of_cast(g: Tape) -> None:
    """F.normalize raised to float32: its Shape still reads the float16 copy, and inference stops before Expand."""
    x = g.input("x", X)
    shape = g.op("Identity", g.op("Shape", g.cast(x, F16)))
    unit = g.op("Div", x, g.op("Expand", length_of(g, x), shape))
    g.output(g.op("Mul", g.op("Mul", unit, g.constant(8**0.5)), g.weight("scale", (8,))), "y", shape=X)


# nodes that the target's operators need other types or shapes for


def grouped_computed_scale(g: Tape) -> None:
    """Groups of a float16 x, a computed float32 scale: what the pass reshapes has no type in the model."""
    x, weight = g.input("x", (2, 3, 16), F16), g.input("weight", (16,))
    y = g.norm(g.cast(g.reshape(x, (2, 3, 2, 8)), F32), BARE)
    y = g.op("Mul", g.reshape(y, (2, 3, 16)), g.op("Add", weight, g.constant(1)))
    g.output(g.cast(y, F16), "y", F16)


def adopt_skip_broadcast(g: Tape) -> None:
    """Onnxruntime's residual norm broadcasts its skip, which ours does not: an Add and a norm."""
    inputs = g.input("x", X), g.input("z", (1, "S", 8)), g.weight("scale", (8,))
    y = g.op("SkipSimplifiedLayerNormalization", *inputs, domain="com.microsoft", epsilon=1e-6)
    g.output(y, "y", shape=X)


# LayerNorm in disguise


def mean_narrowed(g: Tape) -> None:
    """The mean is computed in float32 and subtracted in float16."""
    x = g.input("x", X, F16)
    centred = g.op("Sub", x, g.cast(g.op("ReduceMean", g.cast(x, F32), axes_of(g, -1)), F16))
    finish(g, centred, g.mean_square(centred, HALF), HALF)


def both_narrowed(g: Tape) -> None:
    """A float32 value and its mean, each cast to float16 before the subtraction."""
    x = g.input("x", X)
    centred = g.op("Sub", g.cast(x, F16), g.cast(g.op("ReduceMean", x, axes_of(g, -1)), F16))
    finish(g, centred, g.mean_square(centred, HALF), HALF)


def centred_masked(g: Tape) -> None:
    """What was centred is masked."""
    x, mask = g.input("x", X), g.constant([False] * 6 + [True] * 2, TensorProto.BOOL)
    centred = g.op("Where", mask, g.constant(0), g.op("Sub", x, g.op("ReduceMean", x, axes_of(g, -1))))
    finish(g, centred, g.mean_square(centred, PLAIN))


#: program -> what it shows; each is one RMSNorm
_FUSED: dict[Program, str] = {
    twin_casts: "one Cast per reader of x",
    twin_dequantize: "one DequantizeLinear per reader of x",
    sqrtd_in_half: "unit vectors times a sqrt(d) that float16 rounded",
    inverse_sqrtd_in_half: "the 2-norm times a 1/sqrt(d) that float16 rounded",
    sqrtd_in_numerator: "sqrt(d) * x over the 2-norm",
    sqrtd_in_scale: "unit vectors times (sqrt(d) * w)",
    square_of_sixteenth: "the mean of (x / 16) ** 2, times 256",
    of_contraction: "x is a sum of products",
    of_energy: "x is a mean of squares",
    centred_over_another_axis: "x minus its mean over another axis",
    zero_mean_expanded: "x minus zeros of its shape",
    mean_of_all_squeezed: "the mean over all axes as a scalar",
    mean_of_all_flattened: "the mean over all axes as a vector of one",
    slice_of_everything: "a Slice of the mean that keeps all",
    einsum_of_itself: "Einsum of x with itself",
    scale_over_root: "(scale / root) * x",
    clip_up_to_infinity: "Clip(mean, floor, infinity)",
    inverse_root_bounded: "x * Min(1 / root, bound)",
    expand_to_shape_of_cast: "the 2-norm expanded to the shape of a Cast of x",
    grouped_computed_scale: "grouped, a computed scale of another type than x",
    adopt_skip_broadcast: "onnxruntime's SkipSimplifiedLayerNormalization with a broadcast skip",
}
_LAYER_NORMS: dict[Program, str] = {
    mean_narrowed: "LayerNorm whose mean is rounded to float16",
    both_narrowed: "LayerNorm whose minuend is rounded to float16, too",
    centred_masked: "LayerNorm of masked rows",
}
#: Either they compute in float16, or a constant in them was rounded to it.
_HALF = {
    *(twin_casts, sqrtd_in_half, inverse_sqrtd_in_half, grouped_computed_scale, mean_narrowed),
    both_narrowed,
}


def _precision(program: Program) -> DType:
    return F16 if program in _HALF else F32


CONVERTED: tuple[Case, ...] = (
    *(case(p, shows, fuses={RMS.name: 1}, precision=_precision(p)) for p, shows in _FUSED.items()),
    *(
        Case(
            f"not-layer-norm-{p.__name__.replace('_', '-')}",
            p,
            shows,
            why=Why.MEAN_SUBTRACTED,
            precision=_precision(p),
        )
        for p, shows in _LAYER_NORMS.items()
    ),
)
