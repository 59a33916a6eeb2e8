"""Runs jax2onnx on small JAX models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax2onnx import to_onnx

from case import Case, Exported
from counting import Count
from jax_models import COUNTED, MODELS, WIDTH
from source import SEED

_DTYPES = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16, "f64": jnp.float64}


def export(case: Case) -> Exported:
    """Build the model, run it once, counted, and convert it."""
    with jax.enable_x64(case.dtype == "f64"):
        return _export(case)


def _export(case: Case) -> Exported:
    described = MODELS[case.source]
    dtype = _DTYPES[case.dtype]
    draw = np.random.default_rng(SEED)
    model = described.make(draw, dtype)
    x = jnp.asarray(draw.standard_normal((2, 6, WIDTH)), dtype)
    with _counted() as count:
        output = np.asarray(model(x))
    shape = ("batch", "sequence", WIDTH) if case.dynamic else x.shape
    native = (case.opset or 0) >= 23
    written = to_onnx(
        lambda x: model(x),  # a bare function: jax2onnx then names nothing after our classes
        [jax.ShapeDtypeStruct(shape, dtype)] if not case.dynamic else [_free(shape, dtype)],
        opset=case.opset or 18,
        enable_double_precision=case.dtype == "f64",
        normalization_mode="prefer_native" if native else "auto",
        input_names=["x"],
        output_names=["y"],
    )
    return Exported(
        model=written,
        inputs={"x": np.asarray(x)},
        outputs=(output,),
        count=count,
        label=described.label,
        config={"width": WIDTH},
        exporter="jax2onnx (prefer_native)" if native else "jax2onnx",
    )


def _free(shape: tuple[Any, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """The same with free dimensions."""
    symbols = jax.export.symbolic_shape(", ".join(map(str, shape)))
    return jax.ShapeDtypeStruct(symbols, dtype)


@contextlib.contextmanager
def _counted() -> Iterator[Count]:
    """Counts the calls of the classes that are RMS norms."""
    count = Count()

    def counting(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            count.norms += 1
            return original(*args, **kwargs)

        return call

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        is_norm = isinstance(context.module, linen.RMSNorm) and context.method_name == "__call__"
        count.norms += is_norm
        return call(*args, **kwargs)

    with contextlib.ExitStack() as stack:
        for kind in COUNTED:
            stack.enter_context(mock.patch.object(kind, "__call__", counting(kind.__call__)))
        stack.enter_context(linen.intercept_methods(intercept))
        yield count
