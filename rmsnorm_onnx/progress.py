"""Progress of long work: on standard error, and only where somebody watches, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Is told what is being done now, and how many steps of how many are behind; no total where it is not known."""

    def __call__(self, doing: str, done: int = 0, total: int | None = None) -> None: ...  # noqa: D102


def silent(doing: str, done: int = 0, total: int | None = None) -> None:
    """Say nothing."""


@contextmanager
def on_terminal() -> Iterator[Progress]:
    """One line with a bar that is gone in the end; nothing at all if standard error is no terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
    # Drawn when there is something new, not by a thread: that would run beside what is being timed.
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None)

        def show(doing: str, done: int = 0, total: int | None = None) -> None:
            bar.update(task, description=escape(doing), completed=done, total=total, refresh=True)

        yield show
