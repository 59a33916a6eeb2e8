"""Feeds for a model: sets of inputs for every binding and range asked for, seeded, or read from files."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.runtime import given
from rmsnorm_onnx.runtime.dimensions import DEFAULTS, Binding, bind
from rmsnorm_onnx.runtime.given import Given
from rmsnorm_onnx.runtime.inputs import InputSpec, input_specs
from rmsnorm_onnx.runtime.ranges import Range
from rmsnorm_onnx.runtime.roles import Axis, Role
from rmsnorm_onnx.runtime.values import takes_default_range, values

Array = npt.NDArray[Any]

#: Optimum's merged decoders choose between two graphs by this input; without the cache there is no past.
_USE_CACHE: Final = "use_cache_branch"
#: Sizes that some models need which refuse the default ones, in the order in which they are tried. The first three
#: change every kind of axis but the past.
_OTHER_SIZES: Final[tuple[Mapping[Axis, int], ...]] = (
    {Axis.SEQUENCE: 8, Axis.OTHER: 8},
    {Axis.BATCH: 1},
    {Axis.SEQUENCE: 1},
    {Axis.PAST: 0},
    {Axis.BATCH: 1, Axis.SEQUENCE: 1},
    {Axis.BATCH: 1, Axis.PAST: 0},
    {Axis.SEQUENCE: 16, Axis.OTHER: 16},
    {Axis.OTHER: 2},
    {Axis.OTHER: 1},
    {Axis.SEQUENCE: 64, Axis.OTHER: 64},
    {Axis.PIXELS: 224, Axis.OTHER: 224},
    {Axis.SAMPLES: 16000, Axis.SEQUENCE: 400, Axis.OTHER: 400},
)
#: So many equal errors, whatever the sizes, are not about sizes; loading a large model takes seconds.
_EQUAL_ERRORS: Final = 4


@dataclass(frozen=True, slots=True)
class Feeds:
    """Arrays for every input, and what was chosen to make them.

    Attributes:
        arrays: by input name, in the model's own types (bfloat16 as ml_dtypes.bfloat16).
        dims: value of each free dimension.
        origin: where the values come from, in words.
        name: short, and unique among the sets made together.
    """

    arrays: dict[str, Array]
    dims: dict[str, int]
    origin: str
    name: str = "given"


def make_feeds(
    model: ir.Model,
    *,
    dims: Mapping[str, int] | None = None,
    inputs: Given | None = None,
    seed: int = 0,
    run: Callable[[Feeds], object] | None = None,
) -> Feeds:
    """One set of feeds for ``model``, the first of ``make_feed_sets``."""
    return make_feed_sets(model, dims=dims, inputs=inputs, seed=seed, run=run)[0]


def make_feed_sets(
    model: ir.Model,
    *,
    dims: Mapping[str, int | Sequence[int]] | None = None,
    inputs: Given | Sequence[Given] | None = None,
    seed: int = 0,
    ranges: Sequence[Range] = (),
    run: Callable[[Feeds], object] | None = None,
) -> tuple[Feeds, ...]:
    """Every combination of dimensions and ranges as a set of feeds, or one set for each that is given.

    The values of a set depend on its own dimensions, range and ``seed`` only, not on which other sets are made.

    Args:
        model: only its inputs and what reads them are looked at.
        dims: one value or several for free dimensions, by the model's name or by what they count (``dimensions.bind``).
            Others get values that fit: 2 for a batch, 7 for new tokens, 3 for the past, and sums of them for masks.
        inputs: arrays by name, an .npz file, an ONNX test data folder (input_0.pb, ...) or one that holds several, or a
            sequence of these; then nothing is random.
        seed: of the random values.
        ranges: of real numbers, standard normal otherwise. One set for each range without a name; those with a name
            hold for that input in every set.
        run: called with a set whose dimensions are not all given; where it raises CannotRun, sizes that other models
            need are tried in turn, and the first with which it does not raise are kept. Dimensions in ``dims`` stay.

    Raises:
        InvalidInput: a name that the model lacks, a missing input, a wrong type or shape, a range that does not fit, or
            both ``inputs`` and one of ``dims`` and ``ranges``.
    """
    specs = input_specs(model)
    if inputs is not None:
        if dims or ranges:
            raise InvalidInput("dimensions and ranges are for random inputs, and these are given; use one of the two")
        return _unique([Feeds(*given.fit(arrays, specs), name, name) for name, arrays in given.read(inputs, specs)])
    wanted = {name: _numbers(name, value) for name, value in (dims or {}).items()}
    _check_ranges(ranges, specs)
    return _unique(list(_Maker(specs, seed, run).sets(wanted, ranges)))


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes random sets."""

    specs: tuple[InputSpec, ...]
    seed: int
    run: Callable[[Feeds], object] | None

    def sets(self, wanted: Mapping[str, Sequence[int]], ranges: Sequence[Range]) -> Iterator[Feeds]:
        """Every combination of dimensions, branches and ranges; of equal ones, the first."""
        by_name: dict[str | None, list[Range]] = {}
        for one in ranges:
            by_name.setdefault(one.name, []).append(one)
        combinations = list(itertools.product(*by_name.values()))
        flags = [spec.name for spec in self.specs if spec.role is Role.FLAG and _USE_CACHE in spec.name.lower()]
        made: set[str] = set()
        for numbers in itertools.product(*wanted.values()):
            asked = dict(zip(wanted, numbers, strict=True))
            for branch in [dict.fromkeys(flags, use) for use in (True, False)] if flags else [{}]:
                binding = self._binding(asked, branch)
                for chosen in combinations:
                    feeds = self._make(binding, branch, chosen)
                    if feeds.name not in made:  # without the cache, what differs in its past only is the same
                        yield feeds
                    made.add(feeds.name)

    def _binding(self, asked: Mapping[str, int], branch: Mapping[str, bool]) -> Binding:
        """The first binding with which the model runs; the default one if none does, so that its error is seen."""
        without_past = not all(branch.values())
        first = bind(self.specs, asked, without_past=without_past)
        if self.run is None or first.dims.keys() <= asked.keys():
            return first
        tried: list[Mapping[str, int]] = []
        errors: list[str] = []
        for sizes in ({}, *_OTHER_SIZES):
            binding = bind(self.specs, asked, {**DEFAULTS, **sizes}, without_past=without_past)
            if binding.dims in tried:
                continue
            tried.append(binding.dims)
            try:
                self.run(self._make(binding, branch, ()))
            except CannotRun as error:
                errors.append(str(error))
                if len(errors) == _EQUAL_ERRORS and len(set(errors)) == 1:
                    break
            else:
                return binding
        return first

    def _make(self, binding: Binding, branch: Mapping[str, bool], ranges: Sequence[Range]) -> Feeds:
        generator = np.random.default_rng(self.seed)
        arrays = {spec.name: values(spec, binding, generator, ranges) for spec in self.specs}
        arrays |= {name: np.full_like(arrays[name], use) for name, use in branch.items()}
        name = " ".join([binding.name, *(f"{flag}={int(use)}" for flag, use in branch.items()), *map(str, ranges)])
        return Feeds(arrays, dict(binding.dims), ", ".join([f"seed {self.seed}", *map(str, ranges)]), name)


def _numbers(name: str, given_values: int | Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(given_values) if isinstance(given_values, Sequence) else (given_values,)
    if not numbers or not all(isinstance(number, int | np.integer) for number in numbers):
        raise InvalidInput(f"expected one whole number or several for dimension {name}, got {given_values!r}")
    return tuple(int(number) for number in numbers)


def _check_ranges(ranges: Sequence[Range], specs: Sequence[InputSpec]) -> None:
    names = [spec.name for spec in specs]
    for one in ranges:
        if one.name is not None and one.name not in names:
            close = difflib.get_close_matches(one.name, names, 1)
            hint = f"did you mean {close[0]}?" if close else f"inputs: {', '.join(names) or 'none'}"
            raise InvalidInput(f"{one} is for an input that the model lacks; {hint}")
        if one.name is None and not any(takes_default_range(spec) for spec in specs):
            raise InvalidInput(f"no input holds real numbers that {one} could be for; name one, as NAME:[LOW,HIGH]")


def _unique(sets: list[Feeds]) -> tuple[Feeds, ...]:
    """The sets with a number after names that occur more than once."""
    counts: dict[str, int] = {}
    taken = {feeds.name for feeds in sets}
    named = []
    for feeds in sets:
        counts[feeds.name] = number = counts.get(feeds.name, 0) + 1
        name = feeds.name
        while number > 1 and (name := f"{feeds.name} ({number})") in taken:
            number += 1
        taken.add(name)
        named.append(replace(feeds, name=name))
    return tuple(named)
