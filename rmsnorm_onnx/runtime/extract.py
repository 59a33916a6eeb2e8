"""The part of a graph between values: what computes one value from others, as a model of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx.errors import CannotRun

Array = npt.NDArray[Any]


def between(
    model: ir.Model,
    given: Mapping[str, Array],
    outputs: Sequence[ir.Value],
    feeds: Mapping[str, Array] | None = None,
) -> ir.Model:
    """The nodes that compute ``outputs`` from ``given`` and constants, as a model.

    Args:
        model: functions inlined; not changed.
        given: arrays of the values where the part begins; they give its inputs their types and shapes.
        outputs: what nodes of one graph of the model give, the main one, a branch or a body.
        feeds: what the model's own inputs hold; they are read for their shapes only.

    Returns:
        The model, whose inputs are those of ``given`` that are read.

    Raises:
        CannotRun: they also depend on something else that is not constant.
    """
    feeds = feeds or {}
    nodes, constants, read = _walk(list(outputs), given, feeds)
    # Values of different scopes may have one name, and only what goes in and comes out must keep it.
    names = _Names({str(value.name) for value in (*read, *outputs)})
    values: dict[ir.Value, ir.Value] = {}
    for value in read:
        name = str(value.name)
        array = np.asarray(given[name] if name in given else feeds[name])
        kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        values[value] = ir.Value(name=value.name, type=kind, shape=ir.Shape(array.shape))
    inputs = list(values.values())
    initializers = []
    for value in constants:
        tensor = value.const_value
        assert tensor is not None
        # A tensor takes the name of its value, and this one is the model's.
        held = ir.LazyTensor(partial(_same, tensor), tensor.dtype, ir.Shape(tensor.shape.numpy()))
        copy = ir.Value(name=names.new(value), type=value.type, shape=value.shape, const_value=held)
        values[value] = copy
        initializers.append(copy)
    copies: list[ir.Node] = []
    for node in nodes:
        copy_of_node = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else values[value] for value in node.inputs],
            list(node.attributes.values()),
            overload=node.overload,
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for value, new in zip(node.outputs, copy_of_node.outputs, strict=True):
            new.name, new.type = str(value.name) if value in outputs else names.new(value), value.type
            values[value] = new
        copies.append(copy_of_node)
    graph = ir.Graph(
        inputs,
        [values[value] for value in outputs],
        nodes=copies,
        initializers=initializers,
        opset_imports=dict(model.graph.opset_imports),
        name="part",
    )
    return ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values()))


class _Names:
    def __init__(self, taken: set[str]) -> None:
        self._taken = taken

    def new(self, value: ir.Value) -> str:
        """The name of ``value``, longer where it is taken."""
        name = value.name or "left_out"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _same(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor


def _walk(
    ends: list[ir.Value], given: Collection[str], feeds: Collection[str]
) -> tuple[list[ir.Node], list[ir.Value], list[ir.Value]]:
    """The nodes behind ``ends`` in order, the constants they read, and the given values they read."""
    nodes: dict[ir.Node, None] = {}
    constants: dict[ir.Value, None] = {}
    read: dict[ir.Value, None] = {}
    pending = [(value, False, False) for value in ends]
    while pending:
        value, is_done, is_shape = pending.pop()
        node = value.producer()
        is_given = value.name in given and value not in ends
        is_feed = node is None and is_shape and value.name in feeds
        if is_done:
            assert node is not None
            nodes.setdefault(node)
        elif is_given or is_feed:
            read.setdefault(value)
        elif node is None:
            if value.const_value is None:
                raise CannotRun(f"it also depends on '{value.name}', which is not among the node's inputs")
            constants.setdefault(value)
        elif node not in nodes:
            if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
                raise CannotRun(f"it also depends on node '{node.name}', which runs a graph of its own")
            below = is_shape or node.op_type in {"Shape", "Size"}
            pending.append((value, True, is_shape))
            pending.extend((operand, False, below) for operand in node.inputs if operand is not None)
    return list(nodes), list(constants), list(read)
