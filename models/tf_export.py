"""Runs tf2onnx on small TensorFlow modules without Keras: norms written by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf2onnx
from keras.src.export.tf2onnx_lib import patch_tf2onnx

from case import Case, Exported
from counting import Count
from source import SEED

_WIDTH = 16
_DTYPES = {"f32": tf.float32, "f16": tf.float16, "f64": tf.float64}
_Formula = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Norm(tf.Module):
    """A formula with its weight, which counts its calls where the formula is an RMS norm."""

    def __init__(self, formula: _Formula, weight: np.ndarray, kind: tf.DType) -> None:
        super().__init__()
        self.formula = formula
        self.weight = tf.Variable(weight, dtype=kind)
        self.calls = 0

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """The formula."""
        self.calls += 1
        return self.formula(x, self.weight)


class Block(tf.Module):
    """Two pre-norm layers with residuals, and a last norm."""

    def __init__(self, formula: _Formula, draw: np.random.Generator, kind: tf.DType) -> None:
        super().__init__()
        self.norms = [Norm(formula, draw.uniform(0.5, 1.5, _WIDTH), kind) for _ in range(3)]
        size = (_WIDTH, _WIDTH)
        weights = [draw.standard_normal(size) / _WIDTH**0.5 for _ in range(2)]
        self.layers = [tf.Variable(weight, dtype=kind) for weight in weights]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """X plus two layers, normed."""
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + tf.nn.silu(tf.linalg.matmul(norm(x), layer))
        return self.norms[2](x)


def _rsqrt(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return x * tf.math.rsqrt(tf.reduce_mean(x**2, axis=-1, keepdims=True) + 1e-6) * weight


def _mesh(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """As in Mesh TensorFlow's T5: the statistics in float32, the scale first."""
    mean_square = tf.reduce_mean(tf.square(tf.cast(x, tf.float32)), axis=-1, keepdims=True)
    return weight * x * tf.cast(tf.math.rsqrt(mean_square + 1e-6), x.dtype)


def _root(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    epsilon = tf.constant(1e-6, x.dtype)
    return x / tf.sqrt(tf.reduce_mean(x * x, axis=[-1], keepdims=True) + epsilon) * weight


def _unit(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.math.l2_normalize(x, axis=-1) * weight


def _layer(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-6) * weight


@dataclass(frozen=True)
class _Model:
    label: str
    formula: _Formula
    is_norm: bool = True


MODELS: dict[str, _Model] = {
    "tf-rsqrt": _Model("x * tf.math.rsqrt(tf.reduce_mean(x**2) + eps) * w", _rsqrt),
    "tf-mesh": _Model("w * x * cast(rsqrt(reduce_mean(square(cast(x))) + eps))", _mesh),
    "tf-root": _Model("x / tf.sqrt(tf.reduce_mean(x * x) + eps) * w", _root),
    "tf-l2": _Model("tf.math.l2_normalize(x) * w", _unit, is_norm=False),
    "tf-layernorm": _Model("(x - mean) * tf.math.rsqrt(variance + eps) * w", _layer, is_norm=False),
}


def export(case: Case) -> Exported:
    """Build the module, run it once, counted, and convert it."""
    described, kind = MODELS[case.source], _DTYPES[case.dtype]
    draw = np.random.default_rng(SEED)
    block = Block(described.formula, draw, kind)
    x = draw.standard_normal((2, 6, _WIDTH)).astype(kind.as_numpy_dtype)
    output = block(tf.constant(x)).numpy()
    calls = sum(norm.calls for norm in block.norms)
    shape = (None, None, _WIDTH) if case.dynamic else x.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch_tf2onnx()  # tf2onnx uses names that NumPy 2 does not have
        written, _ = tf2onnx.convert.from_function(
            tf.function(lambda x: block(x)),
            [tf.TensorSpec(shape, kind, name="x")],
            opset=case.opset,
        )
    return Exported(
        model=written,
        inputs={written.graph.input[0].name: x},
        outputs=(output,),
        count=Count(norms=calls if described.is_norm else 0),
        label=described.label,
        config={"width": _WIDTH},
        exporter="tf2onnx",
    )
