"""The function bodies: valid, runnable and right at every opset and for every mix of types."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.function import OPTIONAL_STEPS, RESULT_TYPE, Form, function_proto
from rmsnorm_onnx.reference import NUMPY_TYPES
from rmsnorm_onnx.spec import DType

SHAPE = (2, 3, 8)
OPSETS = (13, 14, 15, 17, 18, 20, 21, 23, 24)
MIXES = list(itertools.product(DType, DType))


def attributes(t: DType, normalized: DType | None = None) -> reference.Attributes:
    stash = DType.DOUBLE if t is DType.DOUBLE else DType.FLOAT
    return reference.Attributes(2.0**-10, stash_type=stash, normalized_type=normalized or stash, scaled_type=stash)


def one_node_model(op: spec.Op, form: Form, t: DType, v: DType, given: reference.Attributes) -> onnx.ModelProto:
    written = {a.name: getattr(given, a.name) for a in op.attributes}
    if form.names_result_type:
        written[RESULT_TYPE] = int(t)
    node = helper.make_node(op.name, op.inputs, op.outputs, domain=spec.DOMAIN, **written)
    inputs = [
        helper.make_tensor_value_info(name, int(v) if name == "scale" else int(t), [8] if name == "scale" else SHAPE)
        for name in op.inputs
    ]
    outputs = [helper.make_tensor_value_info(name, int(t), SHAPE) for name in op.outputs]
    graph = helper.make_graph([node], op.name, inputs, outputs)
    opsets = [helper.make_opsetid("", form.opset), helper.make_opsetid(spec.DOMAIN, spec.VERSION)]
    body = function_proto(op.name, form)
    return helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=8)


def arrays(op: spec.Op, t: DType, v: DType) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        name: rng.standard_normal(8 if name == "scale" else SHAPE).astype(NUMPY_TYPES[v if name == "scale" else t])
        for name in op.inputs
    }


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("op", spec.OPS.values(), ids=list(spec.OPS))
def test_every_body_is_valid_and_loads_in_onnxruntime_for_every_mix_of_types(op, opset):
    for (t, v), dropped in itertools.product(MIXES, (OPTIONAL_STEPS, frozenset())):
        for direct in {False, t is not DType.BFLOAT16}:
            form = Form(opset, dropped, direct_sum=direct)
            model = one_node_model(op, form, t, v, attributes(t, normalized=t))
            onnx.checker.check_model(model, full_check=True)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize("rounds_to_t", [False, True])
@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "-".join(t.name.lower() for t in mix))
@pytest.mark.parametrize("op", spec.OPS.values(), ids=list(spec.OPS))
def test_a_body_computes_the_contract(op, mix, rounds_to_t):
    t, v = mix
    given = attributes(t, normalized=t if rounds_to_t else None)
    inputs = arrays(op, t, v)
    got = ReferenceEvaluator(one_node_model(op, Form(), t, v, given)).run(None, inputs)
    wanted = reference.faithful(op.name, list(inputs.values()), given)
    for value, want in zip(got, wanted, strict=True):
        assert value.dtype == want.dtype
        # Rounding a stash value that lies next to a midpoint can go either way: one unit of T at most, and
        # one more where the normalized value was rounded to T before.
        limit = 1 + rounds_to_t if t in {DType.FLOAT16, DType.BFLOAT16} else 8
        assert np.max(reference.ulps(value, want, value.dtype)) <= limit


@pytest.mark.parametrize("t", [DType.FLOAT, DType.DOUBLE])
def test_floor_and_outer_epsilon_are_part_of_the_body(t):
    stash = DType.DOUBLE if t is DType.DOUBLE else DType.FLOAT
    given = reference.Attributes(
        2.0**-10, floor=0.5, epsilon_outside=0.25, epsilon_low=2.0**-20, stash_type=stash, normalized_type=stash
    )
    inputs = arrays(spec.RMS, t, t)
    inputs["X"][0] *= 0.01
    got = ReferenceEvaluator(one_node_model(spec.RMS, Form(), t, t, given)).run(None, inputs)[0]
    (want,) = reference.exact(spec.RMS.name, list(inputs.values()), given)
    assert np.max(reference.ulps(got, want, got.dtype)) <= 8
    plain = ReferenceEvaluator(one_node_model(spec.RMS, Form(dropped=OPTIONAL_STEPS), t, t, given)).run(None, inputs)
    assert np.max(reference.ulps(plain[0], want, got.dtype)) > 1000


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("t", list(DType))
def test_onnxruntime_itself_fuses_the_plain_body(t, opset, tmp_path):
    form = Form(opset, OPTIONAL_STEPS)
    model = one_node_model(spec.RMS, form, t, t, attributes(t))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "SimplifiedLayerNormalization" in operators
    assert operators <= {"SimplifiedLayerNormalization", "Cast"}


def test_the_unread_sum_may_be_left_out_as_an_empty_name():
    model = one_node_model(spec.SKIP, Form(18, OPTIONAL_STEPS), DType.FLOAT, DType.FLOAT, attributes(DType.FLOAT))
    model.graph.node[0].output[1] = ""
    del model.graph.output[1]
    onnx.checker.check_model(model, full_check=True)
    onnxruntime.InferenceSession(model.SerializeToString())


def test_an_opset_below_13_is_refused():
    with pytest.raises(ValueError, match="opset 13"):
        function_proto(spec.RMS.name, Form(opset=12))
