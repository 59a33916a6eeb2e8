"""What a benchmark of kernels says: measurements by problem, and tables and JSON of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import geometric_mean
from typing import Any, Final

from rmsnorm_onnx.bench.contestant import Group
from rmsnorm_onnx.bench.machine import Machine
from rmsnorm_onnx.report import Case, Report, Status, Table

SCHEMA_VERSION: Final = 1


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
        threads: inside one call.
        bytes: read and written.
        copies: nodes in one session.
        measurements: of everything that ran.
        absent: what did not run, with the reason.
    """

    form: str
    dtype: str
    rows: int
    width: int
    threads: int
    bytes: int
    copies: int
    measurements: tuple[Measurement, ...]
    absent: tuple[tuple[str, str], ...]

    @property
    def shape(self) -> str:
        """Rows and width."""
        return f"{self.rows}x{self.width}"

    def fastest(self, group: Group) -> Measurement | None:
        """The fastest correct one of a group, if any ran."""
        found = [m for m in self.measurements if m.group is group and m.correct]
        return min(found, key=lambda m: m.us_p50, default=None)

    def speedup(self, group: Group) -> float | None:
        """How many times as fast ours is as the fastest of ``group``; None where one of them did not run."""
        own, other = self.fastest(Group.OURS), self.fastest(group)
        return None if own is None or other is None else other.us_p50 / own.us_p50


@dataclass(frozen=True, slots=True)
class KernelBenchmark:
    """Answer of ``benchmark_kernels``.

    Attributes:
        machine: what it ran on.
        cells: one per problem.
    """

    machine: Machine
    cells: tuple[Cell, ...]

    @property
    def ok(self) -> bool:
        """Whether our kernels ran and were correct in every cell."""
        return all(cell.fastest(Group.OURS) is not None for cell in self.cells)

    def groups(self) -> Iterator[tuple[str, tuple[Cell, ...]]]:
        """Cells of one form, type and number of threads, with a title."""
        keys = dict.fromkeys((c.form, c.dtype, c.threads) for c in self.cells)
        for key in keys:
            title = f"{key[0]} {key[1]}, {key[2]} thread{'s' * (key[2] > 1)}"
            yield title, tuple(c for c in self.cells if (c.form, c.dtype, c.threads) == key)

    def report(self) -> Report:
        """The result in the form that every renderer takes."""
        wrong = [f"{m.name} {c.form} {c.dtype} {c.shape}" for c in self.cells for m in c.measurements if not m.correct]
        absent: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            for who in cell.absent:
                absent.setdefault(who, []).append(f"{cell.form} {cell.dtype}")
        facts = [("machine", self.machine.line())]
        for (name, why), where in absent.items():
            everywhere = len(where) == len(self.cells)
            places = "" if everywhere else f" ({', '.join(dict.fromkeys(where))})"
            facts.append((f"{name} left out", why + places))
        facts += [("WRONG RESULT", text) for text in wrong]
        facts.append(("cells", "microseconds p50 / p90, and in brackets the rate as a share of the fastest copy's"))
        return Report(
            title="rmsnorm-onnx benchmark kernels",
            status=Status.PASSED if self.ok else Status.FAILED,
            verdict=self._verdict(),
            facts=tuple(facts),
            tables=tuple(_table(title, cells) for title, cells in self.groups()),
            document={
                "schema_version": SCHEMA_VERSION,
                "command": "benchmark kernels",
                "ok": self.ok,
                "machine": asdict(self.machine),
                "cells": [_cell(c) for c in self.cells],
            },
            cases=tuple(_case(c) for c in self.cells),
        )

    def _verdict(self) -> str:
        if not self.ok:
            return "our kernels did not run correctly in every cell"
        parts = []
        for group, text in ((Group.ONNXRUNTIME, "onnxruntime's fastest"), (Group.PEER, "the fastest peer")):
            ratios = [ratio for c in self.cells if (ratio := c.speedup(group)) is not None]
            if ratios:
                parts.append(
                    f"{geometric_mean(ratios):.2f} times as fast as {text} (geometric mean of {len(ratios)} cells, "
                    f"{min(ratios):.2f} to {max(ratios):.2f})"
                )
        return "; ".join(parts) or "nothing to compare with"


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        **asdict(cell),
        "absent": dict(cell.absent),
        "times_as_fast_as_onnxruntime": cell.speedup(Group.ONNXRUNTIME),
        "times_as_fast_as_peers": cell.speedup(Group.PEER),
    }


def _table(title: str, cells: tuple[Cell, ...]) -> Table:
    names = dict.fromkeys(m.name for cell in cells for m in cell.measurements)
    by_cell = [{m.name: m for m in cell.measurements} for cell in cells]
    rows = [(name, *(_text(row.get(name)) for row in by_cell)) for name in names]
    for group, label in ((Group.ONNXRUNTIME, "onnxruntime's fastest / ours"), (Group.PEER, "fastest peer / ours")):
        ratios = [cell.speedup(group) for cell in cells]
        if any(ratio is not None for ratio in ratios):
            rows.append((label, *("-" if r is None else f"{r:.2f}" for r in ratios)))
    return Table(title, ("", *(cell.shape for cell in cells)), tuple(rows))


def _text(measured: Measurement | None) -> str:
    if measured is None:
        return "-"
    if not measured.correct:
        return "WRONG"
    return f"{_short(measured.us_p50)} / {_short(measured.us_p90)} ({measured.share_of_copy:.2f})"


def _short(number: float) -> str:
    """Three digits that count, and no exponent below a million."""
    return f"{float(f'{number:.3g}'):g}"


def _case(cell: Cell) -> Case:
    own = cell.fastest(Group.OURS)
    name = f"{cell.form} {cell.dtype} {cell.shape}, {cell.threads} threads"
    return Case(
        name, Status.PASSED if own else Status.FAILED, f"{_short(own.us_p50)} us" if own else "ours did not run"
    )
