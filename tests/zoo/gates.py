"""Norms before and after a gate: what GatedRMSNormalization and PreGatedRMSNormalization say, and what they do not."""

from __future__ import annotations

from rmsnorm_onnx.spec import GATED, PRE_GATED, RMS, DType

from .case import Case, Program, case
from .spelling import Spelling
from .structures import BARE, DYNAMO, LLAMA16, PLAIN, X, two
from .tape import Tape, Value

F16, F32 = DType.FLOAT16, DType.FLOAT


def silu(g: Tape, gate: Value) -> Value:
    """Return ``gate * sigmoid(gate)``."""
    return g.op("Mul", gate, g.op("Sigmoid", gate))


def gated(g: Tape) -> None:
    x, gate = two(g)
    g.output(g.op("Mul", g.norm(x, DYNAMO), silu(g, gate)), "y")


def gated_left(g: Tape) -> None:
    x, gate = two(g)
    g.output(g.op("Mul", silu(g, gate), g.norm(x, PLAIN)), "y")


def gated_unscaled(g: Tape) -> None:
    x, gate = two(g)
    g.output(g.op("Mul", g.norm(x, BARE), silu(g, gate)), "y")


def gated_swish(g: Tape) -> None:
    x, gate = two(g)
    g.output(g.op("Mul", g.norm(x, PLAIN), g.op("Swish", gate)), "y")


def gated_qwen3_next(g: Tape) -> None:
    """Norm rounded, scaled in float16, gated in float32, rounded."""
    x, gate = two(g, F16)
    scaled = g.cast(g.norm(x, LLAMA16), F32)
    g.output(g.cast(g.op("Mul", scaled, silu(g, g.cast(gate, F32))), F16), "y", F16)


def gated_float(g: Tape) -> None:
    """Float16 in and out, everything between in float32."""
    x, gate = two(g, F16)
    scaled = g.norm(x, Spelling(dtype=F16, stash=F32, cast_out="never"))
    g.output(g.cast(g.op("Mul", scaled, silu(g, g.cast(gate, F32))), F16), "y", F16)


def gate_in_half(g: Tape) -> None:
    """The gate's silu is rounded to float16 at each step, which the operator does not do."""
    x, gate = two(g, F16)
    g.output(g.op("Mul", g.norm(x, LLAMA16), silu(g, gate)), "y", F16)


def gate_broadcast(g: Tape) -> None:
    g.output(g.op("Mul", g.norm(g.input("x", X), PLAIN), silu(g, g.input("z", ("B", 1, 8)))), "y")


def gate_sigmoid(g: Tape) -> None:
    x, gate = two(g)
    g.output(g.op("Mul", g.norm(x, PLAIN), g.op("Sigmoid", gate)), "y")


def gate_silu_of_another(g: Tape) -> None:
    """The product z * Sigmoid(x) is no silu."""
    x, z = two(g)
    g.output(g.op("Mul", g.norm(x, PLAIN), g.op("Mul", z, g.op("Sigmoid", x))), "y")


def gated_and_ungated(g: Tape) -> None:
    x, gate = two(g)
    y = g.norm(x, PLAIN)
    gated = g.op("Mul", y, silu(g, gate))
    g.output(gated, "gated")
    g.output(g.op("Tanh", y), "y")


def pre_gated(g: Tape) -> None:
    x, gate = two(g)
    g.output(g.norm(g.op("Mul", x, silu(g, gate)), DYNAMO), "y")


def pre_gated_left(g: Tape) -> None:
    x, gate = two(g)
    g.output(g.norm(g.op("Mul", silu(g, gate), x), PLAIN), "y")


def pre_gated_mamba(g: Tape) -> None:
    """Gate and statistics in float32, rounded to float16, then scaled."""
    x, gate = two(g, F16)
    product = g.op("Mul", g.cast(x, F32), silu(g, g.cast(gate, F32)))
    inner = Spelling(quotient="reciprocal", scale=None)
    y = g.op("Mul", g.weight("scale", (8,), F16), g.cast(g.norm(product, inner), F16))
    g.output(y, "y", F16)


def pre_gate_broadcast(g: Tape) -> None:
    g.output(g.norm(g.op("Mul", g.input("x", X), silu(g, g.input("z", ("B", 1, 8)))), PLAIN), "y")


_R, _G, _P = RMS.name, GATED.name, PRE_GATED.name

#: program -> (nodes per operator, what it shows)
_TABLE: dict[Program, tuple[dict[str, int], str]] = {
    gated: ({_G: 1}, "norm * scale * silu(gate)"),
    gated_left: ({_G: 1}, "silu(gate) on the left"),
    gated_unscaled: ({_G: 1}, "norm * silu(gate), no scale"),
    gated_swish: ({_G: 1}, "silu as one node"),
    gated_qwen3_next: ({_G: 1}, "Qwen3-Next in float16"),
    gated_float: ({_G: 1}, "gated in float32, one rounding to float16"),
    gate_in_half: ({_R: 1}, "silu computed in float16"),
    gate_broadcast: ({_R: 1}, "a gate that is broadcast"),
    gate_sigmoid: ({_R: 1}, "sigmoid instead of silu"),
    gate_silu_of_another: ({_R: 1}, "z * sigmoid(x)"),
    gated_and_ungated: ({_R: 1}, "the scaled value is used without its gate too"),
    pre_gated: ({_P: 1}, "norm of x * silu(gate)"),
    pre_gated_left: ({_P: 1}, "norm of silu(gate) * x"),
    pre_gated_mamba: ({_P: 1}, "Mamba-2 in float16"),
    pre_gate_broadcast: ({_R: 1}, "norm of x times a broadcast gate"),
}
_HALF = {gated_qwen3_next, gated_float, gate_in_half, pre_gated_mamba}

GATES: tuple[Case, ...] = tuple(
    case(
        program,
        shows,
        fuses=operators,
        opset=24 if program is gated_swish else 18,
        precision=F16 if program in _HALF else F32,
        # onnxruntime 1.31 has no kernel for Swish
        runtime="reference" if program is gated_swish else "onnxruntime",
    )
    for program, (operators, shows) in _TABLE.items()
)
