"""How much of a graph's result hangs on scalar constants that are not exactly the number that was meant.

A float32 scalar such as sqrt(d) or 1 / d is the rounding of that number, so a rewriter that recognizes the number and
computes with it is right, although the float64 readings of both graphs then differ by that rounding: by half an ulp.
In 16 bits half an ulp would hide too much (any constant is within 0.4 % of something). There, and where float32
holds what was rounded to 16 bits before, a constant has slack only if it is the rounding of n, 1 / n, sqrt(n) or
1 / sqrt(n) of a length n that the graph itself has, and then by the distance to exactly that number. Weights that a
graph multiplies by such a scalar, which every runtime folds, stand for the unrounded product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import reference
from rmsnorm_onnx.runtime.constants import FACTORS_OF
from rmsnorm_onnx.runtime.islands import put_first, substitute
from rmsnorm_onnx.runtime.types import const_tensor, nodes_of, set_type
from rmsnorm_onnx.runtime.widen import ORIGINAL_TYPE, widen_to_float64

Doubles = npt.NDArray[np.float64]

#: The extra input: one sign per constant.
SIGNS: Final = "constant_signs"
#: Float64 runs that constants standing for known numbers are worth.
_MOST_RUNS: Final = 32
#: Runs that constants of unknown meaning get, however few roundings are sampled.
_FEWEST_RUNS: Final = 8
_FLOAT_ROUNDOFF: Final = 2.0**-24
_HALVES: Final = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_SINGLES: Final = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
#: More elements than a column of 1 / n has where the matcher reads it; keeps weights unread.
_SMALL: Final = 1024
#: What a mean of n, or the length of n numbers, is multiplied by.
_POWERS: Final = (1.0, -1.0, 0.5, -0.5)


@dataclass(frozen=True, slots=True)
class SlackModel:
    """A float64 graph whose constants an input shifts.

    Attributes:
        model: takes the original's inputs (floats as float64) and ``SIGNS``, float64 of shape [constants]: 1 moves a
            constant by its shift, -1 the other way, 0 leaves it.
        is_known: of each constant whether its shift leads to what was meant, or else is half an ulp.
    """

    model: ir.Model
    is_known: tuple[bool, ...]

    def rounding_signs(self, count: int, generator: np.random.Generator) -> Doubles:
        """[runs, constants]: every constant of unknown meaning half an ulp up or down.

        At random in ``count`` runs, but at least eight: of two constants with equal effects the signs cancel in every
        one of two runs in a quarter of cases.
        """
        return self._signs(False, max(count, _FEWEST_RUNS), generator)

    def meaning_signs(self, generator: np.random.Generator) -> Doubles:
        """[runs, constants]: every constant of known meaning moved towards it, in the first run, or away."""
        return self._signs(True, _MOST_RUNS, generator)

    def _signs(self, is_known: bool, most_runs: int, generator: np.random.Generator) -> Doubles:
        """Signs of the constants of one kind, 0 for the others.

        As many constants as runs or fewer: the columns of a Hadamard matrix, so that with a_j the effect of constant j
        the mean square of the runs' effects is the sum of a_j^2, whatever the a_j: few large effects must not be left
        to chance. Beyond, the signs are random.
        """
        moved = np.flatnonzero(np.asarray(self.is_known) == is_known)
        runs = min(1 << (len(moved) - 1).bit_length(), most_runs)
        signs = np.zeros((runs, len(self.is_known)))
        if len(moved) > runs:
            signs[:, moved] = generator.choice([-1.0, 1.0], (runs, len(moved)))
            signs[0, moved] = 1.0
        else:
            signs[:, moved] = [[(-1.0) ** (i & j).bit_count() for j in range(len(moved))] for i in range(runs)]
        return signs


def with_constant_slack(model: ir.Model) -> SlackModel:
    """The float64 reading of ``model`` with a shift at each constant that may stand for another number.

    Short numbers (2, 0.5, 1000: at most half the bits of the significand in use) are what they say.

    Raises:
        InvalidInput: functions cannot be inlined.
    """
    copy = widen_to_float64(model)
    signs = ir.Value(name=SIGNS, type=ir.TensorType(ir.DataType.DOUBLE))
    values = [output for node in nodes_of(copy) for output in node.outputs]
    for graph in copy.graphs():
        values += graph.initializers.values()
    lengths = _lengths(copy, values)
    shifts = {value: shift for value in values if (shift := _shift(value, lengths)) is not None}
    for index, (value, shift) in enumerate(shifts.items()):
        _move(value, shift.relative, signs, index)
    signs.shape = ir.Shape([len(shifts)])
    copy.graph.inputs.append(signs)
    return SlackModel(copy, tuple(shift.is_known for shift in shifts.values()))


@dataclass(frozen=True, slots=True)
class _Shift:
    """How far a constant may be off: ``relative`` broadcasts to it."""

    relative: Doubles
    is_known: bool


def _shift(value: ir.Value, lengths: frozenset[int]) -> _Shift | None:
    """The shift of a constant; None for what is no constant, or exact."""
    dtype = value.meta.get(ORIGINAL_TYPE)
    if value.is_graph_input() or dtype not in _HALVES | _SINGLES:
        return None
    if FACTORS_OF in value.meta:
        return _shift_of_product(value, lengths)
    tensor: Any = const_tensor(value)
    number = _number(tensor)
    if number is None or not math.isfinite(number) or number == 0:
        return None
    meant = _meant(number, lengths)
    if meant is None and math.prod(tensor.shape.numpy()) != 1:
        return None  # weights that happen to be equal
    distance = (meant or number) / number - 1
    if abs(distance) > 2 * _FLOAT_ROUNDOFF:
        # A draw that shifts the other way counts too. Constants enter as powers p, |p| <= 2, and (1 - x)^p - 1 is
        # up to |p - 1| x smaller than (1 + x)^p - 1: second order, but there is nothing else to cover it.
        return _Shift(np.asarray(distance * (1 + 3 * abs(distance))), is_known=True)
    roundoff = reference.roundoff(dtype.numpy())
    bits = -math.log2(roundoff)
    is_short = (math.frexp(number)[0] * 2.0 ** (bits // 2)).is_integer()
    return None if dtype in _HALVES or is_short else _Shift(np.asarray(roundoff), is_known=False)


def _number(tensor: Any) -> float | None:
    """The number that every element is: a column of 1 / n sums as ReduceMean does."""
    if tensor is None or not 0 < math.prod(tensor.shape.numpy()) <= _SMALL:
        return None
    numbers = np.unique(tensor.numpy().astype(np.float64))
    return float(numbers[0]) if len(numbers) == 1 else None


def _shift_of_product(value: ir.Value, lengths: frozenset[int]) -> _Shift | None:
    """Of weights times a folded scalar that stands for another number: the distance to their unrounded product."""
    operator, *factors = value.meta[FACTORS_OF]
    wide = [np.asarray(factor).astype(np.float64) for factor in factors]
    meanings = [_meant(float(f.reshape(())), lengths) if f.size == 1 else None for f in wide]
    if meanings == [None, None]:
        return None
    read = [f if meaning is None else np.asarray(meaning) for f, meaning in zip(wide, meanings, strict=True)]
    tensor: Any = const_tensor(value)
    folded = tensor.numpy().astype(np.float64)
    with np.errstate(all="ignore"):
        relative = (read[0] * read[1] if operator == "Mul" else read[0] / read[1]) / folded - 1
    relative = np.where(np.isfinite(relative) & np.isfinite(folded), relative, 0.0).reshape(folded.shape)
    # One margin for all weights: sums of them must not cancel otherwise than they do.
    margin = 1 + 3 * float(np.max(np.abs(relative), initial=0.0))
    return _Shift(relative * margin, is_known=True) if relative.any() else None


def _meant(number: float, lengths: Iterable[int]) -> float | None:
    """The power of a length that ``number`` holds, rounded to 16 bits or float32; None if there is none."""
    exact = [n**power for n in lengths for power in _POWERS]
    found = [e for e in exact if abs(number - e) <= 2 * _FLOAT_ROUNDOFF * e or reference.is_rounded(number, e)]
    return max(found, key=lambda e: abs(e / number - 1), default=None)


def _lengths(model: ir.Model, values: list[ir.Value]) -> frozenset[int]:
    """Every known length of an axis, and of neighbouring axes together where something is reduced."""
    shapes = [[dim for dim in value.shape if isinstance(dim, int)] for value in values if value.shape is not None]
    lengths = {length for shape in shapes for length in shape}
    for node in nodes_of(model):
        if not node.op_type.startswith("Reduce") or node.inputs[0] is None or node.inputs[0].shape is None:
            continue
        dims = [dim if isinstance(dim, int) else 0 for dim in node.inputs[0].shape]
        lengths |= {math.prod(dims[i:j]) for i in range(len(dims)) for j in range(i + 1, len(dims) + 1)}
    return frozenset(length for length in lengths if length > 1)


def _move(value: ir.Value, relative: Doubles, signs: ir.Value, index: int) -> None:
    """Put ``value + value * (sign * relative)`` in the place of ``value``."""
    position = ir.node("Constant", [], {"value": ir.tensor(np.asarray(index, dtype=np.int64))})
    sign = ir.node("Gather", [signs, position.outputs[0]], {"axis": 0})
    step = ir.node("Constant", [], {"value": ir.tensor(relative)})
    signed = ir.node("Mul", [sign.outputs[0], step.outputs[0]])
    shift = ir.node("Mul", [value, signed.outputs[0]])
    moved = ir.node("Add", [value, shift.outputs[0]])
    new = [position, sign, step, signed, shift, moved]
    for part, node in enumerate(new):
        node.outputs[0].name = f"{value.name}_slack{part}"
        set_type(node.outputs[0], ir.DataType.INT64 if node is position else ir.DataType.DOUBLE)
    producer = value.producer()
    if producer is not None:
        assert producer.graph is not None
        substitute(value, moved.outputs[0])
        for node in (shift, moved):
            node.replace_input_with(0, value)
        producer.graph.insert_after(producer, new)
        return
    uses = list(value.uses())
    for user, place in uses:
        if user is not moved and user is not shift:
            user.replace_input_with(place, moved.outputs[0])
    graph = value.graph
    assert isinstance(graph, ir.Graph)
    put_first(graph, new)
