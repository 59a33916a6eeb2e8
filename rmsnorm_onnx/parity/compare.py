"""Original against fused on one set of inputs: run both, and judge every output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import reference, runtime
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.parity.bound import constant_slack, distance, noise_factor, yardstick
from rmsnorm_onnx.parity.errors import margin
from rmsnorm_onnx.parity.outputs import Truth, before_rounding, identical, judge
from rmsnorm_onnx.parity.records import InputSet, OutputParity, Run, Verdict
from rmsnorm_onnx.parity.runs import Models, Options, Pair, run_exact, run_pair, run_pieces, run_truth
from rmsnorm_onnx.runtime.exact import is_float

Array = npt.NDArray[Any]

_NOT_NEEDED: Final = "not needed"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One set of inputs, what came of it, and whether the original's roundings had to be sampled."""

    inputs: InputSet
    outputs: tuple[OutputParity, ...]
    sampled: bool


def compare(models: Models, name: str, feeds: runtime.Feeds, options: Options) -> Comparison:
    """Run both models on ``feeds``, a set of inputs called ``name``, and judge every output.

    Raises:
        CannotRun: a model cannot run, or outputs differ and there is no float64 run to judge them by.
        LibraryMissing: the library is wanted and missing.
    """
    whole = run_pair(models, feeds.arrays, options)
    pair, notes = run_pieces(whole, options)
    judge_by = _Judge(name, pair, options)
    records, more_notes = judge_by()
    names = whole.original.outputs.keys() | whole.fused.outputs.keys()
    inputs = InputSet(
        name,
        feeds.dims,
        feeds.origin,
        original=Run(whole.original.how, whole.original.passed_over, judge_by.original_exact),
        fused=Run(whole.fused.how, whole.fused.passed_over, judge_by.fused_exact),
        notes=(*notes, *more_notes),
    )
    # Of the values between pieces only those that differ are shown.
    shown = tuple(_of_whole(record, whole) for record in records if record.name in names or not record.verdict.ok)
    return Comparison(inputs, shown, judge_by.original_exact != _NOT_NEEDED)


def _of_whole(record: OutputParity, whole: Pair) -> OutputParity:
    """What the pieces say about an output, but not that whole models were identical which were not."""
    if record.verdict is not Verdict.IDENTICAL:
        return record
    first, second = whole.original.outputs[record.name], whole.fused.outputs[record.name]
    if first.dtype.kind in "OSU" or identical(first, second):
        return record
    error = float(np.max(distance(second, first.astype(np.float64))))
    return replace(record, verdict=Verdict.WITHIN_BOUND, max_abs_error=error, worst=())


@dataclass(slots=True)
class _Judge:
    """Makes the float64 and the sampled runs, and judges the float outputs by them."""

    inputs: str
    pair: Pair
    options: Options
    original_exact: str = _NOT_NEEDED
    fused_exact: str = _NOT_NEEDED

    def __call__(self) -> tuple[list[OutputParity], list[str]]:
        """One record per output of either model, in their order, and notes."""
        first, second = self.pair.original.outputs, self.pair.fused.outputs
        settled = {
            name: before_rounding(self.inputs, name, first.get(name), second.get(name))
            for name in dict.fromkeys([*first, *second])
        }
        open_names = [name for name, record in settled.items() if record is None]
        records, notes = self._judge_floats(open_names) if open_names else ({}, [])
        return [record or records[name] for name, record in settled.items()], notes

    def _judge_floats(self, names: list[str]) -> tuple[dict[str, OutputParity], list[str]]:
        first, second = self.pair.original.outputs, self.pair.fused.outputs
        original, feeds = self.pair.models[0], self.pair.feeds
        notes: list[str] = []
        try:
            runs = run_truth(original, feeds, self.options)
        except CannotRun as error:
            return self._without_truth(names, first, second, error)
        exact = runs.exact
        self.original_exact = exact.how
        fused_exact = self._run_fused_exact(notes)
        roundoff = max(exact.roundoff, fused_exact.roundoff if fused_exact else 0.0)
        longest = _longest_sum(original.model, [*feeds.values(), *exact.outputs.values()])
        records = {}
        for name in names:
            samples = [run[name] for run in runs.noise]
            shifted = [(constants, [run[name] for run in moved]) for constants, moved in runs.slack]
            bounds = yardstick(
                first[name],
                exact.outputs[name],
                samples,
                exact_roundoff=roundoff,
                longest_sum=longest,
                slack=constant_slack(exact.outputs[name], shifted),
            )
            if not bounds.original_explained:
                notes.append(
                    f"{name}: the original's own run is more than {noise_factor(self.options.samples, 1):.1f} times "
                    "further from its float64 run than rounding explains, and was not used as a yardstick"
                )
            fused_output = fused_exact.outputs[name] if fused_exact else None
            truth = Truth(
                exact.outputs[name],
                fused_output,
                roundoff <= reference.roundoff(np.float64),
                bounds,
                margin(exact.outputs[name], samples),
            )
            records[name] = judge(self.inputs, name, first[name], second[name], truth)
        return records, notes

    def _run_fused_exact(self, notes: list[str]) -> runtime.ExactRun | None:
        try:
            run = run_exact(self.pair.models[1], self.pair.feeds, self.options)
        except CannotRun as error:
            self.fused_exact = "none"
            notes.append(f"whether both are the same function was not checked in float64: {error}")
            return None
        self.fused_exact = run.how
        return run

    def _without_truth(
        self, names: list[str], first: Mapping[str, Array], second: Mapping[str, Array], error: CannotRun
    ) -> tuple[dict[str, OutputParity], list[str]]:
        self.original_exact = self.fused_exact = "none"
        different = [name for name in names if not identical(first[name], second[name])]
        if different:
            raise CannotRun(
                f"outputs {', '.join(different)} are not identical, and whether that is rounding cannot be told "
                f"without a float64 run of the original: {error}"
            ) from error
        records = {
            name: OutputParity(self.inputs, name, str(first[name].dtype), first[name].shape, Verdict.IDENTICAL, 0.0)
            for name in names
        }
        return records, [f"no float64 run of the original ({error}); the outputs are identical all the same"]


def _longest_sum(model: ir.Model, arrays: list[Array]) -> int:
    """Upper estimate of the number of terms of any sum: the longest axis, or a convolution's kernel size."""
    longest = max((max(array.shape, default=1) for array in arrays if is_float(array.dtype)), default=1)
    for graph in model.graphs():
        for value in graph.initializers.values():
            shape = [dim for dim in value.shape or () if isinstance(dim, int)]
            terms = prod(shape[1:]) if len(shape) > 2 else max(shape, default=1)
            longest = max(longest, terms, max(shape, default=1))
    return longest
