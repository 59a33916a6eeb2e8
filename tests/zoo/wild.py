"""Norms as hand-written model code spells them, and what such code looks like when it computes something else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from onnx import TensorProto

from rmsnorm_onnx.spec import PRE_GATED, RMS, DType, Why

from .case import Case, Program, case
from .converted import axes_of, finish, length_of
from .gates import silu
from .structures import BARE, PLAIN, X
from .tape import Tape, Value

D = X[-1]
UNIT = D**-0.5


def _inverse_root(g: Tape, x: Value) -> Value:
    return g.op("Reciprocal", g.root(g.mean_square(x, PLAIN), PLAIN))


def _scaled(g: Tape, value: Value) -> None:
    g.output(g.op("Mul", value, g.weight("scale", (D,))), "y")


# bounds instead of epsilon


def inverse_root_clipped_from_above(g: Tape) -> None:
    """As ``rsqrt(mean).clamp(max=50)``: the root is at least 0.02."""
    x = g.input("x", X)
    inverse = g.op("Reciprocal", g.op("Sqrt", g.mean_square(x, PLAIN)))
    _scaled(g, g.op("Mul", x, g.op("Clip", inverse, g.constant(0), g.constant(50))))


def least_of_three(g: Tape) -> None:
    x = g.input("x", X)
    inverse = g.op("Reciprocal", g.op("Sqrt", g.mean_square(x, PLAIN)))
    _scaled(g, g.op("Mul", x, g.op("Min", g.constant(60), inverse, g.constant(50))))


def mean_through_relu(g: Tape) -> None:
    x = g.input("x", X)
    finish(g, x, g.op("Relu", g.mean_square(x, PLAIN)))


def inverse_root_clipped_from_below(g: Tape) -> None:
    x = g.input("x", X)
    _scaled(g, g.op("Mul", x, g.op("Clip", _inverse_root(g, x), g.constant(0.5), g.constant(50))))


def mean_bounded_from_above(g: Tape) -> None:
    x = g.input("x", X)
    finish(g, x, g.op("Min", g.mean_square(x, PLAIN), g.constant(0.5)))


# sums and what makes up for 1 / n


def unit_length_over_its_share(g: Tape) -> None:
    """As ``F.normalize(x) / dim ** -0.5``."""
    x = g.input("x", X)
    _scaled(g, g.op("Div", g.op("Div", x, length_of(g, x)), g.constant(UNIT)))


def unit_length_over_a_root(g: Tape) -> None:
    """Divided by sqrt(n), where multiplied would be right."""
    x = g.input("x", X)
    _scaled(g, g.op("Div", g.op("Div", x, length_of(g, x)), g.constant(D**0.5)))


def rows_contracted_behind_dots(g: Tape) -> None:
    x = g.input("x", X)
    total = g.op("Einsum", x, x, equation="...d,...d->...")
    finish(g, x, g.op("Unsqueeze", g.op("Div", total, g.constant(D)), axes_of(g, -1)))


def columns_contracted_behind_dots(g: Tape) -> None:
    """The axis in front of the last is summed."""
    x = g.input("x", ("B", 8, D))
    total = g.op("Einsum", x, x, equation="...sd,...sd->...d")
    finish(g, x, g.op("Unsqueeze", g.op("Div", total, g.constant(8)), axes_of(g, -2)), shape=("B", 8, D))


def no_root(g: Tape) -> None:
    """The root is taken of the result only."""
    x = g.input("x", X)
    quotient = g.op("Div", x, g.op("Add", g.mean_square(x, PLAIN), g.constant(1e-5)))
    _scaled(g, g.op("Sqrt", g.op("Abs", quotient)))


# n read from Shape, where the model does not state it

FREE = ("B", "S", "D")


def _lengths(g: Tape, x: Value, *axes: int) -> Value:
    """The product of the lengths of these axes."""
    lengths = [g.op("Gather", g.op("Shape", x), g.constant(axis, TensorProto.INT64), axis=0) for axis in axes]
    product = lengths[0]
    for length in lengths[1:]:
        product = g.op("Mul", product, length)
    return g.cast(product, DType.FLOAT)


def _total(g: Tape, x: Value, *axes: int) -> Value:
    return g.op("ReduceSum", g.op("Mul", x, x), axes_of(g, *axes), keepdims=1)


def sum_over_two_lengths(g: Tape) -> None:
    x = g.input("x", FREE)
    mean = g.op("Div", _total(g, x, -2, -1), _lengths(g, x, 1, 2))
    finish(g, x, mean, BARE, FREE)


def sum_over_another_length_twice(g: Tape) -> None:
    x = g.input("x", FREE)
    mean = g.op("Div", _total(g, x, -2, -1), _lengths(g, x, 2, 2))
    finish(g, x, mean, BARE, FREE)


def epsilon_over_the_length_too(g: Tape) -> None:
    """As ``(x.pow(2).sum(-1) + eps) / n``: n is not known, and so epsilon / n is not."""
    x = g.input("x", FREE)
    mean = g.op("Div", g.op("Add", _total(g, x, -1), g.constant(0.5)), _lengths(g, x, 2))
    finish(g, x, mean, BARE, FREE)


def root_over_the_length(g: Tape) -> None:
    """The 2-norm over n, not over its root."""
    x = g.input("x", FREE)
    g.output(g.op("Div", x, g.op("Div", g.op("ReduceL2", x, axes_of(g, -1)), _lengths(g, x, 2))), "y")


def inverse_over_the_length(g: Tape) -> None:
    """1 / sum, over n."""
    x = g.input("x", FREE)
    inverse = g.op("Div", g.op("Reciprocal", _total(g, x, -1)), _lengths(g, x, 2))
    g.output(g.op("Mul", x, g.op("Sqrt", inverse)), "y")


# groups


def groups_gated_by_themselves(g: Tape) -> None:
    """X * silu(x), in groups: one Reshape serves both inputs."""
    x = g.input("x", ("B", "S", 12))
    rows = g.op("Reshape", g.op("Mul", x, silu(g, x)), g.constant([0, 0, 3, 4], TensorProto.INT64))
    flat = g.op("Reshape", g.norm(rows, BARE), g.constant([0, 0, 12], TensorProto.INT64))
    g.output(g.op("Mul", flat, g.weight("scale", (12,))), "y")


# a scale of both signs in the inverse root, and a step that takes the product for a positive number


def _after_scaling(step: str, g: Tape) -> None:
    x = g.input("x", X)
    scaled = g.op("Mul", _inverse_root(g, x), g.weight("scale", (D,)))
    if step == "Abs":
        factor = g.op("Abs", scaled)
    elif step == "Relu":
        factor = g.op("Relu", scaled)
    else:
        other = g.constant(0.5)
        factor = g.op("Reciprocal", g.op(step, g.op("Reciprocal", scaled), other))
    g.output(g.op("Mul", x, factor), "y")


def negative_before_abs(g: Tape) -> None:
    """|mean - 0.3| + 0.3 is no mean where the mean is below 0.3."""
    x = g.input("x", X)
    less = g.op("Abs", g.op("Sub", g.mean_square(x, PLAIN), g.constant(0.3)))
    finish(g, x, g.op("Add", less, g.constant(0.3)))


# LayerNorm, its mean spelled otherwise


def _layer_norm(centered: Callable[[Tape, Value], Value], g: Tape) -> None:
    x = g.input("x", X)
    d = centered(g, x)
    finish(g, d, g.mean_square(d, PLAIN))


def _mean(g: Tape, x: Value, keepdims: int = 1) -> Value:
    return g.op("ReduceMean", x, axes_of(g, -1), keepdims=keepdims)


def _sum(g: Tape, x: Value) -> Value:
    return g.op("ReduceSum", x, axes_of(g, -1), keepdims=1)


_CENTERED = {
    "mean minus x": lambda g, x: g.op("Sub", _mean(g, x), x),
    "x plus the negative mean": lambda g, x: g.op("Add", x, g.op("Neg", _mean(g, x))),
    "the mean times -1, plus x": lambda g, x: g.op("Add", g.op("Mul", _mean(g, x), g.constant(-1)), x),
    "the sum over n": lambda g, x: g.op("Sub", x, g.op("Div", _sum(g, x), g.constant(D))),
    "the sum times 1 / n": lambda g, x: g.op("Sub", x, g.op("Mul", g.constant(1 / D), _sum(g, x))),
    "the mean without its axis, unsqueezed": lambda g, x: g.op(
        "Sub", x, g.op("Unsqueeze", _mean(g, x, keepdims=0), axes_of(g, -1))
    ),
    "the mean, expanded": lambda g, x: g.op("Sub", x, g.op("Expand", _mean(g, x), g.op("Shape", x))),
}
_NOT_CENTERED = {
    "x plus its mean": lambda g, x: g.op("Add", x, _mean(g, x)),
    "x minus half its mean": lambda g, x: g.op("Sub", x, g.op("Div", _mean(g, x), g.constant(2))),
    "x minus its sum": lambda g, x: g.op("Sub", x, _sum(g, x)),
    "x minus another's mean": lambda g, x: g.op("Sub", x, _mean(g, g.op("Tanh", x))),
}

_FUSED: dict[Program, str] = {
    inverse_root_clipped_from_above: "the inverse root has an upper bound",
    least_of_three: "Min of the inverse root and two constants",
    mean_through_relu: "Relu of the mean",
    unit_length_over_its_share: "unit length over 1 / sqrt(n)",
    rows_contracted_behind_dots: "Einsum with an ellipsis",
    columns_contracted_behind_dots: "Einsum with an ellipsis, over another axis",
    sum_over_two_lengths: "a sum over the product of two unknown lengths",
    groups_gated_by_themselves: "x * silu(x) in groups",
}
_OPS = {groups_gated_by_themselves: PRE_GATED.name}
_LEFT_ALONE: dict[Program, tuple[Why, str]] = {
    inverse_root_clipped_from_below: (Why.NOT_A_MEAN, "the inverse root has a lower bound"),
    mean_bounded_from_above: (Why.NOT_A_MEAN, "Min of the mean and a constant"),
    unit_length_over_a_root: (Why.NOT_A_MEAN, "unit length over sqrt(n)"),
    sum_over_another_length_twice: (Why.NOT_A_MEAN, "a sum over two axes, over the square of one's length"),
    epsilon_over_the_length_too: (Why.NOT_A_MEAN, "epsilon is added to the sum, before an unknown n divides"),
    root_over_the_length: (Why.NOT_A_MEAN, "the 2-norm over an unknown n"),
    inverse_over_the_length: (Why.NOT_A_MEAN, "1 / sum, over an unknown n"),
    no_root: (Why.EXPONENT, "x over the mean square itself"),
    negative_before_abs: (Why.NOT_A_MEAN, "a negative number is added to the mean, then Abs"),
}
_STEPS = {
    "Abs": "its magnitude",
    "Relu": "its positive part",
    "Add": "a constant is added to its inverse",
    "Max": "its inverse is bounded",
}

WILD: tuple[Case, ...] = (
    *(case(p, shows, fuses={_OPS.get(p, RMS.name): 1}) for p, shows in _FUSED.items()),
    *(
        Case(f"difference-{shows.replace(' ', '-')}", partial(_layer_norm, d), shows, fuses={RMS.name: 1})
        for shows, d in _NOT_CENTERED.items()
    ),
    *(case(p, shows, why=why) for p, (why, shows) in _LEFT_ALONE.items()),
    *(
        Case(
            f"not-scaled-inverse-{step.lower()}",
            partial(_after_scaling, step),
            f"a scale times the inverse root, and then {shows}",
            why=Why.NOT_A_MEAN,
        )
        for step, shows in _STEPS.items()
    ),
    *(
        Case(
            f"not-layer-norm-{shows.replace(' / ', '/').replace(' ', '-').replace(',', '')}",
            partial(_layer_norm, centered),
            f"LayerNorm: {shows}",
            why=Why.MEAN_SUBTRACTED,
            precision=DType.FLOAT,
        )
        for shows, centered in _CENTERED.items()
    ),
)
