"""Runs the pass on a sentence's graph and says what is wrong with the outcome."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from zoo.spelling import Spelling

from rmsnorm_onnx import spec
from rmsnorm_onnx.passes import FuseRmsNorm, Outcome, fuse
from rmsnorm_onnx.spec import DType, Why

from .inputs import VARIANTS, feeds
from .interpreter import Reading, evaluate
from .sentence import Sentence
from .twists import MAY_FUSE, SHAPELESS

_NARROW = {DType.FLOAT16, DType.BFLOAT16}


@dataclass(frozen=True, slots=True)
class Failure:
    """What the pass did wrong; ``kind`` is one of invalid, crash, broken, value, rounding, recall, silent, unstable."""

    kind: str
    detail: str
    reasons: frozenset[Why] = frozenset()


def judge(sentence: Sentence) -> Failure | None:
    """The first thing wrong with what the pass does to this sentence's graph, or None."""
    before, norms = sentence.write()
    try:
        onnx.checker.check_model(before, full_check=True)
    except Exception as error:
        return Failure("invalid", f"the grammar wrote an invalid graph: {error}")
    try:
        model = ir.from_proto(before)
        outcome = fuse(model)
        after = ir.to_proto(model)
    except Exception:
        return Failure("crash", traceback.format_exc(limit=-3))
    return (
        _broken(before, after)
        or _different(sentence, before, after)
        or _lost(sentence, norms, outcome)
        or _unstable(model, after)
    )


def _broken(before: onnx.ModelProto, after: onnx.ModelProto) -> Failure | None:
    try:
        onnx.checker.check_model(after, full_check=True)
    except Exception as error:
        return Failure("broken", f"the fused model is invalid: {error}")
    if list(before.graph.output) != list(after.graph.output):
        return Failure("broken", "outputs have other names, types or shapes")
    if list(before.graph.input) != list(after.graph.input):
        return Failure("broken", "inputs have other names, types or shapes")
    return None


def _different(sentence: Sentence, before: onnx.ModelProto, after: onnx.ModelProto) -> Failure | None:
    if all(node.domain != spec.DOMAIN for node in _nodes(after)):
        return None
    readings = [Reading.EXACT, Reading.ROUNDED] if _rounds_alike(sentence) else [Reading.EXACT]
    for variant in range(VARIANTS):
        given = feeds(before, variant)
        for reading in readings:
            wanted, got = evaluate(before, given, reading), evaluate(after, given, reading)
            for name, value in wanted.items():
                error = _error(value, got[name], sentence, reading)
                if error is not None:
                    kind = "value" if reading is Reading.EXACT else "rounding"
                    return Failure(kind, f"output '{name}', inputs {variant}: {error}")
    return None


def _rounds_alike(sentence: Sentence) -> bool:
    """Whether every 16-bit rounding of the graph is one the operators make too: none inside the statistics."""
    spellings = (sentence.spelling, sentence.second)
    if sentence.slack() > 1e-6 or sentence.surrounding == "unit_vectors":
        return False
    return any(s.dtype in _NARROW for s in spellings) and not any(_computes_narrow(s) for s in spellings)


def _computes_narrow(s: Spelling) -> bool:
    return s.working in _NARROW or (s.dtype in _NARROW and s.quotient_in == "model")


def _error(wanted: np.ndarray, got: np.ndarray, sentence: Sentence, reading: Reading) -> str | None:
    slack = sentence.slack()
    if wanted.shape != got.shape:
        return f"shape {got.shape} instead of {wanted.shape}"
    # A sum of rows (MatMul, Softmax) may cancel along the last axis, what a bias was added to in each element.
    cancels = None if any(s.bias for s in (sentence.spelling, sentence.second)) else -1
    finite = np.abs(np.where(np.isfinite(wanted), wanted, 0))
    row = np.max(finite, axis=cancels, keepdims=True) if wanted.ndim else 0.0
    with np.errstate(all="ignore"):
        limit = 4 * slack * (np.abs(wanted) + row)
        same = (wanted == got) | (np.isnan(wanted) & np.isnan(got)) | (np.abs(wanted - got) <= limit + 1e-15)
    if same.all():
        return None
    if reading is Reading.ROUNDED and np.sum(~same) <= max(1, 0.02 * same.size) and slack > 1e-11:
        return None  # a value at the edge between two roundings
    where = tuple(int(i) for i in np.argwhere(~same)[0])
    return f"{got[where]!r} instead of {wanted[where]!r} at {where}, {np.mean(~same):.0%} of the elements differ"


def _lost(sentence: Sentence, norms: int, outcome: Outcome) -> Failure | None:
    reasons = {miss.why for miss in outcome.near_misses}
    required = norms - 1 if sentence.near else norms
    if len(outcome.fused) < required and not _excused(sentence, reasons):
        missing = "; ".join(f"{m.why.value} {m.node}: {m.detail}" for m in outcome.near_misses) or "no near miss"
        return Failure("recall", f"{len(outcome.fused)} of {required} fused; {missing}", frozenset(reasons))
    if sentence.near and len(outcome.fused) < norms and not reasons and sentence.twist not in MAY_FUSE | SHAPELESS:
        return Failure("silent", "left alone without a reason")
    if sentence.near and len(outcome.fused) > norms and "shadow" not in sentence.habits:
        return Failure("value", f"{len(outcome.fused)} nodes for {norms} norms")
    return None


def _excused(sentence: Sentence, reasons: set[Why]) -> bool:
    """Whether the operators' documented limits are the reason."""
    old = sentence.spelling.opset < spec.MINIMUM_OPSET and Why.OPSET in reasons
    doubles = any(s.working is DType.DOUBLE for s in (sentence.spelling, sentence.second))
    return old or (doubles and Why.PRECISION in reasons)


def _unstable(model: ir.Model, once: onnx.ModelProto) -> Failure | None:
    if FuseRmsNorm()(model).modified:
        return Failure("unstable", "a second run fuses again")
    if ir.to_proto(model).SerializeToString(deterministic=True) != once.SerializeToString(deterministic=True):
        return Failure("unstable", "a second run changes the model")
    return None


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    found: list[onnx.NodeProto] = []
    pending = [*model.graph.node, *(n for f in model.functions if f.domain != spec.DOMAIN for n in f.node)]
    while pending:
        node = pending.pop()
        found.append(node)
        for attribute in node.attribute:
            pending.extend(attribute.g.node)
    return found
