"""Norms in If branches, Loop bodies and model-local functions, and the tables of all surroundings."""

from __future__ import annotations

from numpy.random import Generator
from onnx import TensorProto
from zoo.spelling import Shape, Spelling
from zoo.tape import Value

from rmsnorm_onnx.spec import DType

from . import twists
from .dialect import Dialect
from .surroundings import (
    Surrounding,
    addend_broadcast,
    addend_widens,
    after,
    alone,
    before,
    chain,
    gate_after,
    gate_after_and_plain,
    gate_before,
    gate_before_wide,
    grouped,
    inner_outputs,
    post_norm,
    residual,
    residual_cast_shared,
    scale_of_x,
    shared_mean,
    shared_quotient,
    shared_root,
    stages,
    twice,
    unit_vectors,
    x_input,
)  # fmt: skip
from .twists import Twist


def in_branch(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    x = g.op("Tanh", x_input(g, s)) if pick.random() < 0.5 else x_input(g, s)
    condition = g.input("condition", (), TensorProto.BOOL)
    second = pick.random() < 0.5 and t.output_type is s.output_type

    def other() -> Value:
        return g.norm(x, t) if second else g.cast(g.op("Neg", x), s.output_type)

    y = g.branch(condition, lambda: twists.norm(g, x, s, twist), other)
    g.output(y, "y", s.output_type, s.shape)
    return 1 + second


def branch_reads_stages(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """A branch captures the root, the normalized value or the residual sum of the main graph."""
    x = g.op("Add", x_input(g, s), x_input(g, s, "z"))
    lifted, root = stages(g, x, s)
    normalized = g.normalized(lifted, root, s)
    y = g.scaled(normalized, s)
    captured = (x, root, normalized, lifted)[pick.integers(4)]
    condition = g.input("condition", (), TensorProto.BOOL)
    result = g.branch(
        condition,
        lambda: g.cast(g.op("Tanh", captured), s.output_type),
        lambda: g.cast(g.op("Neg", captured), s.output_type),
    )
    g.output(g.op("Add", y, result), "y", s.output_type, s.shape)
    return 1


def branch_finishes(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """The statistic is computed outside, the quotient in the branch."""
    x = x_input(g, s)
    lifted, root = stages(g, x, s)
    y = g.branch(
        g.input("condition", (), TensorProto.BOOL),
        lambda: g.scaled(g.normalized(lifted, root, s), s),
        lambda: g.cast(x, s.output_type),
    )
    g.output(y, "y", s.output_type, s.shape)
    return 0


def in_function(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    x = x_input(g, s)
    y = g.call("norm", lambda v: twists.norm(g, v, s, twist), x)
    if pick.random() < 0.5:
        y = g.op("Max", y, g.call("norm", lambda v: v, g.input("other", s.shape, s.dtype)))
    g.output(y, "y", s.output_type, s.shape)
    return 1


def residual_in_function(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """The addition is in the function as well, or only its second operand comes from outside."""
    y = g.call("layer", lambda a, b: twists.norm(g, g.op("Add", a, b), s, twist), x_input(g, s), x_input(g, s, "z"))
    g.output(y, "y", s.output_type, s.shape)
    return 1


def in_loop(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    shape: Shape = s.shape
    outer = g.input("x", shape, DType.FLOAT)
    add = pick.random() < 0.5

    def body(carried: Value) -> Value:
        return twists.norm(g, g.op("Add", carried, outer) if add else carried, s, twist)

    g.output(g.loop(2, body, outer, shape), "y", DType.FLOAT, shape)
    return 1


TWISTABLE: dict[str, Surrounding] = {
    f.__name__: f
    for f in (
        alone, residual, residual_cast_shared, addend_broadcast, addend_widens, gate_after, gate_after_and_plain,
        gate_before, gate_before_wide, twice, chain, post_norm, before, after, grouped, scale_of_x, in_branch,
        in_function, residual_in_function, in_loop,
    )
}  # fmt: skip
UNTWISTED: dict[str, Surrounding] = {
    f.__name__: f
    for f in (
        shared_root, shared_mean, shared_quotient, inner_outputs, branch_reads_stages, branch_finishes, unit_vectors,
    )
}  # fmt: skip
SURROUNDINGS: dict[str, Surrounding] = {**TWISTABLE, **UNTWISTED}
#: Surroundings whose norm is in a function, where there are no graph inputs.
CLOSED = frozenset({"in_function", "residual_in_function"})
