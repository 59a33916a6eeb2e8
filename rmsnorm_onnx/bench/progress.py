"""Progress on standard error, and only where somebody watches: on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeAlias

#: Takes what is being done now.
Progress: TypeAlias = Callable[[str], None]


def silent(_: str) -> None:
    """Say nothing."""


def on_terminal(text: str) -> None:
    """One line that the next one replaces; an empty text clears it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
