"""Which operators a fused model is made of: the tables of the targets, and the choice for one match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import Findings, Match, NearMiss
from rmsnorm_onnx.matcher.facts import Facts
from rmsnorm_onnx.passes.foreign import ONNX_RMS, ORT_GATED, ORT_RMS, ORT_SKIP
from rmsnorm_onnx.passes.operators import OWN, Operator


@dataclass(frozen=True, slots=True)
class Emission:
    """One match, the operator that will stand for it, and what that takes.

    Attributes:
        match: what is replaced; where the operator takes no residual, its X is the sum.
        operator: what replaces it.
        adds: whether an Add has to be written in front, because no node of the model gives the sum.
        ones_shape: shape of the scale of ones.
        converts_scale: whether the scale is cast to T.
    """

    match: Match
    operator: Operator
    adds: bool
    ones_shape: tuple[int, ...]
    converts_scale: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A set of operators that a fused model may be made of.

    Attributes:
        name: as users write it.
        opset: the lowest opset of ONNX they can stand in.
        operators: those of ``spec``, or others; of several that compute the same, the first that can is taken.
        stores_bodies: whether the operators need functions in the model.
    """

    name: str
    opset: int
    operators: tuple[Operator, ...]
    stores_bodies: bool = False

    def choose(self, match: Match, facts: Facts, function: ir.Function | None) -> Emission | NearMiss | None:
        """What to emit for ``match``, or why nothing; None where a node of the target stands there already.

        Args:
            match: what was found.
            facts: about the values of the model.
            function: the function that holds the match, or None.
        """
        refusals = []
        for candidate, operator, adds in self._candidates(match):
            refusal = operator.refusal(candidate, facts)
            if refusal is None and function is not None and not operator.in_functions:
                refusal = f"{operator.op_type} cannot stand in a function ('{function.name}'): onnxruntime crashes"
            if refusal is None:
                if any(operator.made(node) for node in match.nodes):
                    return None
                ones, converts = operator.ones_shape(candidate, facts), operator.converts_scale(candidate, facts)
                return Emission(candidate, operator, adds, ones, converts)
            refusals.append(refusal)
        if any(operator.made(node) for node in match.nodes for operator in self.operators):
            return None
        detail = refusals[-1] if refusals else f"target '{self.name}' has no operator for {match.op.formula}"
        return NearMiss(match.nodes[-1], spec.Why.TARGET, detail)

    def _candidates(self, match: Match) -> Iterator[tuple[Match, Operator, bool]]:
        """The match as each operator could take it: as it is, without its gate or sum, in the stash type."""
        yield from ((match, operator, False) for operator in self.operators if operator.computes is match.op)
        match = match.ungated or match
        if match.op not in {spec.RMS, spec.SKIP}:
            return
        total = _sum_in_graph(match)
        plain, adds = (match, match.op is spec.SKIP) if total is None else (_norm_of(total, match), False)
        for operator in (operator for operator in self.operators if operator.computes is spec.RMS):
            yield plain, operator, adds
            if not adds and (wide := _between_casts(plain)) is not None:
                yield wide, operator, False


def _sum_in_graph(match: Match) -> ir.Value | None:
    """The value that a node of the graph gives for the residual sum."""
    if match.op is not spec.SKIP:
        return None
    addends = {operand for operand in match.inputs[:2] if isinstance(operand, ir.Value)}
    sums = (n.outputs[0] for n in match.nodes if n.op_type in {"Add", "Sum"} and set(n.inputs) == addends)
    return next(sums, None)


def _norm_of(total: ir.Value, match: Match) -> Match:
    """The plain norm of a sum that stays where it is."""
    nodes = tuple(node for node in match.nodes if node is not total.producer())
    return replace(
        match,
        op=spec.RMS,
        inputs=(total, match.inputs[2]),
        sum=None,
        nodes=nodes,
        pattern="-".join(node.op_type for node in nodes),
    )


def _between_casts(match: Match) -> Match | None:
    """The same norm on X cast to the stash type, its result cast back: the Casts that a graph has anyway.

    None where it rounds in between, or computes in X's type already.
    """
    result = match.narrow_y or match.dtype
    once = match.normalized_type is match.stash_type or (match.inputs[-1] is None and match.normalized_type is result)
    if match.dtype is match.stash_type or not once:
        return None
    stash = match.stash_type
    return replace(
        match, dtype=stash, widen_x=True, narrow_y=None if result is stash else result, normalized_type=stash
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """What to emit, and what not."""

    emissions: tuple[Emission, ...]
    near_misses: tuple[NearMiss, ...]


def decide(model: ir.Model, findings: Findings, target: Target) -> Decision:
    """Choose the operator for every match; what the target cannot express becomes a near miss."""
    emissions, refused = [], []
    functions = (function for function in model.functions.values() if function.domain != spec.DOMAIN)
    function_of = {node: function for function in functions for node in function.graph.all_nodes()}
    for match in findings.matches:
        last = match.nodes[-1]
        function = function_of.get(last)
        choice = target.choose(match, findings.facts, function)
        if isinstance(choice, Emission) and function is not None:
            opset = function.opset_imports.get("", target.opset)
            if opset < target.opset:
                detail = f"function '{function.name}' is written at opset {opset}, {target.opset} is needed"
                choice = NearMiss(last, spec.Why.OPSET, detail)
        if isinstance(choice, Emission):
            emissions.append(choice)
        elif choice is not None:
            refused.append(choice)
    return Decision(tuple(emissions), (*findings.near_misses, *refused))


TARGETS: Final = {
    target.name: target
    for target in (
        Target("rmsnorm", spec.MINIMUM_OPSET, OWN, stores_bodies=True),
        Target("onnx", 23, (ONNX_RMS,)),
        Target("ort", 1, (ORT_SKIP, ORT_GATED, ORT_RMS)),
    )
}
