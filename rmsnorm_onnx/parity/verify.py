"""Original against fused: run both on the same inputs, and judge every output."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from math import prod
from typing import Any, Final

import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import runtime
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.parity.bound import constant_slack, noise_factor, yardstick
from rmsnorm_onnx.parity.outputs import Truth, before_rounding, identical, judge
from rmsnorm_onnx.parity.records import OutputParity, ParityReport, Side, Verdict
from rmsnorm_onnx.runtime.exact import is_float
from rmsnorm_onnx.runtime.inputs import input_specs
from rmsnorm_onnx.runtime.sides import REFERENCE

Array = npt.NDArray[Any]

#: Sampled rounding runs; with eight, one draw may exceed the largest by a factor of 8.03 (``bound.noise_factor``).
DEFAULT_SAMPLES: Final = 8
_PACKAGES: Final = ("numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "rmsnorm-onnx")


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
    onnxruntime where that can load it.

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
    first = runtime.run_side(sides[0], feeds.arrays, library=False, threads=threads, optimization=optimization)
    second = runtime.run_side(
        sides[1],
        feeds.arrays,
        library=library,
        threads=threads,
        optimization=optimization,
        # Where onnxruntime runs the original but not the fused model, another evaluator must not hide that.
        reference=first.how == REFERENCE,
    )

    settled = {
        name: before_rounding(name, first.outputs.get(name), second.outputs.get(name))
        for name in dict.fromkeys([*first.outputs, *second.outputs])
    }
    open_names = [name for name, record in settled.items() if record is None]
    judge_by = _Judge(sides[0], sides[1], feeds.arrays, threads, samples, seed)
    records, notes = judge_by(open_names, first.outputs, second.outputs) if open_names else ({}, [])
    return ParityReport(
        outputs=tuple(record or records[name] for name, record in settled.items()),
        original=Side(sides[0].name, sides[0].sha256, first.how, first.passed_over, judge_by.original_exact),
        fused=Side(sides[1].name, sides[1].sha256, second.how, second.passed_over, judge_by.fused_exact),
        dims=feeds.dims,
        feeds=feeds.origin,
        seed=seed,
        samples=samples if open_names else 0,
        versions=_versions(),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _TruthRuns:
    """The runs of the original alone, which every fused model is judged by."""

    exact: runtime.ExactRun
    noise: list[dict[str, Array]]
    slack: tuple[int, list[dict[str, Array]]]


def _truth_runs(
    original: runtime.LoadedModel, feeds: Mapping[str, Array], samples: int, seed: int, threads: int | None
) -> _TruthRuns:
    """Run the original in float64; kept for the next call, as the same original is often verified twice."""
    digest = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    key = (original.sha256, digest.hexdigest(), samples, seed, threads)
    if key not in _LAST_TRUTH:
        runs = _TruthRuns(
            runtime.run_exact(original.model, feeds, threads=threads),
            list(runtime.noise_runs(original.model, feeds, count=samples, seed=seed, threads=threads)),
            runtime.slack_runs(original.model, feeds, count=samples, seed=seed, threads=threads),
        )
        _LAST_TRUTH.clear()
        _LAST_TRUTH[key] = runs
    return _LAST_TRUTH[key]


_LAST_TRUTH: Final[dict[tuple[object, ...], _TruthRuns]] = {}


@dataclass(slots=True)
class _Judge:
    """Makes the float64 and the sampled runs, and judges the float outputs by them."""

    original: runtime.LoadedModel
    fused: runtime.LoadedModel
    feeds: Mapping[str, Array]
    threads: int | None
    samples: int
    seed: int
    original_exact: str = "not needed"
    fused_exact: str = "not needed"

    def __call__(
        self, names: list[str], first: Mapping[str, Array], second: Mapping[str, Array]
    ) -> tuple[dict[str, OutputParity], list[str]]:
        notes: list[str] = []
        try:
            truth_runs = _truth_runs(self.original, self.feeds, self.samples, self.seed, self.threads)
        except CannotRun as error:
            return self._without_truth(names, first, second, error)
        exact, noise, (constants, shifted) = truth_runs.exact, truth_runs.noise, truth_runs.slack
        self.original_exact = exact.how
        fused_exact = self._run_fused_exact(notes)
        roundoff = max(exact.roundoff, fused_exact.roundoff if fused_exact else 0.0)
        longest = _longest_sum(self.original.model, [*self.feeds.values(), *exact.outputs.values()])
        records = {}
        for name in names:
            bounds = yardstick(
                first[name],
                exact.outputs[name],
                [run[name] for run in noise],
                exact_roundoff=roundoff,
                longest_sum=longest,
                slack=constant_slack(exact.outputs[name], [run[name] for run in shifted], constants),
            )
            if not bounds.original_explained:
                notes.append(
                    f"{name}: the original's own run is more than {noise_factor(self.samples, 1):.1f} times further "
                    "from its float64 run than rounding explains, and was not used as a yardstick"
                )
            truth = Truth(exact.outputs[name], fused_exact.outputs[name] if fused_exact else None, bounds)
            records[name] = judge(name, first[name], second[name], truth)
        return records, notes

    def _run_fused_exact(self, notes: list[str]) -> runtime.ExactRun | None:
        try:
            run = runtime.run_exact(self.fused.model, self.feeds, threads=self.threads)
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


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
