"""A report as Markdown, made for the summary of a CI job: the verdict first, what failed next, the rest folded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rmsnorm_onnx.report.characters import printable
from rmsnorm_onnx.report.content import Case, Report, Status, Table

#: In Markdown these would end a cell, start HTML, a reference or a mention, or change the font.
_SPECIAL: Final = {c: "\\" + c for c in "\\`*_{}[]<>|#~$"} | {"&": "&amp;", "@": "&#64;", "\n": "<br>"}
_ESCAPES: Final = str.maketrans(_SPECIAL)
_INDENT: Final = re.compile(r"(?<=\n) +")
#: Characters of one cell; names in a model may be of any length.
_CELL: Final = 400
#: Rows in sight and folded away, of one table; the JSON document has all.
_OPEN_ROWS: Final = 20
_ROWS: Final = 200
#: GitHub leaves out a summary of more than 1 MiB; several commands may write to one.
_BYTES: Final = 256 * 1024


def to_markdown(report: Report) -> str:
    """A heading, the verdict, what failed, facts and tables; of bounded size, whatever the report holds."""
    text = ""
    left_out = 0
    for block in _blocks(report):
        if len((text + block).encode()) > _BYTES:
            left_out += 1
        else:
            text += block
    return text + (f"\n{left_out} parts were too long to be shown here.\n" if left_out else "")


def _blocks(report: Report) -> Iterator[str]:
    yield f"## {_escape(report.title)}\n\n**{_escape(report.verdict)}**\n"
    yield _list(report.facts)
    failed = [case for case in report.cases if case.status is Status.FAILED]
    if failed:
        yield "\n" + "".join(_failure(case) for case in failed[:_OPEN_ROWS]) + _more(len(failed) - _OPEN_ROWS)
    for table in report.tables:
        if not table.detail:
            rest = table.rows[_OPEN_ROWS:]
            yield f"\n### {_escape(table.title)}\n\n" + _table(table, table.rows[:_OPEN_ROWS])
            if rest:
                yield _folded(f"{len(rest):,} more", _table(table, rest[:_ROWS]) + _more(len(rest) - _ROWS))
    for table in report.tables:
        if table.detail:
            body = _table(table, table.rows[:_ROWS]) + _more(len(table.rows) - _ROWS)
            yield _folded(f"{table.title} ({len(table.rows):,})", body)
    if report.repeat or report.command:
        yield _folded("How to repeat it", _code(report.command) + _list(report.repeat))


def _list(pairs: tuple[tuple[str, str], ...]) -> str:
    return "\n" + "".join(f"- {_escape(label)}: {_escape(line)}\n" for label, line in pairs) if pairs else ""


def _failure(case: Case) -> str:
    where = f" ({case.group})" if case.group else ""
    return f"- **{_escape(case.name + where)}**: {_escape(case.message)}\n"


def _table(table: Table, rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [_row(table.columns), _row(("---",) * len(table.columns))] if table.columns else []
    return "\n".join([*lines, *(_row(tuple(_escape(cell) for cell in row)) for row in rows)]) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _folded(title: str, body: str) -> str:
    return f"\n<details><summary>{_escape(title)}</summary>\n\n{body}\n</details>\n"


def _code(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{printable(text)}\n{fence}\n" if text else ""


def _more(count: int) -> str:
    return f"\nand {count:,} more; the JSON document has all\n" if count > 0 else ""


def _escape(text: str) -> str:
    short = text if len(text) <= _CELL else text[: _CELL - 1] + "\N{HORIZONTAL ELLIPSIS}"
    lines = _INDENT.sub(lambda spaces: "\N{NO-BREAK SPACE}" * len(spaces[0]), printable(short))
    return lines.translate(_ESCAPES)
