"""Speed inside onnxruntime beside its own operators: python custom_ops/bench/sessions.py [--json] [--threads 1 2].

One process, sides interleaved, medians; every cell is checked against float64 before it is timed. A ratio is our time
over that of the fastest spelling onnxruntime has a kernel for, so less than 1 is faster. Pin it (taskset) to
processors that do nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
import timeit
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from rmsnorm_onnx import library, reference, spec
from rmsnorm_onnx.bench.ort import at_line, share
from rmsnorm_onnx.spec import DType

#: As a float attribute holds it.
EPSILON = float(np.float32(1e-5))
NUMPY = reference.NUMPY_TYPES
SHAPES = [(1, 64), *((r, w) for r in (1, 16, 512, 4096) for w in (128, 1024, 4096, 16384)), (32768, 128)]
#: Nodes one after the other, each on the output of the one before.
CHAIN, CHAIN_SHAPE = 8, (512, 4096)
#: A model holds so many copies of the node that it moves this much, and the caller's cost drops out.
MODEL_BYTES, MOST_COPIES = 8 << 20, 100
FORMS = {"plain": spec.RMS, "residual": spec.SKIP, "gated": spec.GATED}
STREAMS = {"plain": 2, "residual": 4, "gated": 3}
#: Relative error; theirs only shows that the same thing is computed (float32 sums in one chain reach 200 roundoffs).
OURS_ROUNDOFFS, THEIRS = 8, {DType.FLOAT: 1e-4, DType.DOUBLE: 1e-9, DType.FLOAT16: 4e-3, DType.BFLOAT16: 3e-2}
ROUNDS, SAMPLE_SECONDS, CELL_SECONDS = 21, 1.5e-3, 3
#: Threads of one side wait in a loop for so long, on processors that the next side needs.
SPINNING_SECONDS = 0.06
CHECKED_ROWS = 16


@dataclass(frozen=True)
class Question:
    """One cell of the table."""

    form: str
    dtype: DType
    rows: int
    width: int
    threads: int
    chain: int = 1

    @property
    def node_bytes(self) -> int:
        """Bytes that one node reads and writes."""
        return STREAMS[self.form] * self.rows * self.width * NUMPY[self.dtype].itemsize

    @property
    def copies(self) -> int:
        """Nodes in the model."""
        return self.chain if self.chain > 1 else max(1, min(MOST_COPIES, MODEL_BYTES // self.node_bytes))


@dataclass(frozen=True)
class Cell:
    """One measurement, in microseconds per node."""

    form: str
    dtype: str
    rows: int
    width: int
    threads: int
    chain: int
    ours_us: float
    theirs_us: float
    theirs: str
    ratio: float


Nodes = list[onnx.NodeProto]


def our_node(q: Question, x: str, y: str, total: str) -> Nodes:
    """The operator of this package; rounded once, as onnxruntime does."""
    stash = DType.DOUBLE if q.dtype is DType.DOUBLE else DType.FLOAT
    types = {"stash_type": stash, "normalized_type": stash} | ({"scaled_type": stash} if q.form == "gated" else {})
    inputs = [x, "s"] if q.form == "plain" else [x, "z", "s"]
    outputs = [y, total] if q.form == "residual" else [y]
    given = {"domain": spec.DOMAIN, "axes": [-1], "epsilon": EPSILON} | types
    return [helper.make_node(FORMS[q.form].name, inputs, outputs, **given)]


def rms(q: Question, x: str, y: str, total: str) -> Nodes:
    """ONNX."""
    return [helper.make_node("RMSNormalization", [x, "s"], [y], epsilon=EPSILON)]


def simplified(q: Question, x: str, y: str, total: str) -> Nodes:
    """Hidden in the domain of ONNX."""
    return [helper.make_node("SimplifiedLayerNormalization", [x, "s"], [y], epsilon=EPSILON)]


def skip(q: Question, x: str, y: str, total: str) -> Nodes:
    """Norm of a residual sum, one node."""
    op = "SkipSimplifiedLayerNormalization"
    return [helper.make_node(op, [x, "z", "s"], [y, "", "", total], domain="com.microsoft", epsilon=EPSILON)]


def added(q: Question, x: str, y: str, total: str) -> Nodes:
    """Norm of a residual sum, two nodes."""
    return [helper.make_node("Add", [x, "z"], [total]), *simplified(q, total, y, "")]


def gated(q: Question, x: str, y: str, total: str) -> Nodes:
    """Norm times silu of a gate."""
    how = {"domain": "com.microsoft", "epsilon": EPSILON, "activation": "silu"}
    return [helper.make_node("GatedRMSNorm", [x, "s", "z"], [y], **how)]


def cast(inner: Any) -> Any:
    """`inner` in float32 between Casts, for types it has no kernel for."""

    def nodes(q: Question, x: str, y: str, total: str) -> Nodes:
        inside = inner(q, f"{x}:{y}", f"{y}:f", f"{total}:f")
        second = any("z" in node.input for node in inside)
        for node in inside:
            node.input[:] = [f"z:{y}" if name == "z" else "s:f" if name == "s" else name for name in node.input]
        sources = {f"{x}:{y}": x} | ({f"z:{y}": "z"} if second else {})
        before = [helper.make_node("Cast", [s], [f], to=int(DType.FLOAT)) for f, s in sources.items()]
        targets = [y] + ([total] if q.form == "residual" else [])
        return [*before, *inside, *(helper.make_node("Cast", [f"{t}:f"], [t], to=int(q.dtype)) for t in targets)]

    return nodes


def their_spellings(q: Question) -> dict[str, Any]:
    """What onnxruntime has kernels for (1.31)."""
    narrow = q.dtype is DType.BFLOAT16
    if q.form == "plain":
        found = {"SimplifiedLayerNormalization": simplified}
        return found | ({"Cast + Simplified": cast(simplified)} if narrow else {"RMSNormalization": rms})
    if q.form == "residual":
        found = {} if q.dtype is DType.DOUBLE else {"SkipSimplified": skip}
        return found | ({"Cast + SkipSimplified": cast(skip)} if narrow else {"Add + Simplified": added})
    if q.dtype is DType.DOUBLE:
        return {}
    return {"Cast + GatedRMSNorm": cast(gated)} if narrow else {"GatedRMSNorm": gated}


def values(q: Question) -> dict[str, Any]:
    """Inputs; the scale is a constant of the model."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, q.width).astype(ml_dtypes.bfloat16).astype(NUMPY[q.dtype])
    names = ["x", "z"][: 1 if q.form == "plain" else 2]
    full = {name: rng.standard_normal((q.rows, q.width), np.float32).astype(NUMPY[q.dtype]) for name in names}
    return {**full, "s": scale}


def model(q: Question, spelling: Any, scale: Any) -> bytes:
    """Copies of a node on the same inputs, or a chain of them; only the last one's outputs leave the model."""
    nodes: Nodes = []
    for i in range(q.copies):
        last = i == q.copies - 1
        x = f"y{i - 1}" if q.chain > 1 and i else "x"
        nodes += spelling(q, x, "y" if last else f"y{i}", "t" if last else f"t{i}")
    kind, dims = int(q.dtype), [q.rows, q.width]
    inputs = [helper.make_tensor_value_info(n, kind, dims) for n in ("x", "z")[: 1 if q.form == "plain" else 2]]
    outputs = [helper.make_tensor_value_info(n, kind, dims) for n in ("y", "t")[: 2 if q.form == "residual" else 1]]
    constants = [numpy_helper.from_array(scale, "s")]
    if any("s:f" in node.input for node in nodes):
        constants = [numpy_helper.from_array(scale.astype(np.float32), "s:f")]
    graph = helper.make_graph(nodes, "bench", inputs, outputs, constants)
    versions = {"": 23, "com.microsoft": 1, spec.DOMAIN: spec.VERSION}
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString())


class Side:
    """One session with its own outputs."""

    def __init__(self, q: Question, spelling: Any, given: dict[str, Any]) -> None:
        options = ort.SessionOptions()
        # What stands in the model is what runs: no copy is found to be another's double.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = q.threads
        options.log_severity_level = 3
        library.register(options)
        data = model(q, spelling, given["s"])
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.outputs = {o.name: at_line(np.zeros_like(given["x"])) for o in self.session.get_outputs()}
        for put in self.session.get_inputs():
            self.binding.bind_ortvalue_input(put.name, share(at_line(given[put.name])))
        for name, array in self.outputs.items():
            self.binding.bind_ortvalue_output(name, share(array))

    def seconds(self, runs: int) -> float:
        """Time of one run."""
        return timeit.timeit(lambda: self.session.run_with_iobinding(self.binding), number=runs) / runs


def check(q: Question, name: str, side: Side, given: dict[str, Any]) -> None:
    """Some rows against float64."""
    side.seconds(1)
    rows = np.unique(np.linspace(0, q.rows - 1, CHECKED_ROWS).astype(int))
    x = given["x"][rows]
    op, attributes = FORMS[q.form].name, reference.Attributes(epsilon=EPSILON)
    for _ in range(q.chain):
        inputs = [x] + ([given["z"][rows]] if "z" in given else []) + [given["s"]]
        want = reference.exact(op, inputs, attributes)[0]
        x = want.astype(x.dtype)
    error = np.abs(side.outputs["y"][rows].astype(np.float64) - want)
    bound = q.chain * (OURS_ROUNDOFFS * reference.roundoff(x.dtype) if name == "ours" else THEIRS[q.dtype])
    worst = float(np.max(error / (np.abs(want) + 0.1)))  # a residual sum may cancel
    if not worst <= bound:
        sys.exit(f"{name} {q}: relative error {worst:.3g}, at most {bound:.3g} expected")


def measure(q: Question) -> Cell | None:
    """None where onnxruntime has no kernel."""
    if not (spellings := their_spellings(q)):
        return None
    given = values(q)
    sides = {name: Side(q, spelling, given) for name, spelling in {"ours": our_node, **spellings}.items()}
    for name, side in sides.items():
        check(q, name, side, given)
    once = {name: side.seconds(2) for name, side in sides.items()}
    runs = {name: max(1, round(SAMPLE_SECONDS / seconds)) for name, seconds in once.items()}
    rounds = int(CELL_SECONDS / sum(2 * SAMPLE_SECONDS + 2 * seconds for seconds in once.values()))
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(max(3, min(rounds, ROUNDS if q.threads == 1 else ROUNDS // 2))):
        for name, side in sides.items():
            if q.threads > 1:
                time.sleep(SPINNING_SECONDS)
            side.seconds(1)
            took[name].append(side.seconds(runs[name]))
    us = {name: statistics.median(times) / q.copies * 1e6 for name, times in took.items()}
    ours = us.pop("ours")
    best, theirs = min((median, name) for name, median in us.items())
    return Cell(q.form, q.dtype.name, q.rows, q.width, q.threads, q.chain, ours, best, theirs, ours / best)


def means(cells: list[Cell]) -> Iterator[str]:
    """One line per form, type and number of threads."""
    groups: dict[tuple[str, str, int], list[float]] = {}
    for cell in cells:
        groups.setdefault((cell.form, cell.dtype, cell.threads), []).append(cell.ratio)
    for (form, dtype, threads), ratios in groups.items():
        mean, worst = statistics.geometric_mean(ratios), max(ratios)
        yield f"{form:9}{dtype:9}{threads} threads: geometric mean {mean:.3f}, worst {worst:.3f}, {len(ratios)} cells"


def show(cell: Cell) -> str:
    """One line."""
    shape = f"{cell.rows}x{cell.width}" + (f" chain of {cell.chain}" if cell.chain > 1 else "")
    where = f"{cell.form:9}{cell.dtype:9}{cell.threads} {shape:21}"
    return f"{where}{cell.ours_us:12.2f} {cell.theirs_us:12.2f} us  {cell.ratio:6.3f}  {cell.theirs}"


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--form", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--dtype", nargs="+", choices=[d.name for d in DType], default=[d.name for d in DType])
    parser.add_argument("--shape", nargs="+", metavar="ROWSxWIDTH", help="instead of the grid")
    args = parser.parse_args()
    shapes = [tuple(map(int, text.split("x"))) for text in args.shape] if args.shape else SHAPES
    grid = [(r, w, 1) for r, w in shapes] + ([] if args.shape else [(*CHAIN_SHAPE, CHAIN)])
    built, cpus = library.info(), sorted(os.sched_getaffinity(0))
    machine = f"{built.isa_active}, onnxruntime {built.onnxruntime_version}, processors {cpus}"
    out = sys.stderr if args.json else sys.stdout
    print(f"{machine}: ours, theirs, ours / theirs", file=out)
    cells: list[Cell] = []
    for threads, form, dtype, (rows, width, chain) in itertools.product(args.threads, args.form, args.dtype, grid):
        if cell := measure(Question(form, DType[dtype], rows, width, threads, chain)):
            cells.append(cell)
            print(show(cell), file=out, flush=True)
    print(*means(cells), sep="\n", file=out)
    if args.json:
        print(json.dumps({"schema_version": 1, "machine": machine, "cells": [asdict(cell) for cell in cells]}))


if __name__ == "__main__":
    main()
