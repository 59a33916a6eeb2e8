"""A value for every free dimension: as asked for, else such that lengths, masks and past fit each other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.runtime.arithmetic import atoms, evaluate
from rmsnorm_onnx.runtime.inputs import InputSpec
from rmsnorm_onnx.runtime.roles import Axis, Role, axis_by_words

#: Small, different from each other, and not 1, which would broadcast.
DEFAULTS: Final[Mapping[Axis, int]] = {
    Axis.BATCH: 2,
    Axis.SEQUENCE: 7,
    Axis.PAST: 3,
    Axis.ENCODER: 5,
    Axis.SAMPLES: 1600,
    Axis.PATCHES: 16,
    Axis.PIXELS: 64,
    Axis.OTHER: 7,
}
_PLUS_NUMBER: Final = re.compile(r"\s*\w+\s*\+\s*([0-9]{1,9})\s*")
#: An image's channels; sizes of images are larger.
_CHANNELS: Final = 4
_ORDER: Final = (Role.INDEX, Role.REAL, Role.POSITION, Role.CACHE)


@dataclass(frozen=True, slots=True)
class Binding:
    """Values of all free dimensions.

    Attributes:
        dims: by name, in order of appearance.
        sizes: what each kind of axis counts, free or not; PAST is how many positions are filled.
        name: the independent ones in short, "batch=2 seq=7".
    """

    dims: Mapping[str, int]
    sizes: Mapping[Axis, int]
    name: str


def parse_dims(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Values by name from ``NAME=N`` or ``NAME=N,N,...``; a name that is given again gets further values.

    Raises:
        InvalidInput: another form.
    """
    parsed: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, values = text.rpartition("=")
        try:
            numbers = tuple(int(value) for value in values.split(","))
        except ValueError:
            numbers = ()
        if not equals or not name.strip() or not numbers:
            raise InvalidInput(f"expected a dimension as NAME=N or NAME=N,N, got '{text}'")
        parsed[name.strip()] = tuple(dict.fromkeys((*parsed.get(name.strip(), ()), *numbers)))
    return parsed


def bind(
    specs: Sequence[InputSpec],
    dims: Mapping[str, int],
    defaults: Mapping[Axis, int] = DEFAULTS,
    *,
    without_past: bool = False,
) -> Binding:
    """Bind every free dimension.

    Args:
        specs: of all inputs.
        dims: asked for, by the model's own name or by what is counted ("batch", "seq", "past", "total", "encoder",
            "samples", "patches", "pixels"), which then holds for every dimension that counts it.
        defaults: for everything else.
        without_past: there is no past, whatever ``dims`` says.

    Raises:
        InvalidInput: a name that the model lacks, or a negative value.
    """
    free = list(dict.fromkeys(dim for spec in specs for dim in spec.dims if isinstance(dim, str)))
    counted = _counted(specs)
    _check(dims, free, counted)
    if without_past:
        nothing = dict.fromkeys((name for name, axis in counted.items() if axis is Axis.PAST), 0)
        dims = {**dims, Axis.PAST.value: 0, **nothing}
    # What a dimension is given holds for all that count the same, unless that is given too.
    asked = {axis: dims[axis.value] for axis in Axis if axis.value in dims and axis.value not in counted}
    for name, axis in counted.items():
        if name in dims and axis is not Axis.OTHER:
            asked.setdefault(axis, dims[name])
    sizes = _sizes(specs, counted, asked, defaults)
    values = {name: dims.get(name, sizes[axis]) for name, axis in counted.items()}
    # A mask is as long as what it masks, also where its length is called "past + 1" and there are more new tokens.
    values |= dict.fromkeys(_claims(specs, counted), sizes[Axis.TOTAL])
    bound = {name: _value(name, dims, values, sizes) for name in free}
    return Binding(bound, sizes, _in_short(counted, values, sizes, dims))


def _counted(specs: Sequence[InputSpec]) -> dict[str, Axis]:
    """What each plain dimension name counts: as it says, else as its input's role says, tokens before masks."""
    ordered = sorted(specs, key=lambda spec: _ORDER.index(spec.role) if spec.role in _ORDER else len(_ORDER))
    free = [
        (spec, position, dim)
        for spec in ordered
        for position, dim in enumerate(spec.dims)
        if isinstance(dim, str) and not dim.isdigit()
    ]
    known = {dim for _, _, dim in free}
    plain = [one for one in free if atoms(one[2], known) is None]
    counted: dict[str, Axis] = {}
    for spec, position, dim in plain:
        # An unnamed axis is called after its input, whose words say nothing about this axis.
        named = dim != f"{spec.name}[{position}]"
        axis = (axis_by_words(dim.lower()) if named else None) or spec.axes[position]
        if named and _is_length(dim) and axis in {None, Axis.BATCH} and "batch" not in dim.lower():
            axis = Axis.SEQUENCE
        if axis is not None:
            counted.setdefault(dim, axis)
    for _, position, dim in plain:
        counted.setdefault(dim, Axis.BATCH if position == 0 else Axis.OTHER)
    for part in (part for _, _, dim in free for part in atoms(dim, known) or ()):
        counted.setdefault(part, axis_by_words(part.lower()) or (Axis.SEQUENCE if _is_length(part) else Axis.OTHER))
    # In the order of the model's inputs.
    return {dim: counted[dim] for spec in specs for dim in spec.dims if dim in counted} | counted


def _is_length(name: str) -> bool:
    return re.search(r"seq|len|token|time", name.lower()) is not None


def _check(dims: Mapping[str, int], free: Sequence[str], counted: Mapping[str, Axis]) -> None:
    short = [axis.value for axis in Axis if axis in counted.values() and axis is not Axis.OTHER]
    names = list(dict.fromkeys((*free, *counted, *short)))
    unknown = sorted(dims.keys() - set(names))
    if unknown:
        valid = ", ".join(names) or "none: all dimensions are fixed"
        close = difflib.get_close_matches(unknown[0], names, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InvalidInput(f"no dimension is called {', '.join(unknown)}; valid names: {valid}{hint}")
    negative = sorted(name for name, value in dims.items() if value < 0)
    if negative:
        raise InvalidInput(f"dimensions cannot be negative: {', '.join(negative)}")


def _sizes(
    specs: Sequence[InputSpec], counted: Mapping[str, Axis], asked: Mapping[Axis, int], defaults: Mapping[Axis, int]
) -> dict[Axis, int]:
    """What each kind of axis counts: asked for, else fixed by the model, else what the others leave, else default."""
    fixed = _fixed(specs)
    if Axis.PAST in counted.values():
        fixed.pop(Axis.PAST, None)  # some layers keep a window, whatever the length of the past is
    sizes = {axis: asked.get(axis, fixed.get(axis, default)) for axis, default in defaults.items()}
    known = asked.keys() | fixed.keys()
    total = asked.get(Axis.TOTAL, fixed.get(Axis.TOTAL))
    has_past = Axis.PAST in counted.values() or Axis.PAST in fixed or any(s.role is Role.CACHE for s in specs)
    if not has_past and Axis.PAST not in asked:
        sizes[Axis.PAST] = 0
    if Axis.PAST in fixed and Axis.PAST not in asked and _is_buffer(specs, fixed):
        # Keys and values of the new tokens are written into the past, which has room for more than is there.
        sizes[Axis.PAST] = min(defaults[Axis.PAST], max(fixed[Axis.PAST] - sizes[Axis.SEQUENCE], 0))
        total = asked.get(Axis.TOTAL)
    elif Axis.SEQUENCE not in known:
        if total is not None and (Axis.PAST in known or not has_past):
            sizes[Axis.SEQUENCE] = max(total - sizes[Axis.PAST], 0)
        elif claims := _claims(specs, counted):
            sizes[Axis.SEQUENCE] = min(claims.values())
    if total is not None and has_past and Axis.PAST not in known:
        sizes[Axis.PAST] = max(total - sizes[Axis.SEQUENCE], 0)
    sizes[Axis.TOTAL] = sizes[Axis.PAST] + sizes[Axis.SEQUENCE] if total is None else total
    return sizes


def _fixed(specs: Sequence[InputSpec]) -> dict[Axis, int]:
    """Fixed sizes of what axes count, but those that only broadcast, and batches of nothing else that is known."""
    fixed: dict[Axis, int] = {}
    for spec in specs:
        for dim, axis in zip(spec.dims, spec.axes, strict=True):
            broadcasts = spec.role is Role.MASK and (dim == 1 or axis is not Axis.TOTAL)
            broadcasts |= axis is Axis.BATCH and (spec.role is Role.POSITION or set(spec.axes) <= {Axis.BATCH, None})
            channels = axis is Axis.PIXELS and isinstance(dim, int) and dim <= _CHANNELS
            if isinstance(dim, int) and axis is not None and not broadcasts and not channels:
                fixed.setdefault(axis, dim)
    return fixed


def _is_buffer(specs: Sequence[InputSpec], fixed: Mapping[Axis, int]) -> bool:
    if Axis.TOTAL in fixed:
        return fixed[Axis.TOTAL] == fixed[Axis.PAST]
    return any("cache_position" in spec.name.lower() for spec in specs)


def _claims(specs: Sequence[InputSpec], counted: Mapping[str, Axis]) -> dict[str, int]:
    """Lengths of masks that are called "past + n", with n: such a decoder was exported for n new tokens."""
    claims = {}
    for spec in specs:
        for dim, axis in zip(spec.dims, spec.axes, strict=True):
            form = _PLUS_NUMBER.fullmatch(dim) if isinstance(dim, str) and axis is Axis.TOTAL else None
            if form is not None and [counted.get(part) for part in atoms(str(dim)) or ()] == [Axis.PAST]:
                claims[str(dim)] = int(form[1])
    return claims


def _value(name: str, dims: Mapping[str, int], values: Mapping[str, int], sizes: Mapping[Axis, int]) -> int:
    if name in dims:
        return dims[name]
    if name in values:
        return values[name]
    computed = evaluate(name, values)
    return computed if computed is not None else sizes[Axis.OTHER]


def _in_short(
    counted: Mapping[str, Axis], values: Mapping[str, int], sizes: Mapping[Axis, int], dims: Mapping[str, int]
) -> str:
    kinds = set(counted.values()) - {Axis.OTHER, Axis.TOTAL}
    shown = {axis.value: sizes[axis] for axis in Axis if axis in kinds}
    for name, value in dims.items():
        if (name in values and shown.get(counted[name].value) != value) or (name not in values and name not in shown):
            shown[name] = value
    return " ".join(f"{name}={value}" for name, value in shown.items()) or "fixed shapes"
