"""Copies of a model in which functions are inlined and every value has an element type."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from rmsnorm_onnx import function, spec
from rmsnorm_onnx.errors import InvalidInput

FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan"})
#: Of onnxruntime, in the default domain; before opset 17 its LayerNormalization is one of them.
_NORMS: Final = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})


def typed_copy(model: ir.Model, *, inline_ours: bool) -> ir.Model:
    """A copy with functions inlined and element types inferred; weights are shared with ``model``.

    Args:
        model: any model; not changed.
        inline_ours: also inline the operators of ``spec.DOMAIN``; bodies that the model lacks are added first.

    Raises:
        InvalidInput: a function calls itself, or is given a graph as attribute.
    """
    copy = model.clone()
    if inline_ours:
        _add_missing_bodies(copy)
    _complete_calls(copy)
    _agree_on_versions(copy)
    try:
        common.InlinePass(lambda f: inline_ours or f.domain != spec.DOMAIN)(copy)
    except (ValueError, ir.passes.PassError) as error:
        raise InvalidInput(f"functions of {model.graph.name or 'the model'} cannot be inlined: {error}") from error
    if inline_ours:
        common.RemoveUnusedFunctionsPass()(copy)  # type: ignore[no-untyped-call]
    infer_types(copy)
    return copy


def set_type(value: ir.Value, dtype: ir.DataType) -> None:
    """Give a value another element type; copies share type objects, so changing those would reach the original."""
    tensor = ir.TensorType(dtype)
    value.type = ir.SequenceType(tensor) if is_sequence(value) else tensor


def const_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor that a constant holds; onnx_ir's own function renames it, in a model that its caller still holds."""
    node = value.producer()
    held = node.attributes.get("value") if node is not None and node.op_type == "Constant" else None
    if held is not None and held.type == ir.AttributeType.TENSOR and not held.is_ref():
        return held.as_tensor()
    return ir.convenience.get_const_tensor(value)


def is_sequence(value: ir.Value) -> bool:
    """Whether a value is a sequence of tensors."""
    return isinstance(value.type, ir.SequenceType)


def nodes_of(model: ir.Model) -> list[ir.Node]:
    """All nodes of the main graph and of every subgraph, in order; a snapshot, so inserting is safe."""
    return list(ir.traversal.RecursiveGraphIterator(model.graph))


def values_of(model: ir.Model) -> Iterator[ir.Value]:
    """What nodes give and what bodies of loops take, in order."""
    for node in nodes_of(model):
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from attribute.as_graph().inputs


def opset_of(model: ir.Model) -> int:
    """The model's version of the default domain."""
    return model.graph.opset_imports.get("", onnx.defs.onnx_opset_version())


def _agree_on_versions(model: ir.Model) -> None:
    """Let functions import domains of functions as the model does: onnxruntime takes any version, the inliner one."""
    domains = {called.domain for called in model.functions.values()} - {""}
    for called in model.functions.values():
        for domain in domains & called.opset_imports.keys():
            called.opset_imports[domain] = model.graph.opset_imports.get(domain, called.opset_imports[domain])


def _complete_calls(model: ir.Model) -> None:
    """Give calls the outputs they leave out, which the inliner would pair wrongly or give the empty name."""
    inside_functions = [node for body in model.functions.values() for node in body.graph.all_nodes()]
    for number, node in enumerate((*nodes_of(model), *inside_functions)):
        called = model.functions.get(node.op_identifier())
        if called is None:
            continue
        node.resize_outputs(len(called.outputs))
        for position, output in enumerate(node.outputs):
            if output.name in (None, ""):
                output.name = f"left_out_{number}_{position}"


def _add_missing_bodies(model: ir.Model) -> None:
    known = {identifier[1] for identifier in model.functions if identifier[0] == spec.DOMAIN}
    used = {node.op_type for node in nodes_of(model) if node.domain == spec.DOMAIN}
    for name in used & spec.OPS.keys() - known:
        body = ir.serde.deserialize_function(function.function_proto(name, function.Form(opset_of(model))))
        model.functions[body.identifier()] = body


def infer_types(model: ir.Model) -> None:
    """Infer, in place, until nothing is left open but what follows from an operator whose result type nobody knows."""
    opset = opset_of(model)
    while True:
        with _quiet("onnx_ir.passes.common.shape_inference"), _one_name_each(model):
            common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        if sum(_complete(node) for node in nodes_of(model) if not _is_onnx(node, opset)) == 0:
            break
    for node in nodes_of(model):
        _restore_sequences(node, opset)


def _is_onnx(node: ir.Node, opset: int) -> bool:
    """Whether ONNX has a schema; onnxruntime has norms of its own in the default domain."""
    return not node.domain and onnx.defs.has(node.op_type, opset)


def _restore_sequences(node: ir.Node, opset: int) -> None:
    """onnx_ir's inference pass makes a tensor type of every inferred type; the schema says which are sequences."""
    if node.op_type in CONTROL_FLOW or not _is_onnx(node, opset):
        return
    formal = onnx.defs.get_schema(node.op_type, opset).outputs
    among_inputs = any(value is not None and is_sequence(value) for value in node.inputs)
    for index, output in enumerate(node.outputs):
        sequences = [kind.startswith("seq(") for kind in formal[min(index, len(formal) - 1)].types]
        if output.dtype is not None and (all(sequences) or (among_inputs and any(sequences))):
            output.type, output.shape = ir.SequenceType(ir.TensorType(output.dtype)), None


@contextmanager
def _one_name_each(model: ir.Model) -> Iterator[None]:
    """Other names, for a while, where branches use one: ONNX keeps the numbers in lists by name alone."""
    inside = [value for value in values_of(model) if value.name and value.graph is not model.graph]
    used = Counter(value.name for value in inside)
    renamed = [(value, value.name) for value in inside if used[value.name] > 1 and not value.is_initializer()]
    for number, (value, name) in enumerate(renamed):
        value.name = f"{name} (value {number} of such a name)"
    try:
        yield
    finally:
        for value, name in renamed:
            value.name = name


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Errors only: what inference leaves open is completed here, so its warnings are of no use to a user."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _complete(node: ir.Node) -> bool:
    """Give types to the untyped outputs of an operator that inference does not know."""
    guesses = [(output, _result_type(node, i)) for i, output in enumerate(node.outputs) if output.dtype is None]
    known = [(output, guess) for output, guess in guesses if guess is not None]
    for output, guess in known:
        set_type(output, guess)
    return bool(known)


def _result_type(node: ir.Node, position: int) -> ir.DataType | None:
    """The type of the first float input; of two operators of onnxruntime's what their schemas say."""
    if node.op_type == "QuantizeLinear":  # the zero point's, as in ONNX
        zero_point = node.inputs[2] if len(node.inputs) > 2 else None
        return ir.DataType.UINT8 if zero_point is None else zero_point.dtype
    types = [None if value is None else value.dtype for value in node.inputs]
    if not node.domain and node.op_type in _NORMS:  # the scale's; mean and inverse root are float32
        return ir.DataType.FLOAT if position > 0 else next(iter(types[1:]), None)
    return next((dtype for dtype in types if dtype in FLOATS), None)
