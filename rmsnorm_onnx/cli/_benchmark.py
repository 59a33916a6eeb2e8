"""``benchmark kernels`` and ``benchmark model``."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rmsnorm_onnx.cli._options import Json, Markdown, Seed, answer, check_outputs
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.progress import on_terminal


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
    # Pages as small as those of onnxruntime, for all: numpy asks for 2 MiB pages from 4 MiB on, when it is imported.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    from rmsnorm_onnx import bench
    from rmsnorm_onnx.report import to_markdown

    check_outputs((picture, markdown), ())
    with on_terminal() as progress:
        result = bench.benchmark_kernels(
            forms=[one.value for one in form or []],
            dtypes=[one.value for one in dtype or []],
            threads=threads or [1],
            grid=grid.value,
            shapes=[_shape(text) for text in shape or []],
            chain=chain,
            quick=quick,
            progress=progress,
        )
    answer(result.report(), ((picture, lambda _: bench.to_svg(result)), (markdown, to_markdown)), json)


def model(
    models: Annotated[list[Path] | None, typer.Argument(help="one alone is compared with itself optimized")] = None,
    synthetic: Annotated[str | None, typer.Option(metavar="NAME", help="a decoder made on the fly")] = None,
    dim: Annotated[list[str] | None, typer.Option(metavar="NAME=N", help="length of a free dimension")] = None,
    inputs: Annotated[Path | None, typer.Option(help="an .npz file or an ONNX test-data folder")] = None,
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

    check_outputs((markdown,), models or ())
    with tempfile.TemporaryDirectory(prefix="rmsnorm-onnx-") as folder, on_terminal() as progress:
        made = [bench.save(synthetic, Path(folder))] if synthetic else []
        result = api.benchmark(
            *made,
            *(models or []),
            dims=_lengths(dim or []),
            inputs=inputs,
            seed=seed,
            threads=threads,
            seconds=seconds,
            drop_in=drop_in,
            progress=progress,
        )
    answer(result.report(), ((markdown, to_markdown),), json)


def _shape(text: str) -> tuple[int, int]:
    rows, _, width = text.partition("x")
    if not (rows.isdecimal() and width.isdecimal()):
        raise InvalidInput(f"--shape takes ROWSxWIDTH, got '{text}'; for example --shape 16x4096")
    return int(rows), int(width)


def _lengths(texts: list[str]) -> dict[str, int]:
    from rmsnorm_onnx.runtime import parse_dims

    dims = parse_dims(texts)
    for name, lengths in dims.items():
        if len(lengths) > 1:
            raise InvalidInput(f"expected one length for --dim {name}, got {', '.join(map(str, lengths))}")
    return {name: length for name, (length,) in dims.items()}
