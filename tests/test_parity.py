"""Parity: correct fusions pass in every type, mutations do not, and the bound does what its derivation says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from parity_models import TYPES, Network, elementwise, parity, verdicts

from rmsnorm_onnx import report, spec
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.parity import Verdict, verify
from rmsnorm_onnx.runtime.slack import with_constant_slack

MODELS = Path(__file__).parent.parent / "models"


def is_numeric_mismatch(result):
    """Not merely a token that flipped: the float outputs themselves are called different."""
    return not result.ok and not verdicts(result)["logits"].ok


@pytest.mark.parametrize("dtype", TYPES)
def test_a_correct_fusion_passes(dtype):
    result = parity(Network(dtype).build(), Network(dtype, fused=True).build())
    assert result.ok, [output.detail for output in result.outputs]
    assert verdicts(result)["token"] is Verdict.IDENTICAL


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("seed", range(3))
def test_a_model_equals_itself(dtype, seed):
    result = parity(Network(dtype).build(), Network(dtype).build(), seed=seed)
    assert set(verdicts(result).values()) == {Verdict.IDENTICAL}
    assert result.original.sha256 == result.fused.sha256


def scaled_element(scale):
    scale[3] *= 1.01
    return scale


MUTATIONS = {
    "epsilon": {"epsilon": 1e-5},
    "axis": {"axis": -2},
    "one-scale-element": {"scales": scaled_element},
    "scale-dropped": {"scales": np.ones_like},
    "missing-one-plus": {"scales": lambda s: s - 1},
    "scales-swapped": {"scales": lambda s: s[::-1]},
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("fused", [True, False])
def test_a_mutation_is_caught_in_every_type(dtype, mutation, fused):
    result = parity(Network(dtype).build(), Network(dtype, fused=fused, **MUTATIONS[mutation]).build())
    assert is_numeric_mismatch(result)
    assert verdicts(result)["logits"] is Verdict.FUNCTION


def test_an_epsilon_far_below_the_data_cannot_be_seen():
    """On data of unit scale 1e-18 is below float64's own roundoff, so nothing that runs could tell."""
    result = parity(Network(epsilon=1e-18).build(), Network(epsilon=2e-18, fused=True).build())
    assert result.ok


def test_an_extra_rounding_to_a_narrow_type_is_caught():
    """Without rounding both are one function, so only the second question can tell."""
    original = Network("f32").build()
    cut = Network("f32").build()
    last = cut.graph.node[-2]
    assert last.op_type == "MatMul"
    for name, to, source in (("cut", TensorProto.BFLOAT16, "hidden"), ("back", TensorProto.FLOAT, "cut")):
        cut.graph.node.insert(len(cut.graph.node) - 2, helper.make_node("Cast", [source], [name], to=to))
    last.input[0] = "back"
    result = parity(original, cut)
    assert verdicts(result)["hidden"].ok
    assert verdicts(result)["logits"] is Verdict.ROUNDING


def add(*values, dtype="f32"):
    """X + values; a NaN or inf in them is one in the output."""
    kind = TYPES[dtype]
    return elementwise("Add", [np.array(values).astype(helper.tensor_dtype_to_np_dtype(kind))], kind)


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("right", [NAN, INF, -INF, 0, 6e4], ids=str)
@pytest.mark.parametrize("left", [NAN, INF, -INF, 0, 6e4], ids=str)
def test_non_finite_values_are_compared(left, right, dtype):
    (output,) = parity(add(0, left, 0, 0, dtype=dtype), add(0, right, 0, 0, dtype=dtype), seed=1).outputs
    both_nan = np.isnan(left) and np.isnan(right)
    if both_nan or left == right:
        assert output.verdict is Verdict.IDENTICAL
    elif np.isfinite([left, right]).all():
        assert output.verdict is Verdict.FUNCTION
    else:
        assert output.verdict is Verdict.NON_FINITE
        assert {element.index[1] for element in output.worst} == {1}
        assert output.worst[0].ulps == INF
        # The original is what float64 runs, so it is right whatever it gives.
        assert output.nearer == "original"


def test_a_nan_is_a_nan_whatever_its_bits():
    other = np.array([0xFFC12345, 0, 0, 0], np.uint32).view(np.float32)
    assert verdicts(parity(add(NAN, 0, 0, 0), elementwise("Add", [other])))["y"] is Verdict.IDENTICAL


def test_the_one_that_overflows_is_further_off_although_it_is_the_original():
    tenfold = elementwise("Mul", [np.full(4, 10, np.float32)])
    tenfold.graph.node[0].output[0] = "large"
    tenfold.graph.initializer.append(numpy_helper.from_array(np.float32(0.25), "quarter"))
    tenfold.graph.node.append(helper.make_node("Mul", ["large", "quarter"], ["y"]))
    once = elementwise("Mul", [np.full(4, 2.5, np.float32)])
    (output,) = parity(tenfold, once, inputs={"x": np.full((1, 4), 1e38, np.float32)}).outputs
    assert output.verdict is Verdict.NON_FINITE
    assert output.worst[0].expected == INF
    assert output.worst[0].exact == pytest.approx(2.5e38)
    assert (output.nearer, output.original_error) == ("fused", INF)


def test_a_nan_row_does_not_hide_a_wrong_row():
    (output,) = parity(add(NAN, 1, 1, 1), add(NAN, 1, 1, 1.001)).outputs
    assert not output.verdict.ok
    assert output.worst[0].index[1] == 3


def test_a_wrong_type():
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)],
        "cast",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
    )
    wide = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (output,) = parity(elementwise("Identity"), wide).outputs
    assert output.verdict is Verdict.DTYPE
    assert output.detail == "float32 in the original, float64 in the fused model"


def test_a_wrong_shape():
    flat = elementwise("Flatten", axis=0)
    (output,) = parity(elementwise("Identity"), flat).outputs
    assert output.verdict is Verdict.SHAPE


def test_a_missing_and_a_new_output():
    result = parity(elementwise("Neg"), elementwise("Neg", name="z"))
    assert verdicts(result) == {"y": Verdict.MISSING, "z": Verdict.MISSING}
    assert not result.ok


def test_integers_must_be_equal():
    limit = [np.array([0, 0, 0, 0], np.float32)]
    left = elementwise("Greater", limit, to=TensorProto.BOOL)
    right = elementwise("GreaterOrEqual", limit, to=TensorProto.BOOL)
    x = np.array([[1, 2, 0, 3]], np.float32)
    (output,) = parity(left, right, inputs={"x": x}).outputs
    assert output.verdict is Verdict.VALUES
    assert [element.index for element in output.worst] == [(0, 2)]
    assert parity(left, left, inputs={"x": x}).ok


def test_one_ulp_where_nothing_rounds_is_a_mismatch():
    exact = elementwise("Identity")
    off = elementwise("Mul", [np.float32(1 + 2.0**-23)])
    assert not parity(exact, off).ok


def test_different_inputs_are_bad_usage():
    with pytest.raises(InvalidInput, match="different inputs"):
        parity(elementwise("Identity"), elementwise("Identity", dtype=TensorProto.DOUBLE))


def foreign(op_type):
    model = elementwise("Identity")
    model.graph.node[0].op_type, model.graph.node[0].domain = op_type, "absent.domain"
    model.opset_import.append(helper.make_opsetid("absent.domain", 1))
    return model


def test_what_cannot_run_is_neither_yes_nor_no():
    with pytest.raises(CannotRun, match=r"absent\.domain"):
        parity(elementwise("Identity"), foreign("Mystery"))


def test_an_operator_without_a_body_still_has_a_float64_reading():
    """A fused file without bodies is judged by the bodies this package knows; only running it needs the library."""
    fused = Network(fused=True, bodies=False).build()
    with pytest.raises(CannotRun):
        parity(Network().build(), fused)


def test_the_report_says_how_to_repeat_it(tmp_path):
    path = tmp_path / "original.onnx"
    onnx.save(Network("bf16").build(), path)
    result = verify(path, Network("bf16", fused=True).build(), library=False, dims={"sequence": 3}, seed=5, threads=1)
    document = json.loads(report.to_json(result.report()))
    assert document["ok"] is result.ok is True
    assert document["schema_version"] == 2
    (inputs,) = document["sets"]
    assert inputs["dims"] == {"batch": 2, "sequence": 3}
    assert document["repeat"]["seed"] == 5
    assert document["repeat"]["versions"]["onnx"] == onnx.__version__
    assert document["original"]["name"] == str(path)
    assert len(document["original"]["sha256"]) == 64
    assert "computed in float32" in inputs["original"]["how"]
    assert [o["verdict"] for o in document["outputs"]][-1] == "identical"
    assert {o["dtype"] for o in document["outputs"]} == {"bfloat16", "int64"}


def test_a_mismatch_fails_in_every_rendering():
    result = parity(Network().build(), Network(epsilon=1e-3).build())
    rendered = result.report()
    assert rendered.status is report.Status.FAILED
    assert "<failure" in report.to_junit(rendered)
    assert "NOT equal" in report.to_markdown(rendered)
    assert 'class="verdict failed"' in report.to_html(rendered)


# --- real exports -------------------------------------------------------------------------------------------------

REAL = ["llama-dynamo18-f32", "llama-dynamo18-f16", "llama-dynamo18-bf16"]


def with_epsilons(path, factor):
    """The model with every constant that looks like an epsilon multiplied."""
    model = ir.load(path)
    changed = 0
    for value in [v for n in model.graph for v in n.outputs] + list(model.graph.initializers.values()):
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or tensor.size != 1 or value.dtype not in {ir.DataType.FLOAT, ir.DataType.FLOAT16}:
            continue
        array = tensor.numpy()
        if 1e-7 < float(array.reshape(())) < 1e-4:
            other = ir.tensor((array.astype(np.float64) * factor).astype(array.dtype), name=value.name)
            if value.is_initializer():
                value.const_value = other
            else:
                node = value.producer()
                node.attributes.clear()
                node.attributes["value"] = ir.AttrTensor("value", other)
            changed += 1
    assert changed
    return model


@pytest.mark.parametrize("name", REAL)
def test_another_epsilon_in_a_real_model_is_caught(name):
    path = MODELS / name / "model.onnx"
    assert parity(path, with_epsilons(path, 1)).ok
    result = parity(path, with_epsilons(path, 10))
    assert [output.verdict for output in result.outputs] == [Verdict.FUNCTION]


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_fused_by_this_package_passes(name):
    from rmsnorm_onnx.passes import FuseRmsNorm

    path = MODELS / name / "model.onnx"
    fused = FuseRmsNorm()(ir.load(path)).model
    assert any(node.domain == spec.DOMAIN for node in fused.graph)
    result = parity(path, fused)
    assert result.ok, [output.detail for output in result.outputs]
    recorded = parity(path, fused, inputs=path.parent / "test_data_set_0")
    assert recorded.ok


def test_bfloat16_outputs_keep_their_type():
    result = parity(Network("bf16").build(), Network("bf16").build())
    assert result.outputs[0].dtype == str(np.dtype(ml_dtypes.bfloat16))


def test_a_scalar_constant_is_known_to_half_an_ulp_and_no_more():
    """X * float32(sqrt(32)) against the same with sqrt(32) computed in the graph, where float64 reads it exactly."""
    written = elementwise("Mul", [np.float32(math.sqrt(32))])
    nodes = [helper.make_node("Sqrt", ["n"], ["root"]), helper.make_node("Mul", ["x", "root"], ["y"])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in
              (("x", ["n", 4]), ("n", []))]  # fmt: skip
    written.graph.input.append(inputs[1])
    meant = helper.make_model(
        helper.make_graph(nodes, "one", inputs, written.graph.output),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    feeds = {"x": x, "n": np.array(32, np.float32)}
    result = parity(written, meant, inputs=feeds)
    assert result.ok
    assert 0.1 < (result.outputs[0].function_share or 0) <= 1
    assert not parity(written, meant, inputs=feeds | {"n": np.array(32.0001, np.float32)}).ok


def test_short_scalar_constants_are_what_they_say():
    assert constant_runs(np.float32(0.5)) == 0
    assert constant_runs(np.float32(1000)) == 0
    assert constant_runs(np.float32(0.1)) == 1


def constant_runs(constant):
    return len(with_constant_slack(ir.from_proto(elementwise("Mul", [constant]))).is_known)
