"""``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmsnorm_onnx.cli._options import Json, Markdown, Seed, answer, check_outputs
from rmsnorm_onnx.progress import on_terminal

#: As ``parity.DEFAULT_SAMPLES``, which a test compares: importing it takes longer than --help may.
SAMPLES = 8


def verify(
    original: Annotated[Path, typer.Argument(help="the model as it was", show_default=False)],
    fused: Annotated[Path, typer.Argument(help="the model as it is now", show_default=False)],
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N[,N...]", help="lengths of a free dimension; every combination is a set of inputs"),
    ] = None,
    val_range: Annotated[
        list[str] | None,
        typer.Option(metavar="LOW,HIGH", help="range of real inputs; repeat for further sets of inputs"),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(help="an .npz file or an ONNX test-data folder, instead of random inputs; repeat for several"),
    ] = None,
    seed: Seed = 0,
    samples: Annotated[
        int, typer.Option(help="runs that sample the original's roundings; more narrow the bound")
    ] = SAMPLES,
    threads: Annotated[int | None, typer.Option(help="inside one operator; default: all cores")] = None,
    per_node: Annotated[
        bool, typer.Option("--per-node", help="also check every fused node alone, on the inputs it really gets")
    ] = False,
    no_library: Annotated[bool, typer.Option("--no-library", help="run FUSED by its function bodies")] = False,
    json: Json = False,
    junit: Annotated[Path | None, typer.Option(help="also write JUnit XML")] = None,
    markdown: Markdown = None,
    html: Annotated[Path | None, typer.Option(help="also write one HTML file")] = None,
) -> None:
    """Run both models on the same inputs and say whether they are equal; exit 1 if they are not."""
    from rmsnorm_onnx.api import verify as run
    from rmsnorm_onnx.report import to_html, to_junit, to_markdown
    from rmsnorm_onnx.runtime import parse_dims

    check_outputs((junit, markdown, html), (original, fused, *(inputs or ())))
    with on_terminal() as progress:
        result = run(
            original,
            fused,
            dims=parse_dims(dim or ()),
            inputs=inputs or None,
            ranges=val_range or (),
            seed=seed,
            library=not no_library,
            threads=threads,
            samples=samples,
            per_node=per_node,
            progress=progress,
        )
    answer(result.report(), ((junit, to_junit), (markdown, to_markdown), (html, to_html)), json)
