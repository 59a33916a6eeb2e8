"""What every result looks like to a renderer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

_NUMBER: Final = re.compile(r"[-+]?(\d[\d.,]*(e[-+]?\d+)?|inf|nan)( / [\d.,]+(e[-+]?\d+)?)?|-?")


class Status(Enum):
    """Outcome of a run or of one case in it."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; every row has one cell per column.

    Attributes:
        title: above the table.
        columns: the header.
        rows: the cells.
        failed: so many rows, the first ones, are what failed: they are marked, and left out last.
        detail: for a page only: a terminal leaves the table out, and Markdown folds it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    failed: int = 0
    detail: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a row of another length than the header."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title}: expected {len(self.columns)} cells, got {len(row)}: {row}")

    @property
    def number_columns(self) -> tuple[bool, ...]:
        """Which columns hold nothing but numbers: those stand at the right, and are never broken into lines."""
        cells = tuple(zip(*self.rows, strict=True)) or ((),) * len(self.columns)
        return tuple(any(column) and all(_NUMBER.fullmatch(cell) for cell in column) for column in cells)


@dataclass(frozen=True, slots=True)
class BarChart:
    """How many of something fall into each bin, for one or more series side by side.

    Attributes:
        title: above the chart.
        axis: what the bins are, with the unit.
        bins: their labels, in order.
        series: pairs of a name and one count per bin.
    """

    title: str
    axis: str
    bins: tuple[str, ...]
    series: tuple[tuple[str, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for a series of another length than the bins."""
        for name, counts in self.series:
            if len(counts) != len(self.bins):
                raise ValueError(f"chart {self.title}: expected {len(self.bins)} counts, got {len(counts)} of {name}")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that passed, failed or was skipped.

    Attributes:
        name: unique in its group.
        status: the outcome.
        message: why, in lines; the first says it all in short.
        group: what it is one of; JUnit makes a suite of it.
    """

    name: str
    status: Status
    message: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A result in the form that every renderer takes.

    Attributes:
        title: what was done.
        status: the outcome.
        verdict: the outcome in one sentence.
        facts: pairs of a label and a line, shown in order.
        tables: shown in order.
        document: the whole result as JSON-ready values, with ``schema_version``.
        cases: for JUnit; without any, the report itself is the one case. Those that failed are shown everywhere.
        charts: for a page that can draw them.
        repeat: pairs of a label and a line: all that must be the same to get the same again.
        command: for a POSIX shell, that does it again; empty if there is none.
        file: the file that was judged, for JUnit; empty if there is none.
        seconds: that it took; None if nobody measured. Cases have no time of their own: they run together.
    """

    title: str
    status: Status
    verdict: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    document: Mapping[str, Any]
    cases: tuple[Case, ...] = ()
    charts: tuple[BarChart, ...] = ()
    repeat: tuple[tuple[str, str], ...] = ()
    command: str = ""
    file: str = ""
    seconds: float | None = None


class Reportable(Protocol):
    """A result that can be rendered."""

    def report(self) -> Report:
        """The result's report."""
        ...
