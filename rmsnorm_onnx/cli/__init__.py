"""The command line: parses, calls the API, prints, and turns errors into exit codes.

Everything heavy is imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer

from rmsnorm_onnx.cli._benchmark import kernels, model
from rmsnorm_onnx.cli._info import info
from rmsnorm_onnx.cli._optimize import Target, inspect, optimize
from rmsnorm_onnx.cli._verify import verify
from rmsnorm_onnx.errors import InvalidInput, RmsNormError

__all__ = ["Target", "app", "main"]

app = typer.Typer(
    name="rmsnorm-onnx",
    help="RMS normalization in ONNX models: fuse every spelling, run it fast, prove that nothing changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
benchmark = typer.Typer(name="benchmark", help="Time kernels, or models before and after.", no_args_is_help=True)
app.add_typer(benchmark)
app.command()(optimize)
app.command()(inspect)
app.command()(verify)
app.command()(info)
benchmark.command()(kernels)
benchmark.command()(model)


def _version(value: bool) -> None:
    if value:
        from rmsnorm_onnx.library import package_version

        typer.echo(package_version())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """RMS normalization in ONNX models: fuse every spelling, run it fast, prove that nothing changed."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exit codes are 0 yes, 1 no, 2 bad input, 3 could not run."""
    # onnxruntime's packages since 1.29 report models and sessions; it looks at this once, when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is shown by its codes, not by a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments)
    except RmsNormError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        typer.echo(f"error: {error.strerror or error}: {error.filename or ''}", err=True)
        sys.exit(InvalidInput.exit_code)
