"""Original against fused: run both on the same inputs, and judge every output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import reference, runtime
from rmsnorm_onnx.environment import PACKAGES, versions_of
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.parity.bound import constant_slack, distance, noise_factor, yardstick
from rmsnorm_onnx.parity.outputs import Truth, before_rounding, identical, judge
from rmsnorm_onnx.parity.records import OutputParity, ParityReport, Side, Verdict
from rmsnorm_onnx.parity.runs import Options, Pair, run_exact, run_pair, run_pieces, run_truth
from rmsnorm_onnx.runtime.exact import is_float
from rmsnorm_onnx.runtime.inputs import input_specs

Array = npt.NDArray[Any]

#: Sampled rounding runs; with eight, one draw may exceed the largest by a factor of 8.03 (``bound.noise_factor``).
DEFAULT_SAMPLES: Final = 8
_NOT_NEEDED: Final = "not needed"


def verify(
    original: runtime.Model,
    fused: runtime.Model,
    *,
    dims: Mapping[str, int] | None = None,
    inputs: str | os.PathLike[str] | Mapping[str, Array] | None = None,
    seed: int = 0,
    library: bool = True,
    threads: int | None = None,
    optimization: runtime.Optimization = "basic",
    samples: int = DEFAULT_SAMPLES,
) -> ParityReport:
    """Run both models on the same inputs and say per output whether they are equal.

    Equal means: same name, type and shape; the same NaN and inf; integers and booleans bit for bit; and floats within
    the bound that the original's own rounding gives (derivation in ``parity.bound``). The original runs in plain
    onnxruntime where that can load it. Models that quantize are compared piece by piece (``runtime.steps``), on what
    the original's quantizers give.

    Args:
        original: path, ModelProto or onnx_ir.Model.
        fused: likewise.
        dims: values of free dimensions by name; see ``runtime.make_feeds`` for the others.
        inputs: arrays by name, an .npz file, or an ONNX test data folder, instead of seeded values.
        seed: of inputs and sampled roundings.
        library: run the fused model with the custom-op library; otherwise through its function bodies.
        threads: threads inside one operator; onnxruntime's choice when None.
        optimization: onnxruntime's graph optimization level for both.
        samples: sampled rounding runs; fewer are faster and make the bound wider.

    Raises:
        InvalidInput: a file, dimension or input that does not fit, or models with different inputs.
        CannotRun: a model cannot run, or outputs differ and there is no float64 run to judge them by.
        LibraryMissing: ``library`` is true and there is none.
    """
    if samples < 1:
        raise InvalidInput(f"at least one sampled run is needed, got samples={samples}")
    sides = (runtime.load(original), runtime.load(fused))
    _same_inputs(sides[0].model, sides[1].model)
    feeds = runtime.make_feeds(sides[0].model, dims=dims, inputs=inputs, seed=seed)
    options = Options(library, threads, optimization, samples, seed)
    whole = run_pair(sides, feeds.arrays, options)
    pair, notes = run_pieces(whole, options)
    judge_by = _Judge(pair, options)
    records, more_notes = judge_by()
    names = whole.original.outputs.keys() | whole.fused.outputs.keys()
    return ParityReport(
        # Of the values between pieces only those that differ are shown.
        outputs=tuple(_of_whole(r, whole) for r in records if r.name in names or not r.verdict.ok),
        original=_side(sides[0], whole.original, judge_by.original_exact),
        fused=_side(sides[1], whole.fused, judge_by.fused_exact),
        dims=feeds.dims,
        feeds=feeds.origin,
        seed=seed,
        samples=0 if judge_by.original_exact == _NOT_NEEDED else samples,
        versions=versions_of(PACKAGES),
        notes=(*notes, *more_notes),
    )


def _of_whole(record: OutputParity, whole: Pair) -> OutputParity:
    """What the pieces say about an output, but not that whole models were identical which were not."""
    if record.verdict is not Verdict.IDENTICAL:
        return record
    first, second = whole.original.outputs[record.name], whole.fused.outputs[record.name]
    if first.dtype.kind in "OSU" or identical(first, second):
        return record
    error = float(np.max(distance(second, first.astype(np.float64))))
    return replace(record, verdict=Verdict.WITHIN_BOUND, max_abs_error=error, worst=None)


def _side(model: runtime.LoadedModel, run: runtime.SideRun, exact: str) -> Side:
    return Side(model.name, model.sha256, run.how, run.passed_over, exact)


@dataclass(slots=True)
class _Judge:
    """Makes the float64 and the sampled runs, and judges the float outputs by them."""

    pair: Pair
    options: Options
    original_exact: str = _NOT_NEEDED
    fused_exact: str = _NOT_NEEDED

    def __call__(self) -> tuple[list[OutputParity], list[str]]:
        """One record per output of either model, in their order, and notes."""
        first, second = self.pair.original.outputs, self.pair.fused.outputs
        settled = {
            name: before_rounding(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])
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
            shifted = [(constants, [run[name] for run in moved]) for constants, moved in runs.slack]
            bounds = yardstick(
                first[name],
                exact.outputs[name],
                [run[name] for run in runs.noise],
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
            truth = Truth(exact.outputs[name], fused_output, roundoff <= reference.roundoff(np.float64), bounds)
            records[name] = judge(name, first[name], second[name], truth)
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
            name: OutputParity(name, str(first[name].dtype), first[name].shape, Verdict.IDENTICAL, 0.0)
            for name in names
        }
        return records, [f"no float64 run of the original ({error}); the outputs are identical all the same"]


def _same_inputs(original: ir.Model, fused: ir.Model) -> None:
    left = {spec.name: spec.dtype for spec in input_specs(original)}
    right = {spec.name: spec.dtype for spec in input_specs(fused)}
    if left != right:
        raise InvalidInput(
            "the models take different inputs: "
            f"{ {n: t.name for n, t in left.items()} } and { {n: t.name for n, t in right.items()} }"
        )


def _longest_sum(model: ir.Model, arrays: list[Array]) -> int:
    """Upper estimate of the number of terms of any sum: the longest axis, or a convolution's kernel size."""
    longest = max((max(array.shape, default=1) for array in arrays if is_float(array.dtype)), default=1)
    for graph in model.graphs():
        for value in graph.initializers.values():
            shape = [dim for dim in value.shape or () if isinstance(dim, int)]
            terms = prod(shape[1:]) if len(shape) > 2 else max(shape, default=1)
            longest = max(longest, terms, max(shape, default=1))
    return longest
