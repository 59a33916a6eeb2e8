"""``info``."""

from __future__ import annotations

import typer

from rmsnorm_onnx.cli._options import Json, show
from rmsnorm_onnx.errors import CannotRun


def info(json: Json = False) -> None:
    """Show versions, the library, instruction sets and providers, and test every kernel; exit 3 if that fails."""
    from rmsnorm_onnx.info import info as look

    found = look()
    show(found.report(), json)
    if not found.ok:
        raise typer.Exit(CannotRun.exit_code)
