"""The Keras operation and layer: documented values, axes, dtypes, shapes, errors, threads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.layers import RMSNormalization, _session, rms_normalization

#: Largest error relative to the float64 result: half a unit in the last place for one rounding to 16 bits, and
#: room for the kernel's own arithmetic in the wider types.
RELATIVE = {np.float16: 2.0**-11, ml_dtypes.bfloat16: 2.0**-8, np.float32: 2.0**-22, np.float64: 2.0**-50}
DTYPES = pytest.mark.parametrize("dtype", list(RELATIVE), ids=lambda t: np.dtype(t).name)


def formula(x, scale=1.0, axis=-1, epsilon=1e-7):
    wide = np.asarray(x).astype(np.float64)
    axes = tuple(axis) if isinstance(axis, list | tuple) else axis
    return wide / np.sqrt(np.mean(wide * wide, axis=axes, keepdims=True) + epsilon) * np.asarray(scale, np.float64)


def assert_close(got, wanted, dtype=np.float32):
    assert got.dtype == dtype
    assert got.shape == wanted.shape
    # a hair above half a unit: the float32 value that is rounded has an error of its own
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=RELATIVE[dtype] * (1 + 2**-8), atol=0)


def normal(shape, dtype=np.float32, seed=0, size=0.1):
    return (np.random.default_rng(seed).standard_normal(shape) * size).astype(dtype)


# values from the documents


def test_documented_operation():
    x = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], np.float32)
    wanted = [[0.46291, 0.92582, 1.38873], [0.78954, 0.98693, 1.18431]]
    np.testing.assert_allclose(rms_normalization(x, scale=np.ones(3)), wanted, atol=5e-6)


def test_documented_layer():
    y = RMSNormalization()(np.arange(10))
    np.testing.assert_allclose(y[[0, 1, 2, -1]], [0, 0.18731716, 0.37463433, 1.6858544], rtol=3e-7)
    assert y.dtype == np.float32


def test_documented_build():
    layer = RMSNormalization()
    layer.build([5, 20, 30, 10])
    assert layer.scale.shape == (10,)
    assert layer.scale.dtype == np.float32
    assert np.all(layer.scale == 1)


# against the formula


@DTYPES
@pytest.mark.parametrize("scaled", [False, True])
def test_dtypes(dtype, scaled):
    x = normal((4, 5, 24), dtype)
    scale = normal(24, dtype, seed=1, size=1.0) if scaled else None
    wanted = formula(x, 1.0 if scale is None else scale.astype(np.float64), epsilon=1e-5)
    assert_close(rms_normalization(x, scale, epsilon=1e-5), wanted, dtype)


@pytest.mark.parametrize(
    "axis", [0, 1, 2, -1, -2, [1, 2], [2, 1], (0, 2), [-1, 0], [0, 1, 2], [-3, -2, -1]], ids=lambda a: str(a)
)
def test_axes(axis):
    x = normal((3, 4, 8))
    assert_close(rms_normalization(x, axis=axis), formula(x, axis=axis))


@pytest.mark.parametrize("rank", range(1, 7))
def test_ranks_share_a_session(rank):
    before = _session.cache_info().currsize if rank > 1 else None
    x = normal((2,) * (rank - 1) + (16,))
    assert_close(rms_normalization(x, epsilon=3e-5), formula(x, epsilon=3e-5))
    rms_normalization(x.reshape(-1, 16), epsilon=3e-5)
    assert before is None or _session.cache_info().currsize <= before + 1


def test_default_epsilon_is_that_of_keras():
    x = normal((2, 8), np.float64, size=1e-4)
    np.testing.assert_array_equal(rms_normalization(x), rms_normalization(x, epsilon=1e-7))
    assert_close(rms_normalization(x), formula(x, epsilon=1e-7), np.float64)


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-3, 1, 1e-30])
def test_epsilon_in_float64_is_not_rounded_to_float32(epsilon):
    x = normal((3, 8), np.float64, size=1e-5)
    assert_close(rms_normalization(x, epsilon=epsilon), formula(x, epsilon=epsilon), np.float64)


@pytest.mark.parametrize("shape", [(), (1,), (8,), (1, 8), (4, 1), (4, 8), (3, 1, 1), (3, 4, 8)], ids=str)
def test_scale_broadcasts(shape):
    x, scale = normal((3, 4, 8)), normal(shape, np.float32, seed=2, size=1.0)
    assert_close(rms_normalization(x, scale), formula(x, scale))


def test_scale_of_another_dtype_is_not_rounded_to_that_of_x():
    x, scale = normal((3, 8), np.float16), np.full(8, 1 + 2**-14, np.float32)
    assert_close(rms_normalization(x, scale), formula(x, scale), np.float16)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.bool_])
def test_integers_become_float32(dtype):
    x = np.arange(8).astype(dtype)
    assert_close(rms_normalization(x), formula(x))


def test_python_numbers_become_float32():
    assert_close(rms_normalization([[1, 2.5], [3, 4]]), formula(np.array([[1, 2.5], [3, 4]])))
    assert_close(rms_normalization(3.0), np.array([3 / np.sqrt(9 + 1e-7)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_large_16_bit_values_do_not_overflow(dtype):
    x = np.full((2, 8), 3e4, dtype)
    assert_close(rms_normalization(x), formula(x), dtype)


def test_views_and_foreign_byte_order():
    x = normal((8, 6))
    assert_close(rms_normalization(x.T[::2]), formula(x.T[::2]))
    assert_close(rms_normalization(x.astype(">f4")), formula(x))


def test_empty_input():
    assert rms_normalization(np.zeros((0, 8), np.float16)).shape == (0, 8)
    assert rms_normalization(np.zeros((3, 0), np.float64)).dtype == np.float64


def test_input_is_left_alone():
    x = normal((3, 8))
    before = x.copy()
    rms_normalization(x, np.ones(8))
    np.testing.assert_array_equal(x, before)


def test_threads_get_the_results_of_one():
    inputs = [normal((7, 32), seed=s) for s in range(32)]
    _session.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda x: rms_normalization(x, epsilon=2e-6), inputs))
    for x, y in zip(inputs, together, strict=True):
        np.testing.assert_array_equal(y, rms_normalization(x, epsilon=2e-6))


def test_the_cache_is_bounded():
    x = normal((2, 8))
    for k in range(40):
        rms_normalization(x, epsilon=k * 1e-4)
    info = _session.cache_info()
    assert info.maxsize is not None
    assert info.currsize <= info.maxsize < 40


# the layer


@pytest.mark.parametrize(
    ("axis", "shape"), [(-1, (8,)), (1, (4,)), (0, (3,)), ([1, 2], (4, 8)), ([2, 1], (4, 8)), ((-1, 0), (3, 8))]
)
def test_layer_scales_along_its_axes(axis, shape):
    layer = RMSNormalization(axis=axis)
    layer.build((3, 4, 8))
    assert layer.scale.shape == shape
    layer.scale = normal(shape, seed=3, size=1.0)
    x = normal((3, 4, 8))
    positive = sorted(a % 3 for a in (axis if isinstance(axis, list | tuple) else [axis]))
    aligned = layer.scale.reshape([n if a in positive else 1 for a, n in enumerate(x.shape)])
    assert_close(layer(x), formula(x, aligned, tuple(positive), 1e-6))


@DTYPES
def test_layer_keeps_the_dtype(dtype):
    x = normal((2, 8), dtype)
    assert_close(RMSNormalization(epsilon=1e-3)(x), formula(x, epsilon=1e-3), dtype)


def test_layer_builds_on_the_first_call_only():
    layer = RMSNormalization()
    assert not layer.built
    layer(normal((2, 8)))
    assert layer.built
    layer.scale = np.full(8, 2.0, np.float32)
    x = normal((5, 3, 8))
    assert_close(layer(x), formula(x, 2.0, epsilon=1e-6))
    assert_close(layer.call(x), formula(x, 2.0, epsilon=1e-6))


def test_layer_builds_with_an_unknown_batch():
    layer = RMSNormalization(axis=[1, -1])
    layer.build((None, 4, None, 8))
    assert layer.scale.shape == (4, 8)


@pytest.mark.parametrize("axis", [-1, 1, [1, -1], (0, 2)])
def test_config_round_trip(axis):
    layer = RMSNormalization(axis=axis, epsilon=1e-5)
    config = layer.get_config()
    assert config == {"axis": list(axis) if isinstance(axis, tuple) else axis, "epsilon": 1e-5}
    layer.build((2, 4, 8))
    assert layer.get_config() == config
    again = RMSNormalization.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert not again.built


def test_config_of_keras():
    config = {"name": "norm", "trainable": True, "dtype": {"module": "keras"}, "axis": [-1], "epsilon": 1e-6}
    assert RMSNormalization.from_config(config).get_config() == {"axis": [-1], "epsilon": 1e-6}
    with pytest.raises(InvalidInput, match="center"):
        RMSNormalization.from_config({"axis": -1, "center": True})


def test_output_shape():
    layer = RMSNormalization(axis=[1, -1])
    assert layer.compute_output_shape([None, 4, 8]) == (None, 4, 8)
    with pytest.raises(InvalidInput, match="axis"):
        layer.compute_output_shape((8,))


def test_scale_before_build():
    with pytest.raises(AttributeError, match="build"):
        _ = RMSNormalization().scale


# errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.ones((2, 8)), "axis": 2}, "axis from -2 to 1 for rank 2, got 2"),
        ({"x": np.ones((2, 8)), "axis": -3}, "axis from -2 to 1"),
        ({"x": np.ones((2, 8)), "axis": [1, -1]}, "different axes"),
        ({"x": np.ones((2, 8)), "axis": []}, "at least one axis"),
        ({"x": np.ones((2, 8)), "axis": 0.5}, "integer"),
        ({"x": np.ones((2, 8)), "axis": "ab"}, "integer"),
        ({"x": np.ones((2, 8)), "epsilon": -1e-6}, "epsilon"),
        ({"x": np.ones((2, 8)), "epsilon": np.nan}, "epsilon"),
        ({"x": np.ones((2, 8)), "epsilon": np.inf}, "epsilon"),
        ({"x": np.ones((2, 8)), "epsilon": "small"}, "epsilon"),
        ({"x": np.ones((2, 8)), "epsilon": 1e-60}, "at least 1e-30"),
        ({"x": np.ones((2, 8), np.complex64)}, "complex64"),
        ({"x": np.array(["a"])}, "dtype"),
        ({"x": "text"}, "expected numbers for x, got str"),
        ({"x": [[1.0], [1.0, 2.0]]}, "expected numbers for x, got list"),
        ({"x": np.ones((2, 8)), "scale": np.ones(4)}, r"x of shape \(2, 8\) .* got shape \(4,\)"),
        ({"x": np.ones((2, 1)), "scale": np.ones(8)}, "without making it larger"),
        ({"x": np.ones((2, 8)), "scale": np.ones((1, 1, 8))}, "without making it larger"),
        ({"x": np.ones((2, 8)), "scale": np.ones(8, complex)}, "scale of dtype"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        rms_normalization(**arguments)


def test_wrong_layer():
    with pytest.raises(InvalidInput, match="epsilon"):
        RMSNormalization(epsilon=-1)
    with pytest.raises(InvalidInput, match="integer"):
        RMSNormalization(axis=None)
    with pytest.raises(InvalidInput, match="known sizes"):
        RMSNormalization().build((3, None))
    layer = RMSNormalization()
    layer.build((3, 8))
    with pytest.raises(InvalidInput, match=r"sizes \(8,\) along axis -1.*shape \(3, 4\)"):
        layer(np.ones((3, 4)))
    with pytest.raises(InvalidInput, match=r"scale of shape \(8,\), got \(4,\)"):
        layer.scale = np.ones(4)
