"""bfloat16 (and mixed-type norms) on onnxruntime's CPU provider, which has hardly any kernels for it.

The same as onnxruntime's own treatment of float16 on CPU: compute in float32, round the result. Each node rounds its
outputs once, which is what a bfloat16 kernel with float32 arithmetic gives.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.runtime.islands import cast, put_first, surround
from rmsnorm_onnx.runtime.types import CONTROL_FLOW, FLOATS, nodes_of, set_type, typed_copy

_BFLOAT16: Final = ir.DataType.BFLOAT16
_FLOAT: Final = ir.DataType.FLOAT

#: Conversions have bfloat16 kernels, and a conversion computed in float32 would not be one.
_CONVERSIONS: Final = frozenset({"Cast", "CastLike", "Constant"})
#: Operators outside ``spec.DOMAIN`` with bfloat16 kernels on CPU (onnxruntime 1.31) that round once.
_NATIVE: Final = frozenset(
    {("", "SimplifiedLayerNormalization"), ("com.microsoft", "SkipSimplifiedLayerNormalization")}
)


def emulate_bfloat16(model: ir.Model) -> ir.Model:
    """A copy in which every node without a bfloat16 kernel computes in float32 and rounds its outputs once.

    Functions are inlined, those of ``spec.DOMAIN`` excepted; If, Loop and Scan bodies are treated like the main
    graph. Graph inputs and outputs become float32 (which holds every bfloat16), so that numpy can feed and read them.
    An RMSNormalization whose X and scale differ in type, which no CPU kernel takes, computes in float32 as well.

    Raises:
        InvalidInput: functions cannot be inlined.
    """
    copy = typed_copy(model, inline_ours=False)
    for node in nodes_of(copy):
        if _is_mixed_norm(node):
            surround(node, _from_any_float, _from_any_float)
        elif _needs_emulation(node):
            _retype_attributes(node)
            surround(node, _from_bfloat16, _from_bfloat16)
    _float32_boundary(copy)
    return copy


def float32_boundary(model: ir.Model) -> ir.Model:
    """A copy whose bfloat16 graph inputs and outputs are float32; everything inside stays as it is."""
    copy = model.clone()
    _float32_boundary(copy)
    return copy


def has_bfloat16_boundary(model: ir.Model) -> bool:
    """Whether a graph input or output is bfloat16, which onnxruntime does not exchange with numpy."""
    return any(value.dtype == _BFLOAT16 for value in (*model.graph.inputs, *model.graph.outputs))


def lacks_kernels(model: ir.Model) -> bool:
    """Whether the model has bfloat16 values or norms of mixed type, which is what ``emulate_bfloat16`` is for."""
    typed = typed_copy(model, inline_ours=False)
    values = [value for node in nodes_of(typed) for value in (*node.inputs, *node.outputs)]
    return any(value is not None and value.dtype == _BFLOAT16 for value in values) or any(
        _is_mixed_norm(node) for node in nodes_of(typed)
    )


def _needs_emulation(node: ir.Node) -> bool:
    if node.domain == spec.DOMAIN or node.op_type in CONTROL_FLOW or (node.domain, node.op_type) in _NATIVE:
        return False
    if not node.domain and node.op_type in _CONVERSIONS:
        return False
    return any(value is not None and value.dtype == _BFLOAT16 for value in (*node.inputs, *node.outputs))


def _retype_attributes(node: ir.Node) -> None:
    """Where an attribute decides the result's type (ConstantOfShape, EyeLike, ...), let it say float32."""
    for name, attribute in list(node.attributes.items()):
        if name == "dtype" and attribute.as_int() == _BFLOAT16:
            node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _BFLOAT16:
            tensor = ir.tensor(attribute.as_tensor().numpy().astype(np.float32))
            node.attributes[name] = ir.AttrTensor(name, tensor)


def _is_mixed_norm(node: ir.Node) -> bool:
    types = {value.dtype for value in node.inputs if value is not None}
    return not node.domain and node.op_type == "RMSNormalization" and len(types) > 1


def _from_bfloat16(dtype: ir.DataType | None) -> ir.DataType | None:
    return _FLOAT if dtype == _BFLOAT16 else None


def _from_any_float(dtype: ir.DataType | None) -> ir.DataType | None:
    return _FLOAT if dtype in FLOATS else None


def _float32_boundary(model: ir.Model) -> None:
    graph = model.graph
    for value in graph.inputs:
        if value.dtype == _BFLOAT16 and not value.is_initializer():
            uses = list(value.uses())
            narrowed = cast(value, _BFLOAT16, f"{value.name}_as_BFLOAT16")
            set_type(value, _FLOAT)
            for user, index in uses:
                user.replace_input_with(index, narrowed.outputs[0])
            put_first(graph, [narrowed])
    for index, value in enumerate(graph.outputs):
        if value.dtype == _BFLOAT16 and value.producer() is not None:
            _widen_output(graph, index, value)


def _widen_output(graph: ir.Graph, index: int, value: ir.Value) -> None:
    name = value.name
    value.name = f"{name}_in_BFLOAT16"
    widened = cast(value, _FLOAT, f"{name}_widened")
    widened.outputs[0].name = name
    graph.append(widened)
    graph.outputs[index] = widened.outputs[0]
