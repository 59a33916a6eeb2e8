"""Constant subgraphs, computed in their own types.

What a graph computes from constants alone (1 + w of Gemma, a rounded epsilon) is a constant to every runtime and
optimizer: it is folded in the types of the graph before anything runs. The float64 reading therefore starts from
the folded value; otherwise a model and the same model after constant folding would differ by that rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from rmsnorm_onnx.runtime.islands import substitute
from rmsnorm_onnx.runtime.types import CONTROL_FLOW, FLOATS, nodes_of, set_type

#: Key under which ``fold_constants`` leaves (operator, left, right) of a folded product or quotient in a value's meta.
FACTORS_OF: Final = "rmsnorm_onnx.factors_of"
#: Begin a norm. One of weights, which a runtime computes once, rounds elsewhere as one node than as many: its
#: roundings must be sampled, not taken for what was meant.
_SUMS: Final = frozenset({"ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"})
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"}
)


def fold_constants(model: ir.Model) -> None:
    """Replace, in place, every node of the default domain that depends on constants only by Constant nodes' tensors.

    Results become initializers of the graph the node is in; a node that cannot be computed is left alone.
    """
    known = {
        value: value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if not value.is_graph_input() and value.const_value is not None
    }
    tensors: dict[ir.Value, Any] = {}
    for node in nodes_of(model):
        if not _is_foldable(node, known, tensors):
            continue
        results = _compute(node, model, [None if i is None else _array(i, known, tensors) for i in node.inputs])
        if results is None:
            continue
        for output, array in zip(node.outputs, results, strict=False):
            tensors[output] = array
    _install(tensors, lambda value: _array(value, known, tensors))


def _is_foldable(node: ir.Node, known: dict[ir.Value, Any], tensors: dict[ir.Value, Any]) -> bool:
    if node.domain or node.op_type in CONTROL_FLOW or node.op_type in _RANDOM:
        return False
    if not all(value is None or value in known or value in tensors for value in node.inputs):
        return False
    return not any(_sums_floats(reader) for reader in (node, *(user for user, _ in node.outputs[0].uses())))


def _sums_floats(node: ir.Node) -> bool:
    return node.op_type in _SUMS and not node.domain and node.outputs[0].dtype in FLOATS


def _array(value: ir.Value, known: dict[ir.Value, Any], tensors: dict[ir.Value, Any]) -> Any:
    return tensors[value] if value in tensors else known[value].numpy()


def _compute(node: ir.Node, model: ir.Model, inputs: list[Any]) -> list[Any] | None:
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    names = [name for name in proto.input if name]
    opset = model.graph.opset_imports.get("", 1)
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in dict.fromkeys(names)],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in proto.output if name],
    )
    alone = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = {name: array for name, array in zip(proto.input, inputs, strict=True) if name}
    try:
        with np.errstate(all="ignore"):
            results = list(ReferenceEvaluator(alone).run(None, feeds))
    except Exception:  # an operator the evaluator lacks: the node stays, and its rounding counts as the graph's
        return None
    return results if all(isinstance(r, np.ndarray | np.generic) for r in results) else None


def _install(tensors: dict[ir.Value, Any], array_of: Callable[[ir.Value], Any]) -> None:
    folded = {output.producer() for output in tensors}
    read = [o for o in tensors if o.is_graph_output() or any(user not in folded for user, _ in o.uses())]
    # Read before any of them is replaced: one may be a factor of another.
    factors = {output: _factors(output, array_of) for output in read}
    for output in read:
        node = output.producer()
        assert node is not None
        assert node.graph is not None
        tensor = ir.tensor(np.asarray(tensors[output]), name=output.name)
        constant = ir.node("Constant", [], {"value": tensor}, name=f"{output.name}_folded")
        set_type(constant.outputs[0], tensor.dtype)
        if factors[output] is not None:
            constant.outputs[0].meta[FACTORS_OF] = factors[output]
        node.graph.insert_before(node, constant)
        substitute(output, constant.outputs[0])


def _factors(product: ir.Value, array_of: Callable[[ir.Value], Any]) -> tuple[Any, ...] | None:
    node = product.producer()
    if node is None or node.op_type not in {"Mul", "Div"}:
        return None
    return (node.op_type, *(array_of(value) for value in node.inputs if value is not None))
