"""From what values mean to which nodes to emit: where each norm ends, what it takes in, and its types."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher import surround
from rmsnorm_onnx.matcher.context import CASTS, RESHAPES, Context, widens
from rmsnorm_onnx.matcher.known import DEFAULT_DOMAINS
from rmsnorm_onnx.matcher.match import Findings, Match, NearMiss, Scale
from rmsnorm_onnx.matcher.normalized import Normalized
from rmsnorm_onnx.matcher.statistic import Flaw


def select(context: Context) -> Findings:
    """All matches of a model that was read, each value covered once, and the near misses."""
    matches = []
    claimed: set[ir.Node] = set()
    for end in _ends(context):
        flaw = _misfit(context, end)
        if flaw is not None:
            context.report(flaw.node, flaw)
            continue
        match = _match(context, end, claimed)
        claimed.update(match.nodes)
        matches.append(match)
    unique: dict[tuple[ir.Node, spec.Why], NearMiss] = {}
    for miss in context.near_misses:
        unique.setdefault((miss.node, miss.why), miss)
    return Findings(tuple(matches), tuple(unique.values()), context.facts)


def _ends(context: Context) -> list[Normalized]:
    """The last value of each norm: where a consumer needs it as it is, or nothing extends it."""
    norms = [m for m in context.meanings.values() if isinstance(m, Normalized)]
    inner: set[ir.Value] = set()
    ends: dict[ir.Value, Normalized] = {}
    for norm in norms:
        if norm.parent is not None and norm.parent not in inner:
            continue
        if norm.value in context.refused:
            continue
        if _is_inner(context, norm):
            inner.add(norm.value)
            continue
        end = _without_trailing_casts(context, norm)
        ends.setdefault(end.value, end)
    return list(ends.values())


def _is_inner(context: Context, norm: Normalized) -> bool:
    if norm.value.is_graph_output() or norm.addends is not None:
        return False
    producer = norm.value.producer()
    children = []
    for use in norm.value.uses():
        if _only_reshapes(context, use.node):
            continue
        child = context.meaning(use.node.outputs[0])
        same_graph = producer is not None and use.node.graph is producer.graph
        if not isinstance(child, Normalized) or child.parent is not norm.value or not same_graph:
            return False
        children.append(child)
    if len(children) > 1 and norm.gain == 1:
        # Two norms that share one quotient; any other fork would compute the same norm twice.
        return norm.scale is None and all(child.scale is not None and child.gate is None for child in children)
    return bool(children)


def _only_reshapes(context: Context, node: ir.Node) -> bool:
    """Whether ``node`` reads a norm's shape for nothing but Reshapes inside the norm, and so goes with them."""
    if node.op_type != "Shape" or node.domain not in DEFAULT_DOMAINS or node.outputs[0].is_graph_output():
        return False
    readers = [use.node.outputs[0] for use in node.outputs[0].uses()]
    inside = (isinstance(context.meaning(r), Normalized) and context.exact_source(r) is not None for r in readers)
    return bool(readers) and all(inside)


def _without_trailing_casts(context: Context, norm: Normalized) -> Normalized:
    """The last value that belongs to the norm: a Cast only where it rounds back to x's own type.

    A gate that cannot be taken in, because X would have to be widened and the gate with it, stays outside too.
    """
    x_type = context.facts.float_type(norm.x)
    homes = {x_type, surround.ungated_type(context, norm.x)}
    while norm.parent is not None:
        node = norm.value.producer()
        assert node is not None
        gate_stays = norm.gate is not None and x_type is not None and widens(x_type, norm.dtype)
        copies = context.exact_source(norm.value) is not None
        reshapes = node.op_type in RESHAPES
        if not gate_stays and (copies if reshapes else not copies and node.op_type not in CASTS):
            return norm
        rounds = node.op_type in CASTS and not copies
        rounded_before = norm.narrowest.bits_of_precision < norm.dtype.bits_of_precision
        if not gate_stays and rounds and norm.dtype in homes and not rounded_before:
            return norm
        parent = context.meaning(norm.parent)
        assert isinstance(parent, Normalized)
        norm = parent
    return norm


def _misfit(context: Context, norm: Normalized) -> Flaw | None:
    """What makes a complete norm inexpressible."""
    node = norm.nodes[-1]
    if norm.gain != 1:
        shown = f"{norm.gain:.{9 if abs(norm.gain - 1) < 1e-5 else 6}g}"  # six digits of 1.00000002 would be 1
        factor = "an unknown factor" if math.isnan(norm.gain) else f"a factor of {shown}"
        return Flaw(spec.Why.NOT_A_MEAN, node, f"{factor} is left over")
    ranks = context.facts.rank(norm.value), context.facts.rank(norm.x)
    if norm.flat is None and None not in ranks and ranks[0] != ranks[1]:
        return Flaw(spec.Why.SCALE_WIDENS, node, f"x has {ranks[1]} axes, the result has {ranks[0]}")
    if context.facts.float_type(norm.x) is None:
        return Flaw(spec.Why.UNKNOWN_TYPE, node, f"'{norm.x.name}' has no known float type")
    return _imprecise(norm)


def _imprecise(norm: Normalized) -> Flaw | None:
    """The first constant that would be infinite, gone or, beside float64 arithmetic, inexact in the new node."""
    numbers = {name: getattr(norm.statistic, name) for name in ("floor", "epsilon_outside", "epsilon")}
    if isinstance(norm.scale, float) and norm.stash_type is spec.DType.FLOAT:
        numbers["the scale"] = norm.scale
    for name, number in numbers.items():
        coarse, low = spec.float32_pair(number)
        # Two float32 hold 48 bits; far below float32's range they hold fewer, down to none.
        lost = abs(number - coarse - low) > number * 2.0**-45 if name == "epsilon" else coarse != number
        inexact = norm.stash_type is spec.DType.DOUBLE and lost
        if math.isinf(coarse) or (coarse == 0) != (number == 0) or inexact:
            return Flaw(spec.Why.PRECISION, norm.nodes[-1], f"{name} is {number!r}")
    return None


def _match(context: Context, norm: Normalized, claimed: set[ir.Node]) -> Match:
    """The norm with all that belongs to it: a residual Add, or a gate before or after it."""
    plain = _plain(context, norm)
    if norm.addends is not None:
        return replace(plain, op=spec.SKIP, inputs=(*norm.addends, plain.inputs[-1]), sum=norm.total)
    x, scale = norm.x, plain.inputs[-1]
    if norm.gate is not None:
        return replace(plain, op=spec.GATED, inputs=(x, norm.gate, scale), ungated=_ungated(context, norm))
    if (gated := surround.gate_before(context, norm, plain.nodes)) is not None:
        narrow_y = norm.dtype if norm.dtype is not gated.dtype else None
        match = replace(plain, op=spec.PRE_GATED, inputs=(gated.x, gated.gate, scale), ungated=plain)
        match = replace(match, dtype=gated.dtype, widen_x=False, narrow_y=narrow_y)
        return _with_nodes(match, (*gated.nodes, *plain.nodes))
    widened = plain.widen_x or plain.inputs[0] is not x
    if not widened and (added := surround.residual(context, norm, scale, claimed)) is not None:
        gone = surround.dead(norm.value, plain.nodes)
        read = x.is_graph_output() or any(use.node not in gone for use in x.uses())
        match = replace(plain, op=spec.SKIP, inputs=(*added.inputs, scale), sum=x if read else None)
        return _with_nodes(match, (added, *plain.nodes))
    return plain


def _ungated(context: Context, norm: Normalized) -> Match | None:
    """The norm before its gate; None where one node is both."""
    while norm.gate is not None:
        parent = context.meaning(norm.parent)
        if not isinstance(parent, Normalized):
            return None
        norm = parent
    return _plain(context, _without_trailing_casts(context, norm))


def _plain(context: Context, norm: Normalized) -> Match:
    """The norm by itself."""
    x, t = norm.x, context.facts.float_type(norm.x)
    graph = norm.nodes[-1].graph
    assert t is not None
    assert graph is not None
    nodes = in_order(with_sources(context, norm.nodes, x))
    scale: Scale | None = context.origin(norm.scale) if isinstance(norm.scale, ir.Value) else norm.scale
    widens_x = widens(t, norm.dtype)
    dtype = norm.dtype if widens_x else t
    wide = surround.widened(context, x, dtype, nodes) if widens_x else x
    stash = norm.stash_type
    return Match(
        spec.RMS,
        graph,
        (wide if wide is not None else x, scale),
        wide is None,
        norm.value,
        None,
        dtype,
        norm.dtype if norm.dtype is not dtype else None,
        norm.statistic.axes,
        norm.statistic.epsilon,
        norm.statistic.floor,
        norm.statistic.epsilon_outside,
        stash,
        _rounding(_normalized_type(norm), stash),
        _rounding(norm.scaled_type, stash),
        norm.flat,
        nodes,
        _pattern(nodes),
    )


def _with_nodes(match: Match, nodes: tuple[ir.Node, ...]) -> Match:
    ordered = in_order(nodes)
    return replace(match, nodes=ordered, pattern=_pattern(ordered))


def _pattern(nodes: tuple[ir.Node, ...]) -> str:
    return "-".join(node.op_type for node in nodes)


def _normalized_type(norm: Normalized) -> spec.DType | None:
    """Type the quotient is rounded to before anything else happens to it."""
    if norm.scale is not None:
        return norm.normalized_type
    return norm.narrowest if norm.gate is None and norm.narrowest is not norm.dtype else None


def _rounding(dtype: spec.DType | None, stash: spec.DType) -> spec.DType:
    """What an attribute says: a type that rounds, or the stash type where nothing does."""
    return dtype if dtype is not None and dtype.bits_of_precision < stash.bits_of_precision else stash


def with_sources(context: Context, nodes: Iterable[ir.Node], x: ir.Value) -> tuple[ir.Node, ...]:
    """``nodes`` and the copies and widening Casts between ``x`` and them."""
    found = dict.fromkeys(nodes)
    for node in list(found):
        for value in node.inputs:
            if value is None or context.origin(value) is not x:
                continue
            while value is not x and value is not None:
                producer = value.producer()
                assert producer is not None
                found.setdefault(producer)
                value = context.exact_source(value)
    return tuple(found)


def in_order(nodes: Iterable[ir.Node]) -> tuple[ir.Node, ...]:
    """``nodes`` without repetitions, every producer before its consumers."""
    pending = dict.fromkeys(nodes)
    ordered: list[ir.Node] = []

    def visit(node: ir.Node) -> None:
        if node not in pending:
            return
        del pending[node]
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None:
                visit(producer)
        ordered.append(node)

    for node in list(pending):
        visit(node)
    return tuple(ordered)
