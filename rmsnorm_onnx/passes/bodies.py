"""Stores the operators' function bodies in a model, so that it runs where the library is not registered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.function import OPTIONAL_STEPS, Form, function_proto


def operator_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes of our domain, wherever they are."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield from (node for node in graph.all_nodes() if node.domain == spec.DOMAIN)


def import_domain(model: ir.Model) -> None:
    """Declare the domain where its operators are used."""
    model.graph.opset_imports[spec.DOMAIN] = spec.VERSION
    for function in model.functions.values():
        if function.domain != spec.DOMAIN and any(n.domain == spec.DOMAIN for n in function.graph.all_nodes()):
            function.opset_imports[spec.DOMAIN] = spec.VERSION


def add_bodies(model: ir.Model) -> None:
    """Write one function per operator in use, at the model's opset, with no step that no node needs."""
    uses: dict[str, list[ir.Node]] = defaultdict(list)
    for node in operator_nodes(model):
        uses[node.op_type].append(node)
    for name, nodes in uses.items():
        form = Form(
            opset=model.graph.opset_imports[""],
            dropped=frozenset(step for step in OPTIONAL_STEPS if all(_is_zero(node, step) for node in nodes)),
            direct_sum=all(_sums_natively(node) for node in nodes),
        )
        function = ir.serde.deserialize_function(function_proto(name, form))
        model.functions[function.identifier()] = function
    model.ir_version = max(model.ir_version, spec.FUNCTION_IR_VERSION)


def _is_zero(node: ir.Node, attribute: str) -> bool:
    return attribute not in node.attributes or node.attributes[attribute].as_float() == 0


def _sums_natively(node: ir.Node) -> bool:
    x = node.inputs[0]
    return x is not None and x.dtype not in {None, ir.DataType.BFLOAT16}
