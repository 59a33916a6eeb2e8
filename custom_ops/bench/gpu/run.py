"""One cell measured: contestants made, checked, captured, timed."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from custom_ops.bench.gpu import contestants, measure
from custom_ops.bench.gpu.budget import Budget
from custom_ops.bench.gpu.buffers import Sets
from custom_ops.bench.gpu.cells import Cell
from custom_ops.bench.gpu.peers import COMPILES, PEERS
from custom_ops.bench.gpu.results import Measured, Result
from rmsnorm_onnx.bench.contestant import Absent, Group
from rmsnorm_onnx.bench.timing import Ratio, Times

#: Of each array of the large copy: far more than L2, and long against its launch.
_LARGE = 1 << 30
_WARM_SAMPLES = 5


@dataclass(frozen=True)
class Gpu:
    """What was measured of the device before the cells.

    Attributes:
        arch: ten times the compute capability that the code is compiled for.
        processors: that it has.
        shared_bytes: that one block may use.
        l2_bytes: of its cache.
        rates: bytes per second of the best large copy, by the arrays it reads for one that it writes.
    """

    arch: int
    processors: int
    shared_bytes: int
    l2_bytes: int
    rates: dict[int, float]

    def rate(self, cell: Cell) -> float:
        """Of the copy that reads and writes in the cell's proportion."""
        return self.rates[2 if "gated" in cell.form else 1]


def large_copies() -> dict[int, float]:
    """``Gpu.rates``, measured now."""
    rates = {}
    for reads in (1, 2):
        moved = (reads + 1) * _LARGE
        graphs = [measure.capture(copy, 2, moved / 1e6) for copy in contestants.copies(2, moved, reads)]
        times = measure.interleave(graphs, 7)
        rates[reads] = moved / (min(Times.of(us).p50 for us in times) * 1e-6)
        del graphs
        release()
    return rates


def release() -> None:
    """Give memory back to the device."""
    gc.collect()
    torch.cuda.empty_cache()


def run(cell: Cell, gpu: Gpu, budget: Budget, cells_left: int) -> Result:
    """Measure one cell; who cannot take part is listed, with the reason."""
    sets = Sets(cell, cell.sets(gpu.l2_bytes))
    rate, each_us = gpu.rate(cell), cell.model_us(gpu.rate(cell))
    makers: dict[str, Callable[[], Any]] = {"rmsnorm-onnx": lambda: contestants.ours(sets)}
    makers |= {name: partial(make, sets) for name, make in PEERS.items()}
    ready: list[tuple[contestants.Contestant, measure.Graph, Measured]] = []
    absent: list[tuple[str, str]] = []
    for name, make in makers.items():
        try:
            if budget.share(cells_left) < COMPILES.get(name, 0.0):
                raise Absent("no time left to compile it")
            contestant = make()
            checked = _check(contestant, sets)
            graph = measure.capture(contestant, sets.count, each_us)
            if contestant.group is Group.OURS:
                checked = _check_replay(checked, graph, sets)
            ready.append((contestant, graph, checked))
        except Absent as error:
            absent.append((name, str(error)))
        except Exception as error:  # other packages fail in their own ways, and must not end the benchmark
            absent.append((name, f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"))
    for copy in contestants.copies(sets.count, cell.moved, 2 if "gated" in cell.form else 1):
        nothing = Measured(copy.name, copy.group, Times.of([0.0]))
        ready.append((copy, measure.capture(copy, sets.count, each_us), nothing))
    start = time.monotonic()
    measure.interleave([graph for _, graph, _ in ready], 1)
    rounds = budget.rounds(cell.name, cells_left, time.monotonic() - start)
    samples = measure.interleave([graph for _, graph, _ in ready], rounds)
    own = next((us for us, (c, _, _) in zip(samples, ready, strict=True) if c.group is Group.OURS), None)
    measured = []
    for us, (contestant, _, checked) in zip(samples, ready, strict=True):
        ratio = Ratio.of(us, own) if own and contestant.group is not Group.OURS else None
        warm = cell.warm(gpu.l2_bytes)
        measured.append(
            replace(
                checked,
                us=Times.of(us),
                ratio=ratio,
                warm_us=_warm(contestant, each_us) if warm else None,
                host_us=measure.host_us(contestant) if cell.few else None,
            )
        )
    facts = (gpu.arch, gpu.processors, gpu.shared_bytes, gpu.l2_bytes)
    return Result(cell, sets.count, rate, tuple(measured), tuple(absent), contestants.plan(sets, *facts))


def _check(contestant: contestants.Contestant, sets: Sets) -> Measured:
    """The first and the last set against float64."""
    errors = []
    for index in {0, sets.count - 1}:
        outputs = contestant.launch(index)
        torch.cuda.synchronize()
        errors.append(sets.error(index, outputs))
    bound = sets.bound if contestant.group is Group.OURS else sets.peers_bound
    return Measured(contestant.name, contestant.group, Times.of([0.0]), None, max(errors), max(errors) <= bound)


def _check_replay(before: Measured, graph: measure.Graph, sets: Sets) -> Measured:
    """What is timed is what was checked: the graph writes every set's outputs as the launches did."""
    outputs = [tensors[-1] for tensors in (sets.y, sets.total) if tensors[-1] is not None]
    wanted = [output.clone() for output in outputs]
    for output in outputs:
        output.fill_(float("nan"))
    graph.graph.replay()
    torch.cuda.synchronize()
    same = all(map(torch.equal, outputs, wanted))
    return before if same else replace(before, correct=False, error=math.inf)


def _warm(contestant: contestants.Contestant, each_us: float) -> float:
    graph = measure.capture(contestant, 1, each_us)
    return Times.of(measure.interleave([graph], _WARM_SAMPLES)[0]).p50
