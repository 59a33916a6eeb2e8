"""Values inside a running model: a copy that gives them as outputs, also out of branches and the bodies of loops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Final

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.runtime.islands import substitute
from rmsnorm_onnx.runtime.scans import loop_in_place_of
from rmsnorm_onnx.runtime.types import opset_of, set_type, values_of

#: Before it, Loop and Scan are other operators.
_OLDEST_LOOPS: Final = 11


@dataclass(frozen=True, slots=True)
class Shown:
    """Outputs that hold values of one group, all of one iteration where they stand in a loop.

    Attributes:
        names: by name of the value, the output that holds it; empty, of shape [0], where the group did not run.
        iterations: the output that holds the number of the iteration, for each loop around it, outermost first.
    """

    names: Mapping[str, str]
    iterations: tuple[str, ...] = ()


def with_values(
    model: ir.Model, groups: Iterable[Sequence[ir.Value]]
) -> tuple[ir.Model, list[tuple[Shown, ...] | str]]:
    """A copy of ``model`` that gives further values as outputs.

    A value in a branch of an If leaves it as a further output of the If; where the other branch runs, it is empty. Out
    of the body of a Loop or Scan come two of its values: those of the first and of the last iteration in which the
    first of its group is not empty. So memory does not grow with the number of iterations. Out of subgraphs bfloat16
    comes as float32, which holds it: before opset 16, If and Loop do not take it.

    Args:
        model: typed; not changed; functions are not looked into.
        groups: values of ``model``, each group led by one that a node gives; the others are known to that node, and
            are given by nodes or are inputs of a body.

    Returns:
        The copy, and for each group its outputs (several where it stands in a loop), or why there are none.
    """
    copy = model.clone()
    twins = dict(zip(values_of(model), values_of(copy), strict=True))
    shown: list[tuple[Shown, ...] | str] = []
    lift = _Lift(opset_of(model))
    names: list[list[str]] = []
    main: dict[str, None] = {}
    for number, group in enumerate(groups):
        names.append([str(value.name) for value in group])
        leader = twins[group[0]]
        node = leader.producer()
        assert node is not None
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        if graph is copy.graph:
            main |= dict.fromkeys(names[-1])
            shown.append((Shown({name: name for name in names[-1]}),))
        else:
            lift.begin(number, graph, [twins[value] for value in group])
            shown.append(())
    views = lift.out_of(copy.graph)
    present = {str(value.name) for value in copy.graph.outputs}
    given = {str(value.name): value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(given[name] for name in main if name not in present)
    for view in views:
        copy.graph.outputs.extend((*view.values, *view.iterations))
        held = dict(zip(names[view.group], (str(value.name) for value in view.values), strict=True))
        one = Shown(held, tuple(str(value.name) for value in reversed(view.iterations)))
        shown[view.group] = (*shown[view.group], one)
    return copy, [lift.failures.get(number, one) for number, one in enumerate(shown)]


@dataclass(frozen=True, slots=True)
class _View:
    """A group on its way out of the graphs around it: its values and iterations, innermost first, in one graph."""

    group: int
    values: list[ir.Value]
    iterations: list[ir.Value]

    @property
    def all(self) -> list[ir.Value]:
        return [*self.values, *self.iterations]

    def moved(self, to: Sequence[ir.Value]) -> _View:
        """The same view in the next graph, which may have one iteration more."""
        number = len(self.values)
        return replace(self, values=list(to[:number]), iterations=list(to[number:]))


class _Lift:
    """Brings groups out of subgraphs.

    Attributes:
        failures: for each group that stays inside, why.
    """

    def __init__(self, opset: int) -> None:
        self.failures: dict[int, str] = {}
        self._opset = opset
        self._inside: dict[ir.Graph, list[_View]] = {}
        self._numbers = count()

    def begin(self, group: int, graph: ir.Graph, values: Sequence[ir.Value]) -> None:
        """Start with a group in its own subgraph.

        A value may be an output already, and onnxruntime loses one that is listed twice; so each gets a copy.
        """
        wide = [ir.DataType.FLOAT if _dtype(value) == ir.DataType.BFLOAT16 else None for value in values]
        view = _View(group, [self._copy(value, graph, to) for value, to in zip(values, wide, strict=True)], [])
        self._inside.setdefault(graph, []).append(view)

    def out_of(self, graph: ir.Graph) -> list[_View]:
        """Bring every group that is inside ``graph``, however deep, to its surface."""
        views = self._inside.get(graph, [])
        for node in list(graph):
            for attribute in list(node.attributes.values()):
                if attribute.type != ir.AttributeType.GRAPH:
                    continue
                inner = self.out_of(attribute.as_graph())
                if inner:
                    views += self._leave(node, attribute.name, inner)
        return views

    def _leave(self, node: ir.Node, attribute: str, views: list[_View]) -> list[_View]:
        if node.op_type == "If":
            return self._leave_if(node, attribute, views)
        try:
            if node.op_type not in {"Loop", "Scan"} or self._opset < _OLDEST_LOOPS:
                raise ValueError(f"in the body of a {node.op_type}")
            return self._leave_loop(loop_in_place_of(node) if node.op_type == "Scan" else node, views)
        except ValueError as error:
            self.failures |= {view.group: str(error) for view in views}
            return []

    def _leave_if(self, node: ir.Node, branch: str, views: list[_View]) -> list[_View]:
        leaving = list(chain.from_iterable(view.all for view in views))
        for attribute in node.attributes.values():
            graph = attribute.as_graph()
            graph.outputs.extend(
                leaving if attribute.name == branch else [self._empty(value, graph) for value in leaving]
            )
        outputs = self._grow(node, leaving, len(node.outputs))
        return _dealt(views, outputs)

    def _leave_loop(self, node: ir.Node, views: list[_View]) -> list[_View]:
        """Carry the values of the first and of the last iteration in which the group ran, at first empty."""
        body = node.attributes["body"].as_graph()
        carried = len(body.inputs) - 2
        twice: list[_View] = []
        held: list[ir.Value] = []
        chosen: list[ir.Value] = []
        for view in views:
            now = [*view.all, body.inputs[0]]
            before_first, before_last = ([self._like(value) for value in now] for _ in range(2))
            body.inputs.extend((*before_first, *before_last))
            chosen += self._choose(body, before_first[0], before_first, now)
            chosen += self._choose(body, now[0], now, before_last)
            held += now + now
            twice += [view.moved(now), view.moved(now)]
        body.outputs[1 + carried : 1 + carried] = chosen
        node.resize_inputs(max(len(node.inputs), 2))
        graph = node.graph
        assert graph is not None
        first = len(node.inputs)
        node.resize_inputs(first + len(held))
        for position, value in enumerate(held, start=first):
            node.replace_input_with(position, self._empty(value, graph, node))
        return _dealt(twice, self._grow(node, held, carried))

    def _choose(
        self, graph: ir.Graph, leader: ir.Value, values: list[ir.Value], otherwise: list[ir.Value]
    ) -> list[ir.Value]:
        """``values`` where ``leader`` is not empty; an If, as they differ in shape."""
        size = ir.node("Size", [leader])
        some = ir.node("Cast", size.outputs, {"to": int(ir.DataType.BOOL)})
        set_type(size.outputs[0], ir.DataType.INT64)
        set_type(some.outputs[0], ir.DataType.BOOL)
        branches = {}
        for name, taken in (("then_branch", values), ("else_branch", otherwise)):
            branches[name] = ir.Graph([], [], nodes=[], name=f"{name}_{next(self._numbers)}")
            branches[name].outputs.extend([self._copy(value, branches[name]) for value in taken])
        choice = ir.node("If", some.outputs, branches, num_outputs=len(values))
        for node in (size, some, choice):
            self._name(node.outputs)
        for output, value in zip(choice.outputs, values, strict=True):
            set_type(output, _dtype(value))
        graph.extend([size, some, choice])
        return list(choice.outputs)

    def _grow(self, node: ir.Node, values: Sequence[ir.Value], position: int) -> Sequence[ir.Value]:
        """Outputs of ``node`` of the types of ``values``, from ``position`` on."""
        old = list(node.outputs)
        node.resize_outputs(len(old) + len(values))
        new = node.outputs
        for index in reversed(range(position, len(old))):
            to = new[index + len(values)]
            to.type, to.shape = old[index].type, None
            substitute(old[index], to)
        added = new[position : position + len(values)]
        for output, value in zip(added, values, strict=True):
            output.shape = None
            set_type(output, _dtype(value))
        self._name(added)
        return added

    def _copy(self, value: ir.Value, graph: ir.Graph, to: ir.DataType | None = None) -> ir.Value:
        node = ir.node("Identity", [value]) if to is None else ir.node("Cast", [value], {"to": int(to)})
        self._name(node.outputs)
        set_type(node.outputs[0], to or _dtype(value))
        graph.append(node)
        return node.outputs[0]

    def _empty(self, value: ir.Value, graph: ir.Graph, before: ir.Node | None = None) -> ir.Value:
        dtype = _dtype(value)
        node = ir.node("Constant", [], {"value": ir.tensor(np.empty(0, dtype.numpy()))})
        self._name(node.outputs)
        set_type(node.outputs[0], dtype)
        if before is None:
            graph.append(node)
        else:
            graph.insert_before(before, node)
        return node.outputs[0]

    def _like(self, value: ir.Value) -> ir.Value:
        like = ir.Value(type=ir.TensorType(_dtype(value)))
        self._name([like])
        return like

    def _name(self, values: Iterable[ir.Value]) -> None:
        for value in values:
            value.name = f"shown value {next(self._numbers)}"


def _dealt(views: Sequence[_View], values: Sequence[ir.Value]) -> list[_View]:
    """The views, each with its share of ``values``."""
    rest = iter(values)
    return [view.moved([next(rest) for _ in view.all]) for view in views]


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype or ir.DataType.FLOAT
