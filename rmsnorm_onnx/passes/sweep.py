"""Removes what nobody reads any more: replaced nodes, what fed only them, and their initializers."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


def sweep(replaced: Iterable[ir.Node]) -> None:
    """Remove those of ``replaced``, and of the nodes and initializers feeding them, that lost their last reader.

    What was dead before, or feeds somebody else, is not touched.
    """
    pending = list(dict.fromkeys(replaced))
    while pending:
        node = pending.pop()
        if node.graph is None:
            continue
        if any(list(o.uses()) or o.is_graph_output() for o in node.outputs):
            continue
        feeding = [value for value in node.inputs if value is not None]
        node.graph.remove(node, safe=True)
        for value in dict.fromkeys(feeding):
            producer = value.producer()
            if producer is not None:
                pending.append(producer)
            elif value.is_initializer() and not (value.is_graph_input() or value.is_graph_output() or value.uses()):
                _drop_initializer(value)


def _drop_initializer(value: ir.Value) -> None:
    graph = value.graph
    if graph is not None and value.name is not None:
        graph.initializers.pop(value.name, None)
