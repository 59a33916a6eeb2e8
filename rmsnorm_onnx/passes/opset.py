"""Raises a model's opset with ONNX's own converter."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from rmsnorm_onnx import modelfile, spec
from rmsnorm_onnx.errors import InvalidInput

#: The converter sees a serialized model, which protobuf limits to 2 GB; larger weights than this stay outside.
_INLINE_BYTES = 1024
_PARKED = f"{spec.DOMAIN}.parked"
_CONVERTER_ERRORS = (
    RuntimeError,
    ValueError,
    onnx.version_converter.ConvertError,
    onnx.shape_inference.InferenceError,
)


def raise_opset(model: ir.Model, opset: int) -> str | None:
    """Convert ``model`` in place to ``opset``; weights are not read.

    Returns:
        None when it was done, else why it cannot be done (the model is then unchanged).
    """
    if model.functions:
        # The checker refuses functions of another opset than the model's.
        name = next(iter(model.functions.values())).name
        return f"the model holds functions ('{name}'), which the converter leaves at their opset"
    clone = model.clone()
    weights = {
        name: value.const_value
        for name, value in clone.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > _INLINE_BYTES
    }
    inputs = {value.name for value in clone.graph.inputs}
    for name in weights:
        value = clone.graph.initializers.pop(name)
        if name not in inputs:
            clone.graph.inputs.append(value)
    imports = dict(clone.graph.opset_imports)
    _park(clone.graph)
    try:
        proto = onnx.version_converter.convert_version(ir.to_proto(clone), opset)
    except _CONVERTER_ERRORS as error:
        return str(error).strip().splitlines()[-1]
    try:
        converted = modelfile.to_model(proto)
    except InvalidInput as error:  # forms of other opsets than the one stated are taken for those of that one
        return f"the converter makes it invalid: {error.__cause__}"
    modelfile.relocate(converted, model)
    _unpark(converted.graph, imports)
    for value in [v for v in converted.graph.inputs if v.name in weights]:
        value.const_value = weights[value.name or ""]
        converted.graph.register_initializer(value)
        if value.name not in inputs:
            converted.graph.inputs.remove(value)
    _carry_over(model.graph, converted.graph)
    model.graph = converted.graph
    model.ir_version = max(model.ir_version, converted.ir_version)
    return None


def _park(graph: ir.Graph) -> None:
    """Move operators that ONNX does not know, as onnxruntime's in ONNX's domain, where the converter lets them be."""
    for node in graph.all_nodes():
        if node.domain == "" and not onnx.defs.has(node.op_type):
            node.domain = _PARKED
        graph.opset_imports.setdefault(node.domain, 1)


def _unpark(graph: ir.Graph, imports: dict[str, int]) -> None:
    for node in graph.all_nodes():
        if node.domain == _PARKED:
            node.domain = ""
    for domain in graph.opset_imports.keys() - imports.keys():
        del graph.opset_imports[domain]


def _carry_over(before: ir.Graph, after: ir.Graph) -> None:
    """Give ``after`` the metadata and documentation that the converter leaves out."""
    after.metadata_props.update(before.metadata_props)
    after.doc_string = before.doc_string
    # The converter infers shapes anew, and may replace a symbolic length by another.
    for old_output, output in zip(before.outputs, after.outputs, strict=True):
        output.type, output.shape = old_output.type, old_output.shape
    old_nodes = {node.outputs[0].name: node for node in before.all_nodes() if node.outputs}
    for node in after.all_nodes():
        for value in node.outputs:
            if value.dtype is None:
                value.shape = None  # which the converter inferred; without a type it cannot be written
        old = old_nodes.get(node.outputs[0].name) if node.outputs else None
        if old is None or old.op_type != node.op_type:
            continue
        node.metadata_props.update(old.metadata_props)
        node.doc_string = old.doc_string
        for old_value, value in zip(old.outputs, node.outputs, strict=False):
            value.metadata_props.update(old_value.metadata_props)
