"""Functions of a model: one per name, none that calls itself, and no more calls than can be written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import onnx

from rmsnorm_onnx.modelfile.flaw import Flaw, flaw, shown

_Key: TypeAlias = tuple[str, str, str]
#: Nodes of a model with every call written out, which onnxruntime does first; 40 functions that each call the next
#: one twice make 10**12, and it then takes all memory.
_NODES: Final = 10**6
#: onnxruntime 1.31 follows calls by recursion.
_LEVELS: Final = 500


def check_calls(model: onnx.ModelProto) -> None:
    """Raise a Flaw unless every call of a function can be replaced by its body."""
    functions: dict[_Key, onnx.FunctionProto] = {}
    for function in model.functions:
        key = (function.domain, function.name, function.overload)
        if key in functions or not function.name:
            raise flaw((function, None), "it has no name, or that of another function")
        functions[key] = function
    _check_parts(model, functions)
    called = {key: _calls(function.node, functions) for key, function in functions.items()}
    sizes: dict[_Key, int] = {}
    levels: dict[_Key, int] = {}
    for key in _callees_first(called):
        calls = called[key]
        sizes[key] = len(functions[key].node) + sum(times * sizes[callee] for callee, times in calls.items())
        levels[key] = 1 + max((levels[callee] for callee in calls), default=0)
        if levels[key] > _LEVELS:
            raise flaw((functions[key], None), f"its calls of functions are more than {_LEVELS} deep")
        if sizes[key] > _NODES:
            raise flaw((functions[key], None), f"with its calls of functions written out, it has over {_NODES:,} nodes")


def _check_parts(model: onnx.ModelProto, functions: dict[_Key, onnx.FunctionProto]) -> None:
    """Raise a Flaw where a call lets a Split in the function have fewer parts than outputs: ONNX 1.23 dies of it."""
    parts = {key: found for key, function in functions.items() if (found := list(_parts(function)))}
    for owner in (model.graph, *model.functions) if parts else ():
        for node in _all(owner.node):
            key = (node.domain, node.op_type, node.overload)
            for name, outputs in parts.get(key, ()):
                stated = (*node.attribute, *functions[key].attribute_proto)
                given = next((attribute for attribute in stated if attribute.name == name), None)
                if given is not None and (given.ref_attr_name or given.i < outputs):
                    said = f"left to {shown(given.ref_attr_name)}" if given.ref_attr_name else str(given.i)
                    text = f"the function's Split gives {outputs} outputs, and {shown(name)}, their number, is {said}"
                    raise flaw((node, (owner, None)), text)


def _parts(function: onnx.FunctionProto) -> Iterator[tuple[str, int]]:
    """Attributes that say how many parts a Split has, and how many outputs it gives."""
    for node in _all(function.node):
        for attribute in node.attribute:
            if node.op_type == "Split" and attribute.name == "num_outputs" and attribute.ref_attr_name:
                yield attribute.ref_attr_name, len(node.output)


def _calls(nodes: Iterable[onnx.NodeProto], functions: dict[_Key, onnx.FunctionProto]) -> Counter[_Key]:
    return Counter(key for node in _all(nodes) if (key := (node.domain, node.op_type, node.overload)) in functions)


def _all(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all(graph.node)


def _callees_first(called: dict[_Key, Counter[_Key]]) -> Iterator[_Key]:
    """Every function after those that it calls; without recursion, as chains of calls may be long."""
    done: set[_Key] = set()
    for start in called:
        path: dict[_Key, Iterator[_Key]] = {start: iter(called[start])} if start not in done else {}
        while path:
            key = next(reversed(path))
            callee = next((c for c in path[key] if c not in done), None)
            if callee is None:
                done.add(key)
                path.popitem()
                yield key
            elif callee in path:
                names = ", ".join(shown(name) for _, name, _ in path)
                raise Flaw(f"functions call each other in a circle: {names}")
            else:
                path[callee] = iter(called[callee])
