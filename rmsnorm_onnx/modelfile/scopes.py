"""Names of values: each given once, before it is read or after it, and read only where it is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx

from rmsnorm_onnx.modelfile.flaw import Place, flaw, shown
from rmsnorm_onnx.modelfile.operators import Operators


class Scopes:
    """Checks graphs and functions.

    Attributes:
        sorted: whether every value that was read until now was given by an earlier node.
    """

    def __init__(self) -> None:
        self.sorted = True

    def check_graph(self, graph: onnx.GraphProto, operators: Operators) -> None:
        """Raise a Flaw at the first name of a main graph that is given twice, or read and never given."""
        for name, reader in self._graph(graph, None, (), operators):
            raise flaw(reader, f"it reads {shown(name)}, which nothing gives")

    def check_function(self, function: onnx.FunctionProto, operators: Operators) -> None:
        """The same for a function."""
        place = (function, None)
        known: set[str] = set()
        for name in function.input:
            _add(known, name, place, "input")
        for name, reader in self._nodes(function.node, place, (), known, operators):
            raise flaw(reader, f"it reads {shown(name)}, which nothing gives")
        _check_outputs(function.output, known, place)

    def _graph(
        self, graph: onnx.GraphProto, outer: Place | None, around: tuple[set[str], ...], operators: Operators
    ) -> list[tuple[str, Place]]:
        """Check a graph; what it reads and does not know is for the graph around it."""
        place = (graph, outer)
        known: set[str] = set()
        for value in graph.input:
            _add(known, value.name, place, "input")
        tensors: dict[str, onnx.TensorProto] = {}
        for tensor in graph.initializer:
            if not tensor.name:
                raise flaw(place, "an initializer has no name")
            first = tensors.setdefault(tensor.name, tensor)
            if first is not tensor and first != tensor:
                raise flaw(place, f"two initializers differ and are both called {shown(tensor.name)}")
        known.update(tensors)
        missing = self._nodes(graph.node, place, around, known, operators)
        # A subgraph may give back what it finds around it.
        _check_outputs((v.name for v in graph.output), known.union(*around) if around else known, place)
        return missing

    def _nodes(
        self, nodes: Any, place: Place, around: tuple[set[str], ...], known: set[str], operators: Operators
    ) -> list[tuple[str, Place]]:
        missing: list[tuple[str, Place]] = []
        for node in nodes:
            here = (node, place)
            read = list(node.input)
            missing += [(name, here) for name in read if name and not _is_known(name, known, around)]
            attributes = operators.check(node, read, here)
            for attribute in attributes:
                for graph in (*([attribute.g] if attribute.type == attribute.GRAPH else ()), *attribute.graphs):
                    missing += self._graph(graph, here, (*around, known), operators)
            for name in node.output:
                if name:
                    _add(known, name, here, "output")
        self.sorted &= not missing
        return [(name, reader) for name, reader in missing if name not in known]


def _is_known(name: str, known: set[str], around: tuple[set[str], ...]) -> bool:
    return name in known or any(name in names for names in around)


def _add(known: set[str], name: str, place: Place, role: str) -> None:
    if not name:
        raise flaw(place, f"one {role} has no name")
    if name in known:
        raise flaw(place, f"its {role} {shown(name)} is the name of another value already")
    known.add(name)


def _check_outputs(names: Iterable[str], known: set[str], place: Place) -> None:
    for name in names:
        if name not in known:
            raise flaw(place, f"its output {shown(name)} is given by nothing")
