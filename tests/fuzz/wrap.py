"""Mutations that put a run of nodes into a function, a branch or a loop."""

from __future__ import annotations

import random
from typing import Any

import onnx
from onnx import TensorProto, helper

from .edit import Scope, add_constant, fresh_name
from .seeds import reads


def wrap(model: onnx.ModelProto, scope: Scope, dice: random.Random) -> None:
    """A run of nodes goes into a function, a branch or a loop."""
    first = dice.randrange(len(scope.node))
    nodes = list(scope.node)[first : first + dice.choice([1, 3, 8, 20])]
    made = [o for n in nodes for o in n.output if o]
    rest = [n for n in scope.node if n not in nodes]
    used = {name for n in rest for name in reads(n)} | {o if isinstance(o, str) else o.name for o in scope.output}
    results = [o for o in made if o in used] or made[-1:]
    if not results:
        return
    copies, others = ([onnx.NodeProto.FromString(n.SerializeToString()) for n in part] for part in (nodes, rest))
    del scope.node[:]
    wrapped = dice.choice([_function, _branch, _loop])(model, scope, copies, results, dice)
    position = next((i for i, n in enumerate(others) if set(reads(n)) & set(results)), len(others))
    scope.node.extend([*others[:position], *wrapped, *others[position:]])


def _function(model: Any, scope: Scope, nodes: list[Any], results: list[str], dice: random.Random) -> list[Any]:
    made = {o for n in nodes for o in n.output}
    given = list(dict.fromkeys(name for n in nodes for name in reads(n) if name not in made))
    name = fresh_name(model, dice)
    opsets = [helper.make_opsetid(i.domain, i.version) for i in model.opset_import]
    model.functions.append(helper.make_function("fuzz", name, given, results, nodes, opsets))
    if all(i.domain != "fuzz" for i in model.opset_import):
        model.opset_import.append(helper.make_opsetid("fuzz", 1))
    model.ir_version = max(model.ir_version, 8)
    return [helper.make_node(name, given, results, domain="fuzz")]


def _body(name: str, nodes: list[Any], results: list[str], suffix: str, before: list[Any], inputs: list[Any]) -> Any:
    renamed = {r: f"{r}{suffix}" for r in results}
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    for node in copies:
        node.output[:] = [renamed.get(o, o) for o in node.output]
        node.input[:] = [renamed.get(i, i) for i in node.input]
    outputs = [*inputs[1:2], *(onnx.ValueInfoProto(name=n) for n in renamed.values())]
    return helper.make_graph([*before, *copies], name, inputs, outputs)


def _branch(model: Any, scope: Scope, nodes: list[Any], results: list[str], dice: random.Random) -> list[Any]:
    condition = add_constant(model, scope, dice.random() < 0.5, TensorProto.BOOL, dice)
    bodies = {f"{b}_branch": _body(b, nodes, results, f"_{b}", [], []) for b in ("then", "else")}
    return [helper.make_node("If", [condition], results, **bodies)]


def _loop(model: Any, scope: Scope, nodes: list[Any], results: list[str], dice: random.Random) -> list[Any]:
    trips = add_constant(model, scope, dice.choice([1, 1, 2, 0]), TensorProto.INT64, dice)
    names = [fresh_name(model, dice) for _ in range(2)]
    types = (TensorProto.INT64, TensorProto.BOOL)
    inputs = [helper.make_tensor_value_info(n, t, []) for n, t in zip(names, types, strict=True)]
    body = _body("body", nodes, results, "_body", [], inputs)
    stacked = {r: fresh_name(model, dice) for r in results}
    first = add_constant(model, scope, 0, TensorProto.INT64, dice)
    takes = [helper.make_node("Gather", [s, first], [r], axis=0) for r, s in stacked.items()]
    return [helper.make_node("Loop", [trips, ""], list(stacked.values()), body=body), *takes]
