"""Carries one emission out: builds the node that stands for a match and puts it in the old nodes' place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import Match
from rmsnorm_onnx.matcher.facts import element_type
from rmsnorm_onnx.matcher.match import Biased, Operand
from rmsnorm_onnx.passes.names import Names
from rmsnorm_onnx.passes.target import Emission

METADATA: Final = f"{spec.DOMAIN}."
WRITTEN_BY: Final = f"{METADATA}pass"
Current = Callable[[ir.Value], ir.Value]


def emit(emission: Emission, current: Current, names: Names) -> tuple[ir.Node, dict[ir.Value, ir.Value]]:
    """Insert the new nodes of a match into its graph and let all consumers read them.

    Args:
        emission: what to emit; the match's old nodes stay, without consumers, for the sweep.
        current: gives the value that stands for one of the match's values after earlier matches.
        names: of the model.

    Returns:
        The operator's node, and the values that were replaced, each with the value that replaces it.
    """
    match, operator = emission.match, emission.operator
    tape = _Tape(match, names)
    given = (1.0 if operand is None else operand for operand in match.inputs)
    inputs = [tape.full(o, emission.ones_shape) if isinstance(o, float) else tape.operand(o, current) for o in given]
    total = None
    if emission.adds:
        total = tape.add(inputs[0], inputs[1])
        inputs = [total, inputs[2]]
    if match.widen_x:
        inputs[0] = tape.cast(inputs[0], match.dtype, "x_")
    # The gate and the residual come as T already; only a lone X, or a scale, may have to be widened.
    if emission.converts_scale:
        inputs[-1] = tape.cast(inputs[-1], match.dtype, "scale_")
    old = match.output.producer()
    assert old is not None
    node = operator.node(match, inputs)
    node.name = old.name or names.fresh(f"{operator.op_type}_{match.output.name}")
    node.metadata_props.update(
        {
            WRITTEN_BY: "FuseRmsNorm",
            f"{METADATA}pattern": match.pattern,
            f"{METADATA}replaced": ", ".join(node_name(n) for n in match.nodes),
        }
    )
    tape.nodes.append(node)
    output = node.outputs[0]
    if match.narrow_y is not None:
        output.name = names.fresh(f"{match.output.name}_{match.dtype.name.lower()}")
        output.type = ir.TensorType(ir.DataType(int(match.dtype)))
        # Groups are put back into one axis afterwards.
        output.shape = match.output.shape if match.flatten is None else None
        output = tape.cast(output, match.narrow_y)
    if match.flatten is not None:
        output = tape.flatten(output, match.flatten, current)
    replaced = {match.output: output}
    for unread in node.outputs[1:]:
        unread.name = spec.LeftOut()
    if match.sum is not None:
        replaced[match.sum] = total if total is not None else node.outputs[operator.sum_output or 0]
    for before, after in replaced.items():
        _take_over(before, after)
    graph = old.graph
    assert graph is not None
    # Consumers of the residual sum may stand before the norm's last node.
    first = match.sum.producer() if match.sum is not None else old
    graph.insert_before(first if first is not None and first.graph is graph else old, tape.nodes)
    return node, replaced


def node_name(node: ir.Node) -> str:
    """The node's name, or its first output's where it has none."""
    return node.name or node.outputs[0].name or node.op_type


class _Tape:
    """New nodes in order, with the helper nodes that a match may need before and after the operator."""

    def __init__(self, match: Match, names: Names) -> None:
        self._match = match
        self._names = names
        self._read: dict[Operand, ir.Value] = {}
        self.nodes: list[ir.Node] = []

    def full(self, number: float, shape: tuple[int, ...]) -> ir.Value:
        """A constant scale: of 1 in T (the kernels recognize and skip it), else as precise as the arithmetic."""
        dtype = ir.DataType(int(self._match.dtype if number == 1 else self._match.stash_type))
        tensor = ir.tensor(np.full(shape, number, dtype.numpy()), dtype)
        return self._append("Constant", [], [ir.AttrTensor("value", tensor)], "scale_value", dtype, ir.Shape(shape))

    def add(self, a: ir.Value, b: ir.Value, suffix: str = "sum") -> ir.Value:
        """The sum of two values of type T, of the shape of the first."""
        return self._append("Add", [a, b], [], suffix, ir.DataType(int(self._match.dtype)), a.shape)

    def operand(self, operand: Operand, current: Current) -> ir.Value:
        """A value as the operator reads it, the same for two inputs that are one."""
        if operand not in self._read:
            self._read[operand] = self._prepared(operand, current)
        return self._read[operand]

    def _prepared(self, operand: Operand, current: Current) -> ir.Value:
        if isinstance(operand, ir.Value):
            return current(operand)
        if isinstance(operand, Biased):
            return self.add(current(operand.value), current(operand.bias), "biased")
        source = current(operand.value)
        if isinstance(operand.shape, ir.Value):
            shape, lengths = current(operand.shape), None
        else:
            shape, lengths = self._constant_shape(operand.shape, source), ir.Shape(operand.shape)
        attributes = [ir.AttrInt64("allowzero", 1)] if operand.allow_zero else []
        return self._append(
            "Reshape", [source, shape], attributes, f"{source.name}_grouped", element_type(source), lengths
        )

    def flatten(self, value: ir.Value, reshape: ir.Node, current: Current) -> ir.Value:
        """``value`` put through a Reshape that the graph has."""
        shape = reshape.inputs[1]
        assert shape is not None
        if not value.name:
            value.name = self._names.fresh(f"{self._match.output.name}_groups")
        dtype = value.dtype or ir.DataType(int(self._match.dtype))
        attributes = list(reshape.attributes.values())
        return self._append("Reshape", [value, current(shape)], attributes, "flat", dtype, None)

    def _constant_shape(self, lengths: tuple[int, ...], source: ir.Value) -> ir.Value:
        tensor = ir.tensor(np.array(lengths, np.int64))
        attributes = [ir.AttrTensor("value", tensor)]
        size = ir.Shape([len(lengths)])
        return self._append("Constant", [], attributes, f"{source.name}_groups", ir.DataType.INT64, size)

    def cast(self, value: ir.Value, dtype: spec.DType, prefix: str = "") -> ir.Value:
        """``value`` as another type; ``prefix`` tells its name from another cast's."""
        to = ir.DataType(int(dtype))
        suffix = f"{prefix}{to.name.lower()}"
        return self._append("Cast", [value], [ir.AttrInt64("to", to.value)], suffix, to, value.shape)

    def _append(
        self,
        op_type: str,
        inputs: list[ir.Value],
        attributes: list[ir.Attr],
        suffix: str,
        dtype: ir.DataType | None,
        shape: ir.Shape | None,
    ) -> ir.Value:
        name = self._names.fresh(f"{self._match.output.name}_{suffix}")
        node = ir.Node("", op_type, inputs, attributes, name=self._names.fresh(f"{name}_{op_type}"))
        node.outputs[0].name = name
        if dtype is not None:  # a shape without a type cannot be written
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), shape
        self.nodes.append(node)
        return node.outputs[0]


def _take_over(before: ir.Value, after: ir.Value) -> None:
    """Give ``after`` the name, type, shape, texts and consumers of ``before``."""
    after.name, after.type, after.shape = before.name, before.type or after.type, before.shape or after.shape
    after.metadata_props.update(before.metadata_props)
    after.doc_string = before.doc_string
    before.name = f"{before.name}_replaced"
    ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
