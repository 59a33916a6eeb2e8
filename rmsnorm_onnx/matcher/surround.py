"""What stands before a norm and belongs to it: a residual Add, a gate, a widening Cast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import groups
from rmsnorm_onnx.matcher.context import Context, widens
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS
from rmsnorm_onnx.matcher.match import Operand, Reshaped, Scale
from rmsnorm_onnx.matcher.normalized import Normalized, Silu

_ADDITIONS = frozenset({"Add", "Sum"})

#: Nodes looked at to make sure that a computed scale does not depend on the residual sum.
_SEARCH_LIMIT = 256


@dataclass(frozen=True, slots=True)
class GateBefore:
    """x * silu(gate), normalized afterwards; ``dtype`` is the type of x and gate."""

    x: Operand
    gate: Operand
    dtype: spec.DType
    nodes: tuple[ir.Node, ...]


def gate_before(context: Context, norm: Normalized, nodes: Iterable[ir.Node]) -> GateBefore | None:
    """The gate that x was multiplied by, when nobody but the norm reads the product."""
    product, split = _gating_product(norm.x)
    if product is None:
        return None
    if norm.gate is not None or context.facts.float_type(norm.x) is not norm.stash_type:
        return None
    gone = dead(norm.value, nodes)
    if norm.x.is_graph_output() or any(use.node not in gone for use in norm.x.uses()):
        return None
    if split is not None and (product.outputs[0].is_graph_output() or len(product.outputs[0].uses()) > 1):
        return None
    for factor, other in (product.inputs, tuple(reversed(product.inputs))):
        silu = context.meaning(factor)
        if not isinstance(silu, Silu) or other is None:
            continue
        precise = silu.dtype.bits_of_precision >= norm.stash_type.bits_of_precision
        for x in (context.origin(other), other):
            dtype = context.facts.float_type(x)
            z = groups.gate_of_type(context, silu, dtype)
            holds = dtype is not None and (dtype is norm.dtype or widens(norm.dtype, dtype))
            if dtype is None or z is None or not (holds and precise and context.facts.same_shape(x, z)):
                continue
            nodes_before = (*_between(context, other, x), *silu.nodes, product)
            if split is None:
                return GateBefore(x, z, dtype, nodes_before)
            grouped = groups.like(split, x), groups.like(split, z)
            if grouped[0] is not None and grouped[1] is not None:
                return GateBefore(grouped[0], grouped[1], dtype, (*nodes_before, split))
    return None


def ungated_type(context: Context, x: ir.Value) -> spec.DType | None:
    """Type of what was multiplied by silu(gate) to give ``x``, before any widening Cast; None if nothing was."""
    product, _ = _gating_product(x)
    for factor, other in (product.inputs, tuple(reversed(product.inputs))) if product is not None else ():
        if isinstance(context.meaning(factor), Silu) and other is not None:
            return context.facts.float_type(context.origin(other))
    return None


def _gating_product(x: ir.Value) -> tuple[ir.Node | None, ir.Node | None]:
    """The Mul that gives ``x``, and the Reshape to groups between them."""
    product, split = x.producer(), None
    if product is not None and groups.is_reshape(product) and product.inputs[0] is not None:
        product, split = product.inputs[0].producer(), product
    if product is None or product.op_type != "Mul" or product.domain not in DEFAULT_DOMAINS:
        return None, None
    return product, split


def _between(context: Context, value: ir.Value, source: ir.Value) -> list[ir.Node]:
    nodes = []
    while value is not source:
        node, before = value.producer(), context.exact_source(value)
        assert node is not None
        assert before is not None
        nodes.append(node)
        value = before
    return nodes


def residual(context: Context, norm: Normalized, scale: Scale | None, claimed: set[ir.Node]) -> ir.Node | None:
    """The Add of two equally shaped values that gives x, if this norm may take it in."""
    node = norm.x.producer()
    if node is None or node.op_type not in _ADDITIONS or node.domain not in DEFAULT_DOMAINS or node in claimed:
        return None
    if len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if a is None or b is None or not context.facts.same_shape(a, b, norm.x):
        return None
    if node.graph is not norm.nodes[-1].graph:
        return None
    needed = scale.value if isinstance(scale, Reshaped) else scale
    return node if not isinstance(needed, ir.Value) or not _depends_on(needed, norm.x) else None


def _depends_on(value: ir.Value, source: ir.Value) -> bool:
    """Whether ``value`` is computed from ``source``; unsure counts as yes."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        if current is source or len(seen) > _SEARCH_LIMIT:
            return True
        node = current.producer()
        if node is not None:
            fresh = [i for i in _read_by(node) if i not in seen]
            seen.update(fresh)
            pending.extend(fresh)
    return False


def _read_by(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, its branches and loop bodies included."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
            for inner in attribute.as_graph().all_nodes():
                yield from (value for value in inner.inputs if value is not None)


def dead(output: ir.Value, nodes: Iterable[ir.Node]) -> set[ir.Node]:
    """Those of ``nodes``, producers before consumers, that nobody needs once ``output`` is computed otherwise."""
    gone: set[ir.Node] = set()
    for node in reversed(tuple(nodes)):
        read = (use.node not in gone for o in node.outputs if o is not output for use in o.uses())
        if not any(o.is_graph_output() for o in node.outputs if o is not output) and not any(read):
            gone.add(node)
    return gone


def widened(context: Context, x: ir.Value, dtype: spec.DType, nodes: Iterable[ir.Node]) -> ir.Value | None:
    """The Cast of ``x`` to ``dtype`` that the graph already has on the way into ``nodes``."""
    for node in nodes:
        for value in node.outputs:
            if value is not x and context.origin(value) is x and context.facts.float_type(value) is dtype:
                return value
    return None
