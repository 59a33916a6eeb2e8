"""The command of bench/cuda.py: its arguments, the order of its work, what it writes."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from custom_ops.bench.gpu.budget import Budget
from custom_ops.bench.gpu.cells import CELLS, GOALS_FOR, goal_table
from rmsnorm_onnx.report import Report, Status, Table, print_text, to_json, to_markdown

if TYPE_CHECKING:
    from custom_ops.bench.gpu.results import Ort, Result

#: All of it, compilation included, and what of it is kept for the sessions at the end.
SECONDS, RESERVE = 465.0, 45.0
#: What a dry run takes for granted, near what H200s have shown: bytes of L2, bytes per second of a copy.
DRY_L2, DRY_RATE = 60 << 20, 4.3e12
NO_GPU = 3
#: Characters of a printed line.
WIDTH = 180


def main(arguments: list[str] | None = None) -> int:
    """Measure everything; the exit code."""
    parser = argparse.ArgumentParser(description="Speed of the CUDA kernels.")
    parser.add_argument("folder", nargs="?", type=Path, help="where results are written")
    parser.add_argument("--dry-run", action="store_true", help="list cells, bytes, buffer sets and goals; needs no GPU")
    parser.add_argument("--page", type=Path, help="with --dry-run: Markdown page whose table of goals is written anew")
    parser.add_argument("--cells", default="", help="only cells whose name matches this regular expression")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for everything (default {SECONDS:g})")
    args = parser.parse_args(arguments)
    if args.dry_run and args.page:
        args.page.write_text(with_goals(args.page.read_text()))
        return 0
    if args.dry_run:
        print_text(dry_report(), _console())
        return 0
    if args.folder is None:
        parser.error("the folder that results are written to is missing")
    reason = missing()
    if reason:
        print(f"cannot measure CUDA kernels here: {reason}; --dry-run lists what would be", file=sys.stderr)
        return NO_GPU
    args.folder.mkdir(parents=True, exist_ok=True)
    return _measure(args.folder, Budget(args.seconds, RESERVE), args.cells)


def _console() -> Console:
    """As wide as the tables are, terminal or not."""
    return Console(width=max(WIDTH, Console().width))


def dry_report() -> Report:
    """What would be measured."""
    columns, rows = goal_table(DRY_L2, DRY_RATE)
    what = f"{DRY_L2 >> 20} MiB of L2, a copy of {DRY_RATE / 1e12:g} TB/s"
    return Report(
        title="CUDA kernels: what would be measured",
        status=Status.SKIPPED,
        verdict=f"{len(CELLS)} cells; nothing was measured",
        facts=((f"taken for an {GOALS_FOR}", what),),
        tables=(Table("Cells", columns, rows),),
        document={"schema_version": 1, "command": "benchmark cuda --dry-run", "cells": [c.name for c in CELLS]},
    )


def with_goals(page: str) -> str:
    """The page with the present goals between its marks."""
    table = to_markdown(dry_report()).partition("### Cells\n\n")[2]
    return re.sub(r"(<!-- goals -->\n).*?(<!-- /goals -->)", lambda m: f"{m[1]}{table}{m[2]}", page, flags=re.DOTALL)


def missing() -> str:
    """What a measurement lacks here; empty where nothing."""
    import cuda_device
    import cuda_memory

    if not cuda_memory.has_gpu():
        return "no NVIDIA GPU"
    if cuda_device.nvcc() is None:
        return "no nvcc, neither on PATH nor in /usr/local/cuda/bin"
    try:
        import torch
    except ImportError:
        return "torch cannot be imported"
    return "" if torch.cuda.is_available() else "torch sees no GPU"


def _measure(folder: Path, budget: Budget, pattern: str) -> int:
    import cuda_device
    import torch

    from custom_ops.bench.gpu import run, sessions
    from custom_ops.bench.gpu.results import report

    start = time.monotonic()
    with_sessions = sessions.has_cuda()
    cuda_device.build("rmsnorm_cuda_test", *["rmsnorm_onnx_cuda"] * with_sessions)
    device: dict[str, Any] = json.loads(cuda_device.library().rmsnorm_cuda_describe())
    facts = [
        ("device", ", ".join(f"{name} {value}" for name, value in device.items())),
        ("versions", f"torch {torch.__version__}, CUDA of torch {torch.version.cuda}"),
        ("compiled in", f"{time.monotonic() - start:.0f} s"),
        (
            "time",
            "microseconds of one launch in a CUDA graph; each sample 2 ms or more, medians of interleaved samples",
        ),
    ]
    before = run.large_copies()
    gpu = run.Gpu(device["code"], device["processors"], device["shared_bytes"], device["l2_bytes"], before)
    results: list[Result] = []
    orts: list[Ort] = []

    def save() -> Report:
        done = report(results, orts, (*facts, ("seconds", budget.line())), device["device"])
        (folder / "cuda.json").write_text(to_json(done))
        (folder / "cuda.md").write_text(to_markdown(done))
        return done

    chosen = [cell for cell in CELLS if re.search(pattern, cell.name)]
    for index, cell in enumerate(chosen):
        results.append(_cell(run, cell, gpu, budget, len(chosen) - index))
        print(f"{budget.spent():4.0f} s  {'  '.join(results[-1].row())}", file=sys.stderr)
        save()  # what is there stays, whatever happens to the rest
    after = run.large_copies()
    for reads, what in ((1, "a large copy"), (2, "two large arrays into one")):
        facts.append((what, f"{before[reads] / 1e12:.3f} TB/s, at the end {after[reads] / 1e12:.3f}"))
    if with_sessions:
        try:
            orts += sessions.run(cuda_device.onnxruntime_library())
        except Exception as error:  # what was measured before is still worth showing
            facts.append(("onnxruntime left out", f"{type(error).__name__}: {str(error)[:300]}"))
    else:
        facts.append(("onnxruntime left out", "the one that is installed is not for CUDA"))
    done = save()
    print_text(done, _console())
    return 0 if done.status is Status.PASSED else 1


def _cell(run: Any, cell: Any, gpu: Any, budget: Budget, left: int) -> Result:
    """One cell, or a result that says why there is none."""
    from custom_ops.bench.gpu.results import Result

    try:
        result: Result = run.run(cell, gpu, budget, left)
    except Exception as error:  # out of memory, above all
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        result = Result(cell, cell.sets(gpu.l2_bytes), gpu.rate(cell), (), (("the cell", reason),))
    run.release()
    return result
