"""The exact-arithmetic reading of a graph: every float type becomes float64, so roundings lose (almost) nothing."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from rmsnorm_onnx.runtime.constants import fold_constants
from rmsnorm_onnx.runtime.islands import substitute
from rmsnorm_onnx.runtime.types import FLOATS, nodes_of, set_type, typed_copy

_DOUBLE: Final = ir.DataType.DOUBLE
#: Attributes that name an element type: of the result, or of the arithmetic inside a norm.
_TYPE_ATTRIBUTES: Final = {"to": _DOUBLE, "dtype": _DOUBLE, "stash_type": _DOUBLE, "output_dtype": _DOUBLE}

#: Key under which ``widen_to_float64`` leaves the old element type in ``ir.Value.meta``.
ORIGINAL_TYPE: Final = "rmsnorm_onnx.original_type"
_WIDENED: Final = "rmsnorm_onnx.widened"
#: Elements up to which a tensor is widened at once.
_SMALL: Final = 1 << 14


def widen_to_float64(model: ir.Model) -> ir.Model:
    """A copy in which float32, float16 and bfloat16 are float64 throughout.

    Functions are inlined (the operators of ``spec.DOMAIN`` too), constant subgraphs are folded in their own types
    first, then inputs, outputs, initializers, constants, casts and value types of the graph and of all subgraphs are
    widened. Casts to a narrower float type thereby lose nothing. The type a value had is kept in its ``meta`` under
    ``ORIGINAL_TYPE``. What this gave is given back as it is, in a copy.

    Raises:
        InvalidInput: functions cannot be inlined.
    """
    if _WIDENED in model.meta:
        return model.clone()
    copy = typed_copy(model, inline_ours=True)
    copy.meta[_WIDENED] = True
    _expand_skip_norms(copy)
    _cast_like_to_cast(copy)
    fold_constants(copy)
    common.RemoveUnusedNodesPass()(copy)
    for node in nodes_of(copy):
        _widen_attributes(node)
        for value in node.outputs:
            _widen_value(value)
    for graph in copy.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            _widen_value(value)
    return copy


def _widen_value(value: ir.Value) -> None:
    if value.dtype not in FLOATS or ORIGINAL_TYPE in value.meta:
        return
    value.meta[ORIGINAL_TYPE] = value.dtype
    if value.const_value is not None:
        value.const_value = _widen_tensor(value.const_value)
    set_type(value, _DOUBLE)


def _widen_tensor(tensor: Any) -> Any:
    if tensor.dtype not in FLOATS:
        return tensor

    def widened() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(np.float64), name=tensor.name)

    if tensor.size <= _SMALL:
        return widened()
    # Twice the weights' size or four times would be held for nothing: they are needed once, one after the other.
    return ir.LazyTensor(widened, dtype=_DOUBLE, shape=tensor.shape, name=tensor.name)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
            if attribute.as_int() in FLOATS:
                node.attributes[name] = ir.AttrInt64(name, int(_TYPE_ATTRIBUTES[name]))
        elif attribute.type == ir.AttributeType.TENSOR:
            node.attributes[name] = ir.AttrTensor(name, _widen_tensor(attribute.as_tensor()))
        elif node.op_type == "Constant" and name in {"value_float", "value_floats"}:
            value = attribute.as_float() if name == "value_float" else attribute.as_floats()
            # The attribute is a float32; its double is the same number.
            tensor = ir.tensor(np.asarray(value, dtype=np.float32).astype(np.float64))
            del node.attributes[name]
            node.attributes["value"] = ir.AttrTensor("value", tensor)
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1, dtype=np.float64)))


def _cast_like_to_cast(model: ir.Model) -> None:
    for node in nodes_of(model):
        target = node.inputs[1].dtype if node.op_type == "CastLike" and node.inputs[1] is not None else None
        if node.domain or target is None:
            continue
        assert node.graph is not None
        conversion = ir.node("Cast", [node.inputs[0]], {"to": int(target)}, name=node.name)
        set_type(conversion.outputs[0], target)
        node.graph.insert_before(node, conversion)
        substitute(node.outputs[0], conversion.outputs[0])
        node.graph.remove(node, safe=True)


def _expand_skip_norms(model: ir.Model) -> None:
    """Spell onnxruntime's SkipSimplifiedLayerNormalization, which takes no float64, as Add and norm."""
    for node in nodes_of(model):
        if (node.domain, node.op_type) != ("com.microsoft", "SkipSimplifiedLayerNormalization"):
            continue
        x, skip, scale, *bias = node.inputs
        total = ir.node("Add", [x, skip])
        parts = [total]
        if bias and bias[0] is not None:
            parts.append(ir.node("Add", [total.outputs[0], bias[0]]))
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-12
        attributes = {"axis": -1, "epsilon": epsilon, "stash_type": 1}
        parts.append(ir.node("SimplifiedLayerNormalization", [parts[-1].outputs[0], scale], attributes))
        assert node.graph is not None
        # Tools that write this node leave types out; all of its operands have one.
        dtype = next((v.dtype for v in node.inputs if v is not None and v.dtype is not None), ir.DataType.FLOAT)
        for part in parts:
            set_type(part.outputs[0], dtype)
            node.graph.insert_before(node, part)
        substitute(node.outputs[0], parts[-1].outputs[0])
        if len(node.outputs) > 3:
            substitute(node.outputs[3], parts[-2].outputs[0])
        node.graph.remove(node, safe=True)
