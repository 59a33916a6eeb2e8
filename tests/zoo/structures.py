"""Norms among other nodes: residual additions, shared statistics, several outputs."""

from __future__ import annotations

from rmsnorm_onnx.spec import RMS, SKIP, DType

from .case import Case, Program, case
from .spelling import Spelling
from .tape import Tape, Value

F16, F32 = DType.FLOAT16, DType.FLOAT
X = ("B", "S", 8)

PLAIN = Spelling()
DYNAMO = Spelling(quotient="reciprocal", epsilon=1e-6)
BARE = Spelling(scale=None)
LLAMA16 = Spelling(dtype=F16, stash=F32, quotient="reciprocal", cast_out="before-scale", scale_side="left")
GEMMA16 = Spelling(dtype=F16, stash=F32, quotient="reciprocal", scale="1+w")


def two(g: Tape, dtype: DType = F32) -> tuple[Value, Value]:
    """Two inputs of one shape."""
    return g.input("x", X, dtype), g.input("z", X, dtype)


# residual


def skip(g: Tape) -> None:
    g.output(g.norm(g.op("Add", *two(g)), DYNAMO), "y")


def skip_output(g: Tape) -> None:
    total = g.op("Add", *two(g))
    y = g.norm(total, PLAIN)
    g.output(y, "y")
    g.output(total, "sum")


def skip_used(g: Tape) -> None:
    total = g.op("Add", *two(g))
    y = g.op("MatMul", g.norm(total, PLAIN), g.weight("down", (8, 8)))
    g.output(g.op("Add", total, y), "y")


def skip_half(g: Tape) -> None:
    total = g.op("Add", *two(g, F16))
    y = g.norm(total, LLAMA16)
    g.output(y, "y", F16)
    g.output(total, "sum", F16)


def skip_cast_shared(g: Tape) -> None:
    """The float32 copy of the sum serves the norm and the next layer's residual."""
    lifted = g.cast(g.op("Add", *two(g, F16)), F32)
    g.output(g.cast(g.norm(lifted, PLAIN), F16), "y", F16)
    g.output(g.op("Tanh", lifted), "residual")


def skip_float_out(g: Tape) -> None:
    """Sum in float16, norm in float32 and not rounded back: Y would have another type than X."""
    g.output(g.norm(g.op("Add", *two(g, F16)), Spelling(dtype=F16, stash=F32, cast_out="never")), "y")


def skip_same(g: Tape) -> None:
    x = g.input("x", X)
    g.output(g.norm(g.op("Add", x, x), PLAIN), "y")


def skip_bias(g: Tape) -> None:
    x, z = two(g)
    biased = g.op("Add", g.op("MatMul", x, g.weight("up", (8, 8))), g.weight("up_bias", (8,)))
    g.output(g.norm(g.op("Add", biased, z), PLAIN), "y")


def bias_only(g: Tape) -> None:
    g.output(g.norm(g.op("Add", g.weight("in_bias", (8,)), g.input("x", X)), PLAIN), "y")


def add_row(g: Tape) -> None:
    g.output(g.norm(g.op("Add", g.input("x", X), g.input("z", ("B", 1, 8))), PLAIN), "y")


def add_constant(g: Tape) -> None:
    g.output(g.norm(g.op("Add", g.input("x", X), g.constant(0.5)), PLAIN), "y")


def add_other_symbol(g: Tape) -> None:
    """T is 1 in one call and S in the next: the sum's shape cannot be promised."""
    g.output(g.norm(g.op("Add", g.input("x", X), g.input("z", ("B", "T", 8))), PLAIN), "y")


def post_norm(g: Tape) -> None:
    x, z = two(g)
    g.output(g.op("Add", x, g.norm(z, PLAIN)), "y")


def chain(g: Tape) -> None:
    """Two decoder layers: embedding norm, then an addition before each further norm."""
    stream = g.input("x", X)
    y = g.norm(stream, DYNAMO)
    for layer in range(2):
        for part in ("attention", "mlp"):
            stream = g.op("Add", stream, g.op("Tanh", g.op("MatMul", y, g.weight(f"{part}_{layer}", (8, 8)))))
            y = g.norm(stream, DYNAMO, g.weight(f"norm_{part}_{layer}", (8,)))
    g.output(y, "y")


# shared values


def shared_statistic(g: Tape) -> None:
    x = g.input("x", X)
    root = g.root(g.mean_square(x, PLAIN), PLAIN)
    for name in ("query", "key", "value"):
        g.output(g.scaled(g.normalized(x, root, PLAIN), PLAIN, g.weight(name, (8,))), f"y_{name}")


def shared_mean(g: Tape) -> None:
    """Two norms of one mean with two epsilons."""
    x = g.input("x", X)
    mean = g.mean_square(x, PLAIN)
    for name, s in (("a", PLAIN), ("b", Spelling(epsilon=1e-2))):
        g.output(g.scaled(g.normalized(x, g.root(mean, s), s), s), f"y_{name}")


def twice(g: Tape) -> None:
    x = g.input("x", X)
    for name in ("first", "second"):
        g.output(g.norm(x, PLAIN, g.weight(name, (8,))), f"y_{name}")


def mean_output(g: Tape) -> None:
    x = g.input("x", X)
    mean = g.mean_square(x, PLAIN)
    y = g.scaled(g.normalized(x, g.root(mean, PLAIN), PLAIN), PLAIN)
    g.output(y, "y")
    g.output(mean, "mean")


def root_output(g: Tape) -> None:
    x = g.input("x", X)
    root = g.root(g.mean_square(x, PLAIN), PLAIN)
    y = g.scaled(g.normalized(x, root, PLAIN), PLAIN)
    g.output(y, "y")
    g.output(root, "root")


def two_scales(g: Tape) -> None:
    x = g.input("x", X)
    normalized = g.normalized(x, g.root(g.mean_square(x, PLAIN), PLAIN), PLAIN)
    for name in ("a", "b"):
        g.output(g.scaled(normalized, PLAIN, g.weight(name, (8,))), f"y_{name}")


def normalized_output(g: Tape) -> None:
    x = g.input("x", X)
    normalized = g.normalized(x, g.root(g.mean_square(x, PLAIN), PLAIN), PLAIN)
    y = g.scaled(normalized, PLAIN)
    g.output(y, "y")
    g.output(normalized, "normalized")


def sequence(g: Tape) -> None:
    g.output(g.norm(g.norm(g.input("x", X), PLAIN), DYNAMO, g.weight("second", (8,))), "y")


# around


def difference(g: Tape) -> None:
    """A subtraction in front is not a mean that is subtracted."""
    g.output(g.norm(g.op("Sub", *two(g)), PLAIN), "y")


def integers_cast(g: Tape) -> None:
    g.output(g.norm(g.cast(g.input("x", X, 6), F32), PLAIN), "y")


def double_lowered(g: Tape) -> None:
    g.output(g.norm(g.cast(g.input("x", X, DType.DOUBLE), F32), PLAIN), "y")


def unknown_rank(g: Tape) -> None:
    x = g.op("Reshape", g.input("x", X), g.op("Abs", g.constant([2, 3, 8], 7)))
    g.output(g.norm(x, BARE), "y", shape=("I", "J", "K"))


def heads(g: Tape) -> None:
    """Query norm: per head, on a reshaped and transposed projection."""
    q = g.reshape(g.op("MatMul", g.input("x", X), g.weight("query", (8, 16))), (0, 0, 2, 8))
    g.output(g.op("Transpose", g.norm(q, LLAMA32), perm=[0, 2, 1, 3]), "y")


def grouped(g: Tape) -> None:
    """Groups of 8, and a scale of the ungrouped width behind the way back."""
    x = g.input("x", ("B", "S", 16))
    y = g.reshape(g.norm(g.reshape(x, (0, 0, 2, 8)), BARE), (0, 0, 16))
    g.output(g.op("Mul", y, g.weight("wide", (16,))), "y")


def grouped_widened(g: Tape) -> None:
    """Groups normalized in float32 after a change of sign, so that X is float32 and the result is not."""
    x = g.input("x", ("B", "S", 16), F16)
    wide = g.op("Neg", g.cast(g.reshape(x, (0, 0, 2, 8)), F32))
    y = g.reshape(g.cast(g.norm(wide, BARE), F16), (0, 0, 16))
    g.output(g.op("Mul", y, g.weight("wide", (16,), F16)), "y", F16, ("B", "S", 16))


def there_and_back(g: Tape) -> None:
    """The root loses its last axis, and gets it again before the division."""
    x = g.input("x", X)
    root = g.root(g.mean_square(x, PLAIN), PLAIN)
    flat = g.op("Squeeze", g.op("Unsqueeze", root, g.constant([0], 7)), g.constant([-1], 7))
    back = g.op("Squeeze", g.op("Unsqueeze", flat, g.constant([-1], 7)), g.constant([0], 7))
    g.output(g.scaled(g.op("Div", x, back), PLAIN), "y")


def neg_neg(g: Tape) -> None:
    """The sign changes twice."""
    x = g.input("x", X)
    square = g.mean_square(x, PLAIN)
    twice = g.op("Neg", g.op("Neg", x))
    g.output(g.scaled(g.op("Div", twice, g.root(square, PLAIN)), PLAIN), "y")


def multiplied_by_activation(g: Tape) -> None:
    """A gate of x's shape multiplies x before the division: it can only be the scale."""
    x, gate = g.input("x", X), g.input("gate", X)
    root = g.root(g.mean_square(x, PLAIN), PLAIN)
    g.output(g.op("Div", g.op("Mul", x, gate), root), "y")


def dequantized(g: Tape) -> None:
    """Between a DequantizeLinear and a MatMul."""
    x = g.op("DequantizeLinear", g.input("x", X, 2), g.constant(0.03), g.constant(128, 2))
    g.output(g.op("MatMul", g.norm(x, PLAIN), g.weight("up", (8, 8))), "y")


def paper(g: Tape) -> None:
    """The published code: x / (norm(x, 2) * n ** -0.5 + epsilon) * scale."""
    x = g.input("x", X)
    length = g.op("ReduceL2", x, g.constant([-1], 7))
    rms = g.op("Add", g.op("Mul", length, g.constant(8**-0.5)), g.constant(1e-4))
    g.output(g.op("Mul", g.weight("scale", (8,)), g.op("Div", x, rms)), "y")


def unit_vectors_times_root(g: Tape) -> None:
    """F.normalize(x) * sqrt(n) * w: a norm whose lower bound is on the 2-norm."""
    x = g.input("x", X)
    length = g.op("Clip", g.op("ReduceL2", x, g.constant([-1], 7)), g.constant(1e-12))
    y = g.op("Mul", g.op("Div", x, length), g.constant(8**0.5))
    g.output(g.op("Mul", y, g.weight("scale", (8,))), "y")


def lp_normalization_times_root(g: Tape) -> None:
    x = g.op("LpNormalization", g.input("x", X), axis=-1, p=2)
    g.output(g.op("Mul", g.op("Mul", x, g.constant(8**0.5)), g.weight("scale", (8,))), "y")


LLAMA32 = Spelling(quotient="reciprocal", scale_side="left", shape=("B", "S", 2, 8))

_S, _R = SKIP.name, RMS.name

#: program -> (nodes per operator, what it shows)
_TABLE: dict[Program, tuple[dict[str, int], str]] = {
    skip: ({_S: 1}, "residual addition, the sum not used again"),
    skip_output: ({_S: 1}, "residual addition, the sum a graph output"),
    skip_used: ({_S: 1}, "residual addition, the sum used by the next one"),
    skip_half: ({_S: 1}, "residual addition in float16, norm in float32"),
    skip_cast_shared: ({_S: 1}, "the residual branch reads the cast as well"),
    skip_float_out: ({_R: 1}, "the sum is float16, the norm stays float32"),
    skip_same: ({_S: 1}, "x + x"),
    skip_bias: ({_S: 1}, "a bias in front of the residual addition"),
    bias_only: ({_R: 1}, "only a bias is added: no residual"),
    add_row: ({_R: 1}, "an addend that is broadcast"),
    add_constant: ({_R: 1}, "a constant is added"),
    add_other_symbol: ({_R: 1}, "an addend whose shape cannot be proven equal"),
    post_norm: ({_R: 1}, "norm first, then the addition"),
    chain: ({_R: 1, _S: 4}, "two decoder layers"),
    shared_statistic: ({_R: 3}, "three norms that share one root"),
    shared_mean: ({_R: 2}, "two norms that share one mean, two epsilons"),
    twice: ({_R: 2}, "the same norm with two scales, each written out"),
    mean_output: ({_R: 1}, "the mean square is a graph output"),
    root_output: ({_R: 1}, "the root is a graph output"),
    two_scales: ({_R: 2}, "one normalized value, two scales"),
    normalized_output: ({_R: 1}, "the unscaled value is a graph output"),
    sequence: ({_R: 2}, "a norm of a norm"),
    difference: ({_R: 1}, "norm of a difference"),
    integers_cast: ({_R: 1}, "integers cast to float first"),
    double_lowered: ({_R: 1}, "float64 lowered to float32 first"),
    unknown_rank: ({_R: 1}, "x of unknown rank, negative axis"),
    heads: ({_R: 1}, "query norm per head"),
    grouped: ({_R: 1}, "grouped, scale behind the Reshape"),
    grouped_widened: ({_R: 1}, "grouped, X wider than the result"),
    there_and_back: ({_R: 1}, "axes of the root dropped and put back"),
    neg_neg: ({_R: 1}, "minus minus x"),
    multiplied_by_activation: ({_R: 1}, "x times an activation, over the root"),
    dequantized: ({_R: 1}, "between quantized operators"),
    paper: ({_R: 1}, "2-norm times 1/sqrt(n), epsilon outside"),
    unit_vectors_times_root: ({_R: 1}, "unit vectors times sqrt(n)"),
    lp_normalization_times_root: ({_R: 1}, "LpNormalization times sqrt(n)"),
}
_HALF = {skip_half, skip_cast_shared, skip_float_out, grouped_widened}

STRUCTURES: tuple[Case, ...] = tuple(
    case(
        program,
        shows,
        fuses=operators,
        opset=21 if program is dequantized else 18,
        precision=F16 if program in _HALF else F32,
    )
    for program, (operators, shows) in _TABLE.items()
)
