"""What every result looks like to a renderer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


class Status(Enum):
    """Outcome of a run or of one case in it."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; every row has one cell per column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for a row of another length than the header."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title}: expected {len(self.columns)} cells, got {len(row)}: {row}")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that passed, failed or was skipped, for JUnit; ``message`` says why."""

    name: str
    status: Status
    message: str = ""


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
        cases: for JUnit; without any, the report itself is the one case.
    """

    title: str
    status: Status
    verdict: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    document: Mapping[str, Any]
    cases: tuple[Case, ...] = ()


class Reportable(Protocol):
    """A result that can be rendered."""

    def report(self) -> Report:
        """The result's report."""
        ...
