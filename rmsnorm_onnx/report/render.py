"""A report as text, JSON, Markdown or JUnit XML."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from rmsnorm_onnx.report.content import Case, Report, Status

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: Final = {Status.PASSED: "bold green", Status.FAILED: "bold red", Status.SKIPPED: "bold yellow"}
#: In Markdown these would end a cell, start HTML or a reference, or change the font.
_MARKDOWN: Final = str.maketrans({c: "\\" + c for c in "\\`*_{}[]<>|#"} | {"\n": " "})


def print_text(report: Report, console: Console | None = None) -> None:
    """Print facts, tables and, last, the verdict; to standard output unless ``console`` says otherwise."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    console.print(Text(report.title, style="bold"))
    for label, line in report.facts:
        console.print(Text.assemble((f"{label}: ", "dim"), line))
    for table in report.tables:
        drawn = Table(title=Text(table.title), title_justify="left")
        for column in table.columns:
            # Folded, never cut: a number without its end is a wrong number.
            drawn.add_column(Text(column), overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(cell) for cell in row))
        console.print(drawn)
    console.print(Text(report.verdict, style=_STYLES[report.status]))


def to_json(report: Report) -> str:
    """The document as one JSON text; NaN and inf, which JSON lacks, become the strings "nan", "inf" and "-inf".

    Raises:
        ValueError: the document has no ``schema_version``.
        TypeError: it holds something that has no place in JSON.
    """
    if "schema_version" not in report.document:
        raise ValueError(f"the document of {report.title!r} has no schema_version")
    return json.dumps(_plain(report.document), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_markdown(report: Report) -> str:
    """A heading, the verdict, the facts as a list, and the tables, fit for a job summary."""
    lines = [f"## {_escape(report.title)}", "", f"**{_escape(report.verdict)}**", ""]
    lines += [f"- {_escape(label)}: {_escape(line)}" for label, line in report.facts]
    for table in report.tables:
        lines += ["", f"### {_escape(table.title)}", "", _markdown_row(table.columns)]
        lines += [_markdown_row(("---",) * len(table.columns))] if table.columns else []
        lines += [_markdown_row(tuple(_escape(cell) for cell in row)) for row in table.rows]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.translate(_MARKDOWN)


def to_junit(report: Report) -> str:
    """JUnit XML: one suite named after the report, one test case per case of the report."""
    from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

    suite = TestSuite(_printable(report.title))
    for label, line in report.facts:
        suite.add_property(_printable(label), _printable(line))
    for case in report.cases or (Case(report.title, report.status, report.verdict),):
        entry = TestCase(_printable(case.name), classname="rmsnorm_onnx")
        if case.status is Status.FAILED:
            entry.result = [Failure(_printable(case.message))]
        elif case.status is Status.SKIPPED:
            entry.result = [Skipped(_printable(case.message))]
        suite.add_testcase(entry)
    document = JUnitXml()
    document.add_testsuite(suite)
    return str(document.tostring().decode())  # type: ignore[no-untyped-call]


def _printable(text: str) -> str:
    """Without the control characters that XML 1.0 forbids and node names may hold."""
    return "".join(c if c >= " " or c in "\t\n\r" else "\N{REPLACEMENT CHARACTER}" for c in text)
