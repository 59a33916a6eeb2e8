"""Element types and shapes of values, inferred where the model does not state them.

The model itself is never changed: inference runs on a clone, and only when something is missing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from rmsnorm_onnx import spec

#: Names of the domain of ONNX's own operators.
DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})

#: One axis: its length, the name of an unknown length, or None where even a name is missing.
Dim = int | str | None
_Stated = tuple[ir.DataType | None, tuple[Dim, ...] | None]


class Facts:
    """Answers about the values of one model, its subgraphs and its functions."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._inferred: dict[ir.Value, _Stated] | None = None
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
        stated = _dims(value)
        if stated is not None and None not in stated:
            return stated
        inferred = self._look_up(value)[1]
        if stated is None or inferred is None or len(stated) != len(inferred):
            return stated if stated is not None else inferred
        return tuple(i if s is None else s for s, i in zip(stated, inferred, strict=True))

    def rank(self, value: ir.Value) -> int | None:
        """Number of axes, or None when it cannot be known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def same_shape(self, *values: ir.Value) -> bool:
        """Whether all values provably have one shape."""
        shapes = {self.shape(value) for value in values}
        return len(shapes) == 1 and all(shape is not None and None not in shape for shape in shapes)

    def _look_up(self, value: ir.Value) -> _Stated:
        if self._inferred is None:
            self._inferred = {}
            clone = self._model.clone()
            self._record(self._model.graph, _infer(clone).graph)
        function = self._function_of.get(value)
        if function is not None and function.identifier() not in self._inferred_functions:
            self._inferred_functions.add(function.identifier())
            for call in self._calls[function.identifier()]:
                self._infer_call(function, call)
        return self._inferred.get(value, (None, None))

    def _infer_call(self, function: ir.Function, call: ir.Node) -> None:
        """Infer the body with the types of one call; what differs between calls stays unknown."""
        body = function.graph.clone()
        for inner, outer in zip(body.inputs, call.inputs, strict=False):
            if outer is None:
                continue
            dtype, shape = self.dtype(outer), self.shape(outer)
            inner.type = ir.TensorType(dtype) if dtype is not None else None
            inner.shape = ir.Shape(shape) if shape is not None else None
        for node in body.all_nodes():
            for attribute in [a for a in node.attributes.values() if a.is_ref()]:
                name = attribute.ref_attr_name or ""
                given = call.attributes.get(name) or function.attributes.get(name)
                if given is not None and given.value is not None:
                    node.attributes[attribute.name] = ir.Attr(attribute.name, attribute.type, given.value)
        body.opset_imports.update(function.opset_imports)
        functions = [f.clone() for f in self._model.functions.values() if f is not function]
        self._record(function.graph, _infer(ir.Model(body, ir_version=10, functions=functions)).graph)

    def _record(self, graph: ir.Graph, clone: ir.Graph) -> None:
        assert self._inferred is not None
        for value, copy in zip(_values(graph), _values(clone), strict=True):
            stated = (copy.dtype, _dims(copy))
            self._inferred[value] = _common(self._inferred.get(value, stated), stated)


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


def _common(a: _Stated, b: _Stated) -> _Stated:
    dtype = a[0] if a[0] == b[0] else None
    if a[1] is None or b[1] is None or len(a[1]) != len(b[1]):
        return dtype, None
    return dtype, tuple(i if i == j else None for i, j in zip(a[1], b[1], strict=True))


def _infer(clone: ir.Model) -> ir.Model:
    logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
    level = logger.level
    # A model that inference cannot follow is not an error here: unknown stays unknown.
    logger.setLevel(logging.ERROR)
    try:
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(clone)
    finally:
        logger.setLevel(level)
    return clone
