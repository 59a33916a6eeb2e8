"""Raises a model's opset with ONNX's own converter."""

from __future__ import annotations

import onnx
import onnx_ir as ir

#: The converter sees a serialized model, which protobuf limits to 2 GB; larger weights than this stay outside.
_INLINE_BYTES = 1024


def raise_opset(model: ir.Model, opset: int) -> str | None:
    """Convert ``model`` in place to ``opset``; weights are not read.

    Returns:
        None when it was done, else the converter's reason why it cannot be done (the model is then unchanged).
    """
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
    try:
        proto = onnx.version_converter.convert_version(ir.to_proto(clone), opset)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        return str(error).strip().splitlines()[-1]
    converted = ir.from_proto(proto)
    for value in [v for v in converted.graph.inputs if v.name in weights]:
        value.const_value = weights[value.name or ""]
        converted.graph.register_initializer(value)
        if value.name not in inputs:
            converted.graph.inputs.remove(value)
    model.graph = converted.graph
    model.ir_version = max(model.ir_version, converted.ir_version)
    return None
