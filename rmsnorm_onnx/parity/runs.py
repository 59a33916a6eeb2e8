"""The runs that a comparison needs: both models, whole or in pieces, and the original's float64 and sampled runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import runtime
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.runtime.sides import REFERENCE

Array = npt.NDArray[Any]
T = TypeVar("T")
Models = tuple[runtime.LoadedModel, runtime.LoadedModel]


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; see ``verify``."""

    library: bool
    threads: int | None
    optimization: runtime.Optimization
    samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Original and fused model, what both were fed, and what each gave."""

    models: Models
    feeds: Mapping[str, Array]
    original: runtime.SideRun
    fused: runtime.SideRun


@dataclass(frozen=True, slots=True)
class TruthRuns:
    """The runs of the original alone, which every fused model is judged by."""

    exact: runtime.ExactRun
    noise: list[dict[str, Array]]
    slack: list[tuple[int, list[dict[str, Array]]]]


def run_pair(models: Models, feeds: Mapping[str, Array], options: Options) -> Pair:
    """Run the original in plain onnxruntime and the fused model as ``options`` say.

    Raises:
        CannotRun: one of them cannot run; LibraryMissing: the library is wanted and missing.
    """
    original = _run_original(models[0], feeds, options)
    fused = runtime.run_side(
        models[1],
        feeds,
        library=options.library,
        threads=options.threads,
        optimization=options.optimization,
        # Where onnxruntime runs the original but not the fused model, another evaluator must not hide that.
        reference=original.how == REFERENCE,
    )
    return Pair(models, feeds, original, fused)


def run_pieces(whole: Pair, options: Options) -> tuple[Pair, list[str]]:
    """Both models cut at the steps that they share (``runtime.steps``), or as they are; and what to tell the reader."""
    original, fused = whole.models
    steps = runtime.common_steps(original.model, fused.model)
    if not steps:
        return whole, []
    try:
        shown = _run_original(_loaded(runtime.with_results(original.model, steps), original), whole.feeds, options)
        cuts = [runtime.cut(side.model, steps, shown.outputs) for side in whole.models]
        pieces = (_loaded(cuts[0][0], original), _loaded(cuts[1][0], fused))
        pair = run_pair(pieces, {**whole.feeds, **cuts[0][1]}, options)
    except CannotRun as error:
        return whole, [f"compared as a whole, across {len(steps)} steps such as quantizers: {error}"]
    note = (
        f"compared between {len(steps)} steps (quantizers and the like): each gives both models what it gave in the "
        "original, and what goes into it is judged like an output"
    )
    return pair, [note]


def run_truth(original: runtime.LoadedModel, feeds: Mapping[str, Array], options: Options) -> TruthRuns:
    """Run the original in float64, as it is and perturbed.

    Raises:
        CannotRun: there is no such run.
    """

    def run() -> TruthRuns:
        sampling: dict[str, Any] = {"count": options.samples, "seed": options.seed, "threads": options.threads}
        widened = runtime.widen_to_float64(original.model)
        return TruthRuns(
            runtime.run_exact(widened, feeds, threads=options.threads),
            list(runtime.noise_runs(widened, feeds, **sampling)),
            runtime.slack_runs(widened, feeds, **sampling),
        )

    return _once("truth", original, feeds, (options.samples, options.seed, options.threads), run)


def run_exact(fused: runtime.LoadedModel, feeds: Mapping[str, Array], options: Options) -> runtime.ExactRun:
    """Run the fused model in float64.

    Raises:
        CannotRun: there is no such run.
    """
    threads = options.threads
    return _once("fused", fused, feeds, (threads,), lambda: runtime.run_exact(fused.model, feeds, threads=threads))


def _run_original(model: runtime.LoadedModel, feeds: Mapping[str, Array], options: Options) -> runtime.SideRun:
    how: dict[str, Any] = {"threads": options.threads, "optimization": options.optimization}
    run = partial(runtime.run_side, model, feeds, library=False, **how)
    return _once("original", model, feeds, tuple(how.values()), run)


def _once(
    what: str, model: runtime.LoadedModel, feeds: Mapping[str, Array], how: tuple[object, ...], run: Callable[[], T]
) -> T:
    """What ``run`` gives, kept for the next call: the same models are often verified with the library and without."""
    digest = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    outputs = tuple(value.name for value in model.model.graph.outputs)
    key = (model.sha256, outputs, digest.hexdigest(), how)
    if what not in _LAST or _LAST[what][0] != key:
        _LAST[what] = (key, run())
    kept: T = _LAST[what][1]
    return kept


_LAST: Final[dict[str, tuple[object, Any]]] = {}


def _loaded(model: ir.Model, source: runtime.LoadedModel) -> runtime.LoadedModel:
    return runtime.LoadedModel(model, None, source.name, source.sha256)
