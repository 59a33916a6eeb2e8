"""Writes an operator's body at a model's own opset, without the steps that the model does not need.

onnx.checker and, below opset 18, onnxruntime refuse a body whose opset is not the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import helper

from rmsnorm_onnx import spec

#: Attributes whose step can be left out when they are zero in every node of a model.
OPTIONAL_STEPS: Final = frozenset({"epsilon_low", "epsilon_outside", "floor"})
#: Extra attribute of nodes below opset 15: the element type that Y is cast to.
RESULT_TYPE: Final = "result_type"
_AXES_ARE_INPUT_FROM: Final = 18
_CAST_LIKE_FROM: Final = 15


@dataclass(frozen=True, slots=True)
class Form:
    """How the body of one model is written.

    Attributes:
        opset: the model's default-domain opset, 13 or more.
        dropped: members of OPTIONAL_STEPS that are zero in every node of the model.
        direct_sum: add the residual in T itself; onnxruntime's CPU provider has no such Add for bfloat16.
    """

    opset: int = 18
    dropped: frozenset[str] = frozenset()
    direct_sum: bool = False

    @property
    def names_result_type(self) -> bool:
        """Whether nodes must carry T as the attribute RESULT_TYPE: CastLike exists from opset 15 on."""
        return self.opset < _CAST_LIKE_FROM


def function_proto(name: str, form: Form) -> onnx.FunctionProto:
    """The body of operator ``name`` as a function of the domain ``spec.DOMAIN``.

    Raises:
        KeyError: ``name`` is not an operator.
        ValueError: the form's opset is below 13.
    """
    if form.opset < spec.MINIMUM_OPSET:
        raise ValueError(f"a body needs opset {spec.MINIMUM_OPSET} or more, got {form.opset}")
    # onnxscript takes 0.3 s to import, and matching alone does not need it.
    from rmsnorm_onnx.function import definition

    nodes = list(_expand(definition.DEFINITIONS[name].to_function_proto().node))
    if form.direct_sum:
        _add_in_result_type(nodes)
    _drop_steps(nodes, form.dropped)
    if form.opset < _AXES_ARE_INPUT_FROM:
        _reduce_over_attribute(nodes)
    op = spec.OPS[name]
    attributes = [attribute.name for attribute in op.attributes]
    if form.names_result_type:
        _cast_to_named_type(nodes)
        attributes.append(RESULT_TYPE)
    return helper.make_function(
        spec.DOMAIN,
        name,
        op.inputs,
        op.outputs,
        _live(nodes, op.outputs),
        [helper.make_opsetid("", form.opset)],
        attributes,
        doc_string=op.formula,
    )


def _expand(nodes: Iterable[onnx.NodeProto], prefix: str = "") -> Iterator[onnx.NodeProto]:
    """Replace calls of the helpers by their nodes; attribute references carry over, being named alike."""
    from rmsnorm_onnx.function import definition

    for node in nodes:
        if node.domain != spec.DOMAIN:
            copy = helper.make_node(node.op_type, [prefix + i for i in node.input], [prefix + o for o in node.output])
            copy.attribute.extend(node.attribute)
            yield copy
            continue
        helper_proto = definition.HELPERS[node.op_type].to_function_proto()
        inner = f"{prefix}{node.op_type}_"
        names = dict(zip(helper_proto.input, node.input, strict=True))
        names |= dict(zip(helper_proto.output, node.output, strict=True))
        for copy in _expand(helper_proto.node, inner):
            _rename(copy, {inner + old: prefix + new for old, new in names.items()})
            yield copy


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    node.input[:] = [names.get(i, i) for i in node.input]
    node.output[:] = [names.get(o, o) for o in node.output]


def _producers(nodes: list[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    return {output: node for node in nodes for output in node.output}


def _reference(node: onnx.NodeProto) -> str:
    """Name of the function attribute that a Constant node holds, or an empty string."""
    return node.attribute[0].ref_attr_name if node.op_type == "Constant" else ""


def _attribute_behind(value: str, made_by: dict[str, onnx.NodeProto]) -> str:
    """Name of the function attribute that ``value`` is a Cast of, or an empty string."""
    cast = made_by.get(value)
    constant = made_by.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
    return _reference(constant) if constant is not None else ""


def _live(nodes: list[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _bypass(nodes: list[onnx.NodeProto], replaced: dict[str, str]) -> None:
    """Let consumers of each replaced value read the other one."""

    def final(name: str) -> str:
        while name in replaced:
            name = replaced[name]
        return name

    for node in nodes:
        node.input[:] = [final(i) for i in node.input]


def _drop_steps(nodes: list[onnx.NodeProto], dropped: frozenset[str]) -> None:
    made_by = _producers(nodes)
    replaced: dict[str, str] = {}
    for node in nodes:
        if node.op_type in {"Add", "Max"} and _attribute_behind(node.input[1], made_by) in dropped:
            replaced[node.output[0]] = node.input[0]
    _bypass(nodes, replaced)


def _add_in_result_type(nodes: list[onnx.NodeProto]) -> None:
    made_by = _producers(nodes)
    replaced: dict[str, str] = {}
    for node in nodes:
        if node.output[0] == "sum":
            addition = made_by[node.input[0]]
            replaced |= {i: made_by[i].input[0] for i in addition.input}
            node.CopyFrom(helper.make_node("Add", addition.input, node.output))
    _bypass(nodes, replaced)


def _reduce_over_attribute(nodes: list[onnx.NodeProto]) -> None:
    made_by = _producers(nodes)
    for node in nodes:
        if node.op_type == "ReduceMean":
            axes_attribute = _reference(made_by[node.input[1]])
            axes = onnx.AttributeProto(name="axes", type=onnx.AttributeProto.INTS, ref_attr_name=axes_attribute)
            del node.input[1]
            node.attribute.append(axes)


def _cast_to_named_type(nodes: list[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type == "CastLike":
            node.CopyFrom(helper.make_node("Cast", node.input[:1], node.output))
            to = onnx.AttributeProto(name="to", type=onnx.AttributeProto.INT, ref_attr_name=RESULT_TYPE)
            node.attribute.append(to)
