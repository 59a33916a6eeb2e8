"""What the tests of the kernels feed them, and on which instruction sets."""

from __future__ import annotations

import functools

import kernels_abi as abi
import ml_dtypes
import numpy as np
import pytest
from kernels_abi import NUMPY

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.spec import DType

OPS = dict(zip(abi.FORMS, spec.OPS, strict=True))
isas = pytest.mark.parametrize("isa", ["avx512bf16", "avx512", "avx2", "baseline"])
types = pytest.mark.parametrize("dtype", list(DType), ids=lambda d: d.name.lower())


@pytest.fixture(autouse=True)
def supported(request: pytest.FixtureRequest) -> None:
    isa = request.node.callspec.params.get("isa") if hasattr(request.node, "callspec") else None
    if isa and isa not in abi.isas():
        pytest.skip(f"this processor lacks {isa}")


@functools.cache
def samples(shape, dtype):
    """Normal values; along the first axis the magnitude changes: 300 squared overflows float16."""
    rng = np.random.default_rng(0)
    magnitude = np.resize([1.0, 300.0, 1e-2, 30.0], shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (rng.standard_normal(shape) * magnitude).astype(NUMPY[dtype])


@functools.cache
def seconds(shape, dtype):
    """Skip or gate; silu of less than -87 is not a normal float any more."""
    return (np.random.default_rng(2).standard_normal(shape) * 5).astype(NUMPY[dtype])


@functools.cache
def scales(shape, dtype=DType.FLOAT):
    """Values that every type holds, so that the conversion of the scale is exact."""
    return np.random.default_rng(1).uniform(0.5, 2, shape).astype(ml_dtypes.bfloat16).astype(NUMPY[dtype])


def same_bits(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def attributes(norm):
    return reference.Attributes(
        epsilon=norm.epsilon,
        axes=norm.axes,
        epsilon_outside=norm.epsilon_outside,
        floor=norm.floor,
        stash_type=norm.stash,
        normalized_type=norm.normalized,
        scaled_type=norm.scaled,
    )


def inputs_of(x, second, scale):
    return [x, scale] if second is None else [x, second, scale]


def exact(norm, x, second, scale):
    return reference.exact(OPS[norm.form], inputs_of(x, second, scale), attributes(norm))[0]
