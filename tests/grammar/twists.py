"""Changes to one stage of a norm: harmless ones, and ones after which it is no RMS norm any more.

A twist gets the value a stage has made and returns the value to go on with. After those in `HARMLESS` it is still an
RMS norm, which the pass must fuse; after those in `NEAR` it is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from onnx import TensorProto
from zoo.emit import with_axes
from zoo.spelling import Spelling
from zoo.tape import Value

from rmsnorm_onnx.spec import DType

from .dialect import Dialect

Stage = Literal["x", "squared", "mean", "root", "numerator", "normalized", "y"]
Change = Callable[[Dialect, Value, Value, Spelling], Value]
"""(writer, the stage's value, the lifted x, spelling) -> the value to use instead."""


def always(s: Spelling) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Twist:
    """One change; ``fits`` tells to which spellings it can be applied."""

    stage: Stage
    change: Change
    fits: Callable[[Spelling], bool] = always


def apply(twist: Twist | None, stage: Stage, g: Dialect, value: Value, x: Value, s: Spelling) -> Value:
    """``value``, changed if ``twist`` is about this stage."""
    return twist.change(g, value, x, s) if twist is not None and twist.stage == stage else value


def norm(g: Dialect, x: Value, s: Spelling, twist: Twist | None = None, scale: Value | None = None) -> Value:
    """Write a whole norm of ``x``, with ``twist``."""
    if twist is None:
        return g.norm(x, s, scale)
    x = apply(twist, "x", g, x, x, s)
    lifted = g.lift(x, s)
    mean = g.mean_square(apply(twist, "squared", g, lifted, lifted, s), s)
    root = g.root(apply(twist, "mean", g, mean, lifted, s), s)
    root = apply(twist, "root", g, root, lifted, s)
    numerator = lifted
    if twist.stage == "numerator":
        numerator = twist.change(g, lifted, lifted, s)
        numerator = g.cast(numerator, s.dtype) if s.quotient_in == "model" else numerator
    elif s.quotient_in == "model":
        numerator = x
    if s.quotient_in == "model":
        root = g.cast(root, s.dtype)
    normalized = apply(twist, "normalized", g, g.normalized(numerator, root, s), lifted, s)
    return apply(twist, "y", g, g.scaled(normalized, s, scale), lifted, s)


def _const(g: Dialect, number: Any, s: Spelling) -> Value:
    return g.number(number, s.working)


def _result_type(s: Spelling) -> DType:
    return s.dtype if s.quotient_in == "model" else s.working


def _mean(g: Dialect, value: Value, s: Spelling) -> Value:
    return with_axes(g, "ReduceMean", value, s.axes)


def _other(g: Dialect, s: Spelling) -> Value:
    """Another input of the shape of x, lifted as x is."""
    return g.lift(g.input("z", s.shape, s.dtype), s)


def _full_rank(s: Spelling) -> bool:
    return s.keepdims != "dropped"


def _inner(s: Spelling) -> bool:
    """Whether the statistic keeps an axis longer than one."""
    kept = [a for a in range(s.rank) if a not in s.positive_axes]
    return _full_rank(s) and any(s.concrete[a] > 1 for a in kept)


def _square_shape(s: Spelling) -> bool:
    return s.rank >= 2 and s.concrete[-1] == s.concrete[-2] > 1 and s.shape[-1] == s.shape[-2]


def _swapped(g: Dialect, value: Value, s: Spelling) -> Value:
    return g.op("Transpose", value, perm=[*range(s.rank - 2), s.rank - 1, s.rank - 2])


def _there_and_back(g: Dialect, value: Value) -> Value:
    return with_axes(g, "Squeeze", with_axes(g, "Unsqueeze", value, [0]), [0])


def _rounded(g: Dialect, value: Value, s: Spelling) -> Value:
    return g.cast(g.cast(value, DType.FLOAT16), s.working)


def _reversed(g: Dialect, value: Value) -> Value:
    bounds = ([-1], [-(2**31)], [-1], [-1])
    return g.op("Slice", value, *(g.constant(b, TensorProto.INT64) for b in bounds))


def _expanded(g: Dialect, value: Value, x: Value) -> Value:
    return g.op("Expand", value, g.op("Shape", x))


def _wide(s: Spelling) -> bool:
    return s.working in (DType.FLOAT, DType.DOUBLE)


def _ranked(s: Spelling) -> bool:
    return s.opset >= 11 and s.concrete[-1] > 1


def _with(g: Dialect, v: Value, s: Spelling, number: float, op: str = "Mul") -> Value:
    return g.op(op, v, _const(g, number, s))


#: Still a norm.
HARMLESS: dict[str, Twist] = {
    "x-identity": Twist("x", lambda g, v, x, s: g.op("Identity", v)),
    "x-same-cast": Twist("x", lambda g, v, x, s: g.cast(v, s.dtype)),
    "x-abs": Twist("x", lambda g, v, x, s: g.op("Abs", v)),
    "x-neg": Twist("x", lambda g, v, x, s: g.op("Neg", v)),
    "x-minus-mean": Twist("x", lambda g, v, x, s: g.op("Sub", v, _other_mean(g, s)), fits=_full_rank),
    "squared-identity": Twist("squared", lambda g, v, x, s: g.op("Identity", v)),
    "squared-neg": Twist("squared", lambda g, v, x, s: g.op("Neg", v)),
    "squared-abs": Twist("squared", lambda g, v, x, s: g.op("Abs", v)),
    "mean-times-1": Twist("mean", lambda g, v, x, s: _with(g, v, s, 1)),
    "mean-plus-0": Twist("mean", lambda g, v, x, s: _with(g, v, s, 0, "Add")),
    "mean-minus-negative": Twist("mean", lambda g, v, x, s: _with(g, v, s, -(2**-10), "Sub")),
    "mean-two-epsilons": Twist("mean", lambda g, v, x, s: _with(g, _with(g, v, s, 2**-11, "Add"), s, 2**-11, "Add")),
    "mean-abs": Twist("mean", lambda g, v, x, s: g.op("Abs", v)),
    "mean-max-0": Twist("mean", lambda g, v, x, s: _with(g, v, s, 0, "Max")),
    "mean-there-and-back": Twist("mean", lambda g, v, x, s: _there_and_back(g, v)),
    "mean-expanded": Twist("mean", lambda g, v, x, s: _expanded(g, v, x), fits=_full_rank),
    "mean-half-double": Twist("mean", lambda g, v, x, s: _with(g, _with(g, v, s, 0.25), s, 4.0)),
    "root-times-1": Twist("root", lambda g, v, x, s: _with(g, v, s, 1)),
    "root-over-1": Twist("root", lambda g, v, x, s: _with(g, v, s, 1, "Div")),
    "root-there-and-back": Twist("root", lambda g, v, x, s: _there_and_back(g, v)),
    "root-squared-root": Twist(
        "root",
        lambda g, v, x, s: g.op("Sqrt", g.op("Mul", v, v)),
        fits=lambda s: s.epsilon_outside is None and s.quotient not in ("pow-0.5", "1/pow"),
    ),
    "root-expanded": Twist("root", lambda g, v, x, s: _expanded(g, v, x), fits=_full_rank),
    "root-same-cast": Twist("root", lambda g, v, x, s: g.cast(v, s.working)),
    "numerator-identity": Twist("numerator", lambda g, v, x, s: g.op("Identity", v)),
    "numerator-neg-neg": Twist("numerator", lambda g, v, x, s: g.op("Neg", g.op("Neg", v))),
    "normalized-times-1": Twist("normalized", lambda g, v, x, s: g.op("Mul", v, g.number(1, _result_type(s)))),
    "normalized-there-and-back": Twist("normalized", lambda g, v, x, s: _there_and_back(g, v)),
    "y-neg": Twist("y", lambda g, v, x, s: g.op("Neg", v)),
    "y-times-3": Twist("y", lambda g, v, x, s: g.op("Mul", v, g.number(3, s.output_type))),
    "y-times-weight": Twist("y", lambda g, v, x, s: g.op("Mul", v, g.weight("late", s.concrete[-1:], s.output_type))),
    "y-times-x": Twist("y", lambda g, v, x, s: g.op("Mul", v, g.cast(x, s.output_type))),
    "y-times-statistic": Twist(
        "y",
        lambda g, v, x, s: g.op("Mul", v, g.cast(_mean(g, g.op("Mul", x, x), s), s.output_type)),
        fits=_full_rank,
    ),
}


def _other_mean(g: Dialect, s: Spelling) -> Value:
    """The mean of another value: subtracting it does not make a LayerNorm."""
    return _mean(g, g.input("z", s.shape, s.dtype), s)


#: Not a norm of anything, or a norm times something that the operators cannot say.
NEAR: dict[str, Twist] = {
    "x-centered": Twist("x", lambda g, v, x, s: g.op("Sub", v, _mean(g, v, s)), fits=lambda s: s.reduced > 1),
    "squared-centered": Twist("squared", lambda g, v, x, s: g.op("Sub", v, _mean(g, v, s))),
    "squared-other": Twist("squared", lambda g, v, x, s: _other(g, s)),
    "squared-relu": Twist("squared", lambda g, v, x, s: g.op("Relu", v)),
    "squared-scaled": Twist("squared", lambda g, v, x, s: _with(g, v, s, 1.5)),
    "squared-weighted": Twist(
        "squared", lambda g, v, x, s: g.op("Mul", v, g.weight("weights", s.concrete[-1:], s.working))
    ),
    "squared-shifted": Twist("squared", lambda g, v, x, s: _with(g, v, s, 0.125, "Add")),
    "squared-added": Twist("squared", lambda g, v, x, s: g.op("Add", v, _other(g, s))),
    "squared-rounded": Twist("squared", lambda g, v, x, s: _rounded(g, v, s), fits=lambda s: s.dtype is DType.FLOAT),
    "squared-swapped": Twist("squared", lambda g, v, x, s: _swapped(g, v, s), fits=_square_shape),
    "squared-tanh": Twist("squared", lambda g, v, x, s: g.op("Tanh", v)),
    "mean-no-op": Twist("mean", lambda g, v, x, s: g.op("Mul", v, v)),
    "mean-root": Twist("mean", lambda g, v, x, s: g.op("Sqrt", v)),
    "mean-negative-epsilon": Twist("mean", lambda g, v, x, s: _with(g, v, s, -1.0, "Add")),
    "mean-subtracted": Twist("mean", lambda g, v, x, s: g.op("Sub", _const(g, 0.5, s), v)),
    "mean-times-3": Twist("mean", lambda g, v, x, s: _with(g, v, s, 3)),
    "mean-times-0": Twist("mean", lambda g, v, x, s: _with(g, v, s, 0)),
    "mean-times-minus-1": Twist("mean", lambda g, v, x, s: _with(g, v, s, -1)),
    "mean-at-most": Twist("mean", lambda g, v, x, s: _with(g, v, s, 0.5, "Min")),
    "mean-clipped-above": Twist(
        "mean",
        lambda g, v, x, s: g.op("Clip", v, _const(g, 0.01, s), _const(g, 0.5, s)),
        fits=lambda s: s.opset >= 12,
    ),
    "mean-floor-of-other": Twist(
        "mean",
        lambda g, v, x, s: g.op("Max", v, _mean(g, g.op("Abs", _other(g, s)), s)),
        fits=lambda s: _full_rank(s) and (s.dtype is not DType.BFLOAT16 or s.opset >= 13),
    ),
    "mean-epsilon-of-other": Twist(
        "mean", lambda g, v, x, s: g.op("Add", v, _mean(g, g.op("Abs", _other(g, s)), s)), fits=_full_rank
    ),
    "mean-epsilon-of-x": Twist("mean", lambda g, v, x, s: g.op("Add", v, _mean(g, g.op("Abs", x), s)), fits=_full_rank),
    "mean-epsilon-itself": Twist("mean", lambda g, v, x, s: g.op("Add", v, v)),
    "mean-epsilon-rows": Twist(
        "mean",
        lambda g, v, x, s: g.op("Add", v, g.weight("epsilons", _row_shape(s), s.working)),
        fits=_inner,
    ),
    "mean-swapped": Twist("mean", lambda g, v, x, s: _swapped(g, v, s), fits=lambda s: _square_shape(s) and _inner(s)),
    "mean-reversed": Twist(
        "mean",
        lambda g, v, x, s: _reversed(g, v),
        fits=lambda s: _ranked(s) and _full_rank(s) and s.rank - 1 not in s.positive_axes,
    ),
    "mean-over-more": Twist("mean", lambda g, v, x, s: with_axes(g, "ReduceMean", v, list(range(s.rank))), fits=_inner),
    "mean-largest": Twist("mean", lambda g, v, x, s: with_axes(g, "ReduceMax", v, list(range(s.rank))), fits=_inner),
    "root-missing": Twist("root", lambda g, v, x, s: g.op("Mul", v, v), fits=lambda s: s.epsilon_outside is None),
    "root-twice": Twist("root", lambda g, v, x, s: g.op("Sqrt", v)),
    "root-inverted": Twist("root", lambda g, v, x, s: g.op("Reciprocal", v)),
    "root-doubled": Twist("root", lambda g, v, x, s: _with(g, v, s, 2)),
    "root-negative-outside": Twist("root", lambda g, v, x, s: _with(g, v, s, -0.25, "Add")),
    "root-of-other-added": Twist(
        "root", lambda g, v, x, s: g.op("Add", v, _mean(g, g.op("Abs", _other(g, s)), s)), fits=_full_rank
    ),
    "root-clipped-above": Twist("root", lambda g, v, x, s: _with(g, v, s, 0.5, "Min")),
    "root-rounded": Twist("root", lambda g, v, x, s: _rounded(g, v, s), fits=_wide),
    "numerator-other": Twist("numerator", lambda g, v, x, s: _other(g, s)),
    "numerator-abs": Twist("numerator", lambda g, v, x, s: g.op("Abs", v)),
    "numerator-neg": Twist("numerator", lambda g, v, x, s: g.op("Neg", v)),
    "numerator-relu": Twist("numerator", lambda g, v, x, s: g.op("Relu", v)),
    "numerator-one": Twist("numerator", lambda g, v, x, s: _with(g, g.op("Mul", v, _const(g, 0, s)), s, 1, "Add")),
    "numerator-added": Twist("numerator", lambda g, v, x, s: g.op("Add", v, _other(g, s))),
    "numerator-centered": Twist("numerator", lambda g, v, x, s: g.op("Sub", v, _mean(g, v, s))),
    "numerator-squared": Twist("numerator", lambda g, v, x, s: g.op("Mul", v, v)),
    "numerator-times-other": Twist("numerator", lambda g, v, x, s: g.op("Mul", v, _other(g, s))),
    "numerator-doubled": Twist("numerator", lambda g, v, x, s: _with(g, v, s, 2)),
    "numerator-rounded": Twist(
        "numerator", lambda g, v, x, s: _rounded(g, v, s), fits=lambda s: s.dtype is DType.FLOAT
    ),
    "numerator-swapped": Twist("numerator", lambda g, v, x, s: _swapped(g, v, s), fits=_square_shape),
    "numerator-reversed": Twist("numerator", lambda g, v, x, s: _reversed(g, v), fits=_ranked),
}

#: Near ones whose numerator is x times something: the quotient of x and the root may be a norm all the same.
MAY_FUSE = frozenset({"numerator-doubled", "numerator-times-other"})

#: Near ones in which square, mean, root and quotient do not follow each other any more: nothing to explain.
SHAPELESS = frozenset({"root-missing", "root-inverted", "root-power-1", "mean-no-op"})


def _row_shape(s: Spelling) -> tuple[int, ...]:
    return tuple(1 if a in s.positive_axes else s.concrete[a] for a in range(s.rank))


def spelled_wrong(s: Spelling, name: str) -> Spelling | None:
    """One field changed so that it is no RMS norm any more; None where that does not fit."""
    change = _WRONG[name]
    changed = change(s)
    return changed if changed != s else None


def _if(condition: bool, s: Spelling, **fields: Any) -> Spelling:
    return replace(s, **fields) if condition else s


def _has_power(s: Spelling) -> bool:
    return s.square.endswith("pow")


def _countable(s: Spelling) -> bool:
    return s.reduced > 1 and not any(isinstance(s.shape[a], str) for a in s.positive_axes)


_SUMS = ("sum/n", "sum*(1/n)", "(1/n)*sum")
_WRONG: dict[str, Callable[[Spelling], Spelling]] = {
    "power-3": lambda s: _if(_has_power(s), s, power=3.0),
    "power-1": lambda s: _if(s.square == "abs-pow", s, power=1.0),
    "power-minus-2": lambda s: _if(_has_power(s), s, power=-2.0),
    "power-2.5": lambda s: _if(_has_power(s) and s.power_type is None, s, power=2.5),
    "power-4": lambda s: _if(_has_power(s), s, power=4.0),
    "power-overridable": lambda s: _if(_has_power(s), s, power_kind="overridable", power_type=None),
    "power-input": lambda s: _if(_has_power(s), s, power_kind="input", power_type=None),
    "root-power-0.75": lambda s: _if(s.root == "pow" or s.quotient in ("pow-0.5", "1/pow"), s, root_power=0.75),
    "root-power-1": lambda s: _if(s.root == "pow" or s.quotient in ("pow-0.5", "1/pow"), s, root_power=1.0),
    "sum": lambda s: _if(s.reduced > 1, s, mean="sum"),
    "count-less": lambda s: _if(s.mean in _SUMS and _countable(s), s, count=max(1, s.reduced - 1)),
    "count-more": lambda s: _if(s.mean in _SUMS and _countable(s), s, count=s.reduced * 2),
    "epsilon-overridable": lambda s: _if(s.epsilon is not None, s, epsilon_kind="overridable"),
    "epsilon-input": lambda s: _if(s.epsilon is not None, s, epsilon_kind="input"),
    "epsilon-vector": lambda s: _if(
        bool(s.epsilon) and s.concrete[-1] > 1 and s.keepdims != "dropped" and s.epsilon_kind not in ("value",),
        s,
        epsilon_shape=s.concrete[-1:],
    ),
    "epsilon-negative": lambda s: _if(True, s, epsilon=-0.25),
    "axes-input": lambda s: _if(
        s.opset >= 18 and s.axes is not None and len(s.axes) == 1 and s.mean != "GlobalAveragePool",
        s,
        axes_kind="input",
    ),
}
NEAR_SPELLINGS = tuple(_WRONG)
