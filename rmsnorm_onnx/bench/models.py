"""The benchmark of models: the same feeds through each, in turns, and a profile of each."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rmsnorm_onnx.bench.machine import machine
from rmsnorm_onnx.bench.model_records import ModelBenchmark, Timed
from rmsnorm_onnx.bench.ort import Library, first_line, open_session, to_ortvalue
from rmsnorm_onnx.bench.profile import OpTime, read_profile
from rmsnorm_onnx.bench.timing import Effort, Ratio, Repeat, Times, interleave, seconds
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.progress import Progress, silent
from rmsnorm_onnx.runtime import Feeds, LoadedModel
from rmsnorm_onnx.runtime.model import runnable

#: Sets of sessions: on a busy machine, two sessions of almost equal models were seen to differ by 15 % for good.
_LAUNCHES: Final = 3
#: Runs of each set: fewer have no percentiles worth the name; more tell nothing new.
_FEWEST: Final = 7
_MOST: Final = 334
_PROFILED_RUNS: Final = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to time.

    Attributes:
        name: what to call it.
        loaded: the model.
        library: what to register.
        norm_nodes: names of the nodes that are parts of RMS norms.
        equal: whether its outputs equal those of the first; None if unknown.
        check: the same in words.
    """

    name: str
    loaded: LoadedModel
    library: Library
    norm_nodes: Set[str]
    equal: bool | None
    check: str


def time_models(
    candidates: Sequence[Candidate], feeds: Feeds, *, threads: int, budget_s: float, progress: Progress = silent
) -> ModelBenchmark:
    """Three times: load each candidate, run it once, then all in turns. Last, profile all.

    Args:
        candidates: at least one; the first is what the others are compared with.
        feeds: for every one of them.
        threads: inside one operator.
        budget_s: seconds of timed runs per model, roughly: there are 21 to 1002 runs.
        progress: told what is being done.

    Raises:
        CannotRun: onnxruntime cannot load or run one of them. LibraryMissing: the library was not built.
    """
    about = machine()
    values = {name: to_ortvalue(array) for name, array in feeds.arrays.items()}
    started: list[_Started] = []
    for launch in range(_LAUNCHES):
        progress(f"loading and timing {len(candidates)} sessions", launch, _LAUNCHES + 1)
        started.append(_launch(candidates, values, threads, budget_s / _LAUNCHES, launch))
    progress("profiling", _LAUNCHES, _LAUNCHES + 1)
    profiles = _profiles(candidates, values, threads)
    took = [[sample for one in started for sample in one.samples[n]] for n in range(len(candidates))]
    timed = tuple(
        Timed(
            candidate.name,
            candidate.loaded.sha256,
            candidate.equal,
            candidate.check,
            load_ms=statistics.median(one.loads[n] for one in started) * 1e3,
            first_ms=statistics.median(one.firsts[n] for one in started) * 1e3,
            times=Times.of(took[n]),
            ratio=Ratio.of(took[0], took[n]),
            profile=profiles[n],
        )
        for n, candidate in enumerate(candidates)
    )
    return ModelBenchmark(about, timed, feeds.dims, feeds.origin, threads)


@dataclass(frozen=True, slots=True)
class _Started:
    """Seconds from one set of sessions, by number of the candidate: to load, of the first run, and of the others."""

    loads: dict[int, float]
    firsts: dict[int, float]
    samples: dict[int, list[float]]


def _launch(
    candidates: Sequence[Candidate], values: Mapping[str, Any], threads: int, budget_s: float, launch: int
) -> _Started:
    """New sessions of all, in an order that turns; gone when this returns."""
    runs: dict[str, Repeat] = {}
    loads, firsts = {}, {}
    for place in range(len(candidates)):
        number = (place + launch) % len(candidates)
        session, loads[number] = _open(candidates[number], threads)
        runs[str(number)] = _bound(session, values, candidates[number].name)
        firsts[number] = seconds(runs[str(number)], 1)
    once = sum(seconds(run, 1) for run in runs.values())
    rounds = max(_FEWEST, min(_MOST, int(budget_s * len(runs) / once)))
    samples = interleave(runs, Effort(rounds, sample_s=0.0))
    return _Started(loads, firsts, {int(number): took for number, took in samples.items()})


def _open(candidate: Candidate, threads: int, profile: str | None = None) -> tuple[Any, float]:
    """A session, and the seconds that onnxruntime took to make it."""

    def open_(source: bytes | str) -> tuple[Any, float]:
        begin = time.perf_counter()
        session = open_session(source, threads, optimization="all", library=candidate.library, profile=profile)
        return session, time.perf_counter() - begin

    try:
        if candidate.loaded.path is not None:
            return open_(str(candidate.loaded.path))
        with runnable(candidate.loaded.model) as source:
            return open_(source)
    except CannotRun as error:
        raise type(error)(f"{candidate.name}: {error}") from error


def _bound(session: Any, values: Mapping[str, Any], name: str) -> Callable[[int], None]:
    binding = session.io_binding()
    for given in session.get_inputs():
        binding.bind_ortvalue_input(given.name, values[given.name])
    for output in session.get_outputs():
        binding.bind_output(output.name, "cpu")

    def repeat(times: int) -> None:
        try:
            for _ in range(times):
                session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises a dozen classes without a common base
            raise CannotRun(f"{name}: onnxruntime cannot run it: {first_line(error)}") from error

    return repeat


def _profiles(candidates: Sequence[Candidate], values: Mapping[str, Any], threads: int) -> list[tuple[OpTime, ...]]:
    """Profile all in turns too, in sessions of their own, as profiling slows a session."""
    with tempfile.TemporaryDirectory(prefix="rmsnorm-onnx-") as folder:
        sessions = [_open(c, threads, str(Path(folder) / str(number)))[0] for number, c in enumerate(candidates)]
        runs = [_bound(session, values, c.name) for session, c in zip(sessions, candidates, strict=True)]
        for _ in range(_PROFILED_RUNS):
            for run in runs:
                run(1)
        return [
            read_profile(Path(session.end_profiling()), _PROFILED_RUNS, c.norm_nodes)
            for session, c in zip(sessions, candidates, strict=True)
        ]
