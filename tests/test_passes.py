"""The pass on the graph zoo: what it fuses, refuses and leaves behind, and that values stay the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from zoo import CASES, TOLERANCE, Case, evaluate, feeds

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.context import Context
from rmsnorm_onnx.passes import FuseRmsNorm, Options, Outcome, fuse, plan

FUSING = [case for case in CASES if case.fuses]
REFUSED = [case for case in CASES if not case.fuses]


def by_id(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


def run_pass(case: Case) -> tuple[onnx.ModelProto, Outcome]:
    model = ir.from_proto(case.build())
    outcome = fuse(model)
    return ir.to_proto(model), outcome


@by_id(FUSING)
def test_every_norm_becomes_one_node(case):
    fused, outcome = run_pass(case)
    assert Counter(record.op for record in outcome.fused) == case.fuses
    nodes = [*fused.graph.node, *(n for f in fused.functions if f.domain != spec.DOMAIN for n in f.node)]
    names = {node.name for node in _with_subgraphs(nodes) if node.domain == spec.DOMAIN}
    assert {record.node for record in outcome.fused} == names


@by_id(FUSING)
def test_a_fused_model_is_valid_and_computes_the_same_by_its_bodies(case):
    fused, _ = run_pass(case)
    if case.standard:
        onnx.checker.check_model(fused, full_check=True)
    inputs = feeds(case, seed=3)
    before, after = evaluate(case, case.build(), inputs), evaluate(case, fused, inputs)
    assert before.keys() == after.keys()
    for name, value in before.items():
        # Each side may be off by the case's tolerance, the zoo's own measure of its roundings.
        scale = 2 * TOLERANCE[case.precision] * (1 + np.abs(value.astype(np.float64)))
        assert after[name].dtype == value.dtype
        assert np.all(np.abs(after[name].astype(np.float64) - value.astype(np.float64)) <= scale), name


@by_id(REFUSED)
def test_a_near_miss_is_left_alone_with_its_reason(case):
    fused, outcome = run_pass(case)
    assert outcome.fused == ()
    assert case.why in {miss.why for miss in outcome.near_misses}
    assert all(miss.detail for miss in outcome.near_misses)
    assert fused.SerializeToString() == ir.to_proto(ir.from_proto(case.build())).SerializeToString()


@by_id(FUSING)
def test_a_second_run_changes_nothing(case):
    model = ir.from_proto(case.build())
    run = FuseRmsNorm()
    assert run(model).modified
    once = ir.to_proto(model).SerializeToString()
    assert not run(model).modified
    assert ir.to_proto(model).SerializeToString() == once


@by_id(FUSING)
def test_graph_outputs_keep_name_type_and_shape(case):
    before = case.build()
    fused, _ = run_pass(case)
    assert [o.name for o in fused.graph.output] == [o.name for o in before.graph.output]
    for old, new in zip(before.graph.output, fused.graph.output, strict=True):
        assert new.type.tensor_type.elem_type == old.type.tensor_type.elem_type
        if old.type.tensor_type.HasField("shape"):
            assert new.type == old.type


@by_id(FUSING)
def test_nothing_dead_is_left_behind(case):
    before = case.build()
    fused, _ = run_pass(case)
    assert _unread(fused) <= _unread(before)


@by_id(FUSING)
def test_every_attribute_is_written(case):
    fused, _ = run_pass(case)
    for node in _with_subgraphs(fused.graph.node):
        if node.domain == spec.DOMAIN:
            written = {attribute.name for attribute in node.attribute}
            assert written >= {attribute.name for attribute in spec.OPS[node.op_type].attributes}


@by_id(list(CASES))
def test_planning_changes_nothing_and_says_what_fusing_does(case):
    model = ir.from_proto(case.build())
    before = ir.to_proto(model).SerializeToString()
    planned = plan(model)
    assert ir.to_proto(model).SerializeToString() == before
    assert planned == fuse(model)


def test_fused_nodes_say_what_they_replaced():
    case = next(case for case in FUSING if case.fuses == {spec.SKIP.name: 1})
    fused, outcome = run_pass(case)
    node = next(node for node in fused.graph.node if node.domain == spec.DOMAIN)
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    assert metadata["pkg.rmsnorm_onnx.replaced"].split(", ") == list(outcome.fused[0].replaced)
    assert metadata["pkg.rmsnorm_onnx.pattern"] == outcome.fused[0].pattern
    assert set(outcome.fused[0].replaced) <= {n.name or n.output[0] for n in case.build().graph.node}


def test_without_bodies_no_function_is_stored():
    model = ir.from_proto(FUSING[0].build())
    FuseRmsNorm(body=False)(model)
    assert not model.functions
    assert model.graph.opset_imports[spec.DOMAIN] == spec.VERSION


def test_existing_norm_nodes_stay_when_they_are_not_to_be_adopted():
    adopted = [case for case in FUSING if "adopt" in case.id]
    assert adopted
    for case in adopted:
        model = ir.from_proto(case.build())
        before = ir.to_proto(model).SerializeToString()
        fuse_only_spelled = FuseRmsNorm(adopt=False)
        if "RMSNormalization" in {n.op_type for n in case.build().graph.node} or not case.standard:
            assert not fuse_only_spelled(model).modified, case.id
            assert ir.to_proto(model).SerializeToString() == before


def _with_subgraphs(nodes):
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _with_subgraphs(graph.node)


def _unread(model: onnx.ModelProto) -> set[str]:
    nodes = list(_with_subgraphs(model.graph.node))
    read = {name for node in nodes for name in node.input} | {o.name for o in model.graph.output}
    for node in nodes:
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                read |= {o.name for o in graph.output}
    made = {name for node in nodes for name in node.output if name and node.domain != spec.DOMAIN}
    return (made | {i.name for i in model.graph.initializer}) - read


CONSTANTS = "<float two = {2}, float eps = {0.001}, int64[1] last = {-1}>"
DECEPTIVE = {
    # The mean of no squares at all, and of negative ones.
    "squares times 0": """x2 = Pow(x, two) z = Constant<value_float = 0.0>() q = Mul(x2, z) s = ReduceSum(q, last)
        n = Constant<value_float = 0.25>() m = Mul(s, n) e = Add(m, eps) r = Sqrt(e) y = Div(x, r)""",
    "squares times -1": """x2 = Pow(x, two) z = Constant<value_float = -1.0>() q = Mul(x2, z) s = ReduceSum(q, last)
        n = Constant<value_float = 0.25>() m = Mul(s, n) e = Add(m, eps) r = Sqrt(e) y = Div(x, r)""",
    # A constant whose square is 0 in float64.
    "x over next to nothing": """w = Cast<to = 11>(x) t = Constant<value = double {1e-200}>() d = Div(w, t)
        q = Mul(d, d) m = ReduceMean(q, last) r = Sqrt(m) z = Div(w, r) y = Cast<to = 1>(z)""",
    # One mean for all of x, then a scale of the columns turned into one of the rows.
    "a scale turned": """x2 = Pow(x, two) every = Constant<value_ints = [0, 1]>() m = ReduceMean(x2, every)
        e = Add(m, eps) r = Sqrt(e) i = Reciprocal(r) w = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
        s = Mul(i, w) shape = Constant<value_ints = [4, 1]>() turned = Reshape(s, shape) y = Mul(x, turned)""",
}


@pytest.mark.parametrize("body", DECEPTIVE.values(), ids=DECEPTIVE)
def test_what_only_looks_like_a_norm_keeps_its_values(body):
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> g (float[4, 4] x) => (float[4, 4] y) {CONSTANTS} {{ {body} }}'
    )
    fused = ir.from_proto(model)
    fuse(fused)
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    with np.errstate(all="ignore"):
        wanted, got = (ReferenceEvaluator(m).run(None, {"x": x})[0] for m in (model, ir.to_proto(fused)))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_casts_of_a_function_to_types_that_its_caller_names_are_no_twins():
    text = """<ir_version: 8, opset_import: ["" : 18, "f" : 1]> g (float[2, 4] x) => (float16[2, 4] y) { y = f.norm(x) }
        <domain: "f", opset_import: ["" : 18]> norm <wide: int = 1, narrow: int = 10> (x) => (y) {
        a = Cast<to: int = @wide>(x) two = Constant<value_float = 2.0>() q = Pow(a, two)
        last = Constant<value_ints = [-1]>() m = ReduceMean(q, last) r = Sqrt(m) b = Cast<to: int = @narrow>(x)
        c = Cast<to = 10>(r) y = Div(b, c) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    (function,) = model.functions.values()
    context = Context(model)
    values = {}
    for node in (node for node in function if node.op_type == "Cast" and node.attributes["to"].is_ref()):
        context.note_twin(node)
        values[node.outputs[0].name] = node.outputs[0]
    assert context.origin(values["b"]) is not context.origin(values["a"])


def test_a_residual_norm_stands_behind_both_addends():
    """One addend is an early Cast, the other comes later, and the sum is read: Gemma 2 of onnxruntime-genai."""
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
        g (float16[2, 3, 8] x) => (float[2, 3, 8] y, float[2, 3, 8] total)
        <float[8] w = {1, 2, 3, 1, 2, 3, 1, 2}> {
          early = Cast <to = 1> (x)
          late = Tanh(early)
          y, , , total = com.microsoft.SkipSimplifiedLayerNormalization(early, late, w)
        }
        """
    )
    fused = ir.from_proto(model)
    assert [record.op for record in fuse(fused).fused] == ["SkipRMSNormalization"]
    onnx.checker.check_model(ir.to_proto(fused))  # nodes in order, among others


def test_an_output_keeps_its_texts():
    proto = next(case for case in FUSING if case.fuses == {spec.RMS.name: 1}).build()
    proto.graph.output[0].doc_string = "what it is"
    proto.graph.output[0].metadata_props.add(key="made by", value="somebody")
    model = ir.from_proto(proto)
    assert len(fuse(model).fused) == 1
    assert ir.to_proto(model).graph.output[0] == proto.graph.output[0]


@pytest.mark.parametrize("target", ["rmsnorm", "onnx", "ort"])
def test_a_new_name_is_none_that_the_model_has(target):
    """Of values or nodes, before the norm and behind it."""
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 18]>
        g (float[2, 3, 8] x) => (float[2, 3, 8] y) <float two = {2}, float epsilon = {1e-5}, int64[1] axes = {-1}> {
          unit_scale_value = Tanh(x)
          squares = Pow(x, two)
          mean = ReduceMean(squares, axes)
          shifted = Add(mean, epsilon)
          root = Sqrt(shifted)
          unit = Div(x, root)
          [unit_scale_value_1_Constant] unit_scale_value_1 = Sigmoid(unit_scale_value)
          y = Add(unit, unit_scale_value_1)
        }
        """
    )
    result = ir.from_proto(model)
    assert len(fuse(result, Options(target)).fused) == 1
    proto = ir.to_proto(result)
    for names in (
        [node.name for node in proto.graph.node if node.name],
        [name for node in proto.graph.node for name in node.output],
    ):
        assert len(set(names)) == len(names)
