"""Graphs around norms: what stands before, after and beside them, and scopes they are in.

Each function writes a whole graph for two spellings and returns how many norms in it must be fused; the first norm
may carry a twist. ``pick`` chooses among the variants of one surrounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from numpy.random import Generator
from onnx import TensorProto
from zoo.emit import with_axes
from zoo.spelling import Shape, Spelling
from zoo.tape import Value

from rmsnorm_onnx.spec import DType

from . import twists
from .dialect import Dialect
from .twists import Twist


class Surrounding(Protocol):
    """Writes a graph and returns the number of norms in it."""

    def __call__(self, g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
        """``s`` spells the first norm, ``t`` any further one of values of the first one's shape."""


def x_input(g: Dialect, s: Spelling, name: str = "x") -> Value:
    return g.input(name, s.shape, s.dtype)


def _out(g: Dialect, value: Value, s: Spelling, name: str = "y") -> None:
    """An output of the shape of x: stated, because shape inference does not fold computed axes."""
    g.output(value, name, s.output_type, s.shape)


def _reduced(s: Spelling) -> Shape:
    """The shape of the statistic."""
    if s.keepdims == "dropped":
        return tuple(d for a, d in enumerate(s.shape) if a not in s.positive_axes)
    return tuple(1 if a in s.positive_axes else d for a, d in enumerate(s.shape))


def _row(s: Spelling) -> tuple[int, ...]:
    return s.concrete[-1:]


def stages(g: Dialect, x: Value, s: Spelling) -> tuple[Value, Value]:
    """Numerator and root of the norm of x, in the types of the quotient."""
    lifted = g.lift(x, s)
    root = g.root(g.mean_square(lifted, s), s)
    return (x, g.cast(root, s.dtype)) if s.quotient_in == "model" else (lifted, root)


def alone(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    _out(g, twists.norm(g, x_input(g, s), s, twist), s)
    return 1


def residual(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    total = g.op("Add", x_input(g, s), x_input(g, s, "z"))
    _out(g, twists.norm(g, total, s, twist), s)
    use = pick.integers(4)
    if use == 1:
        g.output(total, "sum", s.dtype, s.shape)
    if use >= 2:
        g.output(g.op("Tanh", total), "residual", s.dtype, s.shape)
    if use == 3:
        g.output(g.op("Add", total, x_input(g, s)), "again", s.dtype, s.shape)
    return 1


def residual_cast_shared(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """The residual branch reads the widened sum."""
    total = g.op("Add", x_input(g, s), x_input(g, s, "z"))
    lifted = g.lift(total, s)
    inner = _unlifted(s)
    y = twists.norm(g, lifted, inner, twist)
    g.output(g.op("Tanh", y), "y", inner.output_type, s.shape)
    g.output(g.op("Neg", lifted), "residual", s.working, s.shape)
    return 1


def _unlifted(s: Spelling) -> Spelling:
    return replace(s, dtype=s.working, stash=None, quotient_in="stash", cast_out="after-scale", scale_type=None)


def addend_broadcast(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    shape = tuple(1 if pick.random() < 0.5 else d for d in s.shape)[pick.integers(s.rank) :]
    addend = g.input("z", shape, s.dtype) if pick.random() < 0.5 else g.weight("addend", _row(s), s.dtype)
    total = g.op("Add", *((x_input(g, s), addend) if pick.random() < 0.5 else (addend, x_input(g, s))))
    _out(g, twists.norm(g, total, s, twist), s)
    if pick.random() < 0.5:
        g.output(total, "sum", s.dtype, s.shape)
    return 1


def addend_widens(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """The second addend is the larger one."""
    small = g.input("small", tuple(1 for _ in s.shape), s.dtype)
    _out(g, twists.norm(g, g.op("Add", small, x_input(g, s)), s, twist), s)
    return 1


def _silu(g: Dialect, z: Value, dtype: DType, pick: Generator) -> Value:
    if g.opset >= 24 and pick.random() < 0.5 and dtype is not DType.DOUBLE:
        return g.op("Swish", z)
    return g.op("Mul", z, g.op("Sigmoid", z))


def gate_after(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    x, z = x_input(g, s), x_input(g, s, "z")
    y = twists.norm(g, x, s, twist)
    dtype = DType.FLOAT if pick.random() < 0.5 and s.output_type is not DType.DOUBLE else s.output_type
    y, z = (v if source is dtype else g.cast(v, dtype) for v, source in ((y, s.output_type), (z, s.dtype)))
    gate = g.op("Sigmoid", z) if pick.random() < 0.1 else _silu(g, z, dtype, pick)
    gated = g.op("Mul", *((y, gate) if pick.random() < 0.5 else (gate, y)))
    g.output(g.cast(gated, s.output_type), "y", s.output_type, s.shape)
    if pick.random() < 0.2:
        g.output(g.op("Tanh", gate), "gate", dtype, s.shape)
    return 1


def gate_after_and_plain(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """The ungated value, or its scaled form, is needed as well."""
    y = twists.norm(g, x_input(g, s), s, twist)
    z = g.input("z", s.shape, s.output_type)
    g.output(g.op("Mul", y, _silu(g, z, s.output_type, pick)), "gated", s.output_type, s.shape)
    _out(g, g.op("Tanh", y), s)
    return 1


def gate_before(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    shape = s.shape if pick.random() < 0.8 else (*s.shape[:-1], 1)
    x, z = x_input(g, s), g.input("z", shape, s.dtype)
    gate = g.op("Mul", z, g.op("Sigmoid", x)) if pick.random() < 0.1 and shape == s.shape else None
    gate = gate or _silu(g, z, s.dtype, pick)
    product = g.op("Mul", *((x, gate) if pick.random() < 0.5 else (gate, x)))
    _out(g, twists.norm(g, product, s, twist), s)
    if pick.random() < 0.2:
        g.output(g.op("Neg", product), "product", s.dtype, s.shape)
    return 1


def gate_before_wide(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """Gate and norm in the type of the statistics, x and gate in the model's."""
    x, z = g.lift(x_input(g, s), s), g.lift(x_input(g, s, "z"), s)
    y = twists.norm(g, g.op("Mul", x, _silu(g, z, s.working, pick)), _unlifted(s), twist)
    if s.stash and pick.random() < 0.7:
        g.output(g.op("Mul", g.cast(y, s.dtype), g.weight("late", _row(s), s.dtype)), "y", s.dtype, s.shape)
    else:
        g.output(y, "y", s.working, s.shape)
    return 1


def shared_root(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """Norms that share one root, each with its own scale."""
    x = x_input(g, s)
    numerator, root = stages(g, x, s)
    count = int(pick.integers(2, 4))
    for k in range(count):
        y = g.scaled(g.normalized(numerator, root, s), s, g.weight(f"own_{k}", _row(s), s.scale_working))
        _out(g, y, s, f"y_{k}")
    if pick.random() < 0.3:
        g.output(g.op("Neg", root), "root", s.dtype if s.quotient_in == "model" else s.working, _reduced(s))
    return count


def shared_mean(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    x = g.lift(x_input(g, s), s)
    mean = g.mean_square(x, s)
    for k, epsilon in enumerate((s.epsilon, 2.0**-9)):
        other = replace(s, epsilon=epsilon, quotient_in="stash")
        _out(g, g.scaled(g.normalized(x, g.root(mean, other), other), other), other, f"y_{k}")
    if pick.random() < 0.3:
        g.output(g.op("Tanh", mean), "mean", s.working, _reduced(s))
    return 2


def shared_quotient(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    normalized = g.normalized(*stages(g, x_input(g, s), s), s)
    for k in range(2):
        _out(g, g.scaled(normalized, s, g.weight(f"own_{k}", _row(s), s.scale_working)), s, f"y_{k}")
    if pick.random() < 0.4:
        g.output(g.op("Tanh", normalized), "normalized", s.dtype if s.quotient_in == "model" else s.working, s.shape)
    return 1


def inner_outputs(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """A value inside the norm is a graph output."""
    x = x_input(g, s)
    lifted = g.lift(x, s)
    mean = g.mean_square(lifted, s)
    root = g.root(mean, s)
    model = s.quotient_in == "model"
    numerator, denominator = (x, g.cast(root, s.dtype)) if model else (lifted, root)
    normalized = g.normalized(numerator, denominator, s)
    _out(g, g.op("Tanh", g.scaled(normalized, s)), s)
    result = s.dtype if s.quotient_in == "model" else s.working
    kinds = {
        "mean": (mean, s.working, _reduced(s)),
        "root": (root, s.working, _reduced(s)),
        "normalized": (normalized, result, s.shape),
    }
    name = str(pick.choice(list(kinds)))
    value, dtype, shape = kinds[name]
    g.output(value, name, dtype, shape)
    return 1


def twice(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """Two norms of one value, and maybe their product or sum."""
    x = x_input(g, s)
    a, b = twists.norm(g, x, s, twist), g.norm(x, t)
    kind = pick.integers(3)
    if kind == 0 or s.output_type is not t.output_type:
        _out(g, a, s, "a")
        _out(g, b, t, "b")
    else:
        _out(g, g.op("Mul" if kind == 1 else "Add", a, b), s)
    return 2


def chain(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    x = x_input(g, s)
    y = twists.norm(g, x, s, twist)
    y = y if s.output_type is s.dtype else g.cast(y, s.dtype)
    if pick.random() < 0.6:
        y = g.op("Tanh", y)
    stream = g.op("Add", x, y) if pick.random() < 0.6 else y
    z = g.norm(stream, t)
    if pick.random() < 0.5:
        z = g.op("Add", stream, z if t.output_type is t.dtype else g.cast(z, t.dtype))
        g.output(z, "y", t.dtype, s.shape)
    else:
        _out(g, z, t)
    return 2


def post_norm(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    y = twists.norm(g, x_input(g, s), s, twist)
    _out(g, g.op("Add", g.input("z", s.shape, s.output_type), y), s)
    return 1


def before(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """X is made by another operator."""
    x = x_input(g, s)
    kind = pick.integers(6)
    if kind == 0:
        x = g.op("Sub", x, x_input(g, s, "z"))
    elif kind == 1:
        x = g.op("Mul", x, x_input(g, s, "z"))
    elif kind == 2:
        x = g.op("Add", x, x)
    elif kind == 3:
        x = g.op("Mul", x, g.number(2, s.dtype))
    elif kind == 4:
        x = g.op(str(pick.choice(["Tanh", "Relu", "Abs", "Neg", "Sigmoid"])), x)
    else:
        x = g.cast(g.input("wide", s.shape, DType.DOUBLE), s.dtype)
    _out(g, twists.norm(g, x, s, twist), s)
    return 1


def after(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    y = twists.norm(g, x_input(g, s), s, twist)
    kind, shape = pick.integers(5), s.shape
    if kind == 0:
        y = g.op("MatMul", y, g.weight("down", (s.concrete[-1], 3), s.output_type))
        shape = (*s.shape[:-1], 3)
    elif kind == 1:
        y, shape = g.op("Transpose", y, perm=list(range(s.rank))[::-1]), s.shape[::-1]
    elif kind == 2:
        y = g.op("Sub", y, g.weight("off", _row(s), s.output_type))
    elif kind == 3:
        y, shape = g.op("Reshape", y, g.constant([-1], TensorProto.INT64)), ("N",)
    else:
        y = g.op("Mul", g.op("Sigmoid", y), y)
    g.output(y, "y", s.output_type, shape)
    return 1


def grouped(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """Reshaped to groups, normalized, reshaped back, scaled in full width."""
    wide = (*s.shape[:-1], 2 * s.concrete[-1])
    x = g.reshape(g.input("x", wide, s.dtype), [*([0] * (s.rank - 1)), 2, s.concrete[-1]])
    last = _last_axis(s)
    y = g.reshape(twists.norm(g, x, last, twist), [*([0] * (s.rank - 1)), wide[-1]])
    g.output(g.op("Mul", y, g.weight("wide", wide[-1:], last.output_type)), "y", last.output_type, wide)
    return 1


def _last_axis(s: Spelling) -> Spelling:
    mean = "ReduceMean" if s.mean == "GlobalAveragePool" else s.mean
    keepdims = "kept" if s.keepdims == "dropped" else s.keepdims
    shape = (*s.shape[:-1], 2, s.concrete[-1])
    return replace(s, shape=shape, axes=(-1,), mean=mean, keepdims=keepdims, scale_shape=_row(s), epsilon_shape=())


def scale_of_x(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """The scale depends on the value that is normalized."""
    x = g.op("Add", x_input(g, s), x_input(g, s, "z"))
    scale = g.cast(g.op("Sigmoid", with_axes(g, "ReduceMean", x, [-1])), s.scale_working)
    _out(g, twists.norm(g, x, s, twist, scale if s.scale_at == "normalized" else None), s)
    return 1


def unit_vectors(g: Dialect, s: Spelling, t: Spelling, twist: Twist | None, pick: Generator) -> int:
    """Forms by the 2-norm: x / (|x| / sqrt(n) + epsilon), x / max(|x|, tiny) * sqrt(n), LpNormalization * sqrt(n)."""
    x, n = x_input(g, s), s.concrete[-1]
    kind = pick.integers(3)
    if kind == 2:
        y = g.op("Mul", g.op("LpNormalization", x, axis=-1, p=2), g.number(n**0.5, s.dtype))
    else:
        length = with_axes(g, "ReduceL2", x, [-1])
        if kind == 0:
            length = g.op("Add", g.op("Mul", length, g.number(n**-0.5, s.dtype)), g.number(2**-10, s.dtype))
        else:
            length = g.op("Max", length, g.number(2**-8, s.dtype))
        y = g.op("Div", x, length)
        y = y if kind == 0 else g.op("Mul", g.number(n**0.5, s.dtype), y)
    if s.scale is not None:
        y = g.op("Mul", y, g.weight("scale", (n,), s.dtype))
    g.output(y, "y", s.dtype, s.shape)
    return 1
