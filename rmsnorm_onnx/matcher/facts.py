"""Element types and shapes of values, inferred where the model does not state them.

What a value's own node tells comes first. ONNX's inference runs once, and only where that is not enough.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.constants import Constants
from rmsnorm_onnx.matcher.flow import UNKNOWN, Stated, follow, has_rule
from rmsnorm_onnx.matcher.inference import infer, stated
from rmsnorm_onnx.matcher.known import Dims
from rmsnorm_onnx.matcher.loops import contradicts_itself, is_loop


class Facts:
    """Answers about the values of one model, its subgraphs and its functions."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._doubted: frozenset[ir.Value] = frozenset()
        self._start()
        graphs = (model.graph, *(function.graph for function in model.functions.values()))
        loops = [node for graph in graphs for node in graph.all_nodes() if is_loop(node)]
        if any(contradicts_itself(loop, self._declared, self.shape) for loop in loops):
            # What was declared may have followed from what is not so: only inputs and data are believed.
            self._doubted = frozenset(v for g in graphs for v in _values(g)).difference(*(g.inputs for g in graphs))
            self._start()

    def _start(self) -> None:
        """With nothing learned yet."""
        self.constants = Constants(self._model, self)
        self._settled: dict[ir.Value, Stated] = {}
        self._inferred: dict[ir.Value, onnx.ValueInfoProto] | None = None
        self._in_functions: dict[ir.Value, Stated] = {}
        self._calls: dict[ir.OperatorIdentifier, list[ir.Node]] = defaultdict(list)
        self._function_of: dict[ir.Value, ir.Function] = {}
        if self._model.functions:
            self._note_functions()

    def _note_functions(self) -> None:
        functions = self._model.functions
        for graph in (self._model.graph, *(f.graph for f in functions.values())):
            for node in graph.all_nodes():
                if node.op_identifier() in functions:
                    self._calls[node.op_identifier()].append(node)
        self._function_of = {v: f for f in functions.values() for v in _values(f.graph)}

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Element type, or None when it cannot be known."""
        own = element_type(value)
        return own if own is not None else self._settle(value)[0]

    def float_type(self, value: ir.Value) -> spec.DType | None:
        """Element type when it is one of the four that the operators take, else None."""
        dtype = self.dtype(value)
        return _FLOAT_TYPES.get(dtype) if dtype is not None else None

    def shape(self, value: ir.Value) -> Dims | None:
        """Length of each axis, or None when not even the rank can be known."""
        own = self._declared(value)
        return own if own is not None and None not in own else _merged(own, self._settle(value)[1])

    def ints(self, value: ir.Value) -> tuple[int, ...] | None:
        """The integers that a constant holds, or None."""
        return self.constants.ints(value)

    def rank(self, value: ir.Value) -> int | None:
        """Number of axes, or None when it cannot be known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def same_shape(self, *values: ir.Value) -> bool:
        """Whether all values provably have one shape."""
        shapes = {self.shape(value) for value in values}
        return len(shapes) == 1 and all(shape is not None and None not in shape for shape in shapes)

    def inference_lacks(self, value: ir.Value) -> bool:
        """Whether ONNX's inference was asked, and does not know all of ``value``, or less than is known here."""
        if self._inferred is None:
            return False
        inferred = self._infer(value)
        return not _is_whole(inferred[1]) or inferred != (self.dtype(value), self.shape(value))

    def _declared(self, value: ir.Value) -> Dims | None:
        """What the model states of the lengths, and is to be believed."""
        return _dims(value) if value not in self._doubted else None

    def _settle(self, value: ir.Value) -> Stated:
        """What follows for ``value``, its sources first; without recursion, because graphs are deep."""
        pending, entered = [value], set[ir.Value]()
        while pending:
            current = pending[-1]
            if current in self._settled:
                pending.pop()
                continue
            node = current.producer()
            if current not in entered and node is not None and has_rule(current):
                entered.add(current)
                pending.extend(i for i in node.inputs if i is not None and not self._is_settled(i))
                continue
            self._settled[current] = UNKNOWN  # what a cycle hears of itself
            self._settled[current] = self._told(current)
        return self._settled[value]

    def _is_settled(self, value: ir.Value) -> bool:
        return value in self._settled or (element_type(value) is not None and _is_whole(self._declared(value)))

    def _told(self, value: ir.Value) -> Stated:
        """By the node that gives the value; where that does not say all, by ONNX's inference."""
        dtype, shape = follow(self, value) if has_rule(value) else UNKNOWN
        if (dtype or element_type(value)) is not None and _is_whole(_merged(self._declared(value), shape)):
            return dtype, shape
        inferred = self._infer(value)
        return dtype or inferred[0], _merged(shape, inferred[1])

    def _infer(self, value: ir.Value) -> Stated:
        if self._inferred is None:
            graph = self._model.graph
            fed = {value for value in graph.initializers.values() if self.constants.can_be_fed(value)}
            self._inferred = infer(graph, self._model.functions.values(), doubted=self._doubted, fed=fed)
        function = self._function_of.get(value)
        if function is not None:
            # Calls are read once; one of a function in another needs that one's calls first.
            for call in self._calls.pop(function.identifier(), ()):
                self._infer_call(function, call)
            return self._in_functions.get(value, UNKNOWN)
        info = self._inferred.get(value)
        return stated(info) if info is not None else UNKNOWN

    def _infer_call(self, function: ir.Function, call: ir.Node) -> None:
        """Infer the body with the types of one call; what differs between calls stays unknown."""
        given = {
            inner: (self.dtype(outer), self.shape(outer))
            for inner, outer in zip(function.inputs, call.inputs, strict=False)
            if outer is not None
        }
        attributes = {**function.attributes, **call.attributes}
        others = [f for f in self._model.functions.values() if f is not function]
        for value, info in infer(function.graph, others, given, attributes, self._doubted).items():
            told = stated(info)
            self._in_functions[value] = _common(self._in_functions.get(value, told), told)


_FLOAT_TYPES = {ir.DataType(int(t)): t for t in spec.DType}


def _is_whole(dims: Dims | None) -> bool:
    return dims is not None and None not in dims


def _merged(own: Dims | None, other: Dims | None) -> Dims | None:
    """Each length from where it is known."""
    if own is None or other is None or len(own) != len(other):
        return own if own is not None else other
    return tuple(o if s is None else s for s, o in zip(own, other, strict=True))


def element_type(value: ir.Value) -> ir.DataType | None:
    """What the model states: of an initializer its data, because converters leave an old type beside it."""
    tensor = value.const_value
    return tensor.dtype if tensor is not None and not value.is_graph_input() else value.dtype


def _dims(value: ir.Value) -> Dims | None:
    if value.const_value is not None and not value.is_graph_input():
        return tuple(value.const_value.shape.numpy())
    if value.shape is None:
        return tuple(value.const_value.shape.numpy()) if value.const_value is not None else None
    return tuple(dim if isinstance(dim, int) else _name(dim.value) for dim in value.shape)


def _name(length: str | None) -> str | None:
    """The name of a length; ONNX's inference makes names up for what it does not know."""
    return None if length is not None and length.startswith("unk__") else length


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Inputs, of subgraphs too, and what nodes give."""
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
                yield from attribute.as_graph().inputs


def _common(a: Stated, b: Stated) -> Stated:
    dtype = a[0] if a[0] == b[0] else None
    if a[1] is None or b[1] is None or len(a[1]) != len(b[1]):
        return dtype, None
    return dtype, tuple(i if i == j else None for i, j in zip(a[1], b[1], strict=True))
