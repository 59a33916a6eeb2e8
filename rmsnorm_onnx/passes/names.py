"""Names for what is new in a model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

import onnx_ir as ir


class Names:
    """Gives names that no value and no node of a model has: onnxruntime refuses a model where two share one."""

    def __init__(self, model: ir.Model) -> None:
        graphs = (model.graph, *(function.graph for function in model.functions.values()))
        self._taken = {name for graph in graphs for name in _names(graph)}

    def fresh(self, wanted: str) -> str:
        """``wanted``, or that with the first number behind it that makes it new."""
        numbered = (f"{wanted}_{number}" for number in count(1))
        name = next(name for name in chain((wanted,), numbered) if name not in self._taken)
        self._taken.add(name)
        return name


def _names(graph: ir.Graph) -> Iterator[str | None]:
    """Of all values and nodes, those of subgraphs too."""
    yield from (value.name for value in (*graph.inputs, *graph.initializers.values()))
    for node in graph.all_nodes():
        yield node.name
        yield from (value.name for value in node.outputs)
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
                inner = attribute.as_graph()
                yield from (value.name for value in (*inner.inputs, *inner.initializers.values()))
