"""ONNX's shape inference on one graph, without its weights and without a copy of the graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.flow import Stated

#: Larger initializers are declared, not passed: none of them is an axes list or a target shape.
_PASSED_BYTES = 1024
#: Operators whose result is as long as the numbers in an input say, and more than anybody computes shapes with.
_LENGTHENING: Final = frozenset({"ConstantOfShape", "Expand", "Range", "Tile"})
_MOST_ELEMENTS: Final = 1 << 20
#: No shape has as many lengths.
_LONG = 1024


#: onnxruntime's contrib operators (some live in ONNX's own domain) and, without their bodies, ours.
_FOREIGN_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft", spec.DOMAIN})
#: Which outputs have the type and shape of the first input.
_LIKE_FIRST_INPUT: Final[Mapping[str, tuple[int, ...]]] = {
    **dict.fromkeys(("SimplifiedLayerNormalization", "GatedRMSNorm", "BranchwiseRMSNorm"), (0,)),
    **dict.fromkeys(("SkipSimplifiedLayerNormalization", "SkipLayerNormalization"), (0, 3)),
    **dict.fromkeys(("QuickGelu", "FastGelu", "BiasGelu"), (0,)),
    **{name: tuple(range(len(op.outputs))) for name, op in spec.OPS.items()},
}


def infer(
    graph: ir.Graph,
    functions: Iterable[ir.Function],
    given: Mapping[ir.Value, Stated] | None = None,
    attributes: Mapping[str, ir.Attr] | None = None,
    doubted: Collection[ir.Value] = (),
    fed: Collection[ir.Value] = (),
) -> dict[ir.Value, onnx.ValueInfoProto]:
    """Types and shapes of the values of ``graph`` and its subgraphs.

    Args:
        graph: a main graph, or the body of a function; it is not changed.
        functions: the model's functions that the graph may call.
        given: types and shapes of inputs, where the graph does not state them.
        attributes: values of the function's attributes that nodes refer to.
        doubted: values whose declared shapes are not believed, nor those of others of the same name.
        fed: initializers whose data is a default that a feed may override: nothing follows from it.

    Returns:
        What is known after inference, for ``stated`` to read; nothing where ONNX cannot follow the graph.
    """
    try:
        proto = _serialize(graph, fed)
        bodies = [ir.serde.serialize_function(function) for function in functions]
    except ir.serde.SerdeError:  # a graph that cannot be written has no inference either
        return {}
    for declared, (dtype, shape) in (given or {}).items():
        info = next(i for i in proto.input if i.name == declared.name)
        if dtype is not None:
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, dtype.value, shape))
    for node in _nodes(proto) if attributes else ():
        _resolve(node, attributes or {})
    _forget_made_up_names(proto)
    scopes: list[onnx.GraphProto | onnx.FunctionProto] = [proto, *bodies]
    if doubted:
        _forget_shapes(scopes, {value.name for value in doubted})
    for scope in scopes:
        _put_in_stand_ins(scope)
    original = _one_name_each(proto)
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in graph.opset_imports.items()]
    model = onnx.ModelProto(ir_version=10, graph=proto, opset_import=opsets)
    model.functions.extend(bodies)
    try:
        inferred = _infer_shapes(model, data_prop=False)
        if not _explodes(inferred.graph):
            inferred = _infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError, MemoryError):
        # A model that inference cannot follow is not an error here: unknown stays unknown.
        return {}
    return dict(_read(graph, inferred.graph, original))


def _infer_shapes(model: onnx.ModelProto, *, data_prop: bool) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=data_prop)


def _serialize(graph: ir.Graph, fed: Collection[ir.Value]) -> onnx.GraphProto:
    declared: list[ir.Value] = []
    passed: list[ir.Value] = []
    for value in graph.initializers.values():
        small = value.const_value is not None and value.const_value.nbytes <= _PASSED_BYTES
        (passed if (small or value.type is None) and value not in fed else declared).append(value)
    inputs = dict.fromkeys((*graph.inputs, *declared))
    view = ir.GraphView(
        list(inputs), graph.outputs, nodes=list(graph), initializers=passed, opset_imports=graph.opset_imports
    )
    # A GraphView is what the function takes; mypy stumbles over its read-only metadata.
    proto = ir.serde.serialize_graph(view)  # type: ignore[arg-type]
    # What the model states beside the data may be out of date.
    data = {v.name: v.const_value for v in graph.initializers.values() if not v.is_graph_input()}
    for info in (*proto.input, *proto.value_info):
        tensor = data.get(info.name)
        if tensor is not None:
            stated_anew = onnx.helper.make_tensor_value_info(info.name, tensor.dtype.value, tensor.shape.numpy())
            info.CopyFrom(stated_anew)
    return proto


def _forget_made_up_names(graph: onnx.GraphProto) -> None:
    """Leave out lengths that an earlier inference did not know and named: they would hide what this one knows.

    And those of lists of integers that are no shape: inference makes an axis of each of their elements.
    """
    for info in (*graph.value_info, *graph.input, *graph.output):
        dims = info.type.tensor_type.shape.dim
        integers = info.type.tensor_type.elem_type in {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
        if integers and len(dims) == 1 and dims[0].dim_value > _LONG:
            dims[0].Clear()
    for info in (*graph.value_info, *graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param.startswith("unk__"):
                dim.Clear()
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_made_up_names(inner)


def _forget_shapes(scopes: Iterable[onnx.GraphProto | onnx.FunctionProto], names: Collection[str | None]) -> None:
    for scope in scopes:
        infos = (*scope.value_info, *((*scope.input, *scope.output) if isinstance(scope, onnx.GraphProto) else ()))
        for info in infos:
            if info.name in names and info.type.HasField("tensor_type"):
                info.type.tensor_type.ClearField("shape")
        for node in scope.node:
            _forget_shapes((g for a in node.attribute for g in (a.g, *a.graphs)), names)


def _explodes(graph: onnx.GraphProto) -> bool:
    """Whether inference with data would compute a list too long for the memory: it does not look how long first.

    Of a tensor with one axis, of any type, it computes every element: 2.4 GB for Cast of 4096 x 4096 in a row.
    """
    shapes = (info.type.tensor_type.shape.dim for info in (*graph.input, *graph.value_info, *graph.output))
    if any(len(dims) == 1 and dims[0].dim_value > _MOST_ELEMENTS for dims in shapes):
        return True
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in _nodes(graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.type == attribute.TENSOR:
                held[node.output[0]] = attribute.t
    lengths = {name for node in _nodes(graph) if node.op_type in _LENGTHENING for name in node.input}
    integers = [held[n] for n in lengths if n in held and held[n].data_type == onnx.TensorProto.INT64]
    return any(np.any(np.abs(onnx.numpy_helper.to_array(tensor)) > _MOST_ELEMENTS) for tensor in integers)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _put_in_stand_ins(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Let ONNX see Identity for operators it has no schema of, whose outputs are like their first input."""
    nodes = list(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _put_in_stand_ins(inner)
    if not any(node.op_type in _LIKE_FIRST_INPUT and node.domain in _FOREIGN_DOMAINS for node in nodes):
        return
    del graph.node[:]
    for node in nodes:
        if node.op_type in _LIKE_FIRST_INPUT and node.domain in _FOREIGN_DOMAINS:
            like = _LIKE_FIRST_INPUT[node.op_type]
            outputs = [name for index, name in enumerate(node.output) if name and index in like]
            graph.node.extend(onnx.helper.make_node("Identity", node.input[:1], [name]) for name in outputs)
        else:
            graph.node.append(node)


def _one_name_each(main: onnx.GraphProto) -> dict[str, str]:
    """Rename, in subgraphs, what another graph also has a name for; new names and what they were.

    ONNX (1.23) keeps the numbers in lists by name alone, so that a branch would get those of another.
    """
    used = {declared.name for declared in (*main.input, *main.initializer)}
    used |= {name for node in main.node for name in node.output}
    original: dict[str, str] = {}

    def rename(graph: onnx.GraphProto, outer: Mapping[str, str]) -> None:
        names = dict(outer)
        given = [declared.name for declared in (*graph.input, *graph.initializer)]
        given += [name for node in graph.node for name in node.output if name]
        for name in dict.fromkeys(given):
            names[name] = new = f"{name} ({len(used)})" if name in used else name
            used.add(new)
            if new != name:
                original[new] = name
        for declared in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            declared.name = names.get(declared.name, declared.name)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        below(graph, names)

    def below(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
        for node in graph.node:
            for attribute in node.attribute:
                for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    rename(inner, names)

    below(main, {})
    return original


def _resolve(node: onnx.NodeProto, attributes: Mapping[str, ir.Attr]) -> None:
    for attribute in node.attribute:
        given = attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else None
        if given is not None and not given.is_ref() and given.value is not None:
            name = attribute.name
            attribute.CopyFrom(ir.serde.serialize_attribute(given))
            attribute.name = name


def _read(
    graph: ir.Graph, proto: onnx.GraphProto, original: Mapping[str, str]
) -> Iterator[tuple[ir.Value, onnx.ValueInfoProto]]:
    infos = {original.get(info.name, info.name): info for info in (*proto.value_info, *proto.input, *proto.output)}
    for value in graph.inputs:
        if value.name in infos:
            yield value, infos[value.name]
    for node in graph:
        for value in node.outputs:
            if value.name in infos:
                yield value, infos[value.name]
    # Nodes with subgraphs stand in the same order on both sides, whatever was put in for others.
    nesting = [node for node in graph if any(a.type is ir.AttributeType.GRAPH for a in node.attributes.values())]
    protos = [node for node in proto.node if any(a.type == a.GRAPH for a in node.attribute)]
    for node, node_proto in zip(nesting, protos, strict=True):
        subgraphs = {attribute.name: attribute.g for attribute in node_proto.attribute}
        for name, attribute in node.attributes.items():
            if name in subgraphs and attribute.type is ir.AttributeType.GRAPH:
                yield from _read(attribute.as_graph(), subgraphs[name], original)


def stated(info: onnx.ValueInfoProto) -> Stated:
    """Element type and lengths that ``info`` states."""
    tensor = info.type.tensor_type
    dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim)
