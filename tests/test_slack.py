"""Constants that stand for another number: what the float64 reading may take them for, and what not."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

import rmsnorm_onnx
from rmsnorm_onnx.parity import Verdict, verify
from rmsnorm_onnx.runtime.slack import with_constant_slack

MODELS = Path(__file__).parent.parent / "models"
WIDTH = 48
TYPES = {"float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def parse(text, **weights):
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items())
    return model


def unit_norm(kind, factor, operator="Mul"):
    """Unit length times (or divided by) a constant, plus an input n that nothing reads."""
    text = f"""u ({kind}[3, {WIDTH}] x, {kind}[1] n) => ({kind}[3, {WIDTH}] y) {{
        axes = Constant <value = int64[1] {{-1}}> ()
        length = ReduceL2 (x, axes)
        unit = Div (x, length)
        y = {operator} (unit, c) }}"""
    return parse(text, c=np.asarray(factor))


def meant(kind):
    """Unit length times sqrt(n); the root is taken in the graph, so that its float64 reading knows it exactly."""
    text = f"""u ({kind}[3, {WIDTH}] x, {kind}[1] n) => ({kind}[3, {WIDTH}] y) {{
        axes = Constant <value = int64[1] {{-1}}> ()
        length = ReduceL2 (x, axes)
        unit = Div (x, length)
        root = Sqrt (n)
        y = Mul (unit, root) }}"""
    return parse(text)


def compare(kind, factor, n=WIDTH, operator="Mul"):
    x = np.random.default_rng(0).standard_normal((3, WIDTH))
    feeds = {"x": x.astype(TYPES[kind]), "n": np.asarray([n], TYPES[kind])}
    (output,) = verify(unit_norm(kind, factor, operator), meant(kind), library=False, threads=1, inputs=feeds).outputs
    return output


CASES = [
    ("float16", np.float16(math.sqrt(WIDTH)), "Mul"),
    ("float16", np.float16(1 / math.sqrt(WIDTH)), "Div"),
    ("bfloat16", ml_dtypes.bfloat16(math.sqrt(WIDTH)), "Mul"),
    ("float", np.float32(np.float16(math.sqrt(WIDTH))), "Mul"),
    ("float", np.float32(ml_dtypes.bfloat16(1 / math.sqrt(WIDTH))), "Div"),
]


@pytest.mark.parametrize(("kind", "factor", "operator"), CASES)
def test_a_root_of_a_length_rounded_to_16_bits_stands_for_the_root(kind, factor, operator):
    output = compare(kind, factor, operator=operator)
    assert output.verdict.ok, output.detail
    assert (output.function_share or 0) <= 1


@pytest.mark.parametrize(("kind", "factor", "operator"), CASES)
def test_and_for_nothing_else(kind, factor, operator):
    """One per cent off is another function, in 16 bits too."""
    assert compare(kind, factor, n=WIDTH * 1.02, operator=operator).verdict is Verdict.FUNCTION


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_root_of_no_length_is_what_it_says(kind):
    n = 46.5
    assert compare(kind, TYPES[kind](math.sqrt(n)), n).verdict is Verdict.FUNCTION


def test_each_constant_is_of_one_kind():
    half, single, exact = np.float16(math.sqrt(WIDTH)), np.float32(math.sqrt(WIDTH)), np.float16(0.25)
    kinds = [with_constant_slack(ir.from_proto(unit_norm("float16", c))).is_known for c in (half, exact)]
    assert kinds == [(True,), ()]
    assert with_constant_slack(ir.from_proto(unit_norm("float", single))).is_known == (False,)


@pytest.mark.parametrize("kind", ["float", "float16"])
@pytest.mark.parametrize("width", [WIDTH, 36])
@pytest.mark.parametrize(("gain", "ok"), [(1.0, True), (1.01, False)])
def test_weights_times_a_root_stand_for_the_unrounded_product(kind, width, gain, ok):
    text = f"""u ({kind}[3, {width}] x, {kind}[1] n) => ({kind}[3, {width}] y) {{
        axes = Constant <value = int64[1] {{-1}}> ()
        length = ReduceL2 (x, axes)
        unit = Div (x, length) """
    dtype = TYPES[kind]
    g = (1 + 0.1 * np.random.default_rng(1).standard_normal(width)).astype(dtype)
    product = np.random.default_rng(2).standard_normal((width, width)).astype(dtype)
    folded = parse(text + "k = Mul (g, c) h = Mul (unit, k) y = MatMul (h, p) }", g=g, c=dtype(width**0.5), p=product)
    single = parse(
        text + "r = Sqrt (n) s = Mul (unit, r) h = Mul (s, g) y = MatMul (h, p) }", g=(g * dtype(gain)), p=product
    )
    feeds = {"x": np.random.default_rng(0).standard_normal((3, width)).astype(dtype), "n": np.asarray([width], dtype)}
    (output,) = verify(folded, single, library=False, threads=1, inputs=feeds).outputs
    assert output.verdict.ok is ok, output.detail


@pytest.mark.parametrize(
    ("constants", "dtype", "value"),
    [*((n, "float16", math.sqrt(WIDTH)) for n in (1, 2, 3, 8, 13)), *((n, "float", 0.3) for n in (1, 2, 3, 8))],
)
def test_the_signs_are_balanced(constants, dtype, value):
    """The runs' mean square effect is the sum of squares of the single effects, for any effects."""
    names = [f"c{i}" for i in range(constants)]
    nodes = "".join(f"h{i + 1} = Mul (h{i}, {name})" for i, name in enumerate(names))
    text = f"m ({dtype}[{WIDTH}] x) => ({dtype}[{WIDTH}] y) {{ h0 = Neg (x) {nodes} y = Neg (h{constants}) }}"
    constant = {"float16": np.float16, "float": np.float32}[dtype](value)
    slack = with_constant_slack(ir.from_proto(parse(text, **dict.fromkeys(names, constant))))
    generator = np.random.default_rng(0)
    signs = slack.meaning_signs(generator) if dtype == "float16" else slack.rounding_signs(2, generator)
    effects = np.random.default_rng(1).standard_normal(constants)
    np.testing.assert_allclose(np.mean((signs @ effects) ** 2), np.sum(effects**2))
    assert (signs[0] == 1).all()


@pytest.mark.parametrize("seed", range(4))
def test_few_sampled_runs_do_not_lose_the_effect_of_constants(seed):
    path = MODELS / "length-torchscript11-f32" / "model.onnx"
    fused = rmsnorm_onnx.optimize(path).model
    assert verify(path, fused, library=False, threads=1, samples=2, seed=seed).ok


def test_an_index_of_lengths_that_are_reduced_together():
    text = """m (float16[4, 6, 8] x) => (float16[4, 6, 8] y) {
        axes = Constant <value = int64[2] {1, 2}> ()
        sum = ReduceSumSquare (x, axes)
        mean = Mul (sum, c)
        y = Div (x, mean) }"""
    assert with_constant_slack(ir.from_proto(parse(text, c=np.float16(1 / 48)))).is_known == (True,)
    assert with_constant_slack(ir.from_proto(parse(text, c=np.float16(1 / 47)))).is_known == ()


def test_a_branch_may_be_a_constant_alone():
    """Without a node that the moved constant could stand before."""
    text = f"""c (float[3, {WIDTH}] x, bool b) => (float[3, {WIDTH}] y) {{
        f = If (b) < then_branch = one () => (float g) <float g = {{6.9282}}> {{ }},
                     else_branch = other () => (float h) {{ h = Abs (c) }} >
        y = Mul (x, f) }}"""
    model = parse(text, c=np.float32(3))
    assert verify(model, model, library=False, threads=1).ok


def test_a_model_may_have_no_node():
    model = parse("i (bfloat16[3] x, bfloat16[3] unread) => (bfloat16[3] x) { }")
    assert verify(model, model, library=False, threads=1).ok


def mean_by_product(column):
    """RMS norm whose mean is the product of the squares with a column."""
    text = f"""u (float[3, {WIDTH}] x) => (float[3, {WIDTH}] y) {{
        squares = Mul (x, x)
        mean = MatMul (squares, column)
        root = Sqrt (mean)
        y = Div (x, root) }}"""
    return parse(text, column=column.reshape(WIDTH, 1))


@pytest.mark.parametrize(("change", "ok"), [(1.0, True), (1 + 2.0**-19, False)])
def test_a_column_of_rounded_shares_of_one_stands_for_the_mean(change, ok):
    share = np.float32(1 / WIDTH)
    fused = rmsnorm_onnx.optimize(mean_by_product(np.full(WIDTH, share)))
    assert len(fused.fused) == 1
    original = mean_by_product(np.full(WIDTH, share * np.float32(change)))
    (output,) = verify(original, fused.model, library=False, threads=1).outputs
    assert (output.verdict in (Verdict.IDENTICAL, Verdict.WITHIN_BOUND)) is ok


def norm_of_weights(kind, epsilon, weights):
    """A product with the RMS norm of weights, which a runtime computes before anything runs."""
    text = f"""u ({kind}[3, {WIDTH}] x) => ({kind}[3, 4] y) {{
        squares = Mul (weights, weights)
        axes = Constant <value = int64[1] {{-1}}> ()
        mean = ReduceMean (squares, axes)
        shifted = Add (mean, epsilon)
        root = Sqrt (shifted)
        rows = Div (weights, root)
        columns = Transpose (rows)
        y = MatMul (x, columns) }}"""
    return parse(text, weights=weights, epsilon=np.asarray(epsilon, weights.dtype))


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_a_norm_of_weights_is_judged_by_its_roundings(kind):
    weights = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(TYPES[kind])
    fused = rmsnorm_onnx.optimize(norm_of_weights(kind, 1e-3, weights))
    assert len(fused.fused) == 1
    verdicts = [
        verify(norm_of_weights(kind, epsilon, weights), fused.model, library=False, threads=1).outputs[0].verdict
        for epsilon in (1e-3, 5e-2)
    ]
    assert [verdict in (Verdict.IDENTICAL, Verdict.WITHIN_BOUND) for verdict in verdicts] == [True, False]
