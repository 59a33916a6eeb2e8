"""Small Keras models with RMS norms, exported by Keras itself (`Model.export(format="onnx")`).

Keras reads its backend from the environment when it is first imported, so one process serves one
backend: make.py starts another process for the other one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import onnx

from case import Case, Exported, Exporter
from counting import Count, is_rms_norm
from source import SEED

_EPSILON = 1e-5


@keras.saving.register_keras_serializable()
class ReshapedScaleRMSNorm(keras.layers.Layer):
    """keras.ops.rms_normalization over any axes, with a scale shaped to stand at those axes.

    keras.layers.RMSNormalization gives its scale the shape of the reduced axes only, which numpy's
    rules then align with the last axes, so the layer is right only where those are reduced.
    """

    def __init__(self, axis: Sequence[int], scaled: bool = True) -> None:
        super().__init__()
        self.axis = list(axis)
        self.scaled = scaled
        self.scale: Any = None

    def build(self, input_shape: Sequence[int]) -> None:
        """One weight per position along the reduced axes."""
        if self.scaled:
            kept = [size if i in self.axis else 1 for i, size in enumerate(input_shape)]
            self.scale = self.add_weight(name="scale", shape=kept[1:], initializer="ones")

    def call(self, x: Any) -> Any:
        """Keras' own operation."""
        return keras.ops.rms_normalization(x, scale=self.scale, axis=self.axis, epsilon=_EPSILON)


@keras.saving.register_keras_serializable()
class ComposedRMSNorm(ReshapedScaleRMSNorm):
    """The same from elementary operations of keras.ops, on every backend alike."""

    def call(self, x: Any) -> Any:
        """The formula, written out."""
        mean_square = keras.ops.mean(keras.ops.square(x), axis=self.axis, keepdims=True)
        return x * keras.ops.rsqrt(mean_square + _EPSILON) * self.scale


@dataclass(frozen=True)
class _Model:
    """One norm between two layers, on inputs of this shape."""

    label: str
    norm: Callable[[], keras.layers.Layer]
    shape: tuple[int, ...]


def _layer(axis: int | list[int]) -> Callable[[], keras.layers.Layer]:
    return lambda: keras.layers.RMSNormalization(axis=axis, epsilon=_EPSILON)


_SQUARE = (4, 4)
_IMAGE = (4, 6, 8)

_MODELS: dict[str, _Model] = {
    "keras-axis-1": _Model("keras.layers.RMSNormalization(axis=-1)", _layer(-1), (6, 16)),
    "keras-axis1": _Model("keras.layers.RMSNormalization(axis=1)", _layer(1), _SQUARE),
    "keras-axis12": _Model("keras.layers.RMSNormalization(axis=[1, 2])", _layer([1, 2]), (6, 8)),
    "keras-ops-axis1": _Model(
        "keras.ops.rms_normalization(axis=[1])", lambda: ReshapedScaleRMSNorm([1]), _IMAGE
    ),
    "keras-ops-axis12": _Model(
        "keras.ops.rms_normalization(axis=[1, 2])", lambda: ReshapedScaleRMSNorm([1, 2]), _IMAGE
    ),
    "keras-ops-axis13": _Model(
        "keras.ops.rms_normalization(axis=[1, 3])", lambda: ReshapedScaleRMSNorm([1, 3]), _IMAGE
    ),
    "keras-ops-noscale": _Model(
        "keras.ops.rms_normalization(axis=[2, 3], scale=None)",
        lambda: ReshapedScaleRMSNorm([2, 3], scaled=False),
        _IMAGE,
    ),
    "keras-composed-axis1": _Model(
        "keras.ops.square, mean, rsqrt over axis 1", lambda: ComposedRMSNorm([1]), _IMAGE
    ),
}


def export(case: Case) -> Exported:
    """Build the model, run it once, counted, and let Keras export it."""
    if keras.backend.backend() != case.exporter.keras_backend:
        raise RuntimeError(f"{case.name} needs KERAS_BACKEND={case.exporter.keras_backend}")
    keras.backend.clear_session()  # names of layers start anew, whatever was exported before
    keras.utils.set_random_seed(SEED)
    described = _MODELS[case.source]
    model = _build(described)
    x = np.random.default_rng(SEED).standard_normal((2, *described.shape)).astype(np.float32)
    with _counted() as count:
        output = np.asarray(keras.ops.convert_to_numpy(model(x)))
    written = _export(model, x, case)
    return Exported(
        model=written,
        inputs={written.graph.input[0].name: x},
        outputs=(output,),
        count=count,
        label=described.label,
        config={"shape": list(described.shape), "epsilon": _EPSILON},
        exporter=_title(case, written),
    )


def _build(described: _Model) -> keras.Model:
    inputs = keras.Input(described.shape, name="x")
    hidden = keras.layers.Dense(described.shape[-1])(inputs)
    hidden = described.norm()(hidden)
    model = keras.Model(inputs, keras.layers.Dense(8)(hidden))
    draw = np.random.default_rng(SEED)
    for layer in model.layers:
        if is_rms_norm(layer):
            layer.set_weights([draw.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@contextlib.contextmanager
def _counted() -> Iterator[Count]:
    """Counts the calls of layers whose class is an RMS norm."""
    count = Count()
    original = keras.layers.Layer.__call__

    def counting(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        count.norms += is_rms_norm(layer)
        return original(layer, *args, **kwargs)

    with mock.patch.object(keras.layers.Layer, "__call__", counting):
        yield count


def _export(model: keras.Model, x: np.ndarray, case: Case) -> onnx.ModelProto:
    """Keras exports None dimensions with TorchScript and fixed ones with dynamo (torch backend)."""
    shape = (None, *x.shape[1:]) if case.dynamic else x.shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(
            path.as_posix(),
            format="onnx",
            verbose=False,
            input_signature=[keras.InputSpec(shape=shape, dtype="float32", name="x")],
            opset_version=case.opset,
        )
        return onnx.load(path)


def _title(case: Case, written: onnx.ModelProto) -> str:
    if case.exporter is Exporter.KERAS_TENSORFLOW:
        return "keras (tensorflow backend, tf2onnx)"
    if case.exporter is Exporter.KERAS_JAX:
        return "keras (jax backend, jax2onnx)"
    how = "TorchScript" if case.dynamic else "dynamo"
    return f"keras (torch backend, {how}; {written.producer_name})"
