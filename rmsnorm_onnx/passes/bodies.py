"""What the own operators need of the model around them: domain imports, function bodies, the types of old opsets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.function import OPTIONAL_STEPS, RESULT_TYPE, Form, function_proto
from rmsnorm_onnx.matcher import Match

#: From this IR version on, functions state types of their values themselves.
_FUNCTION_TYPES_IR_VERSION: Final = 10


def operator_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """All nodes of our operators, wherever they are."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield from (node for node in graph.all_nodes() if node.domain == spec.DOMAIN and node.op_type in spec.OPS)


def import_domain(model: ir.Model, domain: str, version: int) -> None:
    """Declare a domain where its operators are used."""
    model.graph.opset_imports.setdefault(domain, version)
    for function in model.functions.values():
        if function.domain != domain and any(n.domain == domain for n in function.graph.all_nodes()):
            function.opset_imports.setdefault(domain, version)


def name_result_types(model: ir.Model, emitted: Iterable[tuple[Match, ir.Node]]) -> None:
    """Write T as an attribute where the opset has no CastLike."""
    if not Form(model.graph.opset_imports[""]).names_result_type:
        return
    for match, node in emitted:
        if node.domain == spec.DOMAIN:
            node.attributes.add(ir.AttrInt64(RESULT_TYPE, int(match.dtype)))


def lacks_bodies(model: ir.Model) -> bool:
    """Whether nodes of ours have no function, and the model's opset is one that it could be written at."""
    without = any(node.op_identifier() not in model.functions for node in operator_nodes(model))
    return without and model.graph.opset_imports.get("", 0) >= spec.MINIMUM_OPSET


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


def forget_unreadable_types(model: ir.Model) -> None:
    """Leave values of functions without type where onnx_ir would write one and not read it again.

    Below IR 10 it writes them under ``domain::function/value`` (measured with 1.1), and torch gives values names
    with slashes.
    """
    if model.ir_version >= _FUNCTION_TYPES_IR_VERSION:
        return
    for function in model.functions.values():
        scope = f"{function.domain}::{function.name}"
        for value in (output for node in function for output in node.outputs):
            if f"{scope}/{value.name}".count("/") != 1 or scope.count("::") != 1:
                value.type, value.shape = None, None
