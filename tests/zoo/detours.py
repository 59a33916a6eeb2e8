"""Norms whose nodes do in two or three steps what others do in one: no-op Reshapes, products for sums, Casts."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from rmsnorm_onnx.spec import RMS, DType, Why

from .case import Case, Program, case
from .converted import axes_of, finish, length_of
from .spelling import Spelling
from .structures import BARE, PLAIN, X
from .tape import Tape, Value

F16, F32, F64 = DType.FLOAT16, DType.FLOAT, DType.DOUBLE


def _as_it_was(g: Tape, value: Value, like: Value) -> Value:
    """What paddle2onnx writes behind each multiplication by a number: a Reshape to the shape from before."""
    return g.op("Reshape", value, g.op("Shape", like))


# Reshapes that change nothing


def statistic_reshaped_to_its_shape(g: Tape) -> None:
    x = g.input("x", X)
    mean = g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=1)
    finish(g, x, _as_it_was(g, g.op("Mul", mean, g.constant(1)), mean), shape=X)


def quotient_reshaped_to_its_shape(g: Tape) -> None:
    """Shape reads the quotient too, for a Reshape that is part of the norm."""
    x = g.input("x", X)
    unit = g.op("Div", x, length_of(g, x))
    unit = _as_it_was(g, g.op("Mul", unit, g.constant(8**0.5)), unit)
    g.output(g.op("Mul", unit, g.weight("scale", (8,))), "y")


def result_reshaped_to_its_shape(g: Tape) -> None:
    x = g.input("x", X)
    y = g.norm(x, BARE)
    g.output(_as_it_was(g, y, y), "y", shape=X)


def reshaped_by_gathered_lengths(g: Tape) -> None:
    """As view(x.size(0), x.size(1), 1): two lengths read from Shape, put beside a number, below opset 14."""
    x = g.input("x", X)
    mean = g.op("ReduceMean", g.op("Mul", x, x), axes=[-1], keepdims=0)
    sizes = [g.op("Gather", g.op("Shape", x), g.constant(i, TensorProto.INT64), axis=0) for i in (0, 1)]
    lengths = [*(g.op("Unsqueeze", size, axes_of(g, 0)) for size in sizes), axes_of(g, 1)]
    finish(g, x, g.op("Reshape", mean, g.op("Concat", *lengths, axis=0)), shape=X)


# sums that are products


def squares_times_ones(g: Tape) -> None:
    x = g.input("x", X)
    mean = g.op("MatMul", g.op("Mul", x, x), g.constant([[1 / 8]] * 8))
    finish(g, x, mean)


def squares_times_vector_of_ones(g: Tape) -> None:
    x = g.input("x", X)
    total = g.op("MatMul", g.op("Mul", x, x), g.constant([1] * 8))
    finish(g, x, g.op("Unsqueeze", g.op("Div", total, g.constant(8)), axes_of(g, -1)))


def squares_times_matrix_of_ones(g: Tape) -> None:
    """The mean is computed once for every column."""
    x = g.input("x", X)
    finish(g, x, g.op("MatMul", g.op("Mul", x, x), g.constant([[1 / 8] * 8] * 8)))


def row_times_itself(g: Tape) -> None:
    x = g.input("x", X)
    total = g.op("MatMul", g.op("Unsqueeze", x, axes_of(g, -2)), g.op("Unsqueeze", x, axes_of(g, -1)))
    finish(g, x, g.op("Div", g.op("Squeeze", total, axes_of(g, -1)), g.constant(8)))


def row_times_its_transpose(g: Tape) -> None:
    x = g.input("x", X)
    row = g.op("Unsqueeze", x, axes_of(g, -2))
    total = g.op("MatMul", row, g.op("Transpose", row, perm=[0, 1, 3, 2]))
    finish(g, x, g.op("Div", g.op("Squeeze", total, axes_of(g, -2)), g.constant(8)))


# a constant beside the mean


def mean_times_four(g: Tape) -> None:
    """Half a norm: 1 / 2 is a scale that float32 holds."""
    x = g.input("x", X)
    finish(g, x, g.op("Mul", g.mean_square(x, PLAIN), g.constant(4)))


def mean_times_three(g: Tape) -> None:
    """1 / sqrt(3) would be a constant that the graph does not round."""
    x = g.input("x", X)
    finish(g, x, g.op("Mul", g.mean_square(x, PLAIN), g.constant(3)))


# casts in between


def squares_of_rounded(g: Tape) -> None:
    """T5 in float64: only the squares are computed in float32."""
    x = g.input("x", X, F64)
    mean = g.cast(g.op("ReduceMean", g.op("Pow", g.cast(x, F32), g.constant(2)), axes_of(g, -1)), F64)
    finish(g, x, mean, Spelling(dtype=F64))


def numerator_multiplied_in_float(g: Tape) -> None:
    """A converter to float16 left the multiplication by sqrt(d) in float32."""
    x = g.input("x", X, F16)
    length = g.op("Add", g.op("ReduceL2", x, axes_of(g, -1)), g.constant(1e-3, F16))
    above = g.cast(g.op("Mul", g.cast(x, F32), g.constant(float(np.float16(8**0.5)))), F16)
    g.output(g.op("Mul", g.op("Div", above, length), g.weight("scale", (8,), F16)), "y", F16)


# what only looks like one of these


def unit_length_reshaped(g: Tape) -> None:
    """No sqrt(d) anywhere: unit length."""
    x = g.input("x", X)
    unit = g.op("Div", x, length_of(g, x))
    g.output(g.op("Mul", _as_it_was(g, unit, unit), g.weight("scale", (8,))), "y")


def squares_weighed(g: Tape) -> None:
    x = g.input("x", X)
    finish(g, x, g.op("MatMul", g.op("Mul", x, x), g.constant([[0.1], [0.15]] * 4)))


def product_of_rows(g: Tape) -> None:
    """The row is multiplied by another value's column."""
    x, z = g.input("x", X), g.input("z", X)
    total = g.op("MatMul", g.op("Unsqueeze", x, axes_of(g, -2)), g.op("Unsqueeze", z, axes_of(g, -1)))
    total = g.op("Abs", g.op("Squeeze", total, axes_of(g, -1)))
    square = g.op("Mul", total, total)
    finish(g, x, g.op("ReduceMean", square, axes_of(g, -1)))


def sum_over_rounded_count(g: Tape) -> None:
    """In float64, 1 / 12 as float32 has it is another number."""
    x = g.input("x", ("B", "S", 12), F64)
    total = g.op("ReduceSum", g.op("Mul", x, x), axes_of(g, -1))
    finish(g, x, g.op("Mul", total, g.constant(float(np.float32(1 / 12)), F64)), Spelling(dtype=F64, shape=("B", 12)))


def sum_over_almost_a_power(g: Tape) -> None:
    """The same where 1 / n is short: float32's sqrt(8), squared, is not 8."""
    x = g.input("x", X, F64)
    rms = g.op("Div", g.op("ReduceL2", x, axes_of(g, -1)), g.constant(float(np.float32(8**0.5)), F64))
    g.output(g.op("Mul", g.op("Div", x, rms), g.weight("scale", (8,), F64)), "y", F64)


#: program -> (opset, what it shows); each is one RMSNorm
_FUSED: dict[Program, tuple[int, str]] = {
    statistic_reshaped_to_its_shape: (13, "the mean, reshaped to its own shape"),
    quotient_reshaped_to_its_shape: (18, "the quotient, reshaped to its own shape"),
    result_reshaped_to_its_shape: (13, "the result, reshaped to its own shape"),
    reshaped_by_gathered_lengths: (13, "the mean, reshaped by lengths gathered from Shape"),
    squares_times_ones: (18, "MatMul of the squares with a column of 1 / n"),
    squares_times_vector_of_ones: (18, "MatMul of the squares with a vector of ones"),
    squares_times_matrix_of_ones: (18, "MatMul of the squares with a matrix of 1 / n"),
    mean_times_four: (18, "four times the mean"),
    row_times_itself: (18, "MatMul of each row with itself"),
    row_times_its_transpose: (18, "MatMul of each row with its transpose"),
    squares_of_rounded: (18, "float64, squared in float32"),
    numerator_multiplied_in_float: (18, "float16, x * sqrt(d) computed in float32"),
}
_LEFT_ALONE: dict[Program, tuple[Why, str]] = {
    unit_length_reshaped: (Why.NOT_A_MEAN, "unit length, reshaped to its own shape"),
    mean_times_three: (Why.NOT_A_MEAN, "three times the mean"),
    squares_weighed: (Why.NOT_A_MEAN, "MatMul of the squares with a column of different numbers"),
    product_of_rows: (Why.DIFFERENT_VALUE, "MatMul of each row with another's"),
    sum_over_rounded_count: (Why.NOT_A_MEAN, "float64, times 1 / 12 as float32"),
    sum_over_almost_a_power: (Why.NOT_A_MEAN, "float64, over sqrt(8) as float32"),
}


def _precision(program: Program) -> DType:
    coarse = {squares_of_rounded: F32, numerator_multiplied_in_float: F16}
    return coarse.get(program, F64 if program in {sum_over_rounded_count, sum_over_almost_a_power} else F32)


DETOURS: tuple[Case, ...] = (
    *(
        case(p, shows, fuses={RMS.name: 1}, opset=opset, precision=_precision(p))
        for p, (opset, shows) in _FUSED.items()
    ),
    *(case(p, shows, why=why, precision=_precision(p)) for p, (why, shows) in _LEFT_ALONE.items()),
)
