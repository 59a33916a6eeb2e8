"""The pass that replaces every RMS norm of a model by one node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import onnx_ir as ir

from rmsnorm_onnx import modelfile, spec
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.matcher import Match, NearMiss, find
from rmsnorm_onnx.matcher.match import Reshaped
from rmsnorm_onnx.passes.aten import inline_operators
from rmsnorm_onnx.passes.bodies import (
    add_bodies,
    forget_unreadable_types,
    import_domain,
    lacks_bodies,
    name_result_types,
)
from rmsnorm_onnx.passes.emit import emit, node_name
from rmsnorm_onnx.passes.explain import explain
from rmsnorm_onnx.passes.names import Names
from rmsnorm_onnx.passes.opset import raise_opset
from rmsnorm_onnx.passes.sweep import sweep
from rmsnorm_onnx.passes.target import TARGETS, Decision, Emission, Target, decide


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
        tree: the nodes around it, one line each, the offending one marked, and what to change.
    """

    node: str
    why: spec.Why
    detail: str
    tree: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the pass did to a model, or would do."""

    fused: tuple[Fused, ...]
    near_misses: tuple[LeftAlone, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """What the pass may do.

    Attributes:
        target: which operators to write; one of TARGETS.
        adopt: also take over nodes that are RMS norms already (ONNX-23's, onnxruntime's).
        body: store function bodies, so that the model runs without the library as well.
        convert: raise the model's opset where the target needs a higher one; this replaces ``model.graph``.
    """

    target: str = "rmsnorm"
    adopt: bool = True
    body: bool = True
    convert: bool = True

    def __post_init__(self) -> None:
        """Raises InvalidInput for a target that does not exist."""
        if self.target not in TARGETS:
            raise InvalidInput(f"there is no target '{self.target}'; the targets are {', '.join(TARGETS)}")


def fuse(model: ir.Model, options: Options | None = None) -> Outcome:
    """Fuse all that ``find`` matches and the target can express, in place."""
    with modelfile.collector_paused():
        return _fuse(model, options or Options())


def _fuse(model: ir.Model, options: Options) -> Outcome:
    target = TARGETS[options.target]
    # A model that another tool has read lists them no more; without them it could not be saved.
    modelfile.list_all_outputs(model)
    inline_operators(model, adopt=options.adopt)
    fused: dict[ir.Node, Fused] = {}
    more = True
    while more:
        findings = find(model, adopt=options.adopt)
        decision = decide(model, findings, target)
        near_misses = _by_name(decision.near_misses)
        if not decision.emissions:
            break
        if model.graph.opset_imports.get("", 0) < target.opset:
            reason = raise_opset(model, target.opset) if options.convert else _not_raised(model, target)
            if reason is not None:
                too_old = (NearMiss(e.match.nodes[-1], spec.Why.OPSET, reason) for e in decision.emissions)
                return Outcome((), _by_name((*decision.near_misses, *too_old)))
            continue
        # A new node may tell ONNX's inference a shape that it could not get from the nodes before.
        more = any(findings.facts.inference_lacks(e.match.output) for e in decision.emissions)
        _apply(model, decision, fused)
    # Our nodes may also come from an exporter, or from a file that was written without bodies.
    if options.body and target.stores_bodies and (fused or lacks_bodies(model)):
        add_bodies(model)
    if fused:
        forget_unreadable_types(model)
    return Outcome(tuple(fused.values()), near_misses)


def plan(model: ir.Model, options: Options | None = None) -> Outcome:
    """What ``fuse`` would do; ``model`` is not changed."""
    return fuse(model.clone(), options)


def _not_raised(model: ir.Model, target: Target) -> str:
    return f"the opset is {model.graph.opset_imports.get('', 0)}, and {target.opset} is needed; raise it first"


def _by_name(near_misses: Iterable[NearMiss]) -> tuple[LeftAlone, ...]:
    return tuple(LeftAlone(node_name(miss.node), miss.why, miss.detail, explain(miss)) for miss in near_misses)


def _apply(model: ir.Model, decision: Decision, fused: dict[ir.Node, Fused]) -> None:
    """Carry a decision out; ``fused`` gets a record per new node, and loses those of nodes that it takes in."""
    replaced: dict[ir.Value, ir.Value] = {}
    taken = Names(model)

    def current(value: ir.Value) -> ir.Value:
        while value in replaced:
            value = replaced[value]
        return value

    emitted = []
    for emission in decision.emissions:
        match = emission.match
        output = match.output.name or ""
        # A later round may take in nodes of an earlier one.
        names = [fused[old].replaced if old in fused else (node_name(old),) for old in match.nodes]
        node, fresh = emit(emission, current, taken)
        replaced |= fresh
        emitted.append((match, node))
        fused[node] = Fused(node.op_type, node_name(node), output, match.pattern, tuple(chain.from_iterable(names)))
    sweep(node for match, _ in emitted for node in match.nodes)
    for node in [node for node in fused if node.graph is None]:
        del fused[node]
    for graph in {id(match.graph): match.graph for match, _ in emitted if _may_stand_too_early(match)}.values():
        graph.sort()
    name_result_types(model, emitted)
    _import_domains(model, decision.emissions)


def _may_stand_too_early(match: Match) -> bool:
    """Whether the new node stands where its residual sum was made, perhaps before its scale is computed."""
    scale = match.inputs[-1]
    scale = scale.value if isinstance(scale, Reshaped) else scale
    return match.sum is not None and isinstance(scale, ir.Value) and scale.producer() is not None


def _import_domains(model: ir.Model, emissions: Iterable[Emission]) -> None:
    for domain, version in {(e.operator.domain, e.operator.version) for e in emissions if e.operator.domain}:
        import_domain(model, domain, version)


class FuseRmsNorm(ir.passes.InPlacePass):
    """Replaces RMS norms by the operators of a target: by default those of the domain ``pkg.rmsnorm_onnx``.

    1. Every spelling the matcher understands becomes one node: plain, residual or gated.
    2. Values that others read, graph outputs among them, keep their names, types and shapes.
    3. Nodes and initializers that only the old form used are removed; nothing else is touched.
    4. It does not act on near misses, nor on nodes of the target itself: a second run changes nothing.
    """

    def __init__(self, *, target: str = "rmsnorm", adopt: bool = True, body: bool = True) -> None:
        super().__init__()
        self._options = Options(target, adopt, body)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse in place."""
        functions = set(model.functions)
        outcome = fuse(model, self._options)
        return ir.passes.PassResult(model, modified=bool(outcome.fused) or set(model.functions) != functions)
