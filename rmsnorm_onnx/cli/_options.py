"""Arguments and options that several commands have, and how a command answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rmsnorm_onnx.report import Report

Model = Annotated[Path, typer.Argument(help="an ONNX model", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")]
Seed = Annotated[int, typer.Option(help="seed of the generated inputs")]
Markdown = Annotated[Path | None, typer.Option(help="also write Markdown")]


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Refuse, before any work, to write over an input, to one file twice, or into a folder that is not there.

    Raises:
        InvalidInput: one of these.
    """
    from rmsnorm_onnx.errors import InvalidInput

    read, seen = list(inputs), set()
    for path in (path for path in outputs if path is not None):
        if any(path.exists() and one.exists() and path.samefile(one) for one in read):
            raise InvalidInput(f"the output {path} is the input; give another name, the input is never changed")
        if path.is_dir():
            raise InvalidInput(f"the output {path} is a folder; give the name of a file")
        if path.resolve() in seen:
            raise InvalidInput(f"{path} is given for two outputs; give each a name of its own")
        if not path.parent.is_dir():
            raise InvalidInput(f"the folder of {path} does not exist; create it first")
        seen.add(path.resolve())


def answer(report: Report, files: Iterable[tuple[Path | None, Callable[[Report], str]]], as_json: bool) -> None:
    """Print, write the files that were asked for, and exit with 1 for a no."""
    from rmsnorm_onnx.files import write_atomically
    from rmsnorm_onnx.report import Status

    # First: what took minutes is not lost where a folder is missing.
    show(report, as_json)
    for path, render in files:
        if path is not None:
            write_atomically(path, render(report))
    if report.status is Status.FAILED:
        raise typer.Exit(1)


def show(report: Report, as_json: bool) -> None:
    from rmsnorm_onnx.report import print_text, to_json

    if as_json:
        sys.stdout.write(to_json(report) + "\n")
    else:
        print_text(report)
