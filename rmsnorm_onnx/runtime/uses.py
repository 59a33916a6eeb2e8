"""What a graph does with an input: followed from reader to reader, into branches, loops and functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx.runtime.types import const_tensor

#: Operators whose results hold nothing but values of their first input ...
_KEEPS_FIRST: Final = frozenset(
    {"Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Expand", "Flatten", "Transpose", "Slice"}
    | {"Clip", "Split", "Tile", "Pad", "Gather", "GatherElements", "GatherND", "ScatterND", "ScatterElements", "Trilu"}
)
#: ... and of any input.
_KEEPS_ANY: Final = frozenset({"Concat", "Min", "Max", "And", "Or"})
#: (domain, operator) -> {operand that is an index: (operand that is the table, attribute that names the axis)}.
_TABLES: Final[dict[tuple[str, str], dict[int, tuple[int, str]]]] = {
    ("", "Gather"): {1: (0, "axis")},
    ("", "GatherElements"): {1: (0, "axis")},
    ("", "GatherND"): {1: (0, "")},
    ("", "ScatterElements"): {1: (0, "axis")},
    ("", "ScatterND"): {1: (0, "")},
    ("", "RotaryEmbedding"): {3: (1, "")},
    ("com.microsoft", "RotaryEmbedding"): {1: (2, "")},
    ("com.microsoft", "GatherBlockQuantized"): {1: (0, "gather_axis")},
    ("com.microsoft", "EmbedLayerNormalization"): {0: (2, ""), 1: (4, ""), 8: (3, "")},
    ("com.microsoft", "QEmbedLayerNormalization"): {0: (2, ""), 1: (4, "")},
    ("com.microsoft", "GroupQueryAttention"): {9: (7, "")},
}
#: Operators between a stored table and the Gather that reads it; they keep the number of rows.
_SAME_ROWS: Final = frozenset({"Cast", "Identity", "DequantizeLinear", "Mul", "Clip", "Transpose"})
_SAME_NUMBER: Final = frozenset({"Cast", "CastLike", "Identity", "Expand", "Unsqueeze", "Reshape"})
#: Exporters' chains of casts and the like are shorter, and a broken graph may have a circle.
_LONGEST_CHAIN: Final = 100
#: Larger sums are no offsets into a table; a loop that adds in every round stops here.
_LARGEST_OFFSET: Final = 64

#: Calls of model-local functions, outermost first: the call and the body of what is called.
Calls = tuple[tuple[ir.Node, ir.Graph], ...]


@dataclass(frozen=True, slots=True)
class Read:
    """One node that reads the values of an input.

    Attributes:
        node: the reader.
        operand: which of its inputs.
        calls: of functions that lead to it.
        offset: what was added to the values on the way.
        inverted: whether they were negated as booleans on the way.
    """

    node: ir.Node
    operand: int
    calls: Calls = ()
    offset: int = 0
    inverted: bool = False

    @property
    def operator(self) -> tuple[str, str]:
        """Domain and type of the reader."""
        return self.node.domain, self.node.op_type

    def operand_at(self, position: int) -> ir.Value | None:
        """The reader's input there, None if it has none."""
        inputs = self.node.inputs
        return inputs[position] if 0 <= position < len(inputs) else None


@dataclass(frozen=True, slots=True)
class _Stop:
    """A value on the way, as in Read."""

    value: ir.Value
    calls: Calls
    offset: int
    inverted: bool


class Uses:
    """The ways of values through one model, which must not change meanwhile."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._owners: dict[ir.Graph, ir.Node] = {}
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            for node in graph.all_nodes():
                for attribute in node.attributes.values():
                    if attribute.type == ir.AttributeType.GRAPH:
                        self._owners[attribute.as_graph()] = node

    def reads(self, value: ir.Value) -> Iterator[Read]:
        """Every node that a value reaches unchanged but for its shape, type, an offset, or a negation."""
        seen: set[_Stop] = set()
        pending = [_Stop(value, (), 0, False)]
        while pending:
            stop = pending.pop()
            if stop in seen:
                continue
            seen.add(stop)
            for node, operand in stop.value.uses():
                read = Read(node, operand, stop.calls, stop.offset, stop.inverted)
                yield read
                pending += self._passed_on(read)
            pending += self._leaving(stop)

    def _passed_on(self, read: Read) -> list[_Stop]:
        node, operand, calls = read.node, read.operand, read.calls
        offset, inverted = read.offset, read.inverted
        called = self._model.functions.get(node.op_identifier())
        if called is not None:
            step = (node, called.graph)
            known = step in calls or operand >= len(called.inputs)
            return [] if known else [_Stop(called.inputs[operand], (*calls, step), offset, inverted)]
        if node.op_type in {"Loop", "Scan"} and "body" in node.attributes:
            # Trip count and condition of a Loop stand where its body has iteration number and condition.
            inputs = node.attributes["body"].as_graph().inputs
            return [_Stop(inputs[operand], calls, offset, inverted)] if operand < len(inputs) else []
        kept = operand == 0 if node.op_type in _KEEPS_FIRST else node.op_type in _KEEPS_ANY
        if node.op_type == "Not" or (node.op_type == "Equal" and self._other_is_zero(read)):
            kept, inverted = True, not inverted
        elif node.op_type in {"Add", "Sub"}:
            added = constant(read.operand_at(1 - operand), calls)
            if added is not None and (node.op_type == "Add" or operand == 0) and abs(added) < _LARGEST_OFFSET:
                offset += int(added if node.op_type == "Add" else -added)
                kept = abs(offset) < _LARGEST_OFFSET
        elif node.op_type == "Where":
            kept = operand > 0
        return [_Stop(output, calls, offset, inverted) for output in node.outputs] if kept else []

    @staticmethod
    def _other_is_zero(read: Read) -> bool:
        return constant(read.operand_at(1 - read.operand), read.calls) == 0

    def _leaving(self, stop: _Stop) -> Iterator[_Stop]:
        """What a result of a branch, loop body or function is called outside."""
        if not stop.value.is_graph_output() or (graph := stop.value.graph) is None:
            return
        owner, calls = self._owners.get(graph), stop.calls
        if owner is None:
            if not calls:
                return
            owner, calls = calls[-1][0], calls[:-1]
        skipped = 1 if owner.op_type == "Loop" else 0
        for position, output in enumerate(graph.outputs):
            if output is stop.value and 0 <= position - skipped < len(owner.outputs):
                yield _Stop(owner.outputs[position - skipped], calls, stop.offset, stop.inverted)


def table_rows(read: Read) -> int | None:
    """Rows of the table that the value indexes in this reader, less what was added to it; None if it is no index."""
    if read.operator == ("", "OneHot") and read.operand == 0:
        rows = constant(read.operand_at(1), read.calls)
        return None if rows is None else int(rows) - read.offset
    table, axis_name = _TABLES.get(read.operator, {}).get(read.operand, (None, ""))
    if table is None:
        return None
    axis = read.node.attributes.get(axis_name)
    rows = _rows(read.operand_at(table), read.calls, axis.as_int() if axis is not None else 0)
    return None if rows is None else rows - read.offset


def constant(value: ir.Value | None, calls: Calls = ()) -> float | None:
    """The number that a scalar constant holds, through casts and calls; None for anything else."""
    for _ in range(_LONGEST_CHAIN):
        value, calls = _source(value, calls)
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in _SAME_NUMBER:
            break
        value = node.inputs[0]
    tensor = const_tensor(value) if value is not None else None
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    return float(tensor.numpy().reshape(-1)[0])


def _rows(table: ir.Value | None, calls: Calls, axis: int) -> int | None:
    for _ in range(_LONGEST_CHAIN):
        table, calls = _source(table, calls)
        if table is None:
            return None
        tensor = const_tensor(table)
        shape = tensor.shape if tensor is not None else table.shape
        rows = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        if isinstance(rows, int):
            return rows
        node = table.producer()
        if node is None or node.op_type not in _SAME_ROWS:
            return None
        if node.op_type == "Transpose":
            order = node.attributes["perm"].as_ints() if "perm" in node.attributes else ()
            if not -len(order) <= axis < len(order):
                return None
            axis = order[axis]
        table = node.inputs[0]
    return None


def _source(value: ir.Value | None, calls: Calls) -> tuple[ir.Value | None, Calls]:
    """A function's parameter is what its caller gives."""
    while value is not None and calls and value.is_graph_input() and value.graph is calls[-1][1]:
        call, body = calls[-1]
        position = next(i for i, parameter in enumerate(body.inputs) if parameter is value)
        value, calls = (call.inputs[position] if position < len(call.inputs) else None), calls[:-1]
    return value, calls
