"""The targets `onnx` and `ort`: what they express equals the original, what they cannot says why."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from exports import MODELS
from zoo import CASES, TOLERANCE, Case, evaluate, feeds

import rmsnorm_onnx
from rmsnorm_onnx import spec
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.passes import FuseRmsNorm, Options, Outcome, fuse, plan
from rmsnorm_onnx.passes.target import TARGETS
from rmsnorm_onnx.spec import Why

#: Target -> names of the operators it is made of.
OPERATORS = {name: {op.op_type for op in TARGETS[name].operators} for name in ("onnx", "ort")}
FUSING = [case for case in CASES if case.fuses]
TARGET_REASONS = {Why.TARGET, Why.OPSET}
targets = pytest.mark.parametrize("target", list(OPERATORS))


def by_id(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


@cache
def run_pass(id_: str, target: str) -> tuple[onnx.ModelProto, Outcome]:
    case = next(case for case in CASES if case.id == id_)
    model = ir.from_proto(case.build())
    outcome = fuse(model, Options(target))
    return ir.to_proto(model), outcome


def load(model: onnx.ModelProto) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@targets
@by_id(FUSING)
def test_every_norm_is_expressed_or_says_why_not(case, target):
    fused, outcome = run_pass(case.id, target)
    assert {record.op for record in outcome.fused} <= OPERATORS[target]
    refused = [miss for miss in outcome.near_misses if miss.why in TARGET_REASONS]
    there_already = {n.op_type for n in case.build().graph.node} & OPERATORS[target]
    assert len(outcome.fused) + len(refused) == sum(case.fuses.values()) or there_already
    assert all(miss.detail for miss in refused)
    assert not any(opset.domain == spec.DOMAIN for opset in fused.opset_import)
    if not outcome.fused:
        assert fused.SerializeToString() == ir.to_proto(ir.from_proto(case.build())).SerializeToString()


@targets
@by_id(FUSING)
def test_what_is_expressed_equals_the_original(case, target):
    fused, outcome = run_pass(case.id, target)
    if not outcome.fused:
        return
    if case.standard and target == "onnx":
        onnx.checker.check_model(fused, full_check=True)
    if case.runtime == "reference" and target == "ort":
        load(fused)  # onnx's evaluator has no such operators, and numpy feeds no bfloat16
        return
    inputs = feeds(case, seed=3)
    before, after = evaluate(case, case.build(), inputs), evaluate(case, fused, inputs)
    for name, value in before.items():
        scale = 2 * TOLERANCE[case.precision] * (1 + np.abs(value.astype(np.float64)))
        assert after[name].dtype == value.dtype
        assert np.all(np.abs(after[name].astype(np.float64) - value.astype(np.float64)) <= scale), name


@targets
@by_id(FUSING)
def test_a_second_run_changes_nothing(case, target):
    fused, _ = run_pass(case.id, target)
    model = ir.from_proto(fused)
    assert not FuseRmsNorm(target=target)(model).modified
    assert ir.to_proto(model).SerializeToString() == ir.to_proto(ir.from_proto(fused)).SerializeToString()


@targets
@by_id([case for case in CASES if not case.fuses])
def test_near_misses_stay_near_misses(case, target):
    _, outcome = run_pass(case.id, target)
    if case.why is Why.OPSET and target == "ort":
        assert len(outcome.fused) == 1  # onnxruntime's operators stand at any opset
    else:
        assert outcome.fused == ()
        assert case.why in {miss.why for miss in outcome.near_misses}


@pytest.mark.parametrize(
    ("target", "id_", "detail"),
    [
        ("onnx", "axes-middle", "reduces the last axes, not [-2]"),
        ("onnx", "floor-max", "has no lower bound of the mean square (0.001)"),
        ("ort", "epsilon-outside", "has no epsilon outside the root (0.001)"),
        ("onnx", "double", "has a float32 epsilon, which cannot hold 1e-05"),
        ("ort", "llama-float16", "rounds once, after the scale; this norm is float16 before the scale"),
        ("ort", "scale-scalar", "takes a scale of shape [8]; the shape of 'scale' is []"),
        ("ort", "in-function", "cannot stand in a function ('RMSNorm'): onnxruntime crashes"),
    ],
)
def test_a_refusal_names_what_the_operator_cannot_say(target, id_, detail):
    _, outcome = run_pass(id_, target)
    (miss,) = outcome.near_misses
    assert miss.why is Why.TARGET
    assert miss.detail.endswith(detail), miss.detail


@pytest.mark.parametrize(
    ("target", "id_", "stays"),
    [("onnx", "gated", "Sigmoid"), ("onnx", "pre-gated", "Sigmoid"), ("ort", "pre-gated", "Sigmoid")],
)
def test_where_a_target_has_no_gate_the_gate_stays_beside_the_norm(target, id_, stays):
    fused, outcome = run_pass(id_, target)
    assert outcome.fused[0].op in OPERATORS[target] - {"GatedRMSNorm"}
    assert stays in {node.op_type for node in fused.graph.node}


def test_opset_reasons():
    for id_, reason in (("in-function", "opset 18, 23 is needed"), ("not-converter-fails", "Assertion")):
        _, outcome = run_pass(id_, "onnx")
        assert any(miss.why is Why.OPSET and reason in miss.detail for miss in outcome.near_misses), id_


def _sixteen_bit(rounds_in: int, scale_type: int) -> onnx.ModelProto:
    """A float16 norm computed in float32, cast back before the scale (rounds_in float16) or after it."""
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    g (float16[B, 8] x, {"float" if scale_type == 1 else "float16"}[8] scale) => (float16[B, 8] y)
    <float two = {{2}}, float epsilon = {{0.00001}}, int64[1] axes = {{-1}}> {{
        wide = Cast<to = 1>(x)
        square = Pow(wide, two)
        mean = ReduceMean(square, axes)
        shifted = Add(mean, epsilon)
        root = Sqrt(shifted)
        quotient = Div(wide, root)
        factor = {"Identity" if rounds_in == 10 else "Cast<to = 1>"}(scale)
        {"normalized = Cast<to = 10>(quotient)" if rounds_in == 10 else "product = Mul(quotient, factor)"}
        {"y = Mul(normalized, factor)" if rounds_in == 10 else "y = Cast<to = 10>(product)"}
    }}"""
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize(
    ("rounds_in", "scale_type", "target", "nodes"),
    [
        (10, 10, "onnx", ["RMSNormalization"]),
        (10, 10, "ort", None),
        (1, 10, "onnx", ["Cast", "Cast", "RMSNormalization", "Cast"]),
        (1, 10, "ort", ["SimplifiedLayerNormalization"]),
        (1, 1, "onnx", ["Cast", "RMSNormalization", "Cast"]),
        (1, 1, "ort", ["Cast", "SimplifiedLayerNormalization", "Cast"]),
    ],
)
def test_roundings_and_types_are_kept_exactly(rounds_in, scale_type, target, nodes):
    """Where the operator rounds elsewhere, or takes one type only, it stands between Casts, or not at all."""
    original = _sixteen_bit(rounds_in, scale_type)
    fused = rmsnorm_onnx.optimize(original, target=target)
    if nodes is None:
        assert [miss.why for miss in fused.near_misses] == [Why.TARGET]
        return
    assert [node.op_type for node in fused.model.graph.node] == nodes
    assert rmsnorm_onnx.verify(original, fused.model, library=False, threads=1).ok


@pytest.mark.parametrize(
    ("name", "target", "counts"),
    [
        ("llama-dynamo18-f32", "onnx", {"RMSNormalization": 5}),
        ("llama-dynamo18-f32", "ort", {"SimplifiedLayerNormalization": 1, "SkipSimplifiedLayerNormalization": 4}),
        ("llama-torchscript13-f32", "onnx", {"RMSNormalization": 5}),
        ("qwen3-next-dynamo18-f32", "onnx", {"RMSNormalization": 8}),
        ("gemma3-dynamo18-bf16", "onnx", {"RMSNormalization": 13}),
        ("gemma3-torchscript17-f16", "ort", {"SimplifiedLayerNormalization": 13}),
        ("llama-dynamo18-f16", "onnx", {"RMSNormalization": 5}),
        ("llama-dynamo18-f16", "ort", {}),
        ("llama-dynamo23-f32", "onnx", {}),  # torch wrote them
        ("channel-dynamo18-f16", "onnx", {}),
        ("script-if-torchscript17-f32", "onnx", {"RMSNormalization": 1}),
        ("llama-norm-torchscript-functions17-f32", "ort", {}),
    ],
)
def test_exports(name, target, counts):
    path = MODELS / name / "model.onnx"
    result = rmsnorm_onnx.optimize(path, target=target)
    assert Counter(record.op for record in result.fused) == counts
    if counts:
        how = {"inputs": path.parent / "test_data_set_0", "library": False, "threads": 1}
        assert rmsnorm_onnx.verify(path, result.model, **how).ok
    assert not rmsnorm_onnx.optimize(result.model, target=target).fused


def test_raising_the_opset_keeps_names_and_metadata():
    path = MODELS / "llama-dynamo18-f32" / "model.onnx"
    model = ir.load(path)
    kept = {}
    for node in model.graph:
        if node.op_type == "MatMul":
            node.metadata_props["namespace"] = f"layer of {node.name}"
            kept[node.name] = f"layer of {node.name}"
    fuse(model, Options("onnx"))
    assert model.graph.opset_imports[""] == 23
    found = {node.name: node.metadata_props["namespace"] for node in model.graph if node.op_type == "MatMul"}
    assert found == kept


@pytest.mark.parametrize("id_", ["adopt-simplified", "adopt-skip-simplified"])
def test_operators_that_onnx_does_not_know_do_not_stop_the_converter(id_):
    fused, outcome = run_pass(id_, "onnx")
    assert [record.op for record in outcome.fused] == ["RMSNormalization"]
    assert not any("parked" in opset.domain for opset in fused.opset_import)
    onnx.checker.check_model(fused, full_check=True)


def test_planning_does_not_raise_the_opset():
    model = ir.from_proto(FUSING[0].build())
    before = ir.to_proto(model).SerializeToString()
    assert plan(model, Options("onnx")).fused
    assert ir.to_proto(model).SerializeToString() == before


def test_an_unknown_target_is_refused():
    with pytest.raises(InvalidInput, match="the targets are rmsnorm, onnx, ort"):
        rmsnorm_onnx.optimize(MODELS / "llama-dynamo18-f32" / "model.onnx", target="tensorrt")


@pytest.mark.parametrize("target", ["onnx", "ort"])
def test_no_scale_of_ones_is_written_that_no_memory_holds(target):
    text = """
        <ir_version: 9, opset_import: ["" : 18]>
        m (float[2, WIDTH] x) => (float[2, WIDTH] y) <float two = {2}, float epsilon = {1e-5}, int64[1] axes = {-1}> {
        square = Pow(x, two) mean = ReduceMean(square, axes) sum = Add(mean, epsilon) root = Sqrt(sum)
        y = Div(x, root) }
    """
    (miss,) = rmsnorm_onnx.inspect(
        onnx.parser.parse_model(text.replace("WIDTH", str(1 << 40))), target=target
    ).near_misses
    assert "too many to write" in miss.detail
    assert rmsnorm_onnx.inspect(onnx.parser.parse_model(text.replace("WIDTH", "64")), target=target).fused
