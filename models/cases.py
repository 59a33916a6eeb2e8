"""The table: every export in this folder."""

from __future__ import annotations

from case import Case, Exporter
from more_cases import MORE

_DYNAMO = Exporter.DYNAMO
_RAW = Exporter.DYNAMO_RAW
_SCRIPT = Exporter.TORCHSCRIPT
_FUNCTIONS = Exporter.TORCHSCRIPT_FUNCTIONS
_TORCH = Exporter.KERAS_TORCH
_TF = Exporter.KERAS_TENSORFLOW

_ROWS: list[tuple[str, Exporter, int | None, str, bool, str]] = [
    # Llama by every exporter and in every dtype: the same five norms, spelled differently
    ("llama", _DYNAMO, 18, "f32", True, "the common decoder, today's default exporter"),
    ("llama", _DYNAMO, 18, "f16", True, "norm computed in float32, cast, then scaled in float16"),
    ("llama", _DYNAMO, 18, "bf16", True, "the same in bfloat16"),
    # static: with a free batch size the exporter's RotaryEmbedding runs for batch size 1 only
    ("llama", _DYNAMO, 23, "f32", False, "the exporter fuses by itself where the opset has the op"),
    ("llama", _DYNAMO, 23, "bf16", True, "opset 23 in bfloat16"),
    ("llama", _RAW, 18, "f32", False, "the graph before the exporter's own optimizer"),
    ("llama", _RAW, 23, "f16", False, "not optimized, hence not fused, at opset 23"),
    ("llama", _SCRIPT, 17, "f32", True, "the older exporter, opset 17"),
    ("llama", _SCRIPT, 13, "f32", False, "the older exporter, opset 13"),
    ("llama", _SCRIPT, 17, "f16", True, "the older exporter in float16"),
    # One norm per model family that differs from Llama's
    ("qwen3", _DYNAMO, 18, "f32", True, "norms on query and key heads: rank 4, width of a head"),
    ("qwen3", _DYNAMO, 23, "f16", True, "query and key norms at opset 23"),
    ("qwen3", _SCRIPT, 17, "bf16", False, "the older exporter in bfloat16"),
    ("gemma3", _DYNAMO, 18, "f32", True, "scale is 1 + weight, four norms per layer"),
    ("gemma3", _DYNAMO, 18, "bf16", False, "scaled in float32, one rounding at the end"),
    ("gemma3", _DYNAMO, 23, "f16", True, "opset-23 norm whose X and scale differ in type"),
    ("gemma3", _DYNAMO, 23, "bf16", True, "the same in bfloat16"),
    ("gemma3", _SCRIPT, 17, "f16", False, "1 + weight folded into one constant"),
    ("t5-encoder", _DYNAMO, 18, "f32", True, "T5LayerNorm, which subtracts no mean"),
    ("t5-encoder", _SCRIPT, 13, "f32", True, "T5LayerNorm from the older exporter"),
    ("t5-encoder", _SCRIPT, 17, "f16", False, "x is cast twice, once for its statistics"),
    ("t5", _DYNAMO, 23, "bf16", False, "encoder and decoder in one graph"),
    ("phi3", _DYNAMO, 18, "f16", True, "Phi-3 in float16"),
    ("olmo2", _DYNAMO, 18, "bf16", True, "norm after the sublayer, scaled before the cast"),
    ("olmo2", _DYNAMO, 23, "f16", False, "scaled before the cast, opset 23"),
    ("mixtral", _DYNAMO, 18, "bf16", False, "mixture of experts"),
    ("qwen3-moe", _DYNAMO, 23, "f32", False, "mixture of experts with query and key norms"),
    ("deepseek-v3", _DYNAMO, 18, "f32", True, "norms on the latents of queries and keys"),
    ("deepseek-v3", _DYNAMO, 23, "bf16", False, "norms on the latents, opset 23"),
    # Gated
    ("mamba2", _DYNAMO, 18, "f32", False, "gate before the norm, a group axis of length 1"),
    ("mamba2", _DYNAMO, 18, "f16", False, "gate before the norm, a residual in float32"),
    ("mamba2-groups", _DYNAMO, 18, "f32", False, "gate before the norm, in two groups"),
    ("mamba2", _DYNAMO, 23, "f16", False, "gate before the norm, opset 23"),
    ("qwen3-next", _DYNAMO, 18, "f32", False, "norm before gate; l2norm (a sum) is not a norm"),
    ("qwen3-next", _DYNAMO, 23, "bf16", False, "norm before gate, opset 23"),
    ("gated", _DYNAMO, 18, "f16", True, "norm before gate without any upcast"),
    # Other norm classes of transformers, each in a small block
    ("llama-norm", _FUNCTIONS, 17, "f32", True, "every module is a model-local function"),
    ("gemma4-norm", _DYNAMO, 18, "f16", True, "mean square to the power of -0.5"),
    ("gemma4-norm", _SCRIPT, 17, "f32", True, "the power of -0.5 from the older exporter"),
    ("gemma4-norm", _DYNAMO, 23, "bf16", True, "the power of -0.5 at opset 23"),
    ("llama4-norm", _DYNAMO, 18, "bf16", True, "no weight; named L2Norm, but takes the mean"),
    (
        "deepseek-v4-norm",
        _DYNAMO,
        18,
        "f16",
        True,
        "the factor is cast, then multiplied in float16",
    ),
    ("kimi-gated", _DYNAMO, 18, "bf16", True, "norm before a gate that is a sigmoid, not a silu"),
    ("falcon-h1-gated", _DYNAMO, 18, "f32", True, "norm before gate, in groups"),
    ("falcon-h1-pregated", _DYNAMO, 18, "bf16", True, "gate before the norm, scaled in float32"),
    # torch's own norm and hand-written ones
    ("torch-rmsnorm", _DYNAMO, 18, "f32", True, "torch.nn.RMSNorm, decomposed by the exporter"),
    ("torch-rmsnorm", _DYNAMO, 23, "bf16", True, "torch.nn.RMSNorm becomes the opset-23 op"),
    ("torch-rmsnorm-noweight", _DYNAMO, 18, "f16", True, "no weight; epsilon of float32"),
    ("torch-rmsnorm-noweight", _DYNAMO, 23, "f32", True, "no weight at opset 23"),
    ("torch-rmsnorm-axes3", _DYNAMO, 18, "f32", True, "three axes together"),
    ("torch-rmsnorm-axes2", _DYNAMO, 23, "f16", False, "two axes together"),
    ("functional", _DYNAMO, 18, "bf16", True, "torch.nn.functional.rms_norm, default epsilon"),
    ("functional", _DYNAMO, 18, "f64", True, "everything in float64"),
    ("unit-length", _DYNAMO, 18, "f32", True, "unit length times sqrt(width): clipped, no epsilon"),
    ("unit-length", _SCRIPT, 17, "f32", True, "the same from the older exporter (ReduceL2)"),
    ("length", _DYNAMO, 18, "f32", True, "epsilon outside the root"),
    ("length", _SCRIPT, 13, "f32", True, "epsilon outside the root, older exporter"),
    ("channel", _DYNAMO, 18, "f16", False, "axis 1 of NCHW, division by the root"),
    ("channel", _SCRIPT, 13, "f32", True, "axis 1 of NCHW, older exporter"),
    # Subgraphs
    ("cond", _DYNAMO, 18, "f32", False, "a norm in a branch of If"),
    ("script-if", _SCRIPT, 17, "f32", True, "a norm in a branch of If, from a scripted function"),
    ("script-loop", _SCRIPT, 17, "f32", True, "a norm in the body of Loop"),
    # Keras
    ("keras-axis-1", _TORCH, None, "f32", False, "Keras' layer; fixed shapes: dynamo"),
    ("keras-axis12", _TORCH, None, "f32", False, "Keras' layer over two axes"),
    ("keras-ops-axis13", _TORCH, 18, "f32", False, "axes that are not neighbours"),
    ("keras-composed-axis1", _TORCH, 18, "f32", False, "axis 1 from elementary operations"),
    ("keras-composed-axis1", _TORCH, 13, "f32", True, "the same through TorchScript"),
    ("keras-axis-1", _TF, None, "f32", True, "Keras' layer through TensorFlow"),
    ("keras-axis1", _TF, None, "f32", True, "Keras' layer on axis 1: scale falls on the last axis"),
    ("keras-axis12", _TF, 18, "f32", True, "Keras' layer over two axes through TensorFlow"),
    ("keras-ops-axis1", _TF, 13, "f32", True, "axis 1 with the scale at axis 1"),
    ("keras-ops-axis13", _TF, 18, "f32", True, "axes 1 and 3 through TensorFlow"),
    ("keras-ops-noscale", _TF, None, "f32", True, "no scale through TensorFlow"),
]

CASES: list[Case] = [Case(*row) for row in (*_ROWS, *MORE)]
