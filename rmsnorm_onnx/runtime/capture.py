"""Values inside a running model: a copy that gives them as outputs, also out of the branches of an If."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.runtime.types import infer_types, set_type

#: If nodes around a value, outermost first, each with the attribute that holds the branch.
Path = tuple[tuple[ir.Node, str], ...]


def with_values(model: ir.Model, names: Iterable[str]) -> tuple[ir.Model, dict[str, str]]:
    """A copy of ``model`` that gives further values as outputs.

    A value in a branch of an If leaves it as a further output of the If; where the other branch runs, it is empty, of
    shape [0]. Values in the body of a Loop or Scan stay there: they have as many values as it has iterations.

    Args:
        model: not changed; functions are not looked into.
        names: of values that nodes give.

    Returns:
        The copy, and the output that holds each value; names that cannot be shown are missing there.
    """
    copy = model.clone()
    infer_types(copy)
    found = {
        str(value.name): (value, path)
        for path, node in _nodes(copy.graph, ())
        for value in node.outputs
        if value.name and all(owner.op_type == "If" for owner, _ in path)
    }
    present = {str(value.name) for value in copy.graph.outputs}
    outputs = {}
    for name in dict.fromkeys(names):
        if name in present:
            outputs[name] = name
        elif name in found:
            value, path = found[name]
            shown = _lift(value, path)
            copy.graph.outputs.append(shown)
            outputs[name] = str(shown.name)
    return copy, outputs


def _nodes(graph: ir.Graph, path: Path) -> Iterator[tuple[Path, ir.Node]]:
    for node in graph:
        yield path, node
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _nodes(attribute.as_graph(), (*path, (node, name)))


def _lift(value: ir.Value, path: Path) -> ir.Value:
    """The value as an output of the outermost If around it."""
    for owner, branch in reversed(path):
        name = f"{value.name}_of_{owner.outputs[0].name}"
        dtype = value.dtype or ir.DataType.FLOAT
        for attribute in owner.attributes.values():
            graph = attribute.as_graph()
            # A value may be an output of its branch already, and onnxruntime loses one that is listed twice.
            if attribute.name == branch:
                last = ir.node("Identity", [value])
            else:
                last = ir.node("Constant", [], {"value": ir.tensor(np.empty(0, dtype.numpy()))})
            last.outputs[0].name = f"{name}_{attribute.name}"
            set_type(last.outputs[0], dtype)
            graph.append(last)
            graph.outputs.append(last.outputs[0])
        owner.resize_outputs(len(owner.outputs) + 1)
        value = owner.outputs[-1]
        value.name = name
        set_type(value, dtype)
    return value
