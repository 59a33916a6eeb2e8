"""What was measured of one problem: every implementation's times, and how they compare."""

from __future__ import annotations

from dataclasses import dataclass

from rmsnorm_onnx.bench.contestant import Group


@dataclass(frozen=True, slots=True)
class Measurement:
    """One implementation of one problem.

    Attributes:
        name: of the implementation.
        group: who made it.
        us_p50: median time of one norm in microseconds.
        us_p90: 90th percentile.
        gb_per_s: bytes that the problem must move, over the median time, in 10^9 bytes per second.
        share_of_copy: ``gb_per_s`` over that of the fastest copy.
        error: largest error against float64, in roundoffs of the type; None for a copy.
        correct: whether the error is rounding.
    """

    name: str
    group: Group
    us_p50: float
    us_p90: float
    gb_per_s: float
    share_of_copy: float
    error: float | None
    correct: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One problem.

    Attributes:
        form: plain, skip, gated or pregated.
        dtype: element type of every array.
        rows: number of norms.
        width: elements of each.
        chain: so many norms one after the other.
        threads: inside one call.
        bytes: read and written by one norm.
        copies: norms in one session.
        measurements: of everything that ran.
        absent: what did not run, with the reason.
    """

    form: str
    dtype: str
    rows: int
    width: int
    chain: int
    threads: int
    bytes: int
    copies: int
    measurements: tuple[Measurement, ...]
    absent: tuple[tuple[str, str], ...]

    @property
    def shape(self) -> str:
        """Rows and width, and how many in a chain."""
        return f"{self.rows}x{self.width}" + (f", chain of {self.chain}" if self.chain > 1 else "")

    def fastest(self, group: Group) -> Measurement | None:
        """The fastest correct one of a group, if any ran."""
        found = [m for m in self.measurements if m.group is group and m.correct]
        return min(found, key=lambda m: m.us_p50, default=None)

    def speedup(self, group: Group) -> float | None:
        """How many times as fast ours is as the fastest of ``group``; None where one of them did not run."""
        other = self.fastest(group)
        return None if other is None else self.speedups().get(other.name)

    def speedups(self) -> dict[str, float]:
        """How many times as fast ours is as every other but copies, by name; empty where ours is wrong."""
        own = self.fastest(Group.OURS)
        others = (m for m in self.measurements if m.correct and m.group not in {Group.OURS, Group.COPY})
        return {} if own is None else {m.name: m.us_p50 / own.us_p50 for m in others}
