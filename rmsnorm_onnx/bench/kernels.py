"""The benchmark of kernels: every implementation of every problem, checked, then timed side by side."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rmsnorm_onnx.bench import copies, sessions
from rmsnorm_onnx.bench.cell import Cell, Measurement
from rmsnorm_onnx.bench.contestant import Absent, Contestant, Group
from rmsnorm_onnx.bench.kernel_records import KernelBenchmark
from rmsnorm_onnx.bench.machine import machine, pinned, usable_cores
from rmsnorm_onnx.bench.ort import first_line, require
from rmsnorm_onnx.bench.peers import PEERS
from rmsnorm_onnx.bench.problem import DTYPES, FORMS, Problem
from rmsnorm_onnx.bench.timing import QUICK, THOROUGH, Effort, Times, interleave
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.progress import Progress, silent

#: Rows and width: one token to a long prompt of a common width, heads (many and narrow), and very wide rows.
SHAPES: Final = ((1, 4096), (16, 4096), (128, 4096), (512, 4096), (4096, 4096), (32768, 128), (8, 131072))
#: Every combination, the cost of a call, and heads again.
FULL_SHAPES: Final = (
    (1, 64),
    *((rows, width) for rows in (1, 16, 512, 4096) for width in (128, 1024, 4096, 16384)),
    (32768, 128),
)
GRIDS: Final = {"common": SHAPES, "full": FULL_SHAPES}
#: What a chain is measured on where no shape is given.
CHAIN_SHAPES: Final = ((512, 4096),)
QUICK_SHAPES: Final = ((1, 4096), (64, 1024))
DEFAULT_FORMS: Final = ("plain", "skip", "gated")
DEFAULT_DTYPES: Final = ("float32", "float16", "bfloat16")


def benchmark_kernels(
    *,
    forms: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    threads: Sequence[int] = (1,),
    grid: str = "common",
    shapes: Sequence[tuple[int, int]] | None = None,
    chain: int | None = None,
    quick: bool = False,
    progress: Progress = silent,
) -> KernelBenchmark:
    """Time the operators of this package against onnxruntime's own, other packages' and plain copies.

    All run in this process, in turns. Small tensors run as several nodes of one session; times are of one node.

    Args:
        forms: of "plain", "skip", "gated", "pregated"; the first three when None.
        dtypes: of "float32", "float16", "bfloat16", "float64"; the first three when None.
        threads: numbers of threads inside one call; the process stays on as many cores as the largest of them.
        grid: of "common" and "full": the shapes where none are given.
        shapes: rows and width of X.
        chain: also so many norms one after the other, each on what the one before gave.
        quick: few shapes and samples, one form and type: seconds, to see that all runs; the figures mean little.
        progress: told what is being done.

    Raises:
        InvalidInput: no such form, type or grid, a chain of less than two, a shape without elements, or more threads
            than this process has cores.
        CannotRun: onnxruntime is missing, too old for a type, or cannot load the library; LibraryMissing: the
            library was not built.
    """
    forms = _known(forms, DEFAULT_FORMS[: 1 if quick else None], FORMS, "form")
    dtypes = _known(dtypes, DEFAULT_DTYPES[: 1 if quick else None], DTYPES, "type")
    (grid,) = _known([grid], (), GRIDS, "grid")
    if chain is not None and chain < 2:
        raise InvalidInput(f"a chain is of at least 2 norms, got {chain}")
    chained = [(*shape, chain) for shape in shapes or CHAIN_SHAPES] if chain else []
    shapes = shapes or (QUICK_SHAPES if quick else GRIDS[grid])
    wrong = [shape for shape in shapes if min(shape) < 1]
    if wrong:
        raise InvalidInput(f"a shape is rows and width, at least 1 each, got {wrong[0]}")
    outside = [count for count in threads if not 1 <= count <= usable_cores()]
    if outside or not threads:
        raise InvalidInput(f"threads must be 1 to {usable_cores()}, the cores of this process, got {list(threads)}")
    require(dtypes)
    about = machine()
    sizes = [*shapes, *chained]
    questions = [(count, f, d, size) for count in threads for f in forms for d in dtypes for size in sizes]
    cells = []
    # Once for all: other packages make their threads when they are first called, and keep them.
    with pinned(max(threads)):
        for number, (count, form, dtype, size) in enumerate(questions):
            problem = Problem(form, dtype, *size)
            doing = f"{form} {dtype} {'x'.join(map(str, size))}, {count} threads"
            progress(doing, number, len(questions))
            cells.append(_measure(problem, count, QUICK if quick else THOROUGH))
    return KernelBenchmark(about, tuple(cells))


def _known(given: Sequence[str] | None, default: tuple[str, ...], known: Iterable[str], what: str) -> Sequence[str]:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise InvalidInput(f"no {what} is called {unknown[0]}; known: {', '.join(known)}")
    return tuple(dict.fromkeys(given)) if given else default


def _measure(problem: Problem, threads: int, effort: Effort) -> Cell:
    makers: dict[str, Callable[[], Contestant]] = {"rmsnorm-onnx": lambda: sessions.ours(problem, threads)}
    for name, make in sessions.onnxruntimes(problem).items():
        makers[name] = lambda make=make: make(threads)  # type: ignore[misc]
    for name, peer in PEERS.items() if problem.chain == 1 else ():
        makers[name] = lambda peer=peer: peer(problem, threads)  # type: ignore[misc]
    makers["memcpy"] = lambda: copies.memcpy(problem, threads)
    makers["ort Identity"] = lambda: sessions.identity(problem, threads)
    running: list[Contestant] = []
    absent: list[tuple[str, str]] = []
    errors: dict[str, float | None] = {}
    # What is made first was seen to run up to 1.3 times as long, whoever it was: how its pages lie.
    for name in random.sample(list(makers), len(makers)):
        try:
            contestant = makers[name]()
            contestant.repeat(1)
            outputs = contestant.outputs()
        except Absent as error:
            absent.append((name, str(error)))
            continue
        except Exception as error:  # other packages fail in their own ways, and must not end the benchmark
            absent.append((name, f"{type(error).__name__}: {first_line(error)[:160]}"))
            continue
        errors[name] = None if contestant.group is Group.COPY else problem.error(outputs)
        running.append(contestant)
    running.sort(key=lambda contestant: list(makers).index(contestant.name))
    absent.sort(key=lambda entry: list(makers).index(entry[0]))
    samples = interleave({c.name: c.repeat for c in running}, effort)
    times = {c.name: Times.of([max(s - c.overhead_s, s / 10) / c.copies for s in samples[c.name]]) for c in running}
    rates = {name: problem.moved_bytes / time.p50 / 1e9 for name, time in times.items()}
    copy = max(rates[c.name] for c in running if c.group is Group.COPY)
    measurements = tuple(
        Measurement(
            c.name,
            c.group,
            us_p50=times[c.name].p50 * 1e6,
            us_p90=times[c.name].p90 * 1e6,
            gb_per_s=rates[c.name],
            share_of_copy=rates[c.name] / copy,
            error=errors[c.name],
            correct=(errors[c.name] or 0.0) <= problem.tolerance,
        )
        for c in running
    )
    return Cell(
        problem.form,
        problem.dtype,
        problem.rows,
        problem.width,
        problem.chain,
        threads,
        problem.moved_bytes,
        sessions.copies_of(problem),
        measurements,
        tuple(absent),
    )
