"""What was measured of each cell, how it stands beside its goal, and the report of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import geometric_mean
from typing import Any, Final

from custom_ops.bench.gpu.cells import GOALS_FOR, MEAN_PEER, ORT, WORST_PEER, Cell
from rmsnorm_onnx.bench.contestant import Group
from rmsnorm_onnx.bench.timing import Ratio, Times
from rmsnorm_onnx.report import Case, Report, Status, Table

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """One implementation of one cell.

    Attributes:
        name: of the implementation.
        group: who made it.
        us: one launch in a graph, inputs and outputs outside L2.
        ratio: how many times as fast ours is, of samples side by side; None for ours.
        error: largest error against float64, in roundoffs of the type; None for a copy.
        correct: whether that is rounding.
        warm_us: the same launch with everything in L2, where it fits.
        host_us: what the host takes to enqueue one, where few bytes move.
    """

    name: str
    group: Group
    us: Times
    ratio: Ratio | None = None
    error: float | None = None
    correct: bool = True
    warm_us: float | None = None
    host_us: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One cell.

    Attributes:
        cell: the problem.
        sets: buffer sets that were gone through.
        copy_rate: bytes per second of the best large copy with as many reads for each write.
        measured: ours, copies and peers.
        absent: name and reason of who is missing.
        plan: how ours was launched.
    """

    cell: Cell
    sets: int
    copy_rate: float
    measured: tuple[Measured, ...]
    absent: tuple[tuple[str, str], ...] = ()
    plan: str = ""

    @property
    def ours(self) -> Measured | None:
        """Ours, if it ran and was right."""
        return next((m for m in self.measured if m.group is Group.OURS and m.correct), None)

    def best(self, group: Group) -> Measured | None:
        """The fastest of a group, among those that were right."""
        return min((m for m in self.measured if m.group is group and m.correct), key=lambda m: m.us.p50, default=None)

    @property
    def share(self) -> float | None:
        """Our rate over that of the large copy."""
        return self.cell.moved / (self.ours.us.p50 * 1e-6) / self.copy_rate if self.ours else None

    @property
    def beside_copy(self) -> float | None:
        """Time of the best copy of as many bytes, over ours."""
        copy = self.best(Group.COPY)
        return copy.us.p50 / self.ours.us.p50 if self.ours and copy else None

    @property
    def beside_peer(self) -> float | None:
        """How many times as fast ours is as the best peer."""
        peer = self.best(Group.PEER)
        return peer.ratio.median if self.ours and peer and peer.ratio else None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None where none is set."""
        goal = self.cell.goal_us(self.copy_rate)
        if goal is None:
            return None
        return self.ours is not None and self.ours.us.p50 <= goal

    @property
    def within_model(self) -> bool:
        """Whether a launch and the copy's rate account for all of it."""
        return self.ours is not None and self.ours.us.p50 <= self.cell.model_us(self.copy_rate)

    @property
    def not_behind(self) -> bool | None:
        """Whether no peer is faster by more than noise; None without peers."""
        return None if self.beside_peer is None else self.beside_peer >= WORST_PEER

    def row(self) -> tuple[str, ...]:
        """As text, in the order of ``COLUMNS``."""
        cell, ours, peer = self.cell, self.ours, self.best(Group.PEER)
        verdict = {True: "yes", False: "NO", None: "-"}
        return (
            cell.name,
            "WRONG or absent" if ours is None else f"{ours.us.p50:.2f}",
            _text(self.share),
            _text(self.beside_copy),
            cell.goal(),
            verdict[self.reached],
            verdict[self.within_model],
            "-" if peer is None else f"{peer.name} {peer.us.p50:.2f}",
            _text(self.beside_peer),
            verdict[self.not_behind],
        )


#: Of ``Result.row``.
COLUMNS: Final = (
    "cell",
    "us",
    "share of large copy",
    "of copy of as many bytes",
    "goal",
    "reached",
    "within the model",
    "best peer, us",
    "times as fast",
    "not behind",
)


@dataclass(frozen=True, slots=True)
class Ort:
    """A chain of one node in an onnxruntime session: microseconds of one node of ours and of its own."""

    name: str
    ours_us: float
    theirs_us: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.theirs_us / self.ours_us


def report(results: Sequence[Result], orts: Sequence[Ort], facts: Iterable[tuple[str, str]], device: str) -> Report:
    """All of it, in the form that every renderer takes."""
    ratios = [r.beside_peer for r in results if r.beside_peer is not None]
    goals = [r.reached for r in results if r.reached is not None]
    parts = [f"{sum(goals)} of {len(goals)} goals reached"]
    ok = all(goals) and all(r.ours for r in results)
    if ratios:
        mean = geometric_mean(ratios)
        parts.append(
            f"{mean:.3f} times as fast as the best peer (geometric mean, wanted {MEAN_PEER}; worst {min(ratios):.2f})"
        )
        ok &= mean >= MEAN_PEER and min(ratios) >= WORST_PEER
    if orts:
        mean = geometric_mean(o.ratio for o in orts)
        parts.append(f"{mean:.2f} times as fast as onnxruntime's nodes (wanted {ORT})")
        ok &= mean >= ORT
    if GOALS_FOR not in device:
        parts.append(f"the goals are for an {GOALS_FOR}, this is not one")
    wrong = [("WRONG RESULT", f"{m.name}: {r.cell.name}, error {m.error:.3g}") for r in results for m in r.measured
             if not m.correct and m.error is not None]  # fmt: skip
    tables = [Table("Cold L2, in a graph", COLUMNS, tuple(r.row() for r in results)), _everyone(results), _few(results)]
    tables.append(Table("Launch plans of ours", ("cell", "plan"), tuple((r.cell.name, r.plan) for r in results)))
    if orts:
        rows = tuple((o.name, f"{o.ours_us:.2f}", f"{o.theirs_us:.2f}", f"{o.ratio:.2f}") for o in orts)
        tables.append(Table("In an onnxruntime session, one node", ("node", "ours, us", "its own, us", "ratio"), rows))
    return Report(
        title="CUDA kernels",
        status=Status.PASSED if ok else Status.FAILED,
        verdict="; ".join(parts),
        facts=(*facts, *_absent(results), *wrong),
        tables=tuple(table for table in tables if table.rows),
        document={
            "schema_version": SCHEMA_VERSION,
            "command": "benchmark cuda",
            "ok": ok,
            "device": device,
            "facts": [list(fact) for fact in facts],
            "cells": [_document(r) for r in results],
            "onnxruntime": [{**asdict(o), "ratio": o.ratio} for o in orts],
        },
        cases=tuple(Case(r.cell.name, Status.FAILED if r.reached is False else Status.PASSED) for r in results),
    )


def _document(result: Result) -> dict[str, Any]:
    judged = ("share", "beside_copy", "beside_peer", "reached", "within_model", "not_behind")
    bytes_ = {"moved_bytes": result.cell.moved, "model_us": result.cell.model_us(result.copy_rate)}
    return {**asdict(result), **bytes_, **{name: getattr(result, name) for name in judged}}


def _everyone(results: Sequence[Result]) -> Table:
    names = list(dict.fromkeys(m.name for r in results for m in r.measured))
    rows = []
    for result in results:
        row = {m.name: f"{m.us.p50:.2f}" if m.correct else "WRONG" for m in result.measured}
        rows.append((result.cell.name, *(row.get(name, "-") for name in names)))
    return Table("Microseconds of everyone, cold L2, in a graph", ("cell", *names), tuple(rows))


def _few(results: Sequence[Result]) -> Table:
    rows = [
        (r.cell.name, m.name, f"{m.us.p50:.2f}", _text(m.warm_us), _text(m.host_us))
        for r in results
        for m in r.measured
        if m.warm_us is not None or m.host_us is not None
    ]
    columns = ("cell", "implementation", "cold L2, us", "warm L2, us", "host, us of one call")
    return Table("Warm L2 and the host, apart", columns, tuple(rows))


def _absent(results: Sequence[Result]) -> list[tuple[str, str]]:
    where: dict[tuple[str, str], int] = {}
    for result in results:
        for who in result.absent:
            where[who] = where.get(who, 0) + 1
    return [(f"{name} left out", f"{why} ({count} cells)") for (name, why), count in where.items()]


def _text(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"
