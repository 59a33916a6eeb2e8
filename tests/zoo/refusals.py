"""What only looks like an RMS norm, each kind with the reason for which it is left alone."""

from __future__ import annotations

import math

from onnx import TensorProto

from rmsnorm_onnx.spec import DType, Why

from .case import Case, Program, spelled
from .spelling import Spelling
from .structures import DYNAMO, PLAIN, X
from .tape import Tape, Value
from .writer import OPAQUE_DOMAIN

F16, F32, F64 = DType.FLOAT16, DType.FLOAT, DType.DOUBLE

#: One wrong field. id -> (spelling, reason, what it shows)
_WRONG: dict[str, tuple[Spelling, Why, str]] = {
    "power-3": (Spelling(power=3.0), Why.EXPONENT, "mean of cubes"),
    "power-not-2": (Spelling(power=2.0001), Why.EXPONENT, "exponent 2.0001"),
    "power-1": (Spelling(power=1.0, square="abs-pow"), Why.EXPONENT, "mean of |x|"),
    "power-input": (Spelling(power_kind="input"), Why.EXPONENT, "exponent is a graph input"),
    "power-overridable": (Spelling(power_kind="overridable"), Why.EXPONENT, "exponent can be overridden"),
    "root-power-quarter": (Spelling(root="pow", root_power=0.25), Why.EXPONENT, "the fourth root"),
    "root-power-third": (Spelling(quotient="pow-0.5", root_power=1 / 3), Why.EXPONENT, "x * mean ** (-1/3)"),
    "epsilon-overridable": (
        Spelling(epsilon_kind="overridable"),
        Why.EPSILON_NOT_CONSTANT,
        "an initializer that a caller may override",
    ),
    "epsilon-overridable-dynamo": (
        Spelling(epsilon_kind="overridable", epsilon_side="left", quotient="reciprocal"),
        Why.EPSILON_NOT_CONSTANT,
        "the same on the left of a reciprocal root",
    ),
    "epsilon-input": (Spelling(epsilon_kind="input"), Why.EPSILON_NOT_CONSTANT, "epsilon is a graph input"),
    "epsilon-vector": (Spelling(epsilon_shape=(8,)), Why.EPSILON_NOT_SINGLE, "one epsilon per channel"),
    "epsilon-per-row": (
        Spelling(epsilon_shape=(3, 1), shape=("B", 3, 8), quotient="1/root"),
        Why.EPSILON_NOT_SINGLE,
        "one epsilon per row",
    ),
    "epsilon-negative": (Spelling(epsilon=-1e-7), Why.EPSILON_VALUE, "a negative epsilon"),
    "epsilon-nan": (Spelling(epsilon=math.nan), Why.EPSILON_VALUE, "epsilon is NaN"),
    "epsilon-infinite": (Spelling(epsilon=math.inf), Why.EPSILON_VALUE, "epsilon is infinite"),
    "epsilon-float16-overflow": (
        Spelling(dtype=F16, epsilon=1e6, epsilon_kind="cast-float"),
        Why.EPSILON_VALUE,
        "epsilon becomes infinite in the Cast to float16",
    ),
    "axes-input": (Spelling(axes_kind="input"), Why.AXES_NOT_CONSTANT, "the axes are a graph input"),
    "keepdims-0-square": (
        Spelling(keepdims="dropped", shape=(8, 8), scale_shape=(8,)),
        Why.KEEPDIMS,
        "x is square, so the means of the rows divide the columns",
    ),
    "keepdims-0-sum": (
        Spelling(keepdims="dropped", shape=(8, 8), mean="sum/n", quotient="reciprocal"),
        Why.KEEPDIMS,
        "the same with a sum and a reciprocal root",
    ),
    "keepdims-0-batch": (Spelling(keepdims="dropped", shape=(3, 3, 3), opset=17), Why.KEEPDIMS, "rank 3"),
    "keepdims-0-expanded": (
        Spelling(keepdims="expanded", shape=(8, 8)),
        Why.KEEPDIMS,
        "the means of the rows, expanded along the columns",
    ),
    "keepdims-0-scaled": (
        Spelling(keepdims="dropped", shape=(8, 8), quotient="reciprocal", scale_at="root"),
        Why.KEEPDIMS,
        "the scale multiplies the means of the rows, which then divide the columns",
    ),
    "sum-only": (Spelling(mean="sum"), Why.NOT_A_MEAN, "the sum of squares is not divided"),
    "sumsquare-only": (
        Spelling(square="ReduceSumSquare", mean="sum", epsilon=1e-12, quotient="reciprocal"),
        Why.NOT_A_MEAN,
        "unit vectors: l2_normalize",
    ),
    "l2-only": (
        Spelling(square="ReduceL2", mean="sum", scale="1+w"),
        Why.NOT_A_MEAN,
        "unit vectors from the 2-norm, with a scale",
    ),
    "sum-wrong-count": (Spelling(mean="sum/n", count=7), Why.NOT_A_MEAN, "divided by n - 1"),
    "sum-wrong-factor": (Spelling(mean="sum*(1/n)", count=16), Why.NOT_A_MEAN, "multiplied by 1/16, n is 8"),
    "sum-unknown-count": (
        Spelling(mean="sum/n", shape=("B", "S", "D"), scale=None, count=8),
        Why.NOT_A_MEAN,
        "divided by 8, the rows are of unknown length",
    ),
    "sum-one-of-two-axes": (
        Spelling(mean="sum/n", shape=("B", 3, 8), axes=(1, 2), count=8),
        Why.NOT_A_MEAN,
        "summed over two axes, divided by the size of one",
    ),
    "scale-widens": (Spelling(shape=("B", 1), scale_shape=(8,)), Why.SCALE_WIDENS, "x [N, 1], scale [D]"),
    "scale-widens-left": (
        Spelling(shape=("B", 3, 1), scale_shape=(8,), scale_side="left", quotient="reciprocal"),
        Why.SCALE_WIDENS,
        "scale [D] * x [B, 3, 1]",
    ),
    "scale-widens-rows": (
        Spelling(shape=(2, 1, 8), scale_shape=(3, 8)),
        Why.SCALE_WIDENS,
        "the scale has more rows than x",
    ),
    "scale-widens-rank": (
        Spelling(shape=("B", 8), scale_shape=(1, 1, 8)),
        Why.SCALE_WIDENS,
        "the scale has a higher rank than x",
    ),
    "epsilon-too-small": (
        Spelling(dtype=F64, epsilon=1e-60),
        Why.PRECISION,
        "a float64 epsilon that float32 cannot hold",
    ),
    "epsilon-outside-double": (
        Spelling(dtype=F64, epsilon=None, epsilon_outside=1e-3),
        Why.PRECISION,
        "a float64 outer epsilon that float32 rounds",
    ),
    "floor-double": (Spelling(dtype=F64, epsilon=None, floor=1e-3), Why.PRECISION, "a float64 floor, likewise"),
}


def _quotient(g: Tape, numerator: Value, mean: Value, s: Spelling = PLAIN) -> None:
    """Finish as a norm would, up to the output ``y``."""
    g.output(g.scaled(g.normalized(numerator, g.root(mean, s), s), s), "y")


def _reduce_mean(g: Tape, x: Value) -> Value:
    return g.op("ReduceMean", x, g.constant([-1], TensorProto.INT64))


def layer_norm(g: Tape) -> None:
    x = g.input("x", X)
    centered = g.op("Sub", x, _reduce_mean(g, x))
    _quotient(g, centered, g.mean_square(centered, PLAIN))


def layer_norm_with_bias(g: Tape) -> None:
    x = g.input("x", X)
    centered = g.op("Sub", x, _reduce_mean(g, x))
    s = Spelling(quotient="reciprocal", square="mul", bias=True, epsilon=1e-6)
    _quotient(g, centered, g.mean_square(centered, s), s)


def layer_norm_two_subtractions(g: Tape) -> None:
    """The mean is subtracted twice, by two nodes, as older exporters do."""
    x = g.input("x", X)
    mean = _reduce_mean(g, x)
    _quotient(g, g.op("Sub", x, mean), g.mean_square(g.op("Sub", x, mean), PLAIN))


def layer_norm_by_moments(g: Tape) -> None:
    """Divide x - mean by the root of mean(x ** 2) - mean ** 2."""
    x = g.input("x", X)
    mean = _reduce_mean(g, x)
    variance = g.op("Sub", g.mean_square(x, PLAIN), g.op("Mul", mean, mean))
    _quotient(g, g.op("Sub", x, mean), variance)


def instance_norm_double(g: Tape) -> None:
    """LayerNorm over two axes."""
    s = Spelling(shape=("B", 3, 8), axes=(1, 2))
    x = g.input("x", s.shape)
    centered = g.op("Sub", x, g.op("ReduceMean", x, g.constant([1, 2], TensorProto.INT64)))
    _quotient(g, centered, g.mean_square(centered, s), s)


def divided_by_deviation(g: Tape) -> None:
    """Divide x itself by its standard deviation."""
    x = g.input("x", X)
    _quotient(g, x, g.mean_square(g.op("Sub", x, _reduce_mean(g, x)), PLAIN))


def centered_by_rms(g: Tape) -> None:
    """Divide x - mean by the root mean square of x."""
    x = g.input("x", X)
    _quotient(g, g.op("Sub", x, _reduce_mean(g, x)), g.mean_square(x, PLAIN))


def another_value(g: Tape) -> None:
    _quotient(g, g.input("x", X), g.mean_square(g.input("z", X), PLAIN))


def another_value_dynamo(g: Tape) -> None:
    _quotient(g, g.input("x", X), g.mean_square(g.input("z", X), DYNAMO), DYNAMO)


def product_of_two(g: Tape) -> None:
    """The mean of x * z, not of a square."""
    x = g.input("x", X)
    _quotient(g, x, _reduce_mean(g, g.op("Mul", x, g.op("Abs", g.input("z", X)))))


def squared_after_relu(g: Tape) -> None:
    x = g.input("x", X)
    _quotient(g, x, g.mean_square(g.op("Relu", x), PLAIN))


def squared_after_scaling(g: Tape) -> None:
    """The squared value is weighted first."""
    x = g.input("x", X)
    _quotient(g, x, g.mean_square(g.op("Mul", x, g.weight("weights", (8,))), PLAIN))


def squared_after_rounding(g: Tape) -> None:
    """The squared value went through float16, the divided one did not."""
    x = g.input("x", X)
    _quotient(g, x, g.mean_square(g.cast(g.cast(x, F16), F32), PLAIN))


def absolute_divided(g: Tape) -> None:
    """For positive x both are x."""
    x = g.input("x", X)
    _quotient(g, g.op("Relu", x), g.mean_square(g.op("Abs", x), PLAIN))


def residual_not_divided(g: Tape) -> None:
    """The sum is normalized by the statistic of its first addend."""
    x = g.input("x", X)
    _quotient(g, g.op("Add", x, g.input("z", X)), g.mean_square(x, PLAIN))


def epsilon_computed(g: Tape) -> None:
    x, z = g.input("x", X), g.input("z", X)
    mean = g.op("Add", g.mean_square(x, PLAIN), g.op("Abs", z))
    _quotient(g, x, mean, Spelling(epsilon=None))


def epsilon_of_statistic(g: Tape) -> None:
    """Epsilon grows with the largest square."""
    x = g.input("x", X)
    largest = g.op("ReduceMax", g.op("Mul", x, x), g.constant([-1], TensorProto.INT64))
    mean = g.op("Add", g.mean_square(x, PLAIN), g.op("Mul", largest, g.constant(1e-3)))
    _quotient(g, x, mean, Spelling(epsilon=None))


def unit_vectors(g: Tape) -> None:
    """LpNormalization alone divides by the root of the sum."""
    x = g.op("LpNormalization", g.input("x", X), axis=-1, p=2)
    g.output(g.op("Mul", x, g.weight("scale", (8,))), "y")


def unit_vectors_clipped(g: Tape) -> None:
    """F.normalize(x) * w."""
    x = g.input("x", X)
    length = g.op("Clip", g.op("ReduceL2", x, g.constant([-1], TensorProto.INT64)), g.constant(1e-12))
    g.output(g.op("Mul", g.op("Div", x, length), g.weight("scale", (8,))), "y")


def integer_mean(g: Tape) -> None:
    """The mean of integer squares is an integer: it is rounded before epsilon comes."""
    x = g.input("x", X, TensorProto.INT32)
    mean = g.cast(_reduce_mean(g, g.op("Mul", x, x)), F32)
    _quotient(g, g.cast(x, F32), mean)


def integer_pow(g: Tape) -> None:
    x = g.input("x", X, TensorProto.INT32)
    mean = g.cast(_reduce_mean(g, g.op("Pow", x, g.constant(2, TensorProto.INT32))), F32)
    _quotient(g, g.cast(x, F32), mean, DYNAMO)


def unknown_type(g: Tape) -> None:
    """The operator in front is known to nobody, so the type of its output is not either."""
    x = g.op("Opaque", g.input("x", X), domain=OPAQUE_DOMAIN)
    s = Spelling(scale=None, epsilon_kind="castlike")
    g.output(g.norm(x, s), "y", shape=X)


def converter_fails(g: Tape) -> None:
    """BatchNormalization with spatial=0 has no later counterpart."""
    x = g.input("x", (2, 8))
    parameters = [g.constant([v] * 8) for v in (1.0, 0.5, 0.25, 2.0)]
    x = g.op("BatchNormalization", x, *parameters, spatial=0)
    g.output(g.norm(x, BARE_8), "y")


BARE_8 = Spelling(opset=8, scale=None, shape=(2, 8))

#: program -> (reason, what it shows)
_PROGRAMS: dict[Program, tuple[Why, str]] = {
    layer_norm: (Why.MEAN_SUBTRACTED, "LayerNorm"),
    layer_norm_with_bias: (Why.MEAN_SUBTRACTED, "LayerNorm with scale and bias, dynamo's spelling"),
    layer_norm_two_subtractions: (Why.MEAN_SUBTRACTED, "LayerNorm whose mean is subtracted twice"),
    layer_norm_by_moments: (Why.MEAN_SUBTRACTED, "LayerNorm from the two moments"),
    instance_norm_double: (Why.MEAN_SUBTRACTED, "LayerNorm over two axes"),
    centered_by_rms: (Why.DIFFERENT_VALUE, "x - mean over the root mean square of x"),
    divided_by_deviation: (Why.MEAN_SUBTRACTED, "x over its standard deviation"),
    another_value: (Why.DIFFERENT_VALUE, "x over the root mean square of z"),
    another_value_dynamo: (Why.DIFFERENT_VALUE, "the same, dynamo's spelling"),
    product_of_two: (Why.DIFFERENT_VALUE, "mean of x * z"),
    squared_after_relu: (Why.DIFFERENT_VALUE, "relu(x) is squared, x is divided"),
    squared_after_scaling: (Why.DIFFERENT_VALUE, "w * x is squared, x is divided"),
    squared_after_rounding: (Why.DIFFERENT_VALUE, "a float16 copy is squared"),
    absolute_divided: (Why.DIFFERENT_VALUE, "|x| is squared, relu(x) is divided"),
    residual_not_divided: (Why.DIFFERENT_VALUE, "x is squared, x + z is divided"),
    epsilon_computed: (Why.EPSILON_NOT_CONSTANT, "what is added to the mean is computed from an input"),
    epsilon_of_statistic: (Why.EPSILON_NOT_CONSTANT, "what is added to the mean is computed from x"),
    unit_vectors: (Why.NOT_A_MEAN, "LpNormalization * scale"),
    unit_vectors_clipped: (Why.NOT_A_MEAN, "F.normalize(x) * scale"),
    integer_mean: (Why.NOT_FLOAT, "squares and mean of integers"),
    integer_pow: (Why.NOT_FLOAT, "Pow and ReduceMean of integers"),
    unknown_type: (Why.UNKNOWN_TYPE, "x has no known type"),
    converter_fails: (Why.OPSET, "opset 8 that the official converter cannot raise"),
}

REFUSALS: tuple[Case, ...] = (
    *(spelled(f"not-{id_}", s, shows, why) for id_, (s, why, shows) in _WRONG.items()),
    *(
        Case(
            f"not-{program.__name__.replace('_', '-')}",
            program,
            shows,
            why=why,
            opset=8 if why is Why.OPSET else 18,
            precision=F16 if program is squared_after_rounding else F32,
            runtime="reference" if why is Why.UNKNOWN_TYPE else "onnxruntime",
        )
        for program, (why, shows) in _PROGRAMS.items()
    ),
)
