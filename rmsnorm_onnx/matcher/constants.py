"""Values that are the same in every run: initializers, Constant nodes, and small arithmetic on them."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS, Known

#: More elements than any epsilon, exponent or axes list has; keeps weights unread.
_SMALL: Final = 1024

#: Longest chain of operators that computes a constant; deeper ones are no exporter's.
_DEPTH: Final = 16

#: From this IR version on, an initializer that is also a graph input can be overridden by a feed.
_OVERRIDABLE_FROM: Final = 4

#: Operators exporters compute constants with.
_FOLDABLE: Final = frozenset(
    (
        *("Abs", "Add", "Div", "Equal", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "ReduceProd", "Sqrt", "Sub"),
        *("Cast", "Identity"),
        *("Concat", "ConstantOfShape", "Expand", "Gather", "Range", "Reshape", "Slice", "Squeeze", "Unsqueeze"),
    )
)


class Constants:
    """Reads constant values of one model; each is computed once."""

    def __init__(self, model: ir.Model, known: Known) -> None:
        self._of = known
        self._overridable = model.ir_version >= _OVERRIDABLE_FROM
        self._opset = model.opset_imports.get("", 18)
        self._known: dict[ir.Value, np.ndarray[Any, Any] | None] = {}

    def array(self, value: ir.Value | None, depth: int = _DEPTH) -> np.ndarray[Any, Any] | None:
        """The constant value, or None when it is not constant, too deeply computed or of more than 1024 elements."""
        if value is None:
            return None
        if value not in self._known:
            self._known[value] = self._evaluate(value, depth) if depth else None
        return self._known[value]

    def single(self, value: ir.Value | None) -> float | None:
        """The one number that ``value`` holds, whatever its shape, or None."""
        array = self.array(value)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def ints(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The integers that ``value`` holds, or None."""
        array = self.array(value)
        return tuple(int(i) for i in array.reshape(-1)) if array is not None and array.dtype.kind in "iub" else None

    def uniform(self, value: ir.Value | None) -> float | None:
        """The number that every element of ``value`` is, of however many there are, or None."""
        node = value.producer() if value is not None else None
        while value is not None and node is not None and node.domain in DEFAULT_DOMAINS and node.op_type in _REPEATING:
            if node.op_type == "ConstantOfShape":
                filled = node.attributes.get("value")
                return float(filled.as_tensor().numpy().reshape(-1)[0]) if filled is not None else 0.0
            value = node.inputs[0]
            node = value.producer() if value is not None else None
        array = self.array(value)
        if array is None or array.size == 0 or array.dtype.kind in "SUO":
            return None
        return float(array.reshape(-1)[0]) if bool((array == array.reshape(-1)[0]).all()) else None

    def fits_float32(self, value: ir.Value) -> bool:
        """False where ``value`` holds a finite float64 that would be infinite in float32, or a subnormal number."""
        if self._of.dtype(value) != ir.DataType.DOUBLE:
            return True
        array = self.array(value)
        numbers = array if array is not None else _numbers(value.const_value)
        if numbers is None:
            return True
        magnitudes, limits = np.abs(numbers), np.finfo(np.float32)
        small = (magnitudes > 0) & (magnitudes < limits.smallest_normal)
        return not bool(np.any((magnitudes > limits.max) & (magnitudes < np.inf) | small))

    def why_not(self, value: ir.Value | None) -> str:
        """What keeps ``value`` from being one constant number, for people."""
        if value is not None and value.is_initializer() and self.can_be_fed(value):
            return "an initializer that is a graph input as well, and so may be fed"
        array = self.array(value)
        return f"{array.size} numbers" if array is not None else "not constant"

    def is_parameter(self, value: ir.Value) -> bool:
        """Whether ``value`` depends on initializers and constants only, of any size."""
        pending, seen = [value], {value}
        while pending:
            current = pending.pop()
            node = current.producer()
            if node is None:
                if not current.is_initializer() or self.can_be_fed(current):
                    return False
                continue
            if len(seen) > _SMALL or any(a.type in _GRAPHS for a in node.attributes.values()):
                return False
            fresh = [i for i in node.inputs if i is not None and i not in seen]
            seen.update(fresh)
            pending.extend(fresh)
        return True

    def can_be_fed(self, value: ir.Value) -> bool:
        """Whether a feed gives the value, or may override the data that is its default."""
        return value.is_graph_input() and (self._overridable or not value.is_initializer())

    def _evaluate(self, value: ir.Value, depth: int) -> np.ndarray[Any, Any] | None:
        if self.can_be_fed(value):
            return None
        node = value.producer()
        if node is None:
            return _small_array(value.const_value)
        if node.domain not in DEFAULT_DOMAINS or any(a.is_ref() for a in node.attributes.values()):
            return None
        if node.op_type == "Constant":
            return _constant_node(node)
        if node.op_type == "Shape":
            return self._static_shape(node)
        if node.op_type == "Size":
            return self._static_size(node)
        if node.op_type == "CastLike":
            return self._cast_like(node, depth)
        if node.op_type not in _FOLDABLE:
            return None
        inputs = []
        for given in node.inputs:
            array = self.array(given, depth - 1)
            if array is None and given is not None:
                return None
            inputs.append(array)
        return self._run(node, inputs) if _stays_small(node, inputs) else None

    def _cast_like(self, node: ir.Node, depth: int) -> np.ndarray[Any, Any] | None:
        """Only the type of the second input matters, which need not be constant."""
        array, like = self.array(node.inputs[0], depth - 1), node.inputs[1]
        dtype = self._of.dtype(like) if like is not None else None
        return array.astype(dtype.numpy()) if array is not None and dtype is not None else None

    def _static_shape(self, node: ir.Node) -> np.ndarray[Any, Any] | None:
        shape = self._of.shape(node.inputs[0]) if node.inputs[0] is not None else None
        if shape is None:
            return None
        start = node.attributes["start"].as_int() if "start" in node.attributes else 0
        end = node.attributes["end"].as_int() if "end" in node.attributes else len(shape)
        dims = [d for d in shape[start:end] if isinstance(d, int)]
        return np.array(dims, np.int64) if len(dims) == len(shape[start:end]) else None

    def _static_size(self, node: ir.Node) -> np.ndarray[Any, Any] | None:
        """Mostly of a Shape, as the rank: known even where lengths are not."""
        shape = self._of.shape(node.inputs[0]) if node.inputs[0] is not None else None
        if shape is None or not all(isinstance(length, int) for length in shape):
            return None
        return np.asarray(math.prod(length for length in shape if isinstance(length, int)), np.int64)

    def _run(self, node: ir.Node, inputs: list[np.ndarray[Any, Any] | None]) -> np.ndarray[Any, Any] | None:
        from onnx.reference import ReferenceEvaluator

        try:
            proto = ir.serde.serialize_node(node)
        except ir.serde.SerdeError:
            return None
        feeds = {name: array for name, array in zip(proto.input, inputs, strict=True) if array is not None}
        graph = onnx.helper.make_graph(
            [proto],
            "constant",
            [
                onnx.helper.make_tensor_value_info(name, ir.DataType.from_numpy(array.dtype).value, array.shape)
                for name, array in feeds.items()
            ],
            [onnx.ValueInfoProto(name=proto.output[0])],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self._opset)])
        try:
            with np.errstate(all="ignore"):
                results = list(ReferenceEvaluator(model).run([proto.output[0]], feeds))
        except Exception:  # what cannot be computed (it raises whatever numpy raises) is no constant
            return None
        return np.asarray(results[0]) if np.size(results[0]) <= _SMALL else None


def _stays_small(node: ir.Node, inputs: list[np.ndarray[Any, Any] | None]) -> bool:
    """Whether a result that its inputs' numbers make long is short enough to be computed at all."""
    numbers = [array for array in inputs if array is not None and array.dtype.kind in "iuf"]
    if node.op_type in {"ConstantOfShape", "Expand"} and numbers:
        return math.prod(max(1, int(length)) for length in numbers[-1].reshape(-1)) <= _SMALL
    if node.op_type == "Range" and len(numbers) == 3 and all(array.size == 1 for array in numbers):
        start, limit, step = (float(array.reshape(-1)[0]) for array in numbers)
        return step != 0 and abs(limit - start) <= _SMALL * abs(step)
    return node.op_type != "Range"


#: Operators that repeat or move elements.
_REPEATING: Final = frozenset(
    {"ConstantOfShape", "Expand", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_GRAPHS: Final = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def _constant_node(node: ir.Node) -> np.ndarray[Any, Any] | None:
    # onnx_ir's own reader would name the tensor, which changes the model.
    (attribute,) = node.attributes.values()
    if attribute.type is ir.AttributeType.TENSOR:
        return _small_array(attribute.as_tensor())
    dtype = _CONSTANT_TYPES.get(attribute.name)
    return np.asarray(attribute.value, dtype) if dtype is not None else None


_CONSTANT_TYPES: Final = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def _small_array(tensor: ir.TensorProtocol | None) -> np.ndarray[Any, Any] | None:
    return None if tensor is None or tensor.size > _SMALL else _numbers(tensor)


def _numbers(tensor: ir.TensorProtocol | None) -> np.ndarray[Any, Any] | None:
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return None
    try:
        return tensor.numpy()
    except (OSError, ValueError):  # in a data file that is not there, or not as it is said to be
        return None
