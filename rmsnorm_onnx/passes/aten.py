"""Puts torch's operators in the place of their calls, where a model holds each of them as a function.

torch.onnx.dynamo_export did so up to torch 2.3. A norm is then half a dozen calls, and its mean stands in a branch of
an If that asks whether x is a scalar.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, NameFixPass

from rmsnorm_onnx.matcher import find
from rmsnorm_onnx.matcher.facts import Facts
from rmsnorm_onnx.passes.sweep import sweep

#: Domains of the functions that are torch's operators; a model's own modules have others.
_LIBRARY: Final = ("pkg.onnxscript.torch_lib", "pkg.onnxscript.torch_lib.common")


def inline_operators(model: ir.Model, *, adopt: bool) -> None:
    """Put the bodies of torch's operators in the place of their calls, if norms show then; other functions stay.

    Args:
        model: changed in place, or not at all.
        adopt: as ``find`` takes it.
    """
    if not any(_is_operator(function) for function in model.functions.values()):
        return
    trial = model.clone()
    _inline(trial)
    if len(find(trial, adopt=adopt).matches) > len(find(model, adopt=adopt).matches):
        _inline(model)


def _is_operator(function: ir.Function) -> bool:
    return function.domain in _LIBRARY


def _inline(model: ir.Model) -> None:
    InlinePass(_is_operator)(model)
    facts = Facts(model)
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in list(graph.all_nodes()):
            if node.op_type == "If" and node.domain == "" and node.graph is not None:
                condition = facts.constants.single(node.inputs[0])
                if condition is not None:
                    _take(node, node.attributes["then_branch" if condition else "else_branch"].as_graph())
    NameFixPass()(model)  # both branches may have used one name, or two Ifs


def _take(node: ir.Node, branch: ir.Graph) -> None:
    """Replace an If by the nodes of one of its branches."""
    outer, condition = node.graph, node.inputs[0]
    if outer is None or branch.initializers or any(output.is_graph_output() for output in node.outputs):
        return
    results, inner = list(branch.outputs), list(branch)
    branch.outputs.clear()
    branch.remove(inner)
    outer.insert_before(node, inner)
    for old, new in zip(node.outputs, results, strict=True):
        ir.convenience.replace_all_uses_with(old, new)
    outer.remove(node, safe=True)
    for attribute in node.attributes.values():
        for unused in list(attribute.as_graph().all_nodes()):
            for position in range(len(unused.inputs)):
                unused.replace_input_with(position, None)  # or it would count as a reader
    producer = condition.producer() if condition is not None else None
    sweep([producer] if producer is not None else [])
