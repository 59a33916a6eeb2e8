"""Evaluates a model in float64, independently of onnxruntime, of onnx's evaluator and of the package's own code.

Two readings. `Reading.EXACT` computes every float in float64 and rounds nothing that depends on an input; constants,
and what is computed from constants alone, are rounded to their own types, because they are what the file says.
`Reading.ROUNDED` also rounds every 16-bit value to its type, while float32 stays exact: then two graphs that round at
the same places agree as well as two float64 programs do, and two that round at different places do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from zoo.tape import NUMPY

from rmsnorm_onnx.spec import DType

from .kernels import KERNELS

_NARROW = {DType.FLOAT16, DType.BFLOAT16}


class Reading(Enum):
    """Which roundings an evaluation makes."""

    EXACT = auto()
    ROUNDED = auto()


@dataclass(frozen=True, slots=True)
class Value:
    """An array (float64 for every float type) with the type the model gives it."""

    array: np.ndarray
    dtype: int
    constant: bool = False


Scope = dict[str, Value]


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], reading: Reading) -> dict[str, np.ndarray]:
    """Outputs of ``model`` by name; floats come as float64."""
    interpreter = _Interpreter(model, reading)
    scope: Scope = {}
    for given in model.graph.input:
        if given.name in feeds:
            scope[given.name] = interpreter.value(feeds[given.name], given.type.tensor_type.elem_type)
    with np.errstate(all="ignore"):
        outputs = interpreter.graph(model.graph, scope)
    return {o.name: v.array for o, v in zip(model.graph.output, outputs, strict=True)}


class _Interpreter:
    def __init__(self, model: onnx.ModelProto, reading: Reading):
        self._functions = {(f.domain, f.name): f for f in model.functions}
        self._rounds = reading is Reading.ROUNDED

    def value(self, array: Any, dtype: int, constant: bool = False) -> Value:
        """Wrap ``array``, rounded as the reading wants."""
        array = np.asarray(array)
        if dtype in NUMPY:
            array = array.astype(np.float64)
            if constant or (self._rounds and dtype in _NARROW):
                array = array.astype(NUMPY[dtype]).astype(np.float64)
        return Value(array, dtype, constant)

    def graph(self, graph: onnx.GraphProto, scope: Scope) -> list[Value]:
        for initializer in graph.initializer:
            if initializer.name not in scope:
                scope[initializer.name] = self._tensor(initializer)
        self._run(graph.node, scope, {})
        return [scope[o.name] for o in graph.output]

    def _tensor(self, tensor: onnx.TensorProto) -> Value:
        return self.value(numpy_helper.to_array(tensor), tensor.data_type, constant=True)

    def _run(self, nodes: Any, scope: Scope, references: Mapping[str, Any]) -> None:
        for node in nodes:
            attributes = {}
            for attribute in node.attribute:
                if attribute.ref_attr_name:
                    attributes[attribute.name] = references[attribute.ref_attr_name]
                else:
                    attributes[attribute.name] = helper.get_attribute_value(attribute)
            inputs = [scope[name] if name else None for name in node.input]
            outputs = self._node(node, inputs, attributes, scope)
            scope.update({name: value for name, value in zip(node.output, outputs, strict=False) if name})

    def _node(self, node: onnx.NodeProto, inputs: list[Any], attributes: dict[str, Any], scope: Scope) -> list[Value]:
        function = self._functions.get((node.domain, node.op_type))
        if function is not None:
            inner = dict(zip(function.input, inputs, strict=False))
            self._run(function.node, inner, attributes)
            return [inner[name] for name in function.output]
        if node.op_type == "Constant":
            return [self._constant(attributes)]
        if node.op_type == "If":
            chosen = attributes["then_branch" if inputs[0].array else "else_branch"]
            return self.graph(chosen, dict(scope))
        if node.op_type == "Loop":
            return self._loop(attributes["body"], inputs, scope)
        arrays = [None if i is None else i.array for i in inputs]
        constant = all(i is None or i.constant for i in inputs)
        if node.op_type == "Cast":
            return [self._cast(inputs[0], attributes["to"])]
        if node.op_type == "CastLike":
            return [self._cast(inputs[0], inputs[1].dtype)]
        dtype = TensorProto.INT64 if node.op_type in {"Shape", "Size"} else inputs[0].dtype
        result = KERNELS[node.op_type](*arrays, **attributes)
        return [self.value(result, dtype, constant)]

    def _constant(self, attributes: dict[str, Any]) -> Value:
        ((name, given),) = attributes.items()
        if name == "value":
            return self._tensor(given)
        is_float = name in {"value_float", "value_floats"}
        array = np.asarray(given, np.float32 if is_float else np.int64)
        return self.value(array, TensorProto.FLOAT if is_float else TensorProto.INT64, constant=True)

    def _cast(self, value: Value, dtype: int) -> Value:
        if dtype in NUMPY:
            return self.value(value.array.astype(np.float64), dtype, value.constant)
        return Value(value.array.astype(helper.tensor_dtype_to_np_dtype(dtype)), dtype, value.constant)

    def _loop(self, body: onnx.GraphProto, inputs: list[Any], scope: Scope) -> list[Value]:
        going, *carried = inputs[1:]
        going = going or Value(np.asarray(True), TensorProto.BOOL)
        rows: list[list[Value]] = []
        for step in range(int(inputs[0].array)):
            if not going.array.all():
                break
            given = [Value(np.asarray(step), TensorProto.INT64), going, *carried]
            inner = dict(scope) | {i.name: v for i, v in zip(body.input, given, strict=True)}
            going, *results = self.graph(body, inner)
            carried, row = results[: len(carried)], results[len(carried) :]
            rows.append(row)
        stacks = [Value(np.stack([v.array for v in column]), column[0].dtype) for column in zip(*rows, strict=True)]
        return [*carried, *stacks]
