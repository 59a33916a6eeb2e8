"""``optimize`` and ``inspect``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rmsnorm_onnx.cli._options import Json, Markdown, Model, answer, check_outputs, show
from rmsnorm_onnx.progress import on_terminal


class Target(str, Enum):
    """Whose operators a fused model is made of."""

    RMSNORM = "rmsnorm"
    ONNX = "onnx"
    ORT = "ort"


TargetName = Annotated[Target, typer.Option(help="whose operators: this package's, ONNX's (opset 23), onnxruntime's")]
NoAdopt = Annotated[bool, typer.Option("--no-adopt", help="leave norm nodes that exist already alone")]


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
    markdown: Markdown = None,
) -> None:
    """Replace every RMS norm of MODEL by one node, and write the result to OUTPUT."""
    from dataclasses import replace

    from rmsnorm_onnx import modelfile
    from rmsnorm_onnx.api import optimize as run
    from rmsnorm_onnx.report import Status, to_markdown

    check_outputs((output, markdown), (model,))
    with on_terminal() as progress:
        progress(f"reading {model.name}", 0, 3)
        loaded = modelfile.load(model)
        progress("finding and fusing norms", 1, 3)
        result = run(loaded, target=target.value, adopt=not no_adopt, body=not no_body)
        enough = len(result.fused) >= require
        if output is not None and enough:
            progress(f"writing {output.name}", 2, 3)
            modelfile.save(result.model, output, model, copy_weights=copy_weights)
    report = result.report()
    if not enough:
        no = f"{len(result.fused)} norms fused, {require} required: nothing was written"
        report = replace(report, status=Status.FAILED, verdict=no)
        typer.echo(no, err=True)
    answer(report, ((markdown, to_markdown),), json)
    if output is not None:
        before, after = model.stat().st_size, output.stat().st_size
        written = f"{output} written, {after:,} bytes ({after - before:+,})"
        typer.echo(f"{written}; next: rmsnorm-onnx verify {model} {output}", err=True)


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
    show(report, json)
