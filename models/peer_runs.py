"""What other fusions make of a model, each examined in a process of its own with a time limit."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript.optimizer
import onnxscript.version_converter
import rmsnorm_onnx
from onnxscript.rewriter.ort_fusions import optimize_for_ort
from onnxscript.rewriter.rules.fusion import _rms_normalization

import tools
from running import run

Fuse = Callable[[onnx.ModelProto], onnx.ModelProto]

NORMS = {
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "GatedRMSNormalization",
    "PreGatedRMSNormalization",
    "SkipRMSNormalization",
    "GatedRMSNorm",
}
"""Operators that are one norm each, whoever defines them."""

_AT_ONCE = 2
_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


def _same(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


def _ours(model: onnx.ModelProto) -> onnx.ModelProto:
    return rmsnorm_onnx.optimize(model).model


def _onnxruntime(level: str, without: Collection[str] = ()) -> Fuse:
    return lambda model: tools.optimized_by_onnxruntime(model, level, without)


def _transformers(norms: bool) -> Fuse:
    return lambda model: tools.optimized_by_transformers(model, norms)


def _at_23(model: onnx.ModelProto) -> onnx.ModelProto:
    """Folded and raised to opset 23, where RMSNormalization exists."""
    graph = ir.from_proto(onnxscript.optimizer.optimize(model))
    if graph.opset_imports[""] < 23:
        onnxscript.version_converter.convert_version(graph, 23, fallback=True)
    return ir.to_proto(graph)


def _rules(model: onnx.ModelProto) -> onnx.ModelProto:
    """The rules that torch's exporter runs."""
    graph = ir.from_proto(_at_23(model))
    _rms_normalization.rms_normalization_ruleset.apply_to_model(graph)
    return ir.to_proto(graph)


def _for_ort(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(onnxscript.optimizer.optimize(model))
    fused, _counts = optimize_for_ort(graph)
    return ir.to_proto(fused)


@dataclass(frozen=True)
class Fusion:
    """A tool, and what it does to a model besides fusing norms."""

    fuse: Fuse
    besides: Fuse = _same


def _session(level: str) -> Fusion:
    return Fusion(_onnxruntime(level), _onnxruntime(level, _ORT_NORMS))


_ORT_NORMS = ("SimplifiedLayerNormFusion", "LayerNormFusion", "SkipLayerNormFusion")
OURS = "rmsnorm-onnx"
FUSIONS: Mapping[str, Fusion] = {
    OURS: Fusion(_ours),
    "onnxruntime EXTENDED": _session("ORT_ENABLE_EXTENDED"),
    "onnxruntime ALL": _session("ORT_ENABLE_ALL"),
    "onnxruntime.transformers": Fusion(_transformers(norms=True), _transformers(norms=False)),
    "onnxscript rms_normalization": Fusion(_rules, _at_23),
    "onnxscript optimize_for_ort": Fusion(_for_ort, onnxscript.optimizer.optimize),
}


@dataclass(frozen=True)
class Task:
    """One fusion on one model."""

    name: str
    fusion: str
    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Finding:
    """Norm nodes beyond those of the input, and whether the results are still the same.

    The verdict is equal, differs, invalid (onnxruntime runs the original, but not what was fused),
    unverified (nothing here can run one of the two), fails (the fusion itself fails), timeout or
    crash; equal where nothing was fused.
    """

    fused: int
    verdict: str
    detail: str = ""

    @property
    def harmful(self) -> bool:
        """Whether it fused something and broke the model by that."""
        return self.fused > 0 and self.verdict in ("differs", "invalid")


def executions(model: onnx.ModelProto) -> int:
    """How many norm nodes run in one pass: those of a function count once per call."""
    functions = {(f.domain, f.name): f for f in model.functions if f.name not in NORMS}

    def count(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            total += node.op_type in NORMS
            if function := functions.get((node.domain, node.op_type)):
                total += count(function.node)
            for attribute in node.attribute:
                total += sum(count(graph.node) for graph in (attribute.g, *attribute.graphs))
        return total

    return count(model.graph.node)


def examine(task: Task) -> Finding:
    """Fuse, count, and compare with the original."""
    fusion = FUSIONS[task.fusion]
    try:
        fused = fusion.fuse(_copy(task.model))
    except Exception as error:
        return Finding(0, "fails", _first_line(error))
    gained = executions(fused) - executions(task.model)
    if gained <= 0:
        return Finding(0, "equal")
    if unread := _numbers_read(task.model) - _numbers_read(fused):
        return Finding(gained, "differs", f"no longer reads {', '.join(unread)}")
    verdict, detail = _compared(task.model, fused, task.inputs)
    if verdict == "differs" and fusion.besides is not _same:
        verdict, detail = _compared(fusion.besides(_copy(task.model)), fused, task.inputs)
    if verdict == "unverified" and _broken(fused, task.inputs):
        verdict = "unverified" if _broken(task.model, task.inputs) else "invalid"
    return Finding(gained, verdict, detail)


def _numbers_read(model: onnx.ModelProto) -> set[str]:
    """Float inputs, overridable initializers among them, that a node reads."""
    read = {name for node in model.graph.node for name in node.input}
    return {
        value.name
        for value in model.graph.input
        if value.name in read and value.type.tensor_type.elem_type in _FLOATS
    }


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _compared(
    original: onnx.ModelProto, fused: onnx.ModelProto, inputs: dict[str, np.ndarray]
) -> tuple[str, str]:
    """The verdict of rmsnorm_onnx.verify, `unverified` where it cannot run one of the two.

    A tool may leave types out that are needed to run its model in float64: onnxruntime adds them.
    """
    failure = ""
    for complete in (_same, _onnxruntime("ORT_DISABLE_ALL")):
        try:
            report = rmsnorm_onnx.verify(
                original, complete(fused), inputs=inputs, library=False, threads=1
            )
        except Exception as error:
            failure = failure or _first_line(error)
            continue
        return "equal" if report.ok else "differs", report.report().verdict
    return "unverified", failure


def _broken(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> bool:
    """Whether onnxruntime refuses the model or fails to run it, not for want of a kernel."""
    try:
        run(model, inputs, "ORT_DISABLE_ALL")
    except Exception as error:
        return "NOT_IMPLEMENTED" not in str(error)
    return False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:200]}"


def run_all(tasks: Iterable[Task], limit: float) -> Iterator[tuple[Task, Finding]]:
    """Every task with its finding, a few at once, none longer than the limit in seconds."""
    forking = multiprocessing.get_context("fork")
    running: list[tuple[Task, Any, Connection, float]] = []
    waiting = iter(tasks)
    more = True
    while more or running:
        while more and len(running) < _AT_ONCE:
            task = next(waiting, None)
            if task is None:
                more = False
                break
            receiver, sender = forking.Pipe(duplex=False)
            process = forking.Process(target=_child, args=(sender, task), daemon=True)
            process.start()
            sender.close()
            running.append((task, process, receiver, time.monotonic()))
        for entry in list(running):
            finding = _poll(*entry[1:], limit)
            if finding is not None:
                running.remove(entry)
                yield entry[0], finding
        time.sleep(0.002)


def _child(sender: Connection, task: Task) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.dup2(silence, sys.stderr.fileno())
    sender.send(examine(task))


def _poll(process: Any, receiver: Connection, start: float, limit: float) -> Finding | None:
    """What the process found, None as long as it may go on."""
    finding: Finding | None = None
    if receiver.poll():
        try:
            finding = receiver.recv()
        except EOFError:
            finding = Finding(0, "crash")
    elif time.monotonic() - start > limit:
        process.terminate()
        finding = Finding(0, "timeout")
    if finding is not None:
        process.join()
    return finding
