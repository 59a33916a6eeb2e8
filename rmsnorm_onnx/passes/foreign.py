"""The norm operators of ONNX and onnxruntime: what they can say is less than what a match holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import Match
from rmsnorm_onnx.matcher.context import CASTS, widens
from rmsnorm_onnx.matcher.facts import Facts
from rmsnorm_onnx.matcher.known import Dim
from rmsnorm_onnx.matcher.match import Operand, Reshaped
from rmsnorm_onnx.passes.operators import Operator
from rmsnorm_onnx.spec import DType

#: 64 MB of float32; the widest models today have axes of 2^15.
_MOST_ONES: Final = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignOperator(Operator):
    """An operator with one epsilon, the last axes, and one type for X, gate and scale.

    Attributes:
        types: element types it takes.
        without_kernel: those of them that onnxruntime has no CPU kernel for: taken only where the graph computes in
            them today, so that no model stops to load.
        rounds_before_scale: whether the normalized value is rounded to X's type before it is scaled.
        one_axis: whether only the last axis can be reduced; it then has no attribute ``axis``, and the scale rank 1.
        any_scale: whether every scale that broadcasts to X is allowed; if not, it has the shape of the reduced axes,
            perhaps with ones in front.
        ranks: numbers of axes that X may have; empty means any.
        known_length: whether the reduced lengths of X have to be known.
        fixed: further attributes, always the same.
        writes_stash_type: whether there is an attribute for the type of the statistics.
    """

    types: frozenset[DType]
    without_kernel: frozenset[DType] = frozenset()
    rounds_before_scale: bool = False
    one_axis: bool = False
    any_scale: bool = False
    ranks: frozenset[int] = frozenset()
    known_length: bool = False
    fixed: tuple[tuple[str, str], ...] = ()
    writes_stash_type: bool = False

    def refusal(self, match: Match, facts: Facts) -> str | None:
        """The first thing that the operator has no word for."""
        complaints = (
            *self._about_formula(match),
            *self._about_types(match, facts),
            *self._about_shapes(match, facts),
        )
        return f"{self.op_type} {complaints[0]}" if complaints else None

    def attributes(self, match: Match) -> list[ir.Attr]:
        """Epsilon and, where the operator has them, axis, stash type and what is always the same."""
        values: dict[str, int | float | str] = {"epsilon": spec.float32_pair(match.epsilon)[0], **dict(self.fixed)}
        if not self.one_axis:
            values["axis"] = -len(match.axes)
        if self.writes_stash_type:
            values["stash_type"] = int(match.stash_type)
        return ir.convenience.convert_attributes(values)

    def ones_shape(self, match: Match, facts: Facts) -> tuple[int, ...]:
        """The lengths of the reduced axes; one element where they are not known and that is allowed."""
        return _reduced_lengths(match, facts) or (1,)

    def converts_scale(self, match: Match, facts: Facts) -> bool:
        """A narrower scale is cast, which is exact."""
        scale = _scale(match)
        return scale is not None and _type(scale, facts) is not match.dtype

    def _about_formula(self, match: Match) -> Iterator[str]:
        if sorted(match.axes) != list(range(-len(match.axes), 0)):
            yield f"reduces the last axes, not {list(match.axes)}"
        elif self.one_axis and len(match.axes) > 1:
            yield f"reduces the last axis only, not {list(match.axes)}"
        if isinstance(match.inputs[-1], float):
            yield f"takes a scale of X's type, which may not hold {match.inputs[-1]!r}"
        if match.floor:
            yield f"has no lower bound of the mean square ({match.floor:g})"
        if match.epsilon_outside:
            yield f"has no epsilon outside the root ({match.epsilon_outside:g})"
        if match.stash_type is DType.DOUBLE and spec.float32_pair(match.epsilon)[1]:
            yield f"has a float32 epsilon, which cannot hold {match.epsilon!r}"

    def _about_types(self, match: Match, facts: Facts) -> Iterator[str]:
        without_kernel = match.dtype in self.without_kernel and not _computes_in(match, facts, match.dtype)
        if match.dtype not in self.types or without_kernel:
            yield f"has no kernel for {_name(match.dtype)} in onnxruntime"
        stash = DType.DOUBLE if match.dtype is DType.DOUBLE else DType.FLOAT
        if match.stash_type is not stash:
            yield f"computes {_name(match.dtype)} in {_name(stash)}, not in {_name(match.stash_type)}"
        scale = _scale(match)
        scale_type = _type(scale, facts) if scale is not None else match.dtype
        if scale_type is None:
            yield f"takes a scale of the type of X; the type of '{_label(scale)}' is not known"
        elif scale_type is not match.dtype and not widens(scale_type, match.dtype):
            yield f"takes a scale of the type of X, {_name(match.dtype)}; '{_label(scale)}' is {_name(scale_type)}"
        yield from self._about_rounding(match)

    def _about_rounding(self, match: Match) -> Iterator[str]:
        plain = match.op in {spec.RMS, spec.SKIP}
        rounds = match.dtype if self.rounds_before_scale else match.stash_type
        # Without a scale, rounding before it and after it are the same.
        allowed = {rounds, match.dtype, match.stash_type} if plain and match.inputs[-1] is None else {rounds}
        if match.normalized_type not in allowed:
            when = f"to {_name(rounds)} before the scale" if self.rounds_before_scale else "once, after the scale"
            yield f"rounds {when}; this norm is {_name(match.normalized_type)} before the scale"
        elif not plain and match.scaled_type is not match.stash_type:
            yield f"rounds once, after the gate; this norm is {_name(match.scaled_type)} before the gate"

    def _about_shapes(self, match: Match, facts: Facts) -> Iterator[str]:
        x, scale = match.inputs[0], _scale(match)
        assert not isinstance(x, float | None)
        shape, lengths = _shape(x, facts), _reduced_lengths(match, facts)
        rank = len(shape) if shape is not None else None
        if self.ranks and rank not in self.ranks:
            wanted = " or ".join(map(str, sorted(self.ranks)))
            yield f"takes an X of {wanted} axes, this one has {'an unknown number' if rank is None else rank}"
        if self.known_length and lengths is None:
            yield "needs the length of the last axis, which is not known"
        if scale is None:
            if lengths is None and not self.any_scale:
                yield "takes a scale, here of ones, and the lengths of the reduced axes are not known"
            elif lengths is not None and prod(lengths) > _MOST_ONES:
                yield f"takes a scale, here of ones, and {prod(lengths):,} of them are too many to write"
        elif not self.any_scale:
            yield from self._about_scale(match, facts, scale)

    def _about_scale(self, match: Match, facts: Facts, scale: Operand) -> Iterator[str]:
        shape = _shape(scale, facts)
        reduced = _reduced_shape(match, facts) or (None,) * len(match.axes)
        if shape is not None and not self.one_axis:
            while len(shape) > len(reduced) and shape[0] == 1:
                shape = shape[1:]
        if shape is None or len(shape) != len(reduced) or not all(map(_same_length, shape, reduced)):
            wanted = f"of {len(reduced)} axes" if None in reduced else f"of shape {list(reduced)}"
            shown = "unknown" if shape is None else list(shape)
            yield f"takes a scale {wanted}; the shape of '{_label(scale)}' is {shown}"


def _same_length(scale: Dim, x: Dim) -> bool:
    """Whether both lengths are the same: an unknown one of X is the scale's, unless that could be broadcast."""
    return scale is not None and (scale == x or (isinstance(scale, int) and scale != 1 and not isinstance(x, int)))


def _reduced_shape(match: Match, facts: Facts) -> tuple[Dim, ...] | None:
    x = match.inputs[0]
    shape = _shape(x, facts) if not isinstance(x, float | None) else None
    return tuple(shape[-len(match.axes) :]) if shape is not None else None


def _reduced_lengths(match: Match, facts: Facts) -> tuple[int, ...] | None:
    shape = _reduced_shape(match, facts)
    lengths = tuple(length for length in shape or () if isinstance(length, int))
    return lengths if shape is not None and len(lengths) == len(shape) else None


def _computes_in(match: Match, facts: Facts, dtype: DType) -> bool:
    """Whether the graph does arithmetic in this type today."""
    return any(n.op_type not in CASTS and facts.float_type(n.outputs[0]) is dtype for n in match.nodes)


def _name(dtype: DType) -> str:
    return "float32" if dtype is DType.FLOAT else "float64" if dtype is DType.DOUBLE else dtype.name.lower()


def _scale(match: Match) -> Operand | None:
    """The scale, unless it is a number: that is written in whatever type and shape is wanted."""
    scale = match.inputs[-1]
    return None if isinstance(scale, float) else scale


def _type(operand: Operand, facts: Facts) -> DType | None:
    return facts.float_type(_value(operand))


def _shape(operand: Operand, facts: Facts) -> tuple[Dim, ...] | None:
    if isinstance(operand, Reshaped):
        return operand.shape if isinstance(operand.shape, tuple) else None
    return facts.shape(_value(operand))


def _label(operand: Operand | None) -> str:
    return (_value(operand).name or "") if operand is not None else ""


def _value(operand: Operand) -> ir.Value:
    return operand if isinstance(operand, ir.Value) else operand.value


#: ONNX's own, from opset 23 on. Its text rounds to T before the scale; types and roundings that onnxruntime's
#: kernel treats differently from the text are those of the text.
ONNX_RMS: Final = ForeignOperator(
    domain="",
    op_type="RMSNormalization",
    version=23,
    computes=spec.RMS,
    inputs=(0, 1),
    types=frozenset(DType),
    without_kernel=frozenset({DType.BFLOAT16}),
    rounds_before_scale=True,
    any_scale=True,
    writes_stash_type=True,
)

#: onnxruntime's contrib operator that lives in ONNX's domain. Older versions, and CUDA, want the scale's shape exact;
#: version 1.31 dies of a segmentation fault when a function holds it.
ORT_RMS: Final = ForeignOperator(
    domain="",
    op_type="SimplifiedLayerNormalization",
    version=1,
    computes=spec.RMS,
    inputs=(0, 1),
    in_functions=False,
    types=frozenset(DType),
)

#: Measured with onnxruntime 1.31: X of 2 or 3 axes, and 16-bit sums are normalized before they are rounded, which
#: is another result than that of Add and norm. Those become Add and SimplifiedLayerNormalization.
ORT_SKIP: Final = ForeignOperator(
    domain="com.microsoft",
    op_type="SkipSimplifiedLayerNormalization",
    version=1,
    computes=spec.SKIP,
    inputs=(0, 1, 2),
    sum_output=3,
    types=frozenset({DType.FLOAT}),
    one_axis=True,
    ranks=frozenset({2, 3}),
)

#: In onnxruntime from 1.30 on. A scale shorter than the last axis would mean groups.
ORT_GATED: Final = ForeignOperator(
    domain="com.microsoft",
    op_type="GatedRMSNorm",
    version=1,
    computes=spec.GATED,
    inputs=(0, 2, 1),
    types=frozenset({DType.FLOAT, DType.FLOAT16}),
    one_axis=True,
    known_length=True,
    fixed=(("activation", "silu"),),
)
