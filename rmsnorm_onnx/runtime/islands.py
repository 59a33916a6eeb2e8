"""Edits of typed graphs: one value in the place of another, and single nodes that compute in another type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from rmsnorm_onnx.runtime.types import is_sequence, set_type

Choose = Callable[[ir.DataType | None], ir.DataType | None]


def substitute(old: ir.Value, new: ir.Value) -> None:
    """``new`` takes over the name, shape, uses and graph-output places of ``old``, which gets a name of its own."""
    name = old.name
    old.name = f"{name}_replaced"
    new.name = name
    if new.shape is None:
        new.shape = old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def put_first(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    """Nodes before all others, of which there may be none: a branch may only name an initializer."""
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    """A Cast node of ``value``, typed and shaped, not yet in a graph."""
    node = ir.node("Cast", [value], {"to": int(to)}, name=name)
    node.outputs[0].name = name
    set_type(node.outputs[0], to)
    node.outputs[0].shape = value.shape
    return node


def surround(node: ir.Node, input_type: Choose, output_type: Choose) -> None:
    """Let ``node`` read and write other types; its neighbours see the types they saw before.

    Sequences cannot be cast: one that is read is left alone, and one that is written changes its type for its readers.

    Args:
        node: a node in a graph; changed in place, and casts are inserted around it.
        input_type: from the type of an input to the type the node shall read, or None to leave it.
        output_type: from the type of an output to the type the node will write, or None to leave it.
    """
    graph = node.graph
    assert graph is not None
    for index, value in enumerate(node.inputs):
        wanted = None if value is None or is_sequence(value) else input_type(value.dtype)
        if value is not None and wanted is not None and wanted != value.dtype:
            before = cast(value, wanted, f"{value.name}_{node.outputs[0].name}_{index}_as_{wanted.name}")
            graph.insert_before(node, before)
            node.replace_input_with(index, before.outputs[0])
    for value in node.outputs:
        wanted = output_type(value.dtype)
        if value.dtype is not None and wanted is not None and wanted != value.dtype:
            if is_sequence(value):
                set_type(value, wanted)
            else:
                narrow_after(value, wanted)


def narrow_after(value: ir.Value, computed: ir.DataType) -> None:
    """``value`` becomes of type ``computed``; a Cast back to its old type takes over its name and its uses."""
    node = value.producer()
    assert node is not None
    assert node.graph is not None
    assert value.dtype is not None
    after = cast(value, value.dtype, f"{value.name}_rounded")
    set_type(value, computed)
    substitute(value, after.outputs[0])
    after.replace_input_with(0, value)
    node.graph.insert_after(node, after)
