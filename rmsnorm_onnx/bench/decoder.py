"""A decoder like Llama, at realistic widths, with random weights: something to time where no model is at hand.

Norms and rotary embedding are spelled as torch's exporter spells them; attention and the feed-forward block are the
plain operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.bench.problem import Array
from rmsnorm_onnx.errors import InvalidInput

_OPSET: Final = 18
_EPSILON: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Decoder:
    """Sizes of a decoder.

    Attributes:
        hidden: width of the residual stream, and of the norms.
        layers: each with two norms; one more norm follows the last.
        heads: of the queries.
        kv_heads: of keys and values.
        feed_forward: width between the two projections of a layer.
        tokens: given at once.
        past: tokens in the cache.
        vocabulary: number of different tokens.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    tokens: int
    past: int
    vocabulary: int = 32000

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads


_WIDE: Final = {"hidden": 2048, "layers": 8, "heads": 32, "kv_heads": 8, "feed_forward": 5632}
_DEEP: Final = {"hidden": 1024, "layers": 24, "heads": 16, "kv_heads": 4, "feed_forward": 2816}
_TINY: Final = {"hidden": 64, "layers": 2, "heads": 4, "kv_heads": 2, "feed_forward": 96, "vocabulary": 99}
#: What ``--synthetic`` knows: 0.3 and 0.4 billion parameters, a prompt of 128 tokens or one token after 128.
DECODERS: Final = {
    "llama-1024x24-prefill": Decoder(**_DEEP, tokens=128, past=0),
    "llama-1024x24-decode": Decoder(**_DEEP, tokens=1, past=128),
    "llama-2048x8-prefill": Decoder(**_WIDE, tokens=128, past=0),
    "llama-2048x8-decode": Decoder(**_WIDE, tokens=1, past=128),
    "llama-64x2-prefill": Decoder(**_TINY, tokens=16, past=0),
    "llama-64x2-decode": Decoder(**_TINY, tokens=1, past=16),
}


def build(sizes: Decoder, name: str = "decoder", seed: int = 0) -> ir.Model:
    """The decoder in float32: token numbers, positions and the cache in; logits of the last token and the cache out."""
    return _Builder(sizes, np.random.default_rng(seed)).model(name)


def save(name: str, folder: Path) -> Path:
    """Write the decoder of this name into ``folder``, with its weights in a file beside it; returns its path.

    Raises:
        InvalidInput: there is no decoder of this name.
    """
    if name not in DECODERS:
        raise InvalidInput(f"no synthetic model is called {name}; known: {', '.join(DECODERS)}")
    path = folder / f"{name}.onnx"
    ir.save(build(DECODERS[name], name), path, external_data=f"{name}.onnx.data")
    return path


class _Builder:
    """Appends nodes to one graph."""

    def __init__(self, sizes: Decoder, generator: np.random.Generator) -> None:
        self.sizes = sizes
        self._generator = generator
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []

    def model(self, name: str) -> ir.Model:
        s = self.sizes
        ids = self._input("input_ids", [1, s.tokens], ir.DataType.INT64)
        positions = self._input("position_ids", [1, s.tokens], ir.DataType.INT64)
        embedding = self._constant("embed_tokens.weight", self._random((s.vocabulary, s.hidden), 1))
        x = self._op("Gather", [embedding, ids])
        rotary = self._rotary(positions)
        for layer in range(s.layers):
            x = self._op("Add", [x, self._attention(self._norm(x, f"{layer}.input"), layer, rotary)])
            x = self._op("Add", [x, self._feed_forward(self._norm(x, f"{layer}.post_attention"), layer)])
        last = self._op("Gather", [self._norm(x, "final"), self._integers([s.tokens - 1])], axis=1)
        self._output("logits", self._linear(last, s.hidden, s.vocabulary, "lm_head"), [1, 1, s.vocabulary])
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports={"": _OPSET},
            name=name,
        )
        return ir.Model(graph, ir_version=10, producer_name="rmsnorm-onnx benchmark")

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        weight = self._constant(f"{name}_norm.weight", 1 + self._random((self.sizes.hidden,), 0.1))
        mean = self._op("ReduceMean", [self._op("Pow", [x, self._number(2.0)]), self._integers([-1])], keepdims=1)
        root = self._op("Sqrt", [self._op("Add", [mean, self._number(_EPSILON)])])
        return self._op("Mul", [weight, self._op("Mul", [x, self._op("Reciprocal", [root])])])

    def _rotary(self, positions: ir.Value) -> tuple[ir.Value, ir.Value]:
        frequencies = 10000.0 ** -(np.arange(0, self.sizes.head, 2) / self.sizes.head)
        wide = self._op("Cast", [self._op("Unsqueeze", [positions, self._integers([1, 3])])], to=ir.DataType.FLOAT)
        angles = self._op("Mul", [wide, self._constant("inv_freq", frequencies.astype(np.float32))])
        both = self._op("Concat", [angles, angles], axis=-1)
        return self._op("Cos", [both]), self._op("Sin", [both])

    def _rotate(self, x: ir.Value, rotary: tuple[ir.Value, ir.Value]) -> ir.Value:
        half, end, axis = self.sizes.head // 2, 1 << 31, self._integers([3])
        first = self._op("Slice", [x, self._integers([0]), self._integers([half]), axis])
        second = self._op("Slice", [x, self._integers([half]), self._integers([end]), axis])
        turned = self._op("Concat", [self._op("Neg", [second]), first], axis=-1)
        return self._op("Add", [self._op("Mul", [x, rotary[0]]), self._op("Mul", [turned, rotary[1]])])

    def _heads(self, x: ir.Value, count: int, name: str) -> ir.Value:
        s = self.sizes
        projected = self._linear(x, s.hidden, count * s.head, name)
        split = self._op("Reshape", [projected, self._integers([1, s.tokens, count, s.head])])
        return self._op("Transpose", [split], perm=[0, 2, 1, 3])

    def _cached(self, new: ir.Value, name: str) -> ir.Value:
        s = self.sizes
        if s.past:
            past = self._input(f"past_{name}", [1, s.kv_heads, s.past, s.head], ir.DataType.FLOAT)
            new = self._op("Concat", [past, new], axis=2)
        self._output(f"present_{name}", new, [1, s.kv_heads, s.past + s.tokens, s.head])
        groups = s.heads // s.kv_heads
        total = s.past + s.tokens
        apart = self._op("Unsqueeze", [new, self._integers([2])])
        repeated = self._op("Expand", [apart, self._integers([1, s.kv_heads, groups, total, s.head])])
        return self._op("Reshape", [repeated, self._integers([1, s.heads, total, s.head])])

    def _attention(self, x: ir.Value, layer: int, rotary: tuple[ir.Value, ir.Value]) -> ir.Value:
        s, name = self.sizes, f"{layer}.self_attn"
        query = self._rotate(self._heads(x, s.heads, f"{name}.q_proj"), rotary)
        key = self._cached(self._rotate(self._heads(x, s.kv_heads, f"{name}.k_proj"), rotary), f"key_{layer}")
        value = self._cached(self._heads(x, s.kv_heads, f"{name}.v_proj"), f"value_{layer}")
        scores = self._op("MatMul", [query, self._op("Transpose", [key], perm=[0, 1, 3, 2])])
        scores = self._op("Mul", [scores, self._number(1 / math.sqrt(s.head))])
        if s.tokens > 1:
            mask = np.triu(np.full((s.tokens, s.past + s.tokens), -1e9, np.float32), s.past + 1)
            scores = self._op("Add", [scores, self._constant("mask", mask)])
        mixed = self._op("MatMul", [self._op("Softmax", [scores], axis=-1), value])
        together = self._op("Transpose", [mixed], perm=[0, 2, 1, 3])
        flat = self._op("Reshape", [together, self._integers([1, s.tokens, s.hidden])])
        return self._linear(flat, s.hidden, s.hidden, f"{name}.o_proj")

    def _feed_forward(self, x: ir.Value, layer: int) -> ir.Value:
        s, name = self.sizes, f"{layer}.mlp"
        gate = self._linear(x, s.hidden, s.feed_forward, f"{name}.gate_proj")
        gate = self._op("Mul", [gate, self._op("Sigmoid", [gate])])
        wide = self._op("Mul", [gate, self._linear(x, s.hidden, s.feed_forward, f"{name}.up_proj")])
        return self._linear(wide, s.feed_forward, s.hidden, f"{name}.down_proj")

    def _linear(self, x: ir.Value, rows: int, columns: int, name: str) -> ir.Value:
        weight = self._random((rows, columns), 1 / math.sqrt(rows))
        return self._op("MatMul", [x, self._constant(f"{name}.weight", weight)])

    def _op(self, op: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        number = len(self._nodes)
        node = ir.node(op, inputs, attributes, name=f"node_{op}_{number}")
        node.outputs[0].name = f"{op.lower()}_{number}"
        self._nodes.append(node)
        return node.outputs[0]

    def _random(self, shape: tuple[int, ...], scale: float) -> Array:
        return self._generator.standard_normal(shape, np.float32) * np.float32(scale)

    def _number(self, value: float) -> ir.Value:
        return self._constant("number", np.asarray(value, np.float32))

    def _integers(self, values: Sequence[int]) -> ir.Value:
        return self._constant("integers", np.asarray(values, np.int64))

    def _constant(self, name: str, array: Array) -> ir.Value:
        tensor = ir.tensor(array, name=f"{name}_{len(self._initializers)}")
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._initializers.append(value)
        return value

    def _input(self, name: str, shape: Sequence[int], dtype: ir.DataType) -> ir.Value:
        self._inputs.append(ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype)))
        return self._inputs[-1]

    def _output(self, name: str, value: ir.Value, shape: Sequence[int]) -> None:
        named = self._op("Identity", [value])
        named.name, named.shape, named.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        self._outputs.append(named)
