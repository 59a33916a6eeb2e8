"""Cutting a graph where its values jump: at quantizers and other roundings that are part of the function.

A rounding error of one part in a million moves a quantized number by a whole step where the value lies next to the
boundary of two. No bound on roundings covers that, and none on whole steps would tell one function from another. So
both models are cut there: what a quantizer gives becomes an input, fed with what the original gave, and what goes into
the quantizer becomes an output. The pieces are smooth, and if every piece of two models is equal and the quantizers
between them are the same nodes, the models are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from rmsnorm_onnx.runtime.islands import put_first, substitute
from rmsnorm_onnx.runtime.types import const_tensor, infer_types, set_type

Array = npt.NDArray[Any]

#: Operators whose results jump -> which. The scale that DynamicQuantizeLinear gives as well is smooth.
_JUMPS: Final = {
    "QuantizeLinear": (0,),
    "DynamicQuantizeLinear": (0, 2),
    **dict.fromkeys(["Round", "Floor", "Ceil"], (0,)),
}
_DOMAINS: Final = frozenset({"", "com.microsoft"})


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the main graph whose results jump: its kind, attributes, and the names of those results."""

    operator: tuple[str, str]
    attributes: tuple[tuple[str, Any], ...]
    results: tuple[str, ...]


def common_steps(original: ir.Model, fused: ir.Model) -> list[Step]:
    """The steps that both models have under one name; those of constants, and those inside branches, are left out."""
    others = set(_steps(fused))
    return [step for step in _steps(original) if step in others]


def with_results(model: ir.Model, steps: Sequence[Step]) -> ir.Model:
    """A copy that gives the results of ``steps`` as further outputs."""
    copy = model.clone()
    infer_types(copy)
    given = {value.name for value in copy.graph.outputs}
    values = ir.convenience.create_value_mapping(copy.graph)
    copy.graph.outputs.extend(values[name] for step in steps for name in step.results if name not in given)
    return copy


def cut(model: ir.Model, steps: Sequence[Step], results: Mapping[str, Array]) -> tuple[ir.Model, dict[str, Array]]:
    """A copy without ``steps``: it takes their results, and gives what they were computed from.

    Args:
        model: has every step; not changed.
        steps: where to cut.
        results: every step's results by name; they give the new inputs their types and shapes.

    Returns:
        The copy, and the arrays for its new inputs. Its new outputs are named after the value and the step.
    """
    copy = model.clone()
    infer_types(copy)
    values = ir.convenience.create_value_mapping(copy.graph)
    feeds = {}
    for step in steps:
        node = values[step.results[0]].producer()
        assert node is not None
        for value in dict.fromkeys(value for value in node.inputs if value is not None):
            shown = _identity(value, f"{value.name} (into {step.results[0]})")
            copy.graph.insert_before(node, shown)
            copy.graph.outputs.append(shown.outputs[0])
        for position in _JUMPS[node.op_type]:
            result = node.outputs[position]
            if result.name in step.results:
                given = _input(f"{result.name}_given", results[str(result.name)])
                copy.graph.inputs.append(given)
                taken = _identity(given, f"{result.name}_taken")
                put_first(copy.graph, [taken])
                feeds[str(given.name)] = results[str(result.name)]
                substitute(result, taken.outputs[0])
    common.RemoveUnusedNodesPass()(copy)
    return copy, feeds


def _steps(model: ir.Model) -> list[Step]:
    found = []
    for node in model.graph:
        if node.op_type not in _JUMPS or node.domain not in _DOMAINS or _is_constant(node.inputs[0]):
            continue
        outputs = [node.outputs[i] for i in _JUMPS[node.op_type] if i < len(node.outputs)]
        results = tuple(str(value.name) for value in outputs if value.name)
        if not results:
            continue
        attributes = tuple(sorted((name, attribute.value) for name, attribute in node.attributes.items()))
        found.append(Step((node.domain, node.op_type), attributes, results))
    return found


def _is_constant(value: ir.Value | None) -> bool:
    return value is None or const_tensor(value) is not None


def _input(name: str, array: Array) -> ir.Value:
    dtype = ir.DataType.from_numpy(array.dtype)
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(np.shape(array)))


def _identity(value: ir.Value, name: str) -> ir.Node:
    node = ir.node("Identity", [value], name=name)
    node.outputs[0].name = name
    node.outputs[0].shape = value.shape
    if value.dtype is not None:
        set_type(node.outputs[0], value.dtype)
    return node
