"""Norms of groups: a last axis split by Reshape, normalized, and put back together.

What stands outside the two Reshapes (scale, gate) moves inside by a Reshape of its own; all of them
only rename the same elements in the same order.
"""

from __future__ import annotations

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.context import Context
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS
from rmsnorm_onnx.matcher.match import Operand, Reshaped
from rmsnorm_onnx.matcher.normalized import Normalized, Silu


def flatten(context: Context, node: ir.Node, normalized: Normalized) -> Normalized | None:
    """A Reshape that puts groups of the last axis back together; None for any other Reshape."""
    lengths, shape = _group_lengths(context, normalized), context.facts.shape(node.outputs[0])
    if lengths is None or not shape or normalized.flat is not None or normalized.gate is not None:
        return None
    return normalized.flattened(node) if shape[-1] == lengths[0] * lengths[1] else None


def scale(context: Context, normalized: Normalized, factor: ir.Value) -> Operand | None:
    """The scale as the new node reads it: along the groups where the norm has been flattened."""
    lengths = _group_lengths(context, normalized)
    shape = context.facts.shape(factor)
    if normalized.flat is None or (shape is not None and all(length == 1 for length in shape)):
        return factor
    if lengths is None or not shape or any(length != 1 for length in shape[:-1]):
        return None
    return Reshaped(context.origin(factor), lengths) if shape[-1] == lengths[0] * lengths[1] else None


def gate(context: Context, normalized: Normalized, z: ir.Value) -> Operand | None:
    """The gate as the new node reads it; None where it does not have the shape of what it multiplies."""
    if normalized.gate is not None:
        return None
    if normalized.flat is None:
        return z if context.facts.same_shape(z, normalized.x) else None
    split = normalized.x.producer()
    if split is None or not is_reshape(split) or not context.facts.same_shape(z, normalized.value):
        return None
    before = split.inputs[0]
    return like(split, z) if before is not None and context.facts.same_shape(z, before) else None


def gate_of_type(context: Context, silu: Silu, dtype: spec.DType | None) -> ir.Value | None:
    """The gate as a value of the type that X has: before its widening Cast, or after it."""
    return next((z for z in (silu.z, silu.argument) if context.facts.float_type(z) is dtype), None)


def is_reshape(node: ir.Node) -> bool:
    """Whether ``node`` is a Reshape by an input."""
    return node.op_type == "Reshape" and node.domain in DEFAULT_DOMAINS and len(node.inputs) > 1


def like(reshape: ir.Node, value: ir.Value) -> Operand | None:
    """``value`` put through the same Reshape as that node's own input."""
    shape = reshape.inputs[1]
    allow_zero = "allowzero" in reshape.attributes and bool(reshape.attributes["allowzero"].as_int())
    return Reshaped(value, shape, allow_zero) if shape is not None else None


def _group_lengths(context: Context, normalized: Normalized) -> tuple[int, int] | None:
    shape = context.facts.shape(normalized.x)
    if shape is None or len(shape) < 2 or normalized.statistic.axes != (-1,):
        return None
    groups, width = shape[-2:]
    if not isinstance(groups, int) or not isinstance(width, int):
        return None
    return (groups, width) if groups > 0 and width > 0 else None  # onnxruntime runs a Reshape to -2 and -4
