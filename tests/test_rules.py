"""The pass inside onnxscript's rewriter and inside onnx_ir's pass managers, alone and beside others."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from exports import MODELS
from onnx_ir.passes import common
from onnxscript.rewriter import MatchingTracer, RewritePass, RewriteRuleSet, rewrite
from onnxscript.rewriter.rules import common as rules
from zoo import CASES, TOLERANCE, Case, evaluate, feeds

import rmsnorm_onnx
from rmsnorm_onnx import spec
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.passes import FuseRmsNorm, Outcome, fuse

LLAMA = MODELS / "llama-dynamo18-f32" / "model.onnx"
FUSING = [case for case in CASES if case.fuses]
OTHERS = [rules.mul_by_1_rule, rules.cast_cast_rule, rules.no_op_cast_rule, rules.unsqueeze_unsqueeze_rule]


def by_id(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


@cache
def run_pass(id_: str) -> tuple[onnx.ModelProto, Outcome]:
    model = ir.from_proto(next(case for case in CASES if case.id == id_).build())
    outcome = fuse(model)
    return ir.to_proto(model), outcome


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {opset.domain: opset.version for opset in model.opset_import}


@by_id(FUSING)
def test_rewriting_gives_what_the_pass_gives(case):
    expected, _ = run_pass(case.id)
    rewritten = rewrite(case.build(), pattern_rewrite_rules=rmsnorm_onnx.rewrite_rules())
    assert rewritten.graph.SerializeToString() == expected.graph.SerializeToString()
    assert {f.name: f for f in rewritten.functions} == {f.name: f for f in expected.functions}
    # The rewriter itself drops imports that nothing uses.
    assert opsets(rewritten).items() <= opsets(expected).items()
    assert opsets(rewritten)[spec.DOMAIN] == spec.VERSION
    if case.standard:
        onnx.checker.check_model(rewritten, full_check=True)


@by_id([case for case in FUSING if case.opset >= spec.MINIMUM_OPSET])
def test_every_application_is_counted(case):
    _, outcome = run_pass(case.id)
    fused = len(outcome.fused)
    assert rmsnorm_onnx.rewrite_rules().apply_to_model(ir.from_proto(case.build())) == fused
    assert RewriteRuleSet([*rmsnorm_onnx.rewrite_rules()]).apply_to_model(ir.from_proto(case.build())) == fused


@by_id(FUSING)
def test_beside_other_rules_the_result_is_the_same_in_value(case):
    inputs = feeds(case, seed=3)
    before = evaluate(case, case.build(), inputs)
    for together in ([*OTHERS, *rmsnorm_onnx.rewrite_rules()], [*rmsnorm_onnx.rewrite_rules(), *OTHERS]):
        rewritten = rewrite(case.build(), pattern_rewrite_rules=together)
        if case.standard:
            onnx.checker.check_model(rewritten, full_check=True)
        after = evaluate(case, rewritten, inputs)
        for name, value in before.items():
            scale = 2 * TOLERANCE[case.precision] * (1 + np.abs(value.astype(np.float64)))
            assert np.all(np.abs(after[name].astype(np.float64) - value.astype(np.float64)) <= scale), name


def test_other_rules_apply_too():
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[2, 8] x, float[2, 8] z) => (float[2, 8] y, float[2, 8] w)
    <float one = {1}, float two = {2}, float epsilon = {0.00001}, int64[1] axes = {-1}> {
        square = Pow(x, two)
        mean = ReduceMean(square, axes)
        shifted = Add(mean, epsilon)
        root = Sqrt(shifted)
        y = Div(x, root)
        same = Mul(z, one)
        w = Neg(same)
    }"""
    for together in ([*OTHERS, *rmsnorm_onnx.rewrite_rules()], [*rmsnorm_onnx.rewrite_rules(), *OTHERS]):
        model = ir.from_proto(onnx.parser.parse_model(text))
        assert RewriteRuleSet(together).apply_to_model(model) == 2
        kinds = [node.op_type for node in model.graph if node.op_type != "Constant"]
        assert kinds.count(spec.RMS.name) == 1
        assert "Mul" not in kinds


def test_modified_is_accurate():
    model = ir.load(LLAMA)
    run = RewritePass(rmsnorm_onnx.rewrite_rules())
    assert run(model).modified
    assert not run(model).modified
    beside = RewritePass([*rmsnorm_onnx.rewrite_rules(), rules.mul_by_1_rule])
    assert not beside(model).modified
    assert beside(ir.load(LLAMA)).modified


def test_a_fused_model_that_onnx_ir_read_stays_whole():
    """onnx_ir drops the empty name of an unread second output, which onnx and onnxruntime then refuse."""
    fused = rmsnorm_onnx.optimize(LLAMA).model
    again = rewrite(fused, pattern_rewrite_rules=rmsnorm_onnx.rewrite_rules())
    onnx.checker.check_model(again, full_check=True)
    assert [list(node.output) for node in again.graph.node] == [list(node.output) for node in fused.graph.node]


def test_old_opsets_are_raised_alone_but_not_in_a_list():
    case = next(case for case in FUSING if case.opset == 11)
    assert rmsnorm_onnx.rewrite_rules().apply_to_model(ir.from_proto(case.build())) == 1
    model = ir.from_proto(case.build())
    assert RewriteRuleSet([*rmsnorm_onnx.rewrite_rules()]).apply_to_model(model) == 0
    assert ir.to_proto(model).SerializeToString() == ir.to_proto(ir.from_proto(case.build())).SerializeToString()


def test_targets_and_options():
    model = ir.load(LLAMA)
    assert rmsnorm_onnx.rewrite_rules(target="ort").apply_to_model(model) == 5
    assert "SkipSimplifiedLayerNormalization" in {node.op_type for node in model.graph}
    model = ir.load(LLAMA)
    rmsnorm_onnx.rewrite_rules(body=False).apply_to_model(model)
    assert not model.functions
    with pytest.raises(InvalidInput, match="no target 'x'"):
        rmsnorm_onnx.rewrite_rules(target="x")


def test_tracing_changes_nothing():
    for together in (rmsnorm_onnx.rewrite_rules(), RewriteRuleSet([*rmsnorm_onnx.rewrite_rules()], commute=True)):
        model = ir.load(LLAMA)
        before = ir.to_proto(model).SerializeToString()
        assert together.apply_to_model(model, tracer=MatchingTracer()) == 0
        assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize("target", ["rmsnorm", "onnx", "ort"])
def test_in_a_pass_manager(target):
    passes = ir.passes.PassManager(
        [
            common.TopologicalSortPass(),
            common.CommonSubexpressionEliminationPass(),
            FuseRmsNorm(target=target),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedFunctionsPass(),
            common.RemoveUnusedOpsetsPass(),
            common.NameFixPass(),
            common.LiftConstantsToInitializersPass(),
        ],
        steps=2,
    )
    result = passes(ir.load(LLAMA))
    assert result.modified
    fused = ir.to_proto(result.model)
    assert sum("RMSNormalization" in n.op_type or "LayerNormalization" in n.op_type for n in fused.graph.node) == 5
    assert rmsnorm_onnx.verify(LLAMA, fused, library=False).ok


def test_in_a_sequence():
    result = ir.passes.Sequential(common.ClearMetadataAndDocStringPass(), FuseRmsNorm())(ir.load(LLAMA))
    assert result.modified
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
