"""The float64 oracle, ulps and the derived bounds; and that a graph read in float64 agrees with the oracle."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from rmsnorm_onnx import reference, runtime, spec
from rmsnorm_onnx.function import Form, function_proto
from rmsnorm_onnx.parity.bound import noise_factor, spread, yardstick
from rmsnorm_onnx.reference import Attributes
from rmsnorm_onnx.runtime.evaluator import run_reference
from rmsnorm_onnx.spec import DType

F16, F32, F64 = np.float16, np.float32, np.float64
BF16 = ml_dtypes.bfloat16
TYPES = [F32, F16, BF16, F64]


def norm(x, scale=1.0, **attributes):
    attributes.setdefault("epsilon", 1e-7)
    return reference.exact("RMSNormalization", [np.asarray(x), np.asarray(scale)], Attributes(**attributes))[0]


def test_matches_the_documented_keras_values():
    x = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    expected = [[0.46291, 0.92582, 1.38873], [0.78954, 0.98693, 1.18431]]
    np.testing.assert_array_equal(np.round(norm(x), 5), expected)
    layer = norm(np.arange(10, dtype=F32), epsilon=1e-6)
    np.testing.assert_array_equal(np.round(layer[[0, 1, 2, 9]], 6), [0, 0.187317, 0.374634, 1.685854])


@pytest.mark.parametrize("axes", [(-1,), (1,), (0, 2), (-3, -1), (0, 1, 2)])
def test_any_axes(axes):
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    expected = x / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + 1e-3)
    assert reference.ulps(norm(x, epsilon=1e-3, axes=axes), expected, F64).max() <= 4


@pytest.mark.parametrize(
    ("attributes", "denominator"),
    [
        ({"epsilon": 0.0, "floor": 9.0}, 3.0),
        ({"epsilon": 0.0, "epsilon_outside": 0.5}, 2.5),
        ({"epsilon": 3.0, "epsilon_low": 2.0}, 3.0),
        ({"epsilon": 7.0, "floor": 9.0, "epsilon_outside": 1.0}, 5.0),
    ],
)
def test_each_attribute_enters_where_the_contract_says(attributes, denominator):
    np.testing.assert_array_equal(norm([2.0, -2.0], **attributes), [2 / denominator, -2 / denominator])


@pytest.mark.parametrize("magnitude", [1e200, 1e-200, 1e-310])
def test_squares_neither_overflow_nor_vanish(magnitude):
    y = norm(np.array([3.0, -4.0]) * magnitude, epsilon=0.0)
    np.testing.assert_allclose(y, np.array([3, -4]) / np.sqrt(12.5), rtol=1e-12)


def test_non_finite_rows():
    y = norm(np.array([[1.0, np.inf], [1.0, np.nan], [0.0, 0.0]]))
    assert y[0, 0] == 0
    assert np.isnan(y[0, 1])
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[2], [0, 0])
    assert np.isnan(norm([0.0, 0.0], epsilon=0.0)).all()


def test_what_float16_has_no_room_for_is_rounded_to_nothing():
    """Infinity is as near to any number as 2^-20 of infinity."""
    assert reference.is_rounded(float(np.float16(1 / 3)), 1 / 3)
    assert not reference.is_rounded(1 / 3, 1e30)


def test_the_skip_sum_is_rounded_before_it_is_normed():
    x, skip = np.array([2048.0, 1.0], F16), np.array([1.0, 1.0], F16)
    y, total = reference.faithful("SkipRMSNormalization", [x, skip, np.ones(2, F16)], Attributes(1e-6))
    np.testing.assert_array_equal(total, np.array([2048, 2], F16))
    np.testing.assert_array_equal(y, norm([2048.0, 2.0], epsilon=1e-6).astype(F16))


@pytest.mark.parametrize(("op", "before"), [("GatedRMSNormalization", False), ("PreGatedRMSNormalization", True)])
def test_gates(op, before):
    generator = np.random.default_rng(1)
    x, gate, scale = generator.standard_normal((2, 6)), generator.standard_normal((2, 6)), generator.standard_normal(6)
    silu = gate / (1 + np.exp(-gate))
    expected = norm(x * silu) * scale if before else norm(x) * scale * silu
    (y,) = reference.exact(op, [x, gate, scale], Attributes(1e-7))
    assert reference.ulps(y, expected, F64).max() <= 4


def test_normalized_type_rounds_before_the_scale():
    x, scale = np.random.default_rng(3).standard_normal(64).astype(BF16), np.full(64, 1.25, BF16)
    once = reference.faithful("RMSNormalization", [x, scale], Attributes(1e-6))[0]
    twice = reference.faithful("RMSNormalization", [x, scale], Attributes(1e-6, normalized_type=DType.BFLOAT16))[0]
    unscaled = norm(x, epsilon=1e-6)
    np.testing.assert_array_equal(once, (unscaled * 1.25).astype(BF16))
    np.testing.assert_array_equal(twice, (unscaled.astype(BF16).astype(F64) * 1.25).astype(BF16))
    assert (once != twice).any()


def test_scaled_type_rounds_before_the_gate():
    generator = np.random.default_rng(2)
    x, gate, scale = (generator.standard_normal(64).astype(F16) for _ in range(3))
    y = reference.faithful("GatedRMSNormalization", [x, gate, scale], Attributes(1e-6, scaled_type=DType.FLOAT16))[0]
    scaled = (norm(x, epsilon=1e-6) * scale.astype(F64)).astype(F16).astype(F64)
    np.testing.assert_array_equal(y, (scaled * reference.silu(gate.astype(F64))).astype(F16))


@pytest.mark.parametrize("dtype", TYPES)
def test_ulp_is_the_distance_to_the_next_number(dtype):
    info = ml_dtypes.finfo(dtype)
    one, largest, smallest = dtype(1), info.max, info.smallest_subnormal
    for value in (one, dtype(1.75), dtype(-3), largest, smallest, dtype(0)):
        magnitude = np.abs(np.asarray(value, dtype))
        bits = magnitude.view(f"u{np.dtype(dtype).itemsize}")
        last_bit = bits.dtype.type(1)  # numpy 1 makes a float of uint64 and a Python int
        upper = (bits + last_bit).view(dtype)
        if value == largest:
            upper, magnitude = magnitude, (bits - last_bit).view(dtype)
        step = float(upper) - float(magnitude)
        assert reference.ulp(value, dtype) == step


def test_ulps_never_skips_a_non_finite_value():
    nan, inf = np.nan, np.inf
    got = np.array([nan, nan, 1.0, inf, -inf, inf, 1.0], F32)
    want = np.array([nan, 1.0, nan, inf, inf, 1.0, 1.0], F32)
    np.testing.assert_array_equal(reference.ulps(got, want, F32), [0, inf, inf, 0, inf, inf, 0])


def test_ulps_counts_in_the_given_type():
    assert reference.ulps(1 + 2.0**-10, 1.0, F16) == 1
    assert reference.ulps(1 + 2.0**-10, 1.0, F32) == 2.0**13


def stepwise(op, inputs, attributes, additions_in_order):
    """The operator with every step rounded to the stash type, and the sum taken term by term."""
    stash = reference.NUMPY_TYPES[attributes.stash_type]
    given = {n: i.astype(stash) for n, i in zip(spec.OPS[op].inputs, inputs, strict=True)}
    gate = None
    if "gate" in given:
        one = stash.type(1)
        gate = given["gate"] * (one / (one + np.exp(-given["gate"])))
    x = given["X"] * gate if op == "PreGatedRMSNormalization" else given["X"]
    square = x * x
    if additions_in_order:
        total = np.zeros(x.shape[:-1], stash)
        for column in range(x.shape[-1]):
            total = total + square[..., column]
    else:
        total = square.sum(axis=-1, dtype=stash)
    mean = total / stash.type(x.shape[-1]) + stash.type(attributes.epsilon)
    y = x / np.sqrt(mean)[..., None]
    y = y.astype(reference.NUMPY_TYPES[attributes.normalized_type]).astype(stash) * given["scale"]
    if op == "GatedRMSNormalization":
        y = y.astype(reference.NUMPY_TYPES[attributes.scaled_type]).astype(stash) * gate
    return y


@pytest.mark.parametrize("op", ["RMSNormalization", "GatedRMSNormalization", "PreGatedRMSNormalization"])
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize("width", [1, 3, 129, 1000])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_bound_holds_for_a_stepwise_evaluation(op, dtype, width, rounded):
    generator = np.random.default_rng(width)
    shape = (40, width)
    inputs = [generator.standard_normal(shape if n != "scale" else width).astype(dtype) for n in spec.OPS[op].inputs]
    target = DType[{F32: "FLOAT", F16: "FLOAT16"}.get(dtype, "BFLOAT16")] if rounded else DType.FLOAT
    # float32(1e-5), so that the oracle adds the same number.
    attributes = Attributes(float(F32(1e-5)), normalized_type=target, scaled_type=target)
    exact = reference.exact(op, inputs, attributes)[0]
    got = stepwise(op, inputs, attributes, additions_in_order=True)
    limit = reference.bound(op, width, dtype, attributes)
    normal = np.abs(exact) >= float(ml_dtypes.finfo(dtype).smallest_normal)
    # A product of two roundings to T may itself be subnormal where the whole is not; then no relative bound holds.
    assert normal.mean() > 0.9
    assert (np.abs(got - exact)[normal] <= limit.relative * np.abs(exact)[normal]).all()
    assert (reference.ulps(got.astype(dtype), exact, dtype)[normal] <= limit.ulps).all()


def test_the_bound_is_violated_by_a_missing_rounding_step_of_a_narrow_type():
    generator = np.random.default_rng(0)
    x, scale = generator.standard_normal((50, 64)).astype(BF16), generator.standard_normal(64).astype(BF16)
    rounded = Attributes(1e-5, normalized_type=DType.BFLOAT16)
    y = reference.faithful("RMSNormalization", [x, scale], rounded)[0]
    error = reference.ulps(y, reference.exact("RMSNormalization", [x, scale], rounded)[0], BF16)
    assert error.max() > reference.bound("RMSNormalization", 64, BF16, Attributes(1e-5)).ulps
    assert error.max() <= reference.bound("RMSNormalization", 64, BF16, rounded).ulps


def test_the_bound_grows_with_the_chain_and_shrinks_with_the_stash_type():
    attributes = Attributes(1e-5)
    wide = reference.bound("RMSNormalization", 4096, F32, attributes)
    assert wide.roundoffs == pytest.approx((4095 + 4) / 2 + 4, rel=1e-3)
    assert reference.bound("RMSNormalization", 4096, F32, attributes, additions=70).ulps < 44
    double = Attributes(1e-5, stash_type=DType.DOUBLE, normalized_type=DType.DOUBLE)
    assert (
        reference.bound("RMSNormalization", 4096, F32, double).ulps
        == 0.5 + reference.bound("RMSNormalization", 4096, F32, double).relative * 2**24
        < 0.50001
    )


def test_no_bound_where_first_order_analysis_ends():
    with pytest.raises(ValueError, match="wider stash type"):
        reference.bound("RMSNormalization", 1 << 26, F32, Attributes(1e-5))


# --- graphs read in float64 ---

X = np.array([1.0, -2.0], F32)
HEADER = '<ir_version: 9, opset_import: ["" : 20]> '


@pytest.mark.parametrize("op", spec.OPS)
@pytest.mark.parametrize("body", [True, False])
def test_our_operators_read_as_the_oracle(op, body):
    """Through the stored body or, where the file holds none, through the one that the package knows."""
    names = spec.OPS[op].inputs
    generator = np.random.default_rng(0)
    arrays = {n: generator.standard_normal((3, 8) if n != "scale" else 8).astype(np.float16) for n in names}
    attributes = {"axes": [-1], "epsilon": 0.01, "epsilon_low": 0.0, "epsilon_outside": 0.25, "floor": 0.5}
    attributes |= {"stash_type": 1, "normalized_type": 10} | ({"scaled_type": 10} if op == spec.GATED.name else {})
    node = helper.make_node(op, names, spec.OPS[op].outputs[:1], domain=spec.DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT16, a.shape) for n, a in arrays.items()],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT16, (3, 8))],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(spec.DOMAIN, 1)]
    functions = [function_proto(op, Form(18))] if body else []
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)
    exact = runtime.run_exact(ir.from_proto(model), arrays)
    given = reference.Attributes(float(np.float32(0.01)), epsilon_outside=0.25, floor=0.5)
    expected = reference.exact(op, list(arrays.values()), given)[0]
    assert reference.ulps(exact.outputs["Y"], expected, np.float64).max() <= 16
    assert exact.how == "onnxruntime in float64"


@pytest.mark.parametrize("op", ["Erf", "Gelu"])
def test_an_operator_without_a_float64_kernel_goes_to_the_reference_evaluator(op):
    model = parser.parse_model(HEADER + f"e (float[n] x) => (float[n] y) {{ y = {op} (x) }}")
    exact = runtime.run_exact(ir.from_proto(model), {"x": X})
    assert exact.how == "onnx.reference in float64"
    erf = [math.erf(x) for x in X] if op == "Erf" else [x / 2 * (1 + math.erf(x / math.sqrt(2))) for x in map(float, X)]
    np.testing.assert_allclose(exact.outputs["y"], erf, rtol=1e-15)


def test_the_tanh_form_of_gelu_is_exact_too():
    model = parser.parse_model(HEADER + 'g (float[n] x) => (float[n] y) { y = Gelu <approximate = "tanh"> (x) }')
    x = np.array([0.5, -1.5], np.float32)
    inner = [math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)) for v in map(float, x)]
    exact = runtime.run_exact(ir.from_proto(model), {"x": x})
    np.testing.assert_allclose(exact.outputs["y"], x / 2.0 * (1 + np.array(inner)), rtol=1e-15)


def test_the_evaluator_reads_the_norm_of_onnx_23_in_float64_too():
    text = "m (float[2] x, float[2] w) => (float[2] y) { y = RMSNormalization <epsilon = 0.01> (x, w) }"
    model = ir.from_proto(parser.parse_model(HEADER.replace("20", "23") + text))
    w = np.array([0.5, 3.0], F32)
    read = run_reference(runtime.widen_to_float64(model), {"x": X.astype(F64), "w": w.astype(F64)})["y"]
    assert reference.ulps(read, norm(X.astype(F64), w, epsilon=float(F32(0.01))), F64).max() <= 2


# --- the bound of a whole model ---


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
def test_noise_has_the_size_of_a_rounding(dtype):
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])],
        "m",
        [helper.make_tensor_value_info("x", code, ["n"])],
        [helper.make_tensor_value_info("z", code, ["n"])],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    x = np.random.default_rng(0).uniform(1, 2, 4000).astype(dtype)
    exact = runtime.run_exact(model, {"x": x}).outputs["z"]
    first, second = runtime.noise_runs(model, {"x": x}, count=2, seed=0)
    unit = reference.roundoff(dtype)
    for run_ in (first, second):
        relative = (run_["z"] - exact) / exact
        # Two roundings would reach 2 u: Identity rounds nothing. One reaches u where the significand is near 1.
        assert 0.8 * unit < np.abs(relative).max() <= unit * (1 + 1e-6)
        assert 0.2 * unit < relative.std() < 0.6 * unit
    assert (first["z"] != second["z"]).mean() > 0.5


@pytest.mark.parametrize("samples", [4, 8])
def test_the_noise_factor_keeps_its_promise(samples):
    """At a false alarm rate that can be measured, normal draws exceed k times the largest of m others that rarely."""
    generator = np.random.default_rng(0)
    draws = np.abs(generator.standard_normal((400_000, samples + 1)))
    rate = 1e-3
    factor = noise_factor(samples, 1) * (1e-6 / rate) ** (1 / samples)
    observed = np.mean(draws[:, 0] > factor * draws[:, 1:].max(axis=1))
    assert 0 < observed <= rate


def test_the_noise_factor_of_eight_samples_is_eight():
    assert noise_factor(8, 1) == pytest.approx(8.03, abs=0.005)
    assert noise_factor(8, 1_000_000) == pytest.approx(noise_factor(8, 1) * 10 ** (6 / 8))


def judged_by(original, noise, exact=1.0):
    shape = (1000,)
    generator = np.random.default_rng(1)
    samples = [{"y": exact + noise * generator.standard_normal(shape)} for _ in range(8)]
    return yardstick(
        np.float32(exact + original * generator.standard_normal(shape)),
        np.full(shape, exact),
        spread({"y": np.full(shape, exact)}, samples)["y"],
        exact_roundoff=2.0**-53,
        longest_sum=64,
    )


def test_noise_inside_sums_is_measured_on_the_original():
    small, large = judged_by(1e-5, 1e-5), judged_by(4e-5, 1e-5)
    assert small.original_explained
    assert large.original_explained
    assert 3 < np.median(large.rounding / small.rounding) < 5


def test_an_original_that_rounding_does_not_explain_is_no_yardstick():
    broken, sound = judged_by(1e-3, 1e-5), judged_by(1e-5, 1e-5)
    assert not broken.original_explained
    assert np.median(broken.rounding) <= np.median(sound.rounding)


def test_the_function_bound_is_far_below_the_rounding_noise():
    bounds = judged_by(1e-5, 1e-5)
    assert bounds.function.max() < 1e-5 * 1e-3
