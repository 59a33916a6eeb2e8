"""Timing calls against each other: interleaved samples, so that a slow moment hits all alike, and robust summaries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

#: Does the work as often as it is told to; a loop inside costs less than a call from outside.
Repeat: TypeAlias = Callable[[int], object]


#: Samples that even the slowest call gets.
_FEWEST: Final = 5


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: samples of each call.
        sample_s: length of one sample in seconds; calls that take less are repeated inside it.
        budget_s: seconds for all samples of one call and what warms it; slow calls get fewer, but five at least.
        warm: call once before every sample. Else calls that fill a sample alone find in the caches what another left,
            and those that are repeated inside one find what they left themselves.
    """

    rounds: int
    sample_s: float
    budget_s: float = math.inf
    warm: bool = False


#: Samples of two milliseconds: long against a clock of nanoseconds, short against other load on the machine.
THOROUGH = Effort(rounds=31, sample_s=2e-3, budget_s=2.0, warm=True)
QUICK = Effort(rounds=5, sample_s=5e-4, warm=True)


@dataclass(frozen=True, slots=True)
class Times:
    """Summary of samples, in seconds per call."""

    p50: float
    p90: float
    p99: float
    mean: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Times:
        """Summarize at least one sample."""
        p50, p90, p99 = (float(q) for q in np.quantile(samples, (0.5, 0.9, 0.99)))
        return cls(p50, p90, p99, float(np.mean(samples)), len(samples))


def interleave(calls: Mapping[str, Repeat], effort: Effort) -> dict[str, list[float]]:
    """Seconds per call of every sample, one of each call per round; the order turns by one place every round.

    Without a budget, every call has a sample of every round.
    """
    repeats = {name: _repeats(call, effort.sample_s) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    names = list(calls)
    for turn in range(effort.rounds):
        start = turn % len(names)
        for name in (*names[start:], *names[:start]):
            if turn < _FEWEST or spent[name] < effort.budget_s:
                if effort.warm:
                    calls[name](1)
                samples[name].append(seconds(calls[name], repeats[name]))
                spent[name] += samples[name][-1] * (repeats[name] + effort.warm)
    return samples


def seconds(call: Repeat, repeats: int) -> float:
    """Seconds per call of one sample."""
    start = time.perf_counter_ns()
    call(repeats)
    return (time.perf_counter_ns() - start) / repeats / 1e9


def _repeats(call: Repeat, sample_s: float) -> int:
    seconds(call, 1)  # the first call allocates and compiles
    once = seconds(call, 1)
    few = max(1, min(1000, int(sample_s / 8 / max(once, 1e-9))))
    return max(1, int(sample_s / max(seconds(call, few), 1e-9)))


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast the second is as the first, from samples taken side by side.

    Attributes:
        median: of the ratios of each round.
        low: with high, a 95 % confidence interval of that median (order statistics, no distribution assumed).
        high: see ``low``.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Ratio:
        """Ratio of paired samples, first over second; at least one pair."""
        ratios = sorted(a / b for a, b in zip(first, second, strict=True))
        count = len(ratios)
        # The rank of the median is binomial(n, 1/2): n/2 plus or minus 1.96 standard deviations of sqrt(n)/2.
        reach = 0.98 * math.sqrt(count)
        low, high = math.floor(count / 2 - reach), math.ceil(count / 2 + reach)
        return cls(float(np.median(ratios)), ratios[max(low, 0)], ratios[min(high, count - 1)])
