"""Times of launches in CUDA graphs, contestants interleaved so that a slow moment hits all alike."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from custom_ops.bench.gpu.contestants import Contestant

#: One replay lasts as long at least: far more than its start.
SAMPLE_US: Final = 2000.0
#: Launches that the host may be ahead of the device without waiting for it.
_AHEAD: Final = 200


@dataclass(frozen=True)
class Graph:
    """Launches of one contestant, captured; it is held because its memory is in them."""

    graph: Any
    launches: int
    contestant: Contestant

    def us(self) -> float:
        """Microseconds of one launch. A replay before it keeps the device busy until the clock starts."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self.graph.replay()
        begin.record()
        self.graph.replay()
        end.record()
        end.synchronize()
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds * 1e3 / self.launches


def launches(sets: int, each_us: float) -> int:
    """Launches of one graph: whole rounds through the sets, ``SAMPLE_US`` at least."""
    return sets * math.ceil(SAMPLE_US / (sets * each_us))


def capture(contestant: Contestant, sets: int, each_us: float) -> Graph:
    """A graph that goes through the sets; outputs that a contestant allocates are as many."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for index in (0, sets - 1, 0):  # compiles, and allocates what stays
            contestant.launch(index)
    side.synchronize()
    count, graph = launches(sets, each_us), torch.cuda.CUDAGraph()
    kept: deque[Any] = deque(maxlen=sets)
    with torch.cuda.graph(graph):
        for launch in range(count):
            kept.append(contestant.launch(launch % sets))
    return Graph(graph, count, contestant)


def interleave(graphs: Sequence[Graph], rounds: int) -> list[list[float]]:
    """Samples of each; who comes first changes from round to round."""
    samples: list[list[float]] = [[] for _ in graphs]
    for turn in range(rounds):
        for place in range(len(graphs)):
            who = (turn + place) % len(graphs)
            samples[who].append(graphs[who].us())
    return samples


def host_us(contestant: Contestant, samples: int = 5) -> float:
    """Microseconds that the host is busy with one launch, the device idle before; the median of some samples."""
    took = []
    for _ in range(samples):
        torch.cuda.synchronize()
        if contestant.host_ns is not None:
            took.append(contestant.host_ns(_AHEAD) / 1e3)
            continue
        start = time.perf_counter_ns()
        for _ in range(_AHEAD):
            contestant.launch(0)
        took.append((time.perf_counter_ns() - start) / 1e3)
    torch.cuda.synchronize()
    return sorted(took)[samples // 2] / _AHEAD
