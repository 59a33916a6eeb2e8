"""Element types and shapes of values, inferred where the model does not state them.

Inference runs once, and only when something is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.inference import Dim, Stated, infer, stated

#: Names of the domain of ONNX's own operators.
DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})


class Facts:
    """Answers about the values of one model, its subgraphs and its functions."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._inferred: Mapping[ir.Value, onnx.ValueInfoProto] | None = None
        self._known: dict[ir.Value, Stated] = {}
        self._inferred_functions: set[ir.OperatorIdentifier] = set()
        self._calls: dict[ir.OperatorIdentifier, list[ir.Node]] = defaultdict(list)
        for graph in (model.graph, *(f.graph for f in model.functions.values())):
            for node in graph.all_nodes():
                if node.op_identifier() in model.functions:
                    self._calls[node.op_identifier()].append(node)
        self._function_of = {v: f for f in model.functions.values() for v in _values(f.graph)}

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Element type, or None when it cannot be known."""
        if value.dtype is not None:
            return value.dtype
        return self._look_up(value)[0]

    def float_type(self, value: ir.Value) -> spec.DType | None:
        """Element type when it is one of the four that the operators take, else None."""
        dtype = self.dtype(value)
        return spec.DType(int(dtype)) if dtype is not None and int(dtype) in _FLOAT_TYPES else None

    def shape(self, value: ir.Value) -> tuple[Dim, ...] | None:
        """Length of each axis, or None when not even the rank can be known."""
        own = _dims(value)
        if own is not None and None not in own:
            return own
        inferred = self._look_up(value)[1]
        if inferred is None:
            inferred = self._shape_of_reshape(value)
        if own is None or inferred is None or len(own) != len(inferred):
            return own if own is not None else inferred
        return tuple(i if s is None else s for s, i in zip(own, inferred, strict=True))

    def _shape_of_reshape(self, value: ir.Value) -> tuple[Dim, ...] | None:
        """As many unknown lengths as the shape input has elements, which ONNX infers in newer opsets only."""
        node = value.producer()
        if node is None or node.op_type != "Reshape" or node.domain not in DEFAULT_DOMAINS or len(node.inputs) < 2:
            return None
        target = self.shape(node.inputs[1]) if node.inputs[1] is not None else None
        return (None,) * target[0] if target is not None and len(target) == 1 and isinstance(target[0], int) else None

    def rank(self, value: ir.Value) -> int | None:
        """Number of axes, or None when it cannot be known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def same_shape(self, *values: ir.Value) -> bool:
        """Whether all values provably have one shape."""
        shapes = {self.shape(value) for value in values}
        return len(shapes) == 1 and all(shape is not None and None not in shape for shape in shapes)

    def _look_up(self, value: ir.Value) -> Stated:
        if self._inferred is None:
            self._inferred = infer(self._model.graph, self._model.functions.values())
        function = self._function_of.get(value)
        if function is not None and function.identifier() not in self._inferred_functions:
            self._inferred_functions.add(function.identifier())
            for call in self._calls[function.identifier()]:
                self._infer_call(function, call)
        if value not in self._known:
            info = self._inferred.get(value)
            self._known[value] = stated(info) if info is not None else (None, None)
        return self._known[value]

    def _infer_call(self, function: ir.Function, call: ir.Node) -> None:
        """Infer the body with the types of one call; what differs between calls stays unknown."""
        given = {
            inner: (self.dtype(outer), self.shape(outer))
            for inner, outer in zip(function.inputs, call.inputs, strict=False)
            if outer is not None
        }
        attributes = {**function.attributes, **call.attributes}
        others = [f for f in self._model.functions.values() if f is not function]
        self._agree(infer(function.graph, others, given, attributes))

    def _agree(self, found: Mapping[ir.Value, onnx.ValueInfoProto]) -> None:
        for value, info in found.items():
            told = stated(info)
            self._known[value] = _common(self._known.get(value, told), told)


_FLOAT_TYPES = frozenset(int(t) for t in spec.DType)


def _dims(value: ir.Value) -> tuple[Dim, ...] | None:
    if value.shape is None and value.const_value is not None:
        return tuple(value.const_value.shape.numpy())
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from node.outputs


def _common(a: Stated, b: Stated) -> Stated:
    dtype = a[0] if a[0] == b[0] else None
    if a[1] is None or b[1] is None or len(a[1]) != len(b[1]):
        return dtype, None
    return dtype, tuple(i if i == j else None for i, j in zip(a[1], b[1], strict=True))
