"""The values of a model by name as they are known in one of its graphs: bodies side by side may use the same names."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import onnx_ir as ir

from rmsnorm_onnx import runtime

#: Nodes around a graph, outermost first: what each gives first, and its attribute that holds the graph.
Path: TypeAlias = tuple[tuple[str, str], ...]


def paths(graph: ir.Graph, path: Path = ()) -> Iterator[tuple[ir.Graph, Path]]:
    """Every graph inside ``graph``, itself included, and where it is."""
    yield graph, path
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from paths(attribute.as_graph(), (*path, (str(node.outputs[0].name), attribute.name)))


class Scopes:
    """What nodes give and graphs take in a model, but for initializers."""

    def __init__(self, model: ir.Model) -> None:
        """Read the names of ``model``."""
        everywhere = [*model.graph.inputs, *runtime.values_of(model)]
        times = Counter(value.name for value in everywhere)
        self._unique = {str(value.name): value for value in everywhere if times[value.name] == 1}
        self._own = {
            path: {str(value.name): value for value in (*graph.inputs, *(v for node in graph for v in node.outputs))}
            for graph, path in paths(model.graph)
        }

    def known_at(self, path: Path) -> Mapping[str, ir.Value]:
        """The values that are known there, and those elsewhere whose name no other has."""
        around = [self._own.get(path[:length], {}) for length in range(len(path), -1, -1)]
        return ChainMap(*around, self._unique)
