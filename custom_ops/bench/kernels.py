"""Speed of the bare kernels beside a copy of the same bytes: PYTHONPATH=. python custom_ops/bench/kernels.py [--json].

One thread, one process, interleaved, medians. A share is the kernel's rate over the better of a plain and a
non-temporal copy that moves as many bytes (reads and writes counted alike) in the same memory.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import platform
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import kernels_abi as abi

from rmsnorm_onnx.spec import DType

#: Arrays that are read, and written, by the form.
STREAMS = {"plain": (1, 1), "skip": (2, 2), "gated": (2, 1), "pregated": (2, 1)}
#: Bytes read and written by one call: within the cache of that name on a server core.
PLACES = {"L1": 24 << 10, "L2": 512 << 10, "L3": 6 << 20, "DRAM": 256 << 20}
#: Dimensions after the first, and the axes: rows of these widths, then channels x pixels of images, heads x
#: features, and a mean over two axes that are not adjacent.
SHAPES = {
    **{str(width): ((width,), (-1,)) for width in (64, 128, 1024, 4096, 16384)},
    **{f"{c}x{n}": ((c, n), (-2,)) for c, n in ((64, 1024), (256, 256), (256, 3136), (512, 4096))},
    **{f"{c}x{n}": ((c, n), (-2,)) for c, n in ((32, 64), (2048, 49), (64, 7), (9, 3))},
    "8x4x16x256": ((8, 4, 16, 256), (-4, -2)),
}
ROUNDS = 21
#: Bytes of a line of the cache, at which every array begins.
LINE = 64
#: One sample lasts as long: several calls in any place but DRAM, far less than what a scheduler lets others have.
SAMPLE_NS = 1e6


@dataclass(frozen=True)
class Cell:
    """One measurement; rates are of bytes read and written."""

    form: str
    dtype: str
    place: str
    shape: str
    count: int
    gb_per_s: float
    copy: float
    streaming_copy: float
    share: float


def samples(calls: dict[str, Any]) -> dict[str, float]:
    """Nanoseconds of one call each, interleaved so that a slow moment hits all alike.

    Two calls before each sample: a streaming copy leaves the memory outside the caches.
    """
    repeats = {name: max(1, int(SAMPLE_NS / max(call(3) / 3, 1))) for name, call in calls.items()}
    took: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            calls[name](2)
            took[name].append(calls[name](repeats[name]) / repeats[name])
    return {name: statistics.median(times) for name, times in took.items()}


def measure(form: str, dtype: DType, place: str, shape: str, isa: str, streaming: int) -> Cell | None:
    """None where not even one of that shape fits."""
    tail, axes = SHAPES[shape]
    scale_shape = tuple(n if i - len(tail) in axes else 1 for i, n in enumerate(tail))
    size = abi.NUMPY[dtype].itemsize
    reads, writes = STREAMS[form]
    count = PLACES[place] // (math.prod(tail) * size * (reads + writes))
    if count == 0:
        return None
    nbytes = count * math.prod(tail) * size
    apart = -(-nbytes // LINE) * LINE
    # Of copies in memory of their own, both together would leave the cache that is asked about.
    memory = abi.aligned(apart * (reads + writes))
    memory[:] = 0x3C  # 0x3C3C is a number near 1 in every type, and no slow one
    at = abi.address(memory)
    scale = np.ones(scale_shape, abi.NUMPY[dtype])
    stash = DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT
    problem = abi.TestProblem(
        form=abi.FORMS.index(form), type=dtype, scale_type=dtype, stash=stash, normalized=stash, scaled=stash,
        epsilon=1e-5, shape=abi.int64s((count, *tail)), axes=abi.int64s(axes), scale_shape=abi.int64s(scale_shape),
        rank=1 + len(tail), axis_count=len(axes), scale_rank=len(tail), x=at, second=at + apart if reads == 2 else None,
        scale=abi.address(scale), y=at + apart * reads, sum=at + apart * 3 if form == "skip" else None,
        streaming=streaming,
    )  # fmt: skip
    shim = abi.shim()
    half = memory.nbytes // 2 // LINE * LINE
    copied = min(half, nbytes * (reads + writes) // 2)
    copy = lambda streaming: lambda repeats: shim.rmsnorm_bench_copy(  # noqa: E731
        ctypes.c_void_p(at + half), ctypes.c_void_p(at), ctypes.c_int64(copied),
        ctypes.c_int32(streaming), ctypes.c_int64(repeats),
    )  # fmt: skip
    calls = {
        "kernel": lambda repeats: shim.rmsnorm_bench_kernel(
            isa.encode(), ctypes.byref(problem), ctypes.c_int64(repeats)
        ),
        "copy": copy(0),
        "streaming": copy(1),
    }
    took = samples(calls)
    moved = {"kernel": nbytes * (reads + writes), "copy": 2 * copied, "streaming": 2 * copied}
    rate = {name: moved[name] / took[name] for name in calls}
    share = rate["kernel"] / max(rate["copy"], rate["streaming"])
    return Cell(form, dtype.name, place, shape, count, rate["kernel"], rate["copy"], rate["streaming"], share)


def table(cells: list[Cell]) -> Iterator[str]:
    """One line per form, type and place: GB/s and share of copy at every shape."""
    shapes = list(dict.fromkeys(cell.shape for cell in cells))
    yield f"{'':25}" + "".join(f"{shape:>14}" for shape in shapes)
    for form, dtype, place in dict.fromkeys((c.form, c.dtype, c.place) for c in cells):
        row = {c.shape: c for c in cells if (c.form, c.dtype, c.place) == (form, dtype, place)}
        texts = (f"{row[s].gb_per_s:8.1f} {row[s].share:5.2f}" if s in row else "-" for s in shapes)
        yield f"{form:8} {dtype:9} {place:5} " + "".join(f"{text:>14}" for text in texts)


def machine() -> str:
    """Processor and instruction sets."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name}, {' '.join(abi.isas())}"


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--isa", default="", help="instruction set (default: the best one)")
    parser.add_argument("--streaming", type=int, choices=(-1, 0, 1), default=-1, help="-1: as in a session")
    for name, every in (("form", STREAMS), ("dtype", [d.name for d in DType]), ("place", PLACES), ("shape", SHAPES)):
        parser.add_argument(f"--{name}", nargs="+", choices=list(every), default=list(every))
    args = parser.parse_args()
    for name in ("kernel", "copy"):
        getattr(abi.shim(), f"rmsnorm_bench_{name}").restype = ctypes.c_double
    questions = [(f, DType[d], p, s) for f in args.form for d in args.dtype for p in args.place for s in args.shape]
    cells = [cell for question in questions if (cell := measure(*question, args.isa, args.streaming)) is not None]
    if args.json:
        print(json.dumps({"schema_version": 1, "machine": machine(), "cells": [asdict(cell) for cell in cells]}))
    else:
        print(machine(), "GB/s read and written, share of the better copy", *table(cells), sep="\n")


if __name__ == "__main__":
    main()
