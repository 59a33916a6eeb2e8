"""Names of values: each given once, before it is read or after it, and read only where it is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx

from rmsnorm_onnx.modelfile.flaw import Place, flaw, shown
from rmsnorm_onnx.modelfile.operators import Operators

#: Names of a graph that are known so far, and all that its nodes give.
_Names = tuple[set[str], set[str]]


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
        self, graph: onnx.GraphProto, outer: Place | None, around: tuple[_Names, ...], operators: Operators
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
        _check_outputs((v.name for v in graph.output), known.union(*(names for names, _ in around)), place)
        return missing

    def _nodes(
        self, nodes: Any, place: Place, around: tuple[_Names, ...], known: set[str], operators: Operators
    ) -> list[tuple[str, Place]]:
        missing: list[tuple[str, Place]] = []
        scopes = (*around, (known, {name for node in nodes for name in node.output}))
        for node in nodes:
            here = (node, place)
            read = list(node.input)
            missing += [
                (name, here) for name in read if name and name not in known and not _is_known(name, scopes, here)
            ]
            attributes = operators.check(node, read, here)
            for attribute in attributes:
                for graph in (*([attribute.g] if attribute.type == attribute.GRAPH else ()), *attribute.graphs):
                    missing += self._graph(graph, here, scopes, operators)
            for name in node.output:
                if name:
                    _add(known, name, here, "output")
        self.sorted &= not missing
        return [(name, reader) for name, reader in missing if name not in known]


def _is_known(name: str, scopes: tuple[_Names, ...], reader: Place) -> bool:
    """Whether ``name`` is given before it is read, in the innermost graph that has it."""
    depth = next((i for i in reversed(range(len(scopes))) if any(name in names for names in scopes[i])), None)
    if depth is None or name in scopes[depth][0]:
        return depth is not None
    if any(name in known for known, _ in scopes[:depth]):
        raise flaw(reader, f"it reads {shown(name)}, which is given outside, and here only after it")
    return False


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
