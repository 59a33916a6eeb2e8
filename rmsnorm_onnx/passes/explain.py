"""Shows a near miss as a small tree: from the node where it shows back to the squares, the offending node marked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx.matcher import NearMiss
from rmsnorm_onnx.matcher.context import CASTS, COPIES, describe
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS
from rmsnorm_onnx.spec import Why

#: Nodes between the one where a near miss shows and the mean: quotient, root, epsilon, casts, scale, gate.
_DEPTH: Final = 10
#: More elements of a constant are shown by their shape.
_FEW: Final = 4

_REDUCTIONS: Final = frozenset(
    ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "GlobalAveragePool", "LpNormalization")
)
_SQUARE_THEMSELVES: Final = frozenset(("ReduceSumSquare", "ReduceL2", "LpNormalization"))
_SQUARES: Final = frozenset(("Pow", "Mul"))
_SIGNLESS: Final = frozenset(("Abs", "Neg"))

_ADVICE: Final = {
    Why.MEAN_SUBTRACTED: "nothing; this is LayerNorm, which has an operator of its own",
    Why.EXPONENT: "make the exponents constants: 2 for the square, 0.5 or -0.5 for the root",
    Why.EPSILON_NOT_CONSTANT: "make epsilon an initializer that is not also a graph input",
    Why.EPSILON_NOT_SINGLE: "give epsilon one value",
    Why.EPSILON_VALUE: "give epsilon a finite value that is not negative",
    Why.AXES_NOT_CONSTANT: "make the axes constant and let x have a known rank",
    Why.KEEPDIMS: "keep the reduced axes: keepdims=1",
    Why.NOT_A_MEAN: "divide the sum of squares by the number of its elements, if a mean is meant",
    Why.DIFFERENT_VALUE: "square the value that is divided, before it is changed or rounded",
    Why.SCALE_WIDENS: "give the scale no more elements along an axis than x has",
    Why.NOT_FLOAT: "cast to a floating-point type before squaring",
    Why.UNKNOWN_TYPE: "state the type of the value in the model's value_info",
    Why.PRECISION: "use a number that float32 can hold",
    Why.OPSET: "export at a higher opset",
    Why.TARGET: "use the target 'rmsnorm', or write the norm as the operator computes it",
}


def explain(miss: NearMiss) -> tuple[str, ...]:
    """The lines of the tree, the mark ``<--`` in one of them, and last what to change."""
    return (*_Tree(miss).lines(), f"change: {_ADVICE[miss.why]}")


class _Tree:
    """The nodes worth showing, and how."""

    def __init__(self, miss: NearMiss) -> None:
        self._root = miss.node
        mean, behind = _mean_behind(miss.node)
        squares = _squares(mean) if mean is not None else ()
        last = squares[-1] if squares else mean
        self._x = last.inputs[0] if last is not None and last.inputs else None
        self._shown = {*behind, *squares}
        # The matcher names the node that is to blame in the text, where it is another one.
        candidates = [node for node in self._near(miss.node) if miss.detail.endswith(_place(node))]
        self._marked = candidates[0] if candidates else miss.node
        self._mark = miss.detail.removesuffix(_place(candidates[0])) if candidates else miss.detail
        if self._marked not in self._shown:
            self._shown |= _path(miss.node, self._marked)
        self._done: set[ir.Value] = set()

    def _near(self, root: ir.Node) -> Iterator[ir.Node]:
        yield from self._shown
        yield from (node for node, _ in _walk(root))

    def lines(self) -> Iterator[str]:
        """From the root down, inputs indented."""
        yield from self._node(self._root, 0, f" -> '{self._root.outputs[0].name}'")

    def _node(self, node: ir.Node, depth: int, suffix: str = "") -> Iterator[str]:
        mark = f"  <-- {self._mark}" if node is self._marked else ""
        yield f"{'  ' * depth}{describe(node)}{suffix}{mark}"
        for value in dict.fromkeys(v for v in node.inputs if v is not None):
            producer = value.producer()
            if value in self._done or producer is None or producer not in self._shown or value is self._x:
                yield f"{'  ' * (depth + 1)}{'x = ' if value is self._x else ''}{_leaf(value)}"
            else:
                self._done.add(value)
                yield from self._node(producer, depth + 1)


def _walk(root: ir.Node) -> Iterator[tuple[ir.Node, ir.Node | None]]:
    """``root`` and the nodes that feed it, nearest first, each with the node it feeds; not past other graphs."""
    level: dict[ir.Node, ir.Node | None] = {root: None}
    seen: set[ir.Node] = set()
    for _ in range(_DEPTH):
        fresh: dict[ir.Node, ir.Node | None] = {}
        for node, consumer in level.items():
            if node in seen:
                continue
            seen.add(node)
            yield node, consumer
            producers = (value.producer() for value in node.inputs if value is not None)
            for producer in producers:
                if producer is not None and producer.domain in DEFAULT_DOMAINS:
                    fresh.setdefault(producer, node)
        level = fresh


def _mean_behind(root: ir.Node) -> tuple[ir.Node | None, set[ir.Node]]:
    """The nearest reduction of squares, else the nearest reduction, and the nodes from ``root`` to it."""
    reductions = [node for node, _ in _walk(root) if node.op_type in _REDUCTIONS]
    of_squares = [node for node in reductions if node.op_type in _SQUARE_THEMSELVES or _squares(node)]
    mean = next(iter(of_squares or reductions), None)
    return mean, _path(root, mean) if mean is not None else {root}


def _path(root: ir.Node, end: ir.Node) -> set[ir.Node]:
    """The shortest way from ``root`` back to ``end``, both included."""
    consumers = dict(_walk(root))
    path = {root}
    node: ir.Node | None = end if end in consumers else None
    while node is not None:
        path.add(node)
        node = consumers[node]
    return path


def _squares(mean: ir.Node) -> tuple[ir.Node, ...]:
    """The nodes that make squares of x for ``mean``; none where it averages something else."""
    nodes: list[ir.Node] = []
    value = mean.inputs[0] if mean.inputs else None
    squared = mean.op_type in _SQUARE_THEMSELVES
    while value is not None and (node := value.producer()) is not None and node.domain in DEFAULT_DOMAINS:
        if node.op_type in _SQUARES and not squared:
            squared = True
        elif node.op_type not in (_SIGNLESS if squared else CASTS | COPIES):
            break
        nodes.append(node)
        value = node.inputs[0] if node.inputs else None
    return tuple(nodes) if squared else ()


def _place(node: ir.Node) -> str:
    return f" (at {describe(node)})"


def _leaf(value: ir.Value) -> str:
    """A value that is not followed: its number if it is a constant, else where it comes from."""
    tensor = value.const_value
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant":
        return f"'{value.name}' = {_constant(producer)}"
    if tensor is not None:
        overridable = " (a feed may override it)" if value.is_graph_input() else ""
        return f"'{value.name}' = {_tensor(tensor)}{overridable}"
    if producer is not None:
        return f"'{value.name}' from {describe(producer)}"
    return f"'{value.name}', an input {value.dtype.name if value.dtype is not None else ''}{value.shape or ''}".rstrip()


def _constant(node: ir.Node) -> str:
    if len(node.attributes) != 1:
        return "nothing"
    (attribute,) = node.attributes.values()
    if attribute.type is ir.AttributeType.TENSOR:
        return _tensor(attribute.as_tensor())
    return str(attribute.value)


def _tensor(tensor: ir.TensorProtocol) -> str:
    if tensor.size > _FEW or len(tensor.shape) > 1:
        return f"{tensor.dtype.name}{tensor.shape}"
    try:
        numbers = ", ".join(str(number) for number in tensor.numpy().reshape(-1))
    except (OSError, ValueError):  # in a data file that is not there, or not as it is said to be
        return f"{tensor.dtype.name}{tensor.shape}"
    return f"[{numbers}]" if len(tensor.shape) else numbers
