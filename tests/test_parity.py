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

from rmsnorm_onnx import report, spec
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.function import Form, function_proto
from rmsnorm_onnx.parity import Verdict, verify
from rmsnorm_onnx.runtime.slack import with_constant_slack

MODELS = Path(__file__).parent.parent / "models"
WIDTH, ROWS, LAYERS = 16, 11, 3
TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16, "f64": TensorProto.DOUBLE}


class Network:
    """A small decoder: embedding, LAYERS times (norm, attention, residual), last norm, logits and next token."""

    def __init__(self, dtype="f32", *, fused=False, epsilon=1e-6, axis=-1, scales=lambda s: s, bodies=True):
        self.type, self.fused, self.epsilon, self.axis, self.scales = TYPES[dtype], fused, epsilon, axis, scales
        self.stash = TensorProto.DOUBLE if dtype == "f64" else TensorProto.FLOAT
        self.nodes, self.weights, self.bodies = [], [], bodies
        self.generator = np.random.default_rng(7)

    def weight(self, *shape, center=0.0, size=0.3):
        return self.constant((center + size * self.generator.standard_normal(shape)), self.type)

    def constant(self, array, dtype):
        name = f"w{len(self.weights)}"
        values = np.asarray(array).astype(helper.tensor_dtype_to_np_dtype(dtype))
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def __call__(self, op, *inputs, name=None, domain="", **attributes):
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], domain=domain, name=f"node_{name}", **attributes))
        return name

    def norm(self, x, name=None):
        scale = self.scales(1 + 0.1 * self.generator.standard_normal(WIDTH))
        if self.fused:
            return self(
                "RMSNormalization", x, self.constant(scale, self.type), name=name, domain=spec.DOMAIN,
                axes=[self.axis], epsilon=self.epsilon, epsilon_low=0.0, epsilon_outside=0.0, floor=0.0,
                stash_type=self.stash, normalized_type=self.type,
            )  # fmt: skip
        wide = self("Cast", x, to=self.stash)
        square = self("Pow", wide, self.constant(2.0, self.stash))
        mean = self("ReduceMean", square, self.constant([self.axis], TensorProto.INT64), keepdims=1)
        root = self("Sqrt", self("Add", mean, self.constant(np.float32(self.epsilon), self.stash)))
        normalized = self("Cast", self("Mul", wide, self("Reciprocal", root)), to=self.type)
        return normalized if scale is None else self("Mul", self.constant(scale, self.type), normalized, name=name)

    def build(self):
        x = self("Gather", self.weight(ROWS, WIDTH, size=1.0), "ids")
        for _ in range(LAYERS):
            h = self.norm(x)
            query, key, value = (self("MatMul", h, self.weight(WIDTH, WIDTH)) for _ in range(3))
            scores = self("MatMul", query, self("Transpose", key, perm=[0, 2, 1]))
            attention = self("MatMul", self("Softmax", scores, axis=-1), value)
            x = self("Add", x, self("MatMul", attention, self.weight(WIDTH, WIDTH)))
        last = self.norm(x, name="hidden")
        self("MatMul", last, self.weight(WIDTH, ROWS), name="logits")
        self("ArgMax", "logits", name="token", axis=-1, keepdims=0)
        outputs = [
            helper.make_tensor_value_info("hidden", self.type, ["batch", "sequence", WIDTH]),
            helper.make_tensor_value_info("logits", self.type, ["batch", "sequence", ROWS]),
            helper.make_tensor_value_info("token", TensorProto.INT64, ["batch", "sequence"]),
        ]
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])
        graph = helper.make_graph(self.nodes, "network", [ids], outputs, self.weights)
        opsets = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        if self.fused:
            model.opset_import.append(helper.make_opsetid(spec.DOMAIN, 1))
            if self.bodies:
                model.functions.append(function_proto("RMSNormalization", Form(18)))
        return model


def parity(original, fused, **options):
    return verify(original, fused, library=False, threads=1, **options)


def verdicts(result):
    return {output.name: output.verdict for output in result.outputs}


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


def elementwise(op_type, constants=(), dtype=TensorProto.FLOAT, to=None, name="y", **attributes):
    """Y = op(x, constants...)."""
    inputs = ["x", *(f"c{i}" for i in range(len(constants)))]
    values = [numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants)]
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, [name], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", dtype, ["n", 4])],
        [helper.make_tensor_value_info(name, to or dtype, None)],
        values,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def add(*values):
    return elementwise("Add", [np.array(values, np.float32)])


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("left", "right", "ok"),
    [
        ((NAN, 0, 0, 0), (NAN, 0, 0, 0), True),
        ((NAN, 0, 0, 0), (0, 0, 0, 0), False),
        ((0, 0, 0, 0), (0, 0, 0, NAN), False),
        ((INF, 0, 0, 0), (INF, 0, 0, 0), True),
        ((INF, 0, 0, 0), (-INF, 0, 0, 0), False),
        ((INF, 0, 0, 0), (NAN, 0, 0, 0), False),
        ((INF, 0, 0, 0), (3e38, 0, 0, 0), False),
    ],
)
def test_non_finite_values_are_compared(left, right, ok):
    (output,) = parity(add(*left), add(*right)).outputs
    assert output.verdict is (Verdict.IDENTICAL if ok else Verdict.NON_FINITE)
    if not ok:
        assert output.worst[0].index[1] == (3 if np.isnan(right[3]) else 0)
        assert output.worst[0].ulps == INF


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
