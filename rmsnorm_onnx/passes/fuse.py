"""The pass that replaces every RMS norm of a model by one node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.function import Form
from rmsnorm_onnx.matcher import Match, NearMiss, find
from rmsnorm_onnx.passes.bodies import add_bodies, import_domain
from rmsnorm_onnx.passes.emit import emit, node_name
from rmsnorm_onnx.passes.opset import raise_opset
from rmsnorm_onnx.passes.sweep import sweep


@dataclass(frozen=True, slots=True)
class Fused:
    """One node that now stands for a norm.

    Attributes:
        op: the operator's name.
        node: the new node's name.
        output: the name of the value it gives, unchanged from before.
        pattern: the operators it replaced, joined by dashes.
        replaced: the names of the nodes it replaced.
    """

    op: str
    node: str
    output: str
    pattern: str
    replaced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A near miss, by name.

    Attributes:
        node: the name of the node where it shows.
        why: the reason.
        detail: what was found there.
    """

    node: str
    why: spec.Why
    detail: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the pass did to a model, or would do."""

    fused: tuple[Fused, ...]
    near_misses: tuple[LeftAlone, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """What the pass may do.

    Attributes:
        adopt: also take over nodes that are RMS norms already (ONNX-23's, onnxruntime's).
        body: store function bodies, so that the model runs without the library as well.
    """

    adopt: bool = True
    body: bool = True


def fuse(model: ir.Model, options: Options | None = None) -> Outcome:
    """Fuse all that ``find`` matches, in place."""
    options = options or Options()
    findings = find(model, adopt=options.adopt)
    if not findings.matches:
        return Outcome((), _by_name(findings.near_misses))
    if model.graph.opset_imports.get("", 0) < spec.MINIMUM_OPSET:
        reason = raise_opset(model, spec.MINIMUM_OPSET)
        if reason is not None:
            too_old = (NearMiss(match.nodes[-1], spec.Why.OPSET, reason) for match in findings.matches)
            return Outcome((), _by_name((*findings.near_misses, *too_old)))
        findings = find(model, adopt=options.adopt)
    fused = _apply(model, findings.matches)
    import_domain(model)
    if options.body:
        add_bodies(model)
    return Outcome(fused, _by_name(findings.near_misses))


def plan(model: ir.Model, options: Options | None = None) -> Outcome:
    """What ``fuse`` would do; ``model`` is not changed."""
    return fuse(model.clone(), options)


def _by_name(near_misses: Iterable[NearMiss]) -> tuple[LeftAlone, ...]:
    return tuple(LeftAlone(node_name(miss.node), miss.why, miss.detail) for miss in near_misses)


def _apply(model: ir.Model, matches: tuple[Match, ...]) -> tuple[Fused, ...]:
    replaced: dict[ir.Value, ir.Value] = {}

    def current(value: ir.Value) -> ir.Value:
        while value in replaced:
            value = replaced[value]
        return value

    names_result_type = Form(model.graph.opset_imports[""]).names_result_type
    fused = []
    for match in matches:
        output, names = match.output.name or "", tuple(map(node_name, match.nodes))
        node, fresh = emit(match, current, names_result_type=names_result_type)
        replaced |= fresh
        fused.append(Fused(match.op.name, node_name(node), output, match.pattern, names))
    sweep(node for match in matches for node in match.nodes)
    for graph in {id(match.graph): match.graph for match in matches if match.sum is not None}.values():
        graph.sort()
    return tuple(fused)


class FuseRmsNorm(ir.passes.InPlacePass):
    """Replaces RMS norms by the operators of the domain ``pkg.rmsnorm_onnx``.

    1. Every spelling the matcher understands becomes one node: plain, residual or gated.
    2. Values that others read, graph outputs among them, keep their names, types and shapes.
    3. Nodes and initializers that only the old form used are removed; nothing else is touched.
    4. It does not act on near misses, nor on nodes of its own domain: a second run changes nothing.
    """

    def __init__(self, *, adopt: bool = True, body: bool = True) -> None:
        super().__init__()
        self._options = Options(adopt=adopt, body=body)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse in place."""
        return ir.passes.PassResult(model, modified=bool(fuse(model, self._options).fused))
