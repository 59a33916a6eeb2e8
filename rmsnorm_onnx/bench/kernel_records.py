"""What a benchmark of kernels says: tables and JSON of its cells and of what they sum up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import geometric_mean
from typing import Any, Final

from rmsnorm_onnx.bench.cell import Cell, Measurement
from rmsnorm_onnx.bench.contestant import Group
from rmsnorm_onnx.bench.kernel_summary import COLUMNS, kind, summaries
from rmsnorm_onnx.bench.machine import Machine
from rmsnorm_onnx.report import Case, Report, Status, Table

SCHEMA_VERSION: Final = 1


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
            yield kind(*key), tuple(c for c in self.cells if (c.form, c.dtype, c.threads) == key)

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
        found = [summary for _, cells in self.groups() for summary in summaries(cells)]
        meaning = "microseconds p50 / p90, the rate as a share of the fastest copy's, how many times as fast ours is"
        facts.append(("cells", f"p50 / p90 (share) ratio: {meaning}"))
        return Report(
            title="rmsnorm-onnx benchmark kernels",
            status=Status.PASSED if self.ok else Status.FAILED,
            verdict=self._verdict(),
            facts=tuple(facts),
            tables=(
                *(_table(title, cells) for title, cells in self.groups()),
                Table("How many times as fast ours is", COLUMNS, tuple(summary.row() for summary in found)),
            ),
            document={
                "schema_version": SCHEMA_VERSION,
                "command": "benchmark kernels",
                "ok": self.ok,
                "machine": asdict(self.machine),
                "summaries": [asdict(summary) for summary in found],
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
        "times_as_fast_as": cell.speedups(),
    }


def _table(title: str, cells: tuple[Cell, ...]) -> Table:
    names = dict.fromkeys(m.name for cell in cells for m in cell.measurements)
    by_cell = [{m.name: m for m in cell.measurements} for cell in cells]
    ratios = [cell.speedups() for cell in cells]
    rows = [
        (name, *(_text(row.get(name), ratio.get(name)) for row, ratio in zip(by_cell, ratios, strict=True)))
        for name in names
    ]
    for group, label in ((Group.ONNXRUNTIME, "onnxruntime's fastest / ours"), (Group.PEER, "fastest peer / ours")):
        best = [cell.speedup(group) for cell in cells]
        if any(ratio is not None for ratio in best):
            rows.append((label, *("-" if ratio is None else f"{ratio:.2f}" for ratio in best)))
    return Table(title, ("", *(cell.shape for cell in cells)), tuple(rows))


def _text(measured: Measurement | None, ratio: float | None) -> str:
    if measured is None:
        return "-"
    if not measured.correct:
        return "WRONG"
    text = f"{_short(measured.us_p50)} / {_short(measured.us_p90)} ({measured.share_of_copy:.2f})"
    return text if ratio is None else f"{text} {ratio:.2f}"


def _short(number: float) -> str:
    """Three digits that count, and no exponent below a million."""
    return f"{float(f'{number:.3g}'):g}"


def _case(cell: Cell) -> Case:
    own = cell.fastest(Group.OURS)
    name = f"{cell.form} {cell.dtype} {cell.shape}, {cell.threads} threads"
    return Case(
        name, Status.PASSED if own else Status.FAILED, f"{_short(own.us_p50)} us" if own else "ours did not run"
    )
