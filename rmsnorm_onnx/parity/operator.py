"""Norm nodes as the reference understands them: which operator, which attributes, which input is which."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir

from rmsnorm_onnx import reference, runtime, spec
from rmsnorm_onnx.spec import DType


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How a domain spells an operator: positions of our inputs among its own, of its sum, and its default epsilon."""

    op: spec.Op
    inputs: tuple[int, ...]
    sum: int | None = None
    epsilon: float = 0.0


_SPELLINGS: Final = {
    **{
        (spec.DOMAIN, op.name): _Spelling(op, tuple(range(len(op.inputs))), 1 if op.optional_outputs else None)
        for op in spec.OPS.values()
    },
    ("", "RMSNormalization"): _Spelling(spec.RMS, (0, 1), epsilon=1e-5),
    ("", "SimplifiedLayerNormalization"): _Spelling(spec.RMS, (0, 1), epsilon=1e-5),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): _Spelling(spec.SKIP, (0, 1, 2), 3, epsilon=1e-12),
    ("com.microsoft", "GatedRMSNorm"): _Spelling(spec.GATED, (0, 2, 1), epsilon=1e-5),
}


#: Operators whose result has the elements of their first input, in their order.
_KEEP_ORDER: Final = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, slots=True)
class NormNode:
    """One node that is an RMS norm.

    Attributes:
        node: in a typed copy of the model.
        op: which operator of ours it computes.
        inputs: X, skip or gate, and scale, in our order.
        y: its result.
        sum: the residual sum, if it is given and has a name.
    """

    node: ir.Node
    op: spec.Op
    inputs: tuple[ir.Value, ...]
    y: ir.Value
    sum: ir.Value | None

    @property
    def graph(self) -> ir.Graph:
        """The main graph, a branch or a body."""
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        return graph

    @property
    def is_ours(self) -> bool:
        """Whether the library, and not onnxruntime, has its kernel."""
        return self.node.domain == spec.DOMAIN

    def attributes(self, rank: int) -> reference.Attributes:
        """What it computes, for an X with ``rank`` axes."""
        values: dict[str, Any] = {name: attribute.value for name, attribute in self.node.attributes.items()}
        if self.is_ours:
            known: dict[str, Any] = {a.name: values.get(a.name, a.default) for a in self.op.attributes}
            known["axes"] = tuple(known["axes"])
            for name in known.keys() & {"stash_type", "normalized_type", "scaled_type"}:
                known[name] = DType(known[name])
            return reference.Attributes(**known)
        # ONNX rounds to T before the scale; where onnxruntime's kernels do not, their error is smaller.
        narrow = DType(int(self.y.dtype or ir.DataType.FLOAT))
        return reference.Attributes(
            epsilon=values.get("epsilon", _SPELLINGS[self.node.domain, self.node.op_type].epsilon),
            axes=tuple(range(values.get("axis", -1) % rank - rank, 0)),
            stash_type=DType.DOUBLE if narrow is DType.DOUBLE else DType(values.get("stash_type", 1)),
            normalized_type=narrow,
            scaled_type=narrow,
        )


def norm_nodes(model: ir.Model) -> Iterator[NormNode]:
    """The norm nodes of a model and its subgraphs, in order; functions are not looked into."""
    for node in runtime.nodes_of(model):
        spelling = _SPELLINGS.get((node.domain, node.op_type))
        if spelling is None or len(node.inputs) < len(spelling.inputs):
            continue
        inputs = [node.inputs[position] for position in spelling.inputs]
        bias = any(value is not None for value in node.inputs[len(inputs) :])
        values = tuple(value for value in inputs if value is not None)
        if bias or len(values) < len(inputs):
            continue
        has_sum = spelling.sum is not None and spelling.sum < len(node.outputs)
        total = node.outputs[spelling.sum] if has_sum and spelling.sum is not None else None
        is_read = total is not None and (total.uses() or total.is_graph_output())
        yield NormNode(node, spelling.op, values, node.outputs[0], total if is_read else None)


def seen_before(value: ir.Value, names: Collection[str]) -> ir.Value:
    """``value``, or the nearest value among ``names`` that it holds in another shape or type, if there is one."""
    found = value
    while found.name not in names:
        node = found.producer()
        if node is None or node.op_type not in _KEEP_ORDER or node.inputs[0] is None:
            return value
        found = node.inputs[0]
    return found


def seen_after(value: ir.Value, names: Collection[str]) -> ir.Value:
    """Likewise the nearest value among ``names`` that is made of ``value`` alone."""
    found = value
    while found.name not in names:
        uses = list(found.uses())
        if len(uses) != 1 or uses[0].node.op_type not in _KEEP_ORDER or uses[0].idx != 0:
            return value
        found = uses[0].node.outputs[0]
    return found
