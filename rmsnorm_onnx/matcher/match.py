"""What the matcher finds: frozen records that the rewriter carries out and reports show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.facts import Facts


@dataclass(frozen=True, slots=True)
class Reshaped:
    """A value that the new node reads in another shape.

    Attributes:
        value: the value.
        shape: constant lengths, or the shape input of a Reshape that the graph has.
        allow_zero: what that Reshape says of a length of 0.
    """

    value: ir.Value
    shape: tuple[int, ...] | ir.Value
    allow_zero: bool = False


@dataclass(frozen=True, slots=True)
class Biased:
    """A value that the new node reads after a bias was added to it."""

    value: ir.Value
    bias: ir.Value


#: What a new node reads: a value as it is, in another shape, or biased.
Operand: TypeAlias = ir.Value | Reshaped | Biased
#: A scale may also be one number.
Scale: TypeAlias = Operand | float


@dataclass(frozen=True, slots=True)
class Match:
    """One RMS norm and the node that says the same.

    Attributes:
        op: the operator to emit.
        graph: the graph that holds ``output``'s producer.
        inputs: the operator's inputs; for the scale also a number, or None for 1.
        widen_x: cast the first input to ``dtype`` first (an exact, widening Cast).
        output: the value that the new node gives.
        sum: the residual sum that the new node gives as well, or None when nobody else reads it.
        dtype: T, the element type of the new node's X and Y.
        narrow_y: the type of ``output`` when it is not T: a Cast follows the new node.
        axes, epsilon, floor, epsilon_outside, stash_type, normalized_type, scaled_type: see DESIGN
            section 2 of the operator contract; epsilon is the float64 value.
        flatten: the Reshape that follows the new node, where the norm is one of groups, or None.
        nodes: what computes ``output`` today, in graph order.
        pattern: the operators of ``nodes``, joined by dashes.
        ungated: the plain norm inside a gated one, for targets that have no gate.
    """

    op: spec.Op
    graph: ir.Graph | ir.Function
    inputs: tuple[Operand | float | None, ...]
    widen_x: bool
    output: ir.Value
    sum: ir.Value | None
    dtype: spec.DType
    narrow_y: spec.DType | None
    axes: tuple[int, ...]
    epsilon: float
    floor: float
    epsilon_outside: float
    stash_type: spec.DType
    normalized_type: spec.DType
    scaled_type: spec.DType
    flatten: ir.Node | None
    nodes: tuple[ir.Node, ...]
    pattern: str
    ungated: Match | None = None


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Something that looks like an RMS norm and was left alone.

    Attributes:
        node: the node where it shows, mostly the division.
        why: the reason.
        detail: what was found there, with names and values.
    """

    node: ir.Node
    why: spec.Why
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All that one model holds, in graph order, and what was learned of its types and shapes on the way."""

    matches: tuple[Match, ...]
    near_misses: tuple[NearMiss, ...]
    facts: Facts
