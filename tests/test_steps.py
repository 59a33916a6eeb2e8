"""Models that quantize: roundings that move a value over a step are no mismatch, other functions still are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper, parser

from rmsnorm_onnx import runtime, spec
from rmsnorm_onnx.parity import Verdict, verify
from rmsnorm_onnx.passes import FuseRmsNorm
from rmsnorm_onnx.runtime.evaluator import run_reference

WIDTH = 16
NUMPY = {"float": np.float32, "float16": np.float16}


def parse(text, **weights):
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items())
    return model


def parity(original, other, **options):
    return verify(original, other, library=False, threads=1, **options)


# --- single steps -------------------------------------------------------------------------------------------------

THIRD = {"Mul": 1 / 3, "Div": 3.0}
BOUNDARIES = (3 * np.float32(0.1) * (np.arange(-40, 40, dtype=np.float32) + np.float32(0.5))).reshape(8, 10)
STEPS = {
    "quantizer": "q = QuantizeLinear (h, s, z) y = DequantizeLinear (q, s, z)",
    "onnxruntime's": "q = com.microsoft.QuantizeLinear (h, s, z) y = com.microsoft.DequantizeLinear (q, s, z)",
    "dynamic": "q, scale, zero = DynamicQuantizeLinear (h) y = DequantizeLinear (q, scale, zero)",
    "round": "i = Div (h, s) q = Round (i) y = Mul (q, s)",
}


def third(operator, steps, factor=1.0):
    """A third of x, quantized: x * (1 / 3), as float32 knows that, or x / 3."""
    text = f"t (float[8, 10] x) => (float[8, 10] y) {{ h = {operator} (x, c) {steps} }}"
    constant = np.float32(THIRD[operator] * factor)
    return parse(text, c=constant, s=np.float32(0.1), z=np.uint8(128))


@pytest.mark.parametrize("kind", STEPS)
def test_a_value_next_to_a_boundary_may_go_to_either_side(kind):
    given = {"x": BOUNDARIES}
    models = [third(operator, STEPS[kind]) for operator in THIRD]
    whole = [runtime.run_side(runtime.load(model), given, library=False).outputs["y"] for model in models]
    if kind != "dynamic":
        assert np.abs(whole[0] - whole[1]).max() > 0.09, "nothing to test: no value went to the other side"
    result = parity(*models, inputs=given)
    assert result.ok, [output.detail for output in result.outputs]
    assert [output.name for output in result.outputs] == ["y"]
    assert "1 steps" in result.sets[0].notes[0]
    if kind != "dynamic":
        assert result.outputs[0].verdict is Verdict.WITHIN_BOUND
        assert result.outputs[0].max_abs_error > 0.09


@pytest.mark.parametrize("kind", STEPS)
def test_a_change_that_the_steps_hide_is_seen(kind):
    result = parity(third("Div", STEPS[kind]), third("Div", STEPS[kind], factor=1.0001))
    failed = [output for output in result.outputs if not output.verdict.ok]
    assert failed
    assert "(into q)" in failed[0].name or kind == "dynamic"
    assert failed[0].verdict is Verdict.FUNCTION


def test_another_step_is_seen():
    """The same name, but rounding to other numbers: the scale is compared, as everything that goes into a step is."""
    original, other = third("Div", STEPS["quantizer"]), third("Div", STEPS["quantizer"])
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.float32(0.101), "s"))
    assert not parity(original, other).ok
    swapped = third("Div", STEPS["round"].replace("Round", "Floor"))
    assert not parity(third("Div", STEPS["round"]), swapped).ok


def test_a_quantized_output_is_judged_by_what_goes_into_it():
    text = "t (float[8, 10] x) => (uint8[8, 10] q) {{ h = {} (x, c) q = QuantizeLinear (h, s, z) }}"
    weights = {"s": np.float32(0.1), "z": np.uint8(128)}
    models = [parse(text.format(op), c=np.float32(c), **weights) for op, c in THIRD.items()]
    result = parity(*models, inputs={"x": BOUNDARIES})
    assert result.ok
    assert result.outputs[0].max_abs_error == 1


# --- norms between quantizers -------------------------------------------------------------------------------------


def network(kind, *, epsilon=1e-6, gain=1.0, centred=False, quantizer="quantizer"):
    """Norm, quantized; product with quantized weights, quantized; and a norm again."""
    generator = np.random.default_rng(3)
    dtype = NUMPY[kind]
    centre = "mean{0} = ReduceMean (wide{0}, axes) c{0} = Sub (wide{0}, mean{0})" if centred else "c{0} = Neg (wide{0})"
    norm = f"""wide{{0}} = Cast <to = 1> ({{1}}) {centre} n{{0}} = Neg (c{{0}}) two{{0}} = Mul (c{{0}}, c{{0}})
        var{{0}} = ReduceMean (two{{0}}, axes) e{{0}} = Add (var{{0}}, epsilon) root{{0}} = Sqrt (e{{0}})
        inverse{{0}} = Reciprocal (root{{0}}) y{{0}} = Mul (wide{{0}}, inverse{{0}})
        narrow{{0}} = Cast <to = {helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}> (y{{0}})
        {{2}} = Mul (g{{0}}, narrow{{0}})"""
    domain = "com.microsoft." if quantizer == "onnxruntime's" else ""
    steps = f"q{{0}} = {domain}QuantizeLinear ({{1}}, s{{0}}, z) d{{0}} = {domain}DequantizeLinear (q{{0}}, s{{0}}, z)"
    text = f"""network ({kind}[batch, 12, {WIDTH}] x) => ({kind}[batch, 12, {WIDTH}] out) {{
        axes = Constant <value = int64[1] {{-1}}> ()
        {norm.format(1, "x", "h1")} {steps.format(1, "h1")}
        weights = DequantizeLinear (w, sw)
        m = MatMul (d1, weights) {steps.format(2, "m")}
        {norm.format(2, "d2", "h2")} {steps.format(3, "h2")}
        m2 = MatMul (d3, weights) {steps.format(4, "m2")}
        out = Add (d4, d2) }}"""
    gains = 1 + 0.1 * generator.standard_normal((2, WIDTH))
    return parse(
        text,
        epsilon=np.float32(epsilon),
        g1=gains[0].astype(dtype),
        g2=(gains[1] * gain).astype(dtype),
        w=generator.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8),
        sw=dtype(0.01),
        s1=dtype(0.025),
        s2=dtype(0.1),
        s3=dtype(0.025),
        s4=dtype(0.1),
        z=np.uint8(128),
    )


def fused(model):
    result = FuseRmsNorm()(ir.from_proto(model)).model
    assert sum(node.domain == spec.DOMAIN for node in result.graph) == 2
    return result


@pytest.mark.parametrize("kind", NUMPY)
@pytest.mark.parametrize("seed", range(4))
def test_a_fused_quantized_model_passes(kind, seed):
    result = parity(network(kind), fused(network(kind)), seed=seed, dims={"batch": 8})
    assert result.ok, [(output.name, output.detail) for output in result.outputs]


MUTATIONS = {"epsilon": {"epsilon": 1e-5}, "gain": {"gain": 1.01}, "layer norm": {"centred": True}}


@pytest.mark.parametrize("kind", NUMPY)
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("fuse", [False, True])
def test_another_function_between_quantizers_is_caught(kind, mutation, fuse):
    changed = network(kind, **MUTATIONS[mutation])
    if fuse and mutation != "layer norm":
        changed = fused(changed)
    result = parity(network(kind), changed)
    assert Verdict.FUNCTION in {output.verdict for output in result.outputs}


def test_quantizers_of_onnxruntime_are_read_as_onnx_reads_its_own():
    model = network("float", quantizer="onnxruntime's")
    ours = runtime.run_exact(ir.from_proto(model), {"x": np.ones((1, 12, WIDTH), np.float32)})
    plain = runtime.run_exact(ir.from_proto(network("float")), {"x": np.ones((1, 12, WIDTH), np.float32)})
    np.testing.assert_array_equal(ours.outputs["out"], plain.outputs["out"])
    assert ours.roundoff == 2.0**-53
    assert parity(model, fused(model)).ok


def test_dynamic_scales_are_read_in_float64():
    model = parse("d (double[3] x) => (uint8[3] q, double s, uint8 z) { q, s, z = DynamicQuantizeLinear (x) }")
    outputs = run_reference(ir.from_proto(model), {"x": np.array([0.1, -0.2, 0.3])})
    assert outputs["s"] == (0.3 + 0.2) / 255
    assert outputs["z"] == 102
    np.testing.assert_array_equal(outputs["q"], [153, 0, 255])
    assert run_reference(ir.from_proto(model), {"x": np.zeros(3)})["s"] == 1
