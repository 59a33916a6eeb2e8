"""Draws sentences: valid graphs only, so that whatever goes wrong is the pass's doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from onnx import TensorProto
from zoo.spelling import Shape, Spelling

from rmsnorm_onnx.spec import DType

from . import twists
from .dialect import HABITS
from .scopes import CLOSED, SURROUNDINGS, TWISTABLE
from .sentence import Sentence
from .twists import HARMLESS, NEAR

F16, F32, F64, BF16 = DType.FLOAT16, DType.FLOAT, DType.DOUBLE, DType.BFLOAT16
T = TypeVar("T")

#: Subgraph outputs of the writer are float32.
_FLOAT_ONLY = {"in_branch", "branch_reads_stages", "branch_finishes", "in_loop"}


_READS_INPUTS = {"input", "1+input", "overridable"}


class _Dice:
    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)

    def chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def one(self, options: Sequence[T], *more: tuple[bool, Sequence[T]]) -> T:
        """One of ``options`` and of those further ones whose condition holds."""
        pool = [*options, *(o for condition, extra in more if condition for o in extra)]
        return pool[int(self._rng.integers(len(pool)))]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        return [options[int(i)] for i in self._rng.permutation(len(options))[:count]]

    def often(self, usual: T, *others: T, probability: float = 0.6) -> T:
        """``usual`` mostly, else one of ``others``."""
        return usual if not others or self.chance(probability) else self.one(others)


def draw(seed: int) -> Sentence:
    """The sentence of this seed."""
    dice = _Dice(seed)
    name = dice.often("alone", *SURROUNDINGS, probability=0.2)
    while True:
        spelling = _spelling(dice, name)
        second = _second(dice, spelling)
        twist = _twist(dice, spelling, name)
        if _fits(name, spelling, twist):
            break
    habits = tuple(dice.some(HABITS, int(dice.one([0, 0, 1, 2, 4]))))
    if (
        "Clip" in (spelling.floor_kind, second.floor_kind)
        or spelling.keepdims == "dropped"
        or twist == "mean-clipped-above"
    ):
        habits = tuple(h for h in habits if h != "one-element")
    return Sentence(seed, name, spelling, second, twist, habits)


def _twist(dice: _Dice, s: Spelling, surrounding: str) -> str | None:
    if surrounding not in TWISTABLE or dice.chance(0.35):
        return None
    if dice.chance(0.35):
        return dice.one([name for name, twist in HARMLESS.items() if twist.fits(s)])
    if dice.chance(0.3):
        fitting = [name for name in twists.NEAR_SPELLINGS if twists.spelled_wrong(s, name) is not None]
        fitting = [n for n in fitting if surrounding not in CLOSED or not n.endswith(("input", "overridable"))]
        return dice.one(fitting) if fitting else None
    return dice.one([name for name, twist in NEAR.items() if twist.fits(s)])


#: Twists that fit by the shape of x, which a grouped norm changes.
_OF_THE_SHAPE = {*(n for n in NEAR if n.endswith(("swapped", "reversed", "rows"))), "mean-over-more", "mean-largest"}
_TAKES_INPUT = ("other", "added", "minus-mean")


def _fits(name: str, s: Spelling, twist: str | None) -> bool:
    if name in _FLOAT_ONLY and s.output_type is not F32:
        return False
    if name == "in_loop" and s.dtype is not F32:
        return False
    if name in CLOSED and (s.scale in _READS_INPUTS or (twist is not None and twist.endswith(_TAKES_INPUT))):
        return False
    if name == "unit_vectors":
        return s.dtype is not BF16 and not isinstance(s.shape[-1], str)
    if name == "grouped" and twist in _OF_THE_SHAPE:
        return False
    if name == "grouped":
        return not isinstance(s.shape[-1], str) and s.rank < 4 and not s.bias and s.axes == (-1,)
    if name in ("shared_root", "shared_quotient", "shared_mean", "gate_before_wide"):
        return s.scale_at == "normalized" and s.scale is not None and not isinstance(s.shape[-1], str)
    if name in ("scale_of_x", "residual_cast_shared"):
        return s.scale_at == "normalized"
    if name == "gate_before":
        return s.dtype is not BF16 or s.opset >= 13
    return True


def _opset(dice: _Dice, dtype: DType, stash: DType | None) -> int:
    low = 15 if BF16 in (dtype, stash) else 9  # Pow takes bfloat16 from 15 on
    return dice.often(18, 17, 21, 23, *range(low, 25), probability=0.3)


def _shape(dice: _Dice) -> Shape:
    rank = dice.one([1, 2, 2, 3, 3, 3, 4])
    lengths: list[int | str] = [dice.one([1, 2, 3, 4, 5, 6, 8]) for _ in range(rank)]
    if rank > 1 and dice.chance(0.25):
        lengths[-1] = lengths[-2]
    symbols = ["B", "S", "D"]
    for i in range(rank - 1):
        if dice.chance(0.3):
            lengths[i] = symbols[i % 3]
    if dice.chance(0.1):
        lengths[-1] = "D"
    return tuple(lengths)


def _axes(dice: _Dice, rank: int) -> tuple[int, ...] | None:
    if dice.chance(0.5):
        return (-1,)
    if dice.chance(0.1):
        return None
    chosen = dice.some(range(rank), dice.one([1, 1, 2, rank]))
    return tuple(a - rank if dice.chance(0.5) else a for a in chosen)


def _spelling(dice: _Dice, surrounding: str) -> Spelling:
    half = surrounding not in _FLOAT_ONLY or dice.chance(0.2)
    dtype = dice.one([F32, F32, F32], (half, [F16, BF16, F64]))
    stash = {F32: dice.often(None, F64, F32, probability=0.85), F64: None}.get(dtype, dice.often(F32, F64, None))
    opset = _opset(dice, dtype, stash)
    return _on(dice, dtype, stash, opset, _shape(dice))


def _second(dice: _Dice, s: Spelling) -> Spelling:
    """A spelling for values of the same shape and type."""
    stash = dice.often(s.stash, F32 if s.dtype is not F64 else None, probability=0.7)
    return _on(dice, s.dtype, stash, s.opset, s.shape)


def _on(dice: _Dice, dtype: DType, stash: DType | None, opset: int, shape: Shape) -> Spelling:
    fields: dict[str, Any] = {"opset": opset, "dtype": dtype, "stash": stash, "shape": shape}
    axes = _axes(dice, len(shape))
    fields["axes"] = axes
    base = Spelling(**fields)
    symbolic = any(isinstance(shape[a], str) for a in base.positive_axes)
    working = base.working
    fields |= _square(dice, base, symbolic)
    fields |= _statistic(dice, base, fields["square"])
    fields |= _root(dice, working, opset)
    if stash is not None:
        fields["cast_out"] = dice.one(["before-scale", "after-scale", "around-scale", "never"])
        fields["quotient_in"] = dice.often("stash", "model", probability=0.85)
    fields |= _scale(dice, Spelling(**fields), symbolic)
    if dice.chance(0.2):
        places = ["x", "squared", "mean", "root", "normalized", *(["scale"] if fields["scale"] else [])]
        fields["inserted"] = tuple(f"{dice.one(['Identity', 'Dropout'])}@{p}" for p in dice.some(places, 2))
    return Spelling(**fields)


def _square(dice: _Dice, s: Spelling, symbolic: bool) -> dict[str, Any]:
    square = dice.often("pow", "mul", "abs-pow", "abs-mul", "ReduceSumSquare", "ReduceL2", probability=0.4)
    fields: dict[str, Any] = {"square": square}
    wide = s.opset >= 12
    fields["power_kind"] = dice.one(
        ["initializer", "constant"],
        (wide and s.working is F32, ["value"]),
        (True, ["cast-double"]),
        (s.opset >= 15, ["castlike"]),
    )
    if wide and fields["power_kind"] in ("initializer", "constant") and dice.chance(0.3):
        fields["power_type"] = dice.one([TensorProto.INT64, TensorProto.INT32, F32, F64])
    if fields["power_kind"] in ("initializer", "constant"):
        fields["power_shape"] = dice.often((), (1,), (1,) * s.rank)
    return fields


def _statistic(dice: _Dice, s: Spelling, square: str) -> dict[str, Any]:
    trailing = s.positive_axes == tuple(range(s.rank - len(s.positive_axes), s.rank))
    leading = s.positive_axes == tuple(range(len(s.positive_axes)))
    symbolic = any(isinstance(s.shape[a], str) for a in s.positive_axes)
    pools = s.rank >= 3 and s.positive_axes == tuple(range(2, s.rank)) and s.working is not BF16
    sums = ["sum/Shape"] if symbolic else ["sum/n", "sum*(1/n)", "(1/n)*sum", "sum/Shape"]
    needs_sum = square in ("ReduceSumSquare", "ReduceL2")
    mean = dice.one(sums) if needs_sum else dice.often("ReduceMean", *sums, *(["GlobalAveragePool"] * pools))
    kinds = ["kept"] * 4 + ["unsqueezed"] + ["reshaped"] * trailing + ["dropped"] * leading
    keepdims = "kept" if mean == "GlobalAveragePool" else dice.one(kinds)
    kind = dice.often("initializer", "constant", "computed")
    return {"mean": mean, "keepdims": keepdims, "axes_kind": kind}


def _root(dice: _Dice, working: DType, opset: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    # Powers of two where a float64 graph could otherwise say what float32 attributes cannot.
    small = (2.0**-8, 2.0**-10) if working is F64 else (1e-3, 2.0**-8)
    if dice.chance(0.15):
        fields["floor"] = dice.one(small)
        fields["floor_kind"] = dice.one(["Max", "Max-left"], (opset >= 12, ["Clip"]))
    fields["epsilon"] = dice.often(1e-5, 1e-6, 1e-3, 0.5, 1e-12, 0.0, None, probability=0.4)
    if dice.chance(0.12):
        fields["epsilon_outside"] = dice.one(small)
    fields["epsilon_side"] = dice.one(["right", "left"])
    fields["epsilon_kind"] = dice.one(
        ["initializer", "constant", "cast-float", "cast-double"],
        (opset >= 12 and working is F32, ["value"]),
        (opset >= 15, ["castlike"]),
    )
    fields["root"] = dice.often("Sqrt", "pow", probability=0.75)
    fields["quotient"] = dice.one(["div", "reciprocal", "1/root", "root^-1", "pow-0.5", "1/pow"])
    fields["quotient_side"] = dice.one(["right", "left"])
    return fields


def _scale(dice: _Dice, s: Spelling, symbolic: bool) -> dict[str, Any]:
    kinds = [
        "constant", "overridable", "input", "1+input", "1+w", "w+1", "w*g", "identity", "squeezed", "reshaped",
        "transposed", "unsqueezed", "expanded",
    ]  # fmt: skip
    scale = dice.often("initializer", *kinds, None, probability=0.4)
    fields: dict[str, Any] = {"scale": scale, "scale_side": dice.one(["right", "left"])}
    first = s.positive_axes[0]
    shapes: list[tuple[int, ...] | None] = [(), (1,), (1,) * s.rank]
    if not any(isinstance(d, str) for d in s.shape[first:]):
        shapes += [None, None, None, None]
    if not isinstance(s.shape[-1], str):
        shapes += [s.concrete[-1:], s.concrete[-1:], (1,) * (s.rank - 1) + s.concrete[-1:]]
    if not any(isinstance(d, str) for d in s.shape):
        shapes += [s.concrete]
    shape = dice.one(shapes)
    if scale in ("unsqueezed", "expanded"):
        shape = s.concrete[-1:] if s.rank > 1 and not isinstance(s.shape[-1], str) else ()
        fields["scale"] = scale if shape or s.rank > 0 else "initializer"
    fields["scale_shape"] = shape
    if scale == "transposed" and shape == ():
        fields["scale"] = "initializer"
    if dice.chance(0.2):
        fields["scale_type"] = dice.one([F16, F32, F64], (s.opset >= 13, [BF16]))
    movable = s.stash is None and scale is not None
    # A fed factor of x's full shape is another activation, and only behind the quotient no hindrance.
    movable &= scale not in _READS_INPUTS or shape in ((), (1,))
    fields["scale_at"] = dice.often("normalized", *(["x"] if movable else []), probability=0.8)
    if movable and s.quotient != "div" and s.keepdims == "kept" and dice.chance(0.2):
        fields["scale_at"] = "root"
    fields["bias"] = dice.chance(0.1) and not isinstance(s.shape[-1], str)
    return fields
