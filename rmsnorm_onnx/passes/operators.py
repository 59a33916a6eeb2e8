"""What a target may emit: one class that says which norms an operator can express, and how its node is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import Match
from rmsnorm_onnx.matcher.facts import Facts
from rmsnorm_onnx.matcher.match import Biased


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator(ABC):
    """An operator that can stand for some of the matches.

    Attributes:
        domain, op_type: its name.
        version: the version of ``domain`` that holds it.
        computes: the operator of ours whose matches it stands for.
        inputs: for each of its inputs, the position among a match's inputs.
        sum_output: position of the residual sum among its outputs, if it gives one.
        keeps_unread_outputs: whether a node lists outputs that nobody reads.
        in_functions: whether it may stand in a model-local function.
    """

    domain: str
    op_type: str
    version: int
    computes: spec.Op
    inputs: tuple[int, ...]
    sum_output: int | None = None
    keeps_unread_outputs: bool = False
    in_functions: bool = True

    @abstractmethod
    def refusal(self, match: Match, facts: Facts) -> str | None:
        """What about ``match`` the operator cannot express, or None."""

    @abstractmethod
    def attributes(self, match: Match) -> list[ir.Attr]:
        """The node's attributes."""

    @abstractmethod
    def ones_shape(self, match: Match, facts: Facts) -> tuple[int, ...]:
        """Shape of the scale of ones that a norm without scale gets."""

    def converts_scale(self, match: Match, facts: Facts) -> bool:
        """Whether the scale has to be cast to the type of X first."""
        return False

    def node(self, match: Match, inputs: Sequence[ir.Value]) -> ir.Node:
        """A new node; ``inputs`` are in the order of the match's."""
        outputs = 1
        if self.sum_output is not None and (match.sum is not None or self.keeps_unread_outputs):
            outputs = self.sum_output + 1
        return ir.Node(
            self.domain,
            self.op_type,
            [inputs[position] for position in self.inputs],
            self.attributes(match),
            num_outputs=outputs,
        )

    def made(self, node: ir.Node) -> bool:
        """Whether ``node`` is one of this operator."""
        return (node.domain, node.op_type) == (self.domain, self.op_type)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnOperator(Operator):
    """One of the operators of ``spec``: it expresses every match of its kind, of values of one shape."""

    def refusal(self, match: Match, facts: Facts) -> str | None:
        """Onnxruntime's residual norm broadcasts, so its addends may have two shapes."""
        addends = match.inputs[:2] if self.computes is spec.SKIP else ()
        values = [a if isinstance(a, ir.Value) else a.value for a in addends if isinstance(a, ir.Value | Biased)]
        if values and not facts.same_shape(*values):
            return f"'{values[0].name}' and '{values[1].name}' are not known to have one shape"
        return None

    def ones_shape(self, match: Match, facts: Facts) -> tuple[int, ...]:
        """One element, which the kernels recognize and skip."""
        return (1,)

    def attributes(self, match: Match) -> list[ir.Attr]:
        """Every attribute of the operator, written out: a library's schema hides a function's defaults."""
        epsilon, epsilon_low = spec.float32_pair(match.epsilon)
        values: dict[str, tuple[int, ...] | int | float] = {
            "axes": match.axes,
            "epsilon": epsilon,
            "epsilon_low": epsilon_low if match.stash_type is spec.DType.DOUBLE else 0.0,
            "epsilon_outside": match.epsilon_outside,
            "floor": match.floor,
            "stash_type": int(match.stash_type),
            "normalized_type": int(match.normalized_type),
            "scaled_type": int(match.scaled_type),
        }
        return [ir.Attr(a.name, ir.AttributeType[a.kind.value], values[a.name]) for a in self.computes.attributes]


def own(op: spec.Op) -> OwnOperator:
    """The operator of the domain ``pkg.rmsnorm_onnx`` with this specification."""
    return OwnOperator(
        domain=spec.DOMAIN,
        op_type=op.name,
        version=spec.VERSION,
        computes=op,
        inputs=tuple(range(len(op.inputs))),
        sum_output=1 if op.optional_outputs else None,
        keeps_unread_outputs=True,
    )


OWN: Final = tuple(own(op) for op in spec.OPS.values())
