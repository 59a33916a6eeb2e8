"""Small decoders in the conventions of the tools that write them, for the tests of their inputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser

ROWS, HEADS, SIZE, MOST = 11, 2, 16, 64
_HEADER = '<ir_version: 9, opset_import: ["" : 18, "com.microsoft" : 1]>'


def parse(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """A model from ONNX's text form; ``weights`` become initializers."""
    model: onnx.ModelProto = parser.parse_model(f"{_HEADER} {text}")
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items())
    return model


def _weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return (generator.standard_normal(shape) / 4).astype(np.float32)

    angles = np.outer(np.arange(MOST), 1.0 / 100 ** (np.arange(SIZE // 2) / 4)).astype(np.float32)
    width = HEADS * SIZE
    return {
        "table": normal(ROWS, width),
        "scale": 1 + normal(width),
        "wq": normal(width, width),
        "wk": normal(width, width),
        "wv": normal(width, width),
        "cos": np.cos(angles),
        "sin": np.sin(angles),
        "epsilon": np.float32(1e-5),
        "two": np.float32(2),
        "last": np.array([-1]),
        "zero": np.array(0),
        "one": np.array(1),
        "first_axis": np.array([1]),
    }


def _norm(x: str, y: str) -> str:
    return f"""sq{y} = Pow ({x}, two)  mean{y} = ReduceMean <keepdims = 1> (sq{y}, last)
        low{y} = Add (mean{y}, epsilon)
        root{y} = Sqrt (low{y})  unit{y} = Div ({x}, root{y})  {y} = Mul (unit{y}, scale)"""


_CACHE = f"""float[batch_size, {HEADS}, past_sequence_length, {SIZE}] past_key_values_0_key,
    float[batch_size, {HEADS}, past_sequence_length, {SIZE}] past_key_values_0_value"""
_PRESENT = "float[a, b, c, d] present_0_key, float[a, b, c, d] present_0_value"
_PROJECTED = f"""x = Gather (table, input_ids) {_norm("x", "n")}
    q = MatMul (n, wq)  k = MatMul (n, wk)  v = MatMul (n, wv)"""
_GROUPED = f"""y, present_0_key, present_0_value = com.microsoft.GroupQueryAttention
    <num_heads = {HEADS}, kv_num_heads = {HEADS}, do_rotary = 1>
    (q, k, v, past_key_values_0_key, past_key_values_0_value, seqlens_k, total_sequence_length, cos, sin)"""


def genai() -> onnx.ModelProto:
    """As onnxruntime-genai writes decoders: lengths are computed from the mask."""
    return parse(
        f"""genai (int64[batch_size, sequence_length] input_ids,
            int64[batch_size, total_sequence_length] attention_mask, {_CACHE})
            => (float[a, b, c] logits, {_PRESENT}) {{ {_PROJECTED}
            sum = ReduceSum <keepdims = 0> (attention_mask, first_axis)  less = Sub (sum, one)
            seqlens_k = Cast <to = 6> (less)  shape = Shape (attention_mask)
            length = Gather <axis = 0> (shape, one)  total_sequence_length = Cast <to = 6> (length)
            {_GROUPED} {_norm("y", "logits")} }}""",
        **_weights(),
    )


def grouped() -> onnx.ModelProto:
    """The same with the lengths as inputs."""
    return parse(
        f"""grouped (int64[batch_size, sequence_length] input_ids, int32[batch_size] seqlens_k,
            int32 total_sequence_length, {_CACHE}) => (float[a, b, c] logits, {_PRESENT})
            {{ {_PROJECTED} {_GROUPED} {_norm("y", "logits")} }}""",
        **_weights(),
    )


def _attention(suffix: str, past: bool) -> str:
    """Scaled dot products by hand; every value of a branch needs a name of its own."""
    s = suffix
    keys = f"kk{s} = Concat <axis = 2> (past_key_values_0_key, kh{s})" if past else f"kk{s} = Identity (kh{s})"
    values = f"vv{s} = Concat <axis = 2> (past_key_values_0_value, vh{s})" if past else f"vv{s} = Identity (vh{s})"
    heads = " ".join(
        f"{n}r{s} = Reshape ({n}, heads) {n}h{s} = Transpose <perm = [0, 2, 1, 3]> ({n}r{s})" for n in ("q", "k", "v")
    )
    return f"""{heads} {keys} {values}
        kt{s} = Transpose <perm = [0, 1, 3, 2]> (kk{s})  scores{s} = MatMul (qh{s}, kt{s})
        keep{s} = Cast <to = 1> (attention_mask)  drop{s} = Sub (unit, keep{s})  low{s} = Mul (drop{s}, smallest)
        wide{s} = Unsqueeze (low{s}, mask_axes)  masked{s} = Add (scores{s}, wide{s})  p{s} = Softmax (masked{s})
        o{s} = MatMul (p{s}, vv{s})  ot{s} = Transpose <perm = [0, 2, 1, 3]> (o{s})  y{s} = Reshape (ot{s}, together)
        key{s} = Identity (kk{s})  value{s} = Identity (vv{s})"""


def merged() -> onnx.ModelProto:
    """As optimum merges a decoder without and one with past: an If on ``use_cache_branch``."""
    weights = _weights() | {
        "heads": np.array([0, 0, HEADS, SIZE]),
        "together": np.array([0, 0, HEADS * SIZE]),
        "mask_axes": np.array([1, 2]),
        "unit": np.float32(1),
        "smallest": np.float32(-1e9),
    }
    return parse(
        f"""merged (int64[batch_size, sequence_length] input_ids,
            int64[batch_size, "past_sequence_length + 1"] attention_mask, {_CACHE}, bool[1] use_cache_branch)
            => (float[a, b, c] logits, {_PRESENT}) {{ {_PROJECTED}
            y, present_0_key, present_0_value = If (use_cache_branch) <
                then_branch = with () => (float[a, b, c] yw, float[a, b, c, d] keyw, float[a, b, c, d] valuew)
                    {{ {_attention("w", past=True)} }},
                else_branch = without () => (float[a, b, c] yo, float[a, b, c, d] keyo, float[a, b, c, d] valueo)
                    {{ {_attention("o", past=False)} }}
            > {_norm("y", "logits")} }}""",
        **weights,
    )
