"""Other people's tools, each as a function from a model to a model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import onnxsim
import onnxslim
from onnxconverter_common import float16
from onnxruntime import quantization
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel

from running import session

Feeds = dict[str, np.ndarray]
Tool = Callable[[onnx.ModelProto, Feeds], onnx.ModelProto]

# What people keep in float32.
_KEPT = ["Pow", "ReduceMean", "GlobalAveragePool", "Add", "Sqrt", "Reciprocal"]


def simplified(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """onnxsim: constant folding and onnx-optimizer's passes."""
    simple, agrees = onnxsim.simplify(model)
    assert agrees
    return simple


def slimmed(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """The tool onnxslim."""
    return onnxslim.slim(model)


def folded(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """Constants folded by onnxscript."""
    return onnxscript.optimizer.optimize(model)


def optimized_by_onnxruntime(
    model: onnx.ModelProto, level: str, without: Collection[str] = ()
) -> onnx.ModelProto:
    """What a session at this level, without these optimizers, saves as its optimized model."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "optimized.onnx"
        session(model, level, saved, without)
        return onnx.load(saved)


def ort_basic(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """Saved by a session at ORT_ENABLE_BASIC."""
    return optimized_by_onnxruntime(model, "ORT_ENABLE_BASIC")


def ort_extended(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """Saved by a session at ORT_ENABLE_EXTENDED."""
    return optimized_by_onnxruntime(model, "ORT_ENABLE_EXTENDED")


def optimized_by_transformers(model: onnx.ModelProto, norms: bool = True) -> onnx.ModelProto:
    """onnxruntime.transformers.optimizer as for BERT (its default), its own fusions only."""
    options = FusionOptions("bert")
    options.enable_layer_norm = options.enable_skip_layer_norm = norms
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        onnx.save(model, path)
        return optimizer.optimize_model(
            path, "bert", optimization_options=options, opt_level=0
        ).model


def ort_transformers(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """onnxruntime.transformers.optimizer."""
    return optimized_by_transformers(model)


def half(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """onnxconverter-common's float16 converter, inputs and outputs too."""
    return float16.convert_float_to_float16(model)


def half_but_norms(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """onnxconverter-common's float16 converter; the parts of a norm stay float32."""
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *_KEPT]
    return float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)


def half_by_onnxruntime(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """onnxruntime.transformers' float16 converter, inputs and outputs too."""
    return _half_by_onnxruntime(model, keep_io_types=False)


def half_inside(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """onnxruntime.transformers' float16 converter; inputs and outputs stay float32."""
    return _half_by_onnxruntime(model, keep_io_types=True)


def half_but_squares(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """onnxruntime.transformers' float16 converter; the mean of the squares stays float32."""
    return _half_by_onnxruntime(model, keep_io_types=True, op_block_list=["Pow", "ReduceMean"])


def _half_by_onnxruntime(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    wrapped = OnnxModel(model)
    wrapped.convert_float_to_float16(use_symbolic_shape_infer=False, **options)
    wrapped.topological_sort()
    return wrapped.model


def quantized(model: onnx.ModelProto, _feeds: Feeds) -> onnx.ModelProto:
    """Dynamic quantization of the matrix products."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantization.quantize_dynamic(model, path, op_types_to_quantize=["MatMul"])
        return onnx.load(path)


class _Once(quantization.CalibrationDataReader):
    """The saved inputs, as the only calibration data."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Iterator[Feeds] = iter([feeds])

    def get_next(self) -> Feeds | None:
        """The inputs, then None."""
        return next(self._feeds, None)


def quantized_qdq(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """Static quantization of the matrix products, with QuantizeLinear and DequantizeLinear."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantization.quantize_static(
            model,
            path,
            _Once(feeds),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
        )
        return onnx.load(path)
