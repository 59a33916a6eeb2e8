"""The runs that a comparison needs: both models, whole or in pieces, and the original's float64 and sampled runs.

Everything takes several sets of feeds: a model is loaded once for all of them, and let go before the next one is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import runtime
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.parity.bound import Doubles, Spread, constant_slack, spread
from rmsnorm_onnx.progress import Progress, silent
from rmsnorm_onnx.runtime.exact import is_float
from rmsnorm_onnx.runtime.sides import REFERENCE

Array = npt.NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
S = TypeVar("S")
T = TypeVar("T")
Models = tuple[runtime.LoadedModel, runtime.LoadedModel]
#: Sampled rounding runs; with eight, one draw may exceed the largest by a factor of 8.03 (``bound.noise_factor``).
DEFAULT_SAMPLES: Final = 8
#: Feeds, and the float64 run on them.
_Judged: TypeAlias = tuple[Arrays, runtime.ExactRun | CannotRun]


@dataclass(frozen=True, slots=True)
class Options:
    """How to run, and the defaults; see ``verify``."""

    library: bool = True
    threads: int | None = None
    optimization: runtime.Optimization = "basic"
    samples: int = DEFAULT_SAMPLES
    seed: int = 0
    per_node: bool = False
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class Pair:
    """Original and fused model, what both were fed, and what each gave."""

    models: Models
    feeds: Arrays
    original: runtime.SideRun
    fused: runtime.SideRun


@dataclass(frozen=True, slots=True)
class TruthRuns:
    """What the runs of the original alone say, by which every fused model is judged.

    Attributes:
        exact: the float64 run.
        noise: per float output, how far the runs with random roundings are from it.
        slack: per float output, what half an ulp of the scalar constants can do (``bound``).
    """

    exact: runtime.ExactRun
    noise: Mapping[str, Spread]
    slack: Mapping[str, Doubles]


def runner_of(model: runtime.LoadedModel, options: Options, *, library: bool) -> runtime.SideRunner:
    """What runs a model as ``options`` say."""
    return runtime.SideRunner(model, library=library, threads=options.threads, optimization=options.optimization)


def run_pairs(
    models: Models, sets: Sequence[Arrays], options: Options, first: runtime.SideRunner | None = None
) -> list[Pair]:
    """Run the original in plain onnxruntime and the fused model as ``options`` say.

    Args:
        models: the original and the fused model.
        sets: what they are fed.
        options: how to run them.
        first: runs the original, and is released; made where it is missing.

    Raises:
        CannotRun: one of them cannot run; LibraryMissing: the library is wanted and missing.
    """
    originals = run_originals(models[0], sets, options, first)
    runner = runner_of(models[1], options, library=options.library)
    pairs = []
    for number, (feeds, original) in enumerate(zip(sets, originals, strict=True)):
        options.progress("fused model", number, len(sets))
        # Where onnxruntime runs the original but not the fused model, another evaluator must not hide that.
        pairs.append(Pair(models, feeds, original, runner(feeds, reference=original.how == REFERENCE)))
    return pairs


def run_originals(
    model: runtime.LoadedModel, sets: Sequence[Arrays], options: Options, runner: runtime.SideRunner | None = None
) -> list[runtime.SideRun]:
    """Run the original in plain onnxruntime; arguments and errors as for ``run_pairs``."""
    runner = runner or runner_of(model, options, library=False)

    def run() -> list[runtime.SideRun]:
        runs = []
        for number, feeds in enumerate(sets):
            options.progress("original", number, len(sets))
            runs.append(runner(feeds))
        return runs

    try:
        return _once("original", model, sets, (options.threads, options.optimization), run)
    finally:
        runner.release()


def run_pieces(whole: Pair, steps: Sequence[runtime.Step], options: Options) -> tuple[Pair, list[str]]:
    """Both models cut at ``steps``, or as they are where a piece cannot run; and notes for the reader."""
    original, fused = whole.models
    try:
        wider = _loaded(runtime.with_results(original.model, steps), original)
        (shown,) = run_originals(wider, [whole.feeds], options)
        cuts = [runtime.cut(side.model, steps, shown.outputs) for side in whole.models]
        pieces = (_loaded(cuts[0][0], original), _loaded(cuts[1][0], fused))
        (pair,) = run_pairs(pieces, [{**whole.feeds, **cuts[0][1]}], options)
    except CannotRun as error:
        return whole, [f"compared as a whole, across {len(steps)} steps such as quantizers: {error}"]
    note = (
        f"compared between {len(steps)} steps (quantizers and the like): each gives both models what it gave in the "
        "original, and what goes into it is judged like an output"
    )
    return pair, [note]


def run_truths(original: runtime.LoadedModel, sets: Sequence[Arrays], options: Options) -> list[TruthRuns | CannotRun]:
    """Run the original in float64, as it is and perturbed; for a set without such a run, why there is none."""

    def run() -> list[TruthRuns | CannotRun]:
        widened = runtime.widen_to_float64(original.model)
        exact = _each("original in float64", sets, runtime.ExactRunner(widened, threads=options.threads), options)
        judged = list(zip(sets, exact, strict=True))
        noise = _each("sampled roundings of the original", judged, _noise(widened, options), options)
        slack = _each("constants of the original", judged, _slack(widened, options), options)
        return [_truth(*runs) for runs in zip(exact, noise, slack, strict=True)]

    return _once("truth", original, sets, (options.samples, options.seed, options.threads), run)


def run_exacts(
    fused: runtime.LoadedModel, sets: Sequence[Arrays], options: Options
) -> list[runtime.ExactRun | CannotRun]:
    """Run the fused model in float64; for a set without such a run, why there is none."""

    def run() -> list[runtime.ExactRun | CannotRun]:
        runner = runtime.ExactRunner(fused.model, threads=options.threads)
        return _each("fused model in float64", sets, runner, options)

    return _once("fused", fused, sets, (options.threads,), run)


def _truth(
    exact: runtime.ExactRun | CannotRun, noise: dict[str, Spread] | CannotRun, slack: dict[str, Doubles] | CannotRun
) -> TruthRuns | CannotRun:
    if isinstance(exact, CannotRun):
        return exact
    if isinstance(noise, CannotRun):
        return noise
    return slack if isinstance(slack, CannotRun) else TruthRuns(exact, noise, slack)


def _each(what: str, items: Sequence[S], run: Callable[[S], T], options: Options) -> list[T | CannotRun]:
    """What ``run`` gives for each item, or the reason why nothing; the caller's last hold on ``run`` may be ours."""
    results: list[T | CannotRun] = []
    for number, item in enumerate(items):
        options.progress(what, number, len(items))
        try:
            results.append(run(item))
        except CannotRun as error:
            results.append(error)
    return results


def _noise(widened: ir.Model, options: Options) -> Callable[[_Judged], dict[str, Spread]]:
    runner = runtime.NoiseRunner(widened, threads=options.threads)

    def run(judged: _Judged) -> dict[str, Spread]:
        feeds, exact = judged
        return spread(_floats(exact), runner(feeds, count=options.samples, seed=options.seed))

    return run


def _slack(widened: ir.Model, options: Options) -> Callable[[_Judged], dict[str, Doubles]]:
    runner = runtime.SlackRunner(widened, threads=options.threads)

    def run(judged: _Judged) -> dict[str, Doubles]:
        feeds, exact = judged
        return constant_slack(_floats(exact), runner(feeds, count=options.samples, seed=options.seed))

    return run


def _floats(exact: runtime.ExactRun | CannotRun) -> dict[str, Doubles]:
    if isinstance(exact, CannotRun):
        raise exact
    return {name: array for name, array in exact.outputs.items() if is_float(array.dtype)}


def _once(
    what: str,
    model: runtime.LoadedModel,
    sets: Sequence[Arrays],
    how: tuple[object, ...],
    run: Callable[[], T],
) -> T:
    """What ``run`` gives, kept for the next call: the same models are often verified with the library and without."""
    digest = hashlib.sha256()
    for feeds in sets:
        for name, array in sorted(feeds.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    outputs = tuple(value.name for value in model.model.graph.outputs)
    key = (model.sha256, outputs, len(sets), digest.hexdigest(), how)
    last = _LAST.get(what)
    if last is None or last[0] != key:
        _LAST.pop(what, None)
        last = _LAST[what] = (key, run())
    kept: T = last[1]  # not what another thread may have put there by now
    return kept


_LAST: Final[dict[str, tuple[object, Any]]] = {}


def _loaded(model: ir.Model, source: runtime.LoadedModel) -> runtime.LoadedModel:
    return runtime.LoadedModel(model, None, source.name, source.sha256)
