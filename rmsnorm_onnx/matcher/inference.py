"""ONNX's shape inference on one graph, without its weights and without a copy of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import onnx
import onnx_ir as ir

#: One axis: its length, the name of an unknown length, or None where even a name is missing.
Dim: TypeAlias = int | str | None
#: Element type and lengths; None where unknown.
Stated: TypeAlias = tuple[ir.DataType | None, tuple[Dim, ...] | None]

#: Larger initializers are declared, not passed: none of them is an axes list or a target shape.
_PASSED_BYTES = 1024


def infer(
    graph: ir.Graph,
    functions: Iterable[ir.Function],
    given: Mapping[ir.Value, Stated] | None = None,
    attributes: Mapping[str, ir.Attr] | None = None,
) -> dict[ir.Value, onnx.ValueInfoProto]:
    """Types and shapes of the values of ``graph`` and its subgraphs.

    Args:
        graph: a main graph, or the body of a function; it is not changed.
        functions: the model's functions that the graph may call.
        given: types and shapes of inputs, where the graph does not state them.
        attributes: values of the function's attributes that nodes refer to.

    Returns:
        What is known after inference, for ``stated`` to read; nothing where ONNX cannot follow the graph.
    """
    proto = _serialize(graph)
    for declared, (dtype, shape) in (given or {}).items():
        info = next(i for i in proto.input if i.name == declared.name)
        if dtype is not None:
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, dtype.value, shape))
    for node in _nodes(proto) if attributes else ():
        _resolve(node, attributes or {})
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in graph.opset_imports.items()]
    model = onnx.ModelProto(ir_version=10, graph=proto, opset_import=opsets)
    model.functions.extend(ir.serde.serialize_function(function) for function in functions)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        # A model that inference cannot follow is not an error here: unknown stays unknown.
        return {}
    return dict(_read(graph, inferred.graph))


def _serialize(graph: ir.Graph) -> onnx.GraphProto:
    declared: list[ir.Value] = []
    passed: list[ir.Value] = []
    for value in graph.initializers.values():
        small = value.const_value is not None and value.const_value.nbytes <= _PASSED_BYTES
        (passed if small or value.type is None else declared).append(value)
    inputs = dict.fromkeys((*graph.inputs, *declared))
    view = ir.GraphView(
        list(inputs), graph.outputs, nodes=list(graph), initializers=passed, opset_imports=graph.opset_imports
    )
    # A GraphView is what the function takes; mypy stumbles over its read-only metadata.
    return ir.serde.serialize_graph(view)  # type: ignore[arg-type]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _resolve(node: onnx.NodeProto, attributes: Mapping[str, ir.Attr]) -> None:
    for attribute in node.attribute:
        given = attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else None
        if given is not None and not given.is_ref() and given.value is not None:
            name = attribute.name
            attribute.CopyFrom(ir.serde.serialize_attribute(given))
            attribute.name = name


def _read(graph: ir.Graph, proto: onnx.GraphProto) -> Iterator[tuple[ir.Value, onnx.ValueInfoProto]]:
    infos = {info.name: info for info in (*proto.value_info, *proto.input, *proto.output)}
    for value in graph.inputs:
        if value.name in infos:
            yield value, infos[value.name]
    for node, node_proto in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            if value.name in infos:
                yield value, infos[value.name]
        for name, attribute in node.attributes.items():
            if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
                inner = next(a for a in node_proto.attribute if a.name == name)
                yield from _read(attribute.as_graph(), inner.g)


def stated(info: onnx.ValueInfoProto) -> Stated:
    """Element type and lengths that ``info`` states."""
    tensor = info.type.tensor_type
    dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim)
