"""The command line: parses, calls the API, prints, and turns errors into exit codes.

Everything heavy is imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from rmsnorm_onnx.errors import InvalidInput, RmsNormError

if TYPE_CHECKING:
    from rmsnorm_onnx.report import Report

    class Answer(Protocol):
        """A result that is a yes or a no."""

        @property
        def ok(self) -> bool: ...  # noqa: D102

        def report(self) -> Report: ...  # noqa: D102


app = typer.Typer(
    name="rmsnorm-onnx",
    help="RMS normalization in ONNX models: fuse every spelling, run it fast, prove that nothing changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

benchmark = typer.Typer(name="benchmark", help="Time kernels, or models before and after.", no_args_is_help=True)
app.add_typer(benchmark)


class Target(str, Enum):
    """Whose operators a fused model is made of."""

    RMSNORM = "rmsnorm"
    ONNX = "onnx"
    ORT = "ort"


class Form(str, Enum):
    """What is computed around the norm."""

    PLAIN = "plain"
    SKIP = "skip"
    GATED = "gated"
    PREGATED = "pregated"


class Grid(str, Enum):
    """Shapes that kernels are timed on."""

    COMMON = "common"
    FULL = "full"


class DType(str, Enum):
    """Element types."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT64 = "float64"


Model = Annotated[Path, typer.Argument(help="an ONNX model", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document instead of tables")]
TargetName = Annotated[Target, typer.Option(help="whose operators: this package's, ONNX's (opset 23), onnxruntime's")]
Dims = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="length of a symbolic dimension")]
Inputs = Annotated[Path | None, typer.Option(help="an .npz file or an ONNX test-data folder")]
Seed = Annotated[int, typer.Option(help="seed of the generated inputs")]
Markdown = Annotated[Path | None, typer.Option(help="also write Markdown")]
NoAdopt = Annotated[bool, typer.Option("--no-adopt", help="leave norm nodes that exist already alone")]


@app.command()
def optimize(
    model: Model,
    output: Annotated[Path | None, typer.Argument(help="where to write; without it, only report")] = None,
    target: TargetName = Target.RMSNORM,
    require: Annotated[int, typer.Option(help="exit 1, and write nothing, if fewer norms are fused")] = 0,
    no_adopt: NoAdopt = False,
    no_body: Annotated[
        bool, typer.Option("--no-body", help="store no function bodies: the library is required")
    ] = False,
    copy_weights: Annotated[
        bool, typer.Option("--copy-weights", help="copy external weights to an output in another folder")
    ] = False,
    json: Json = False,
) -> None:
    """Replace every RMS norm of MODEL by one node, and write the result to OUTPUT."""
    from rmsnorm_onnx import modelfile
    from rmsnorm_onnx.api import optimize as run

    loaded = modelfile.load(model)
    result = run(loaded, target=target.value, adopt=not no_adopt, body=not no_body)
    enough = len(result.fused) >= require
    if output is not None and enough:
        modelfile.save(result.model, output, model, copy_weights=copy_weights)
    _print(result.report(), json)
    if not enough:
        typer.echo(f"{len(result.fused)} norms fused, {require} required: nothing was written", err=True)
        raise typer.Exit(1)
    if output is not None:
        before, after = model.stat().st_size, output.stat().st_size
        written = f"{output} written, {after:,} bytes ({after - before:+,})"
        typer.echo(f"{written}; next: rmsnorm-onnx verify {model} {output}", err=True)


@app.command()
def inspect(
    model: Model,
    explain: Annotated[
        bool, typer.Option("--explain", help="show the nodes of each near miss and what to change")
    ] = False,
    target: TargetName = Target.RMSNORM,
    no_adopt: NoAdopt = False,
    json: Json = False,
) -> None:
    """Show which RMS norms MODEL holds, and what only looks like one; change nothing."""
    from dataclasses import replace

    from rmsnorm_onnx.api import inspect as run

    report = run(model, target=target.value, adopt=not no_adopt).report()
    if not explain:
        report = replace(report, tables=tuple(t for t in report.tables if t.title != "Near misses"))
    _print(report, json)


@app.command()
def verify(
    original: Annotated[Path, typer.Argument(help="the model as it was", show_default=False)],
    fused: Annotated[Path, typer.Argument(help="the model as it is now", show_default=False)],
    dim: Dims = None,
    inputs: Inputs = None,
    seed: Seed = 0,
    no_library: Annotated[bool, typer.Option("--no-library", help="run FUSED by its function bodies")] = False,
    json: Json = False,
    junit: Annotated[Path | None, typer.Option(help="also write JUnit XML")] = None,
    markdown: Markdown = None,
    html: Annotated[Path | None, typer.Option(help="also write one HTML file")] = None,
) -> None:
    """Run both models on the same inputs and say whether they are equal; exit 1 if they are not."""
    from rmsnorm_onnx.api import verify as run
    from rmsnorm_onnx.report import to_html, to_junit, to_markdown

    result = run(original, fused, dims=_dims(dim or []), inputs=inputs, seed=seed, library=not no_library)
    _answer(result, ((junit, to_junit), (markdown, to_markdown), (html, to_html)), json)


@app.command()
def info(json: Json = False) -> None:
    """Show versions, the compiled library and its instruction sets: what a bug report needs."""
    from rmsnorm_onnx.environment import environment

    _print(environment().report(), json)


@benchmark.command()
def kernels(
    form: Annotated[list[Form] | None, typer.Option(help="repeat for several; default: the first three")] = None,
    dtype: Annotated[list[DType] | None, typer.Option(help="repeat for several; default: the first three")] = None,
    grid: Annotated[Grid, typer.Option(help="shapes, where none are given")] = Grid.COMMON,
    shape: Annotated[list[str] | None, typer.Option(metavar="ROWSxWIDTH", help="repeat for several")] = None,
    chain: Annotated[int | None, typer.Option(metavar="N", help="also N norms, each on what the last gave")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="repeat for several; default: 1")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a few cells in seconds; the figures mean little")] = False,
    picture: Annotated[Path | None, typer.Option(help="also draw rates over sizes, as SVG")] = None,
    json: Json = False,
    markdown: Markdown = None,
) -> None:
    """Time the kernels against onnxruntime's, other packages' and plain copies; exit 1 if ours are wrong."""
    from rmsnorm_onnx import bench
    from rmsnorm_onnx.report import to_markdown

    result = bench.benchmark_kernels(
        forms=[one.value for one in form or []],
        dtypes=[one.value for one in dtype or []],
        threads=threads or [1],
        grid=grid.value,
        shapes=[_shape(text) for text in shape or []],
        chain=chain,
        quick=quick,
        progress=bench.on_terminal,
    )
    _answer(result, ((picture, lambda _: bench.to_svg(result)), (markdown, to_markdown)), json)


@benchmark.command()
def model(
    models: Annotated[list[Path] | None, typer.Argument(help="one alone is compared with itself optimized")] = None,
    synthetic: Annotated[str | None, typer.Option(metavar="NAME", help="a decoder made on the fly")] = None,
    dim: Dims = None,
    inputs: Inputs = None,
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(help="inside one operator; default: all cores")] = None,
    seconds: Annotated[float, typer.Option(help="of timed runs per model, roughly")] = 10.0,
    drop_in: Annotated[bool, typer.Option("--drop-in", help="also the first model as it is, on our kernels")] = False,
    json: Json = False,
    markdown: Markdown = None,
) -> None:
    """Time MODELS on the same inputs, after checking that their outputs are equal; exit 1 if they are not."""
    import tempfile

    from rmsnorm_onnx import api, bench
    from rmsnorm_onnx.report import to_markdown

    with tempfile.TemporaryDirectory(prefix="rmsnorm-onnx-") as folder:
        made = [bench.save(synthetic, Path(folder))] if synthetic else []
        result = api.benchmark(
            *made,
            *(models or []),
            dims=_dims(dim or []),
            inputs=inputs,
            seed=seed,
            threads=threads,
            seconds=seconds,
            drop_in=drop_in,
            progress=bench.on_terminal,
        )
    _answer(result, ((markdown, to_markdown),), json)


def _shape(text: str) -> tuple[int, int]:
    rows, _, width = text.partition("x")
    if not (rows.isdecimal() and width.isdecimal()):
        raise InvalidInput(f"--shape takes ROWSxWIDTH, got '{text}'; for example --shape 16x4096")
    return int(rows), int(width)


def _dims(pairs: list[str]) -> dict[str, int]:
    dims = {}
    for pair in pairs:
        name, _, value = pair.rpartition("=")
        if not name or not value.isdecimal():
            raise InvalidInput(f"--dim takes NAME=VALUE with a whole number, got '{pair}'; for example --dim batch=2")
        dims[name] = int(value)
    return dims


def _answer(result: Answer, files: Iterable[tuple[Path | None, Callable[[Report], str]]], as_json: bool) -> None:
    """Write the files that were asked for, print, and exit with 1 for a no."""
    from rmsnorm_onnx.files import write_atomically

    report = result.report()
    for path, render in files:
        if path is not None:
            write_atomically(path, render(report))
    _print(report, as_json)
    if not result.ok:
        raise typer.Exit(1)


def _print(report: Report, as_json: bool) -> None:
    from rmsnorm_onnx.report import print_text, to_json

    if as_json:
        sys.stdout.write(to_json(report) + "\n")
    else:
        print_text(report)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("rmsnorm-onnx"))
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
    try:
        app(arguments)
    except RmsNormError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        typer.echo(f"error: {error.strerror or error}: {error.filename or ''}", err=True)
        sys.exit(InvalidInput.exit_code)
