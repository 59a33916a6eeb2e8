"""A report on a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rmsnorm_onnx.report.characters import printable
from rmsnorm_onnx.report.content import Report, Status, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

_STYLES: Final = {Status.PASSED: "bold green", Status.FAILED: "bold red", Status.SKIPPED: "bold yellow"}
#: Of SHA-256; a page, JUnit and JSON have all 64 digits.
_HASH: Final = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
#: Columns of words are broken into lines down to so many characters.
_NARROWEST: Final = 8
#: Between columns: the padding and rich's invisible line.
_GAP: Final = 2
#: Of one table, and of failures told in full; the JSON document has all of them.
_ROWS: Final = 100
_FAILURES: Final = 10


def print_text(report: Report, console: Console | None = None) -> None:
    """Print facts, tables, what failed and, last, the verdict; to standard output unless ``console`` says otherwise."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    console.print(Text(printable(report.title), style="bold"))
    _print_pairs(report.facts, console)
    for table in report.tables:
        if not table.detail:
            console.print()
            # Not as the table's own title, which is wrapped where the table ends.
            console.print(Text(printable(table.title), style="italic"))
            console.print(_drawn(table, console.width), crop=False)
            if len(table.rows) > _ROWS:
                console.print(Text(f"and {len(table.rows) - _ROWS:,} more; --json has all", style="dim"))
    if report.tables:
        console.print()
    failed = [case for case in report.cases if case.status is Status.FAILED]
    for case in failed[:_FAILURES]:
        where = f" ({case.group})" if case.group else ""
        first, *rest = printable(case.message).splitlines() or [""]
        _print_hanging(Text.assemble((printable(case.name + where), "red"), ": " + first), console)
        for line in rest:
            _print_hanging(Text(line.strip()), console, indent=2)
    if len(failed) > _FAILURES:
        console.print(Text(f"and {len(failed) - _FAILURES:,} more that failed; --json has all", style="dim"))
    _print_pairs(report.repeat, console)
    if report.command:
        # Never broken into lines: it is there to be copied.
        console.print(Text.assemble(("repeat: ", "dim"), printable(report.command)), soft_wrap=True)
    console.print(Text(printable(report.verdict), style=_STYLES[report.status]))


def _print_pairs(pairs: tuple[tuple[str, str], ...], console: Console) -> None:
    from rich.text import Text

    for label, line in pairs:
        short = _HASH.sub(r"\1", printable(line))
        _print_hanging(Text.assemble((f"{printable(label)}: ", "dim"), short), console)


def _print_hanging(text: Text, console: Console, indent: int = 0) -> None:
    """Wrapped at words, and the following lines further in, so that the eye finds where the next begins."""
    from rich.padding import Padding

    lines = text.wrap(console, max(console.width - indent - 2, 1))
    for number, line in enumerate(lines):
        console.print(Padding(line, (0, 0, 0, indent + (2 if number else 0)), expand=False))


def _drawn(table: Table, width: int) -> Drawn:
    from rich import box
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    least = [
        max(len(row[number]) for row in table.rows) if numbers else _NARROWEST
        for number, numbers in enumerate(table.number_columns)
    ]
    # A table that does not fit is wider than the terminal: rich would leave columns out.
    if sum(least) + _GAP * len(least) > width:
        drawn.width = sum(least) + _GAP * len(least)
    for column, numbers, fewest in zip(table.columns, table.number_columns, least, strict=True):
        drawn.add_column(
            Text(printable(column)),
            # Folded, never cut: a number without its end is a wrong number.
            overflow="fold",
            justify="right" if numbers else "left",
            min_width=fewest if numbers else None,
            no_wrap=numbers,
        )
    for number, row in enumerate(table.rows[:_ROWS]):
        drawn.add_row(*(Text(printable(cell)) for cell in row), style="red" if number < table.failed else None)
    return drawn
