"""Fused nodes on their captured inputs: old subgraph, body and kernel against the oracle, and what is said of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import ml_dtypes
import norm_models
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import rmsnorm_onnx
from rmsnorm_onnx import reference, runtime, spec
from rmsnorm_onnx.parity.nodes import check_nodes
from rmsnorm_onnx.parity.oracle import consult
from rmsnorm_onnx.parity.readings import reading
from rmsnorm_onnx.parity.records import BODY, KERNEL, SUBGRAPH
from rmsnorm_onnx.parity.runs import Options
from rmsnorm_onnx.spec import DType

MODELS = Path(__file__).parent.parent / "models"
#: Residual, gated and pre-gated norms; norms in a branch and in a loop; groups; casts; other axes; adopted norms.
EXPORTS = [
    "llama-dynamo18-f32",
    "gemma3-dynamo18-bf16",
    "gemma2-dynamo21-f16",
    "falcon-h1-gated-dynamo18-f32",
    "falcon-h1-pregated-dynamo18-bf16",
    "mamba2-groups-dynamo18-f32",
    "script-if-torchscript17-f32",
    "script-loop-torchscript17-f32",
    "wan-vae-torchscript11-f32",
    "functional-dynamo18-f64",
    "umt5-encoder-torchscript14-f32--ort-transformers",
]


def check(original, fused, feeds=None, *, library=True):
    models = runtime.load(original), runtime.load(fused)
    arrays = runtime.make_feeds(models[0].model).arrays if feeds is None else feeds
    return check_nodes(*models, arrays, Options(library, 1, "basic", 1, 0), "inputs")


def by_how(record):
    return {one.how: one for one in record.readings}


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("target", ["rmsnorm", "onnx"])
def test_every_node_of_an_export_is_within_its_bounds(name, target):
    path = MODELS / name / "model.onnx"
    result = rmsnorm_onnx.optimize(path, target=target)
    records, notes = check(path, result.model)
    assert not notes or target == "onnx"
    if target == "rmsnorm":
        assert len(records) == len(result.fused)
    for record in records:
        assert record.ok, record
        assert not record.detail or record.dtype == "float16", record
        ways = by_how(record)
        assert ways[KERNEL].max_ulps <= ways[KERNEL].bound_ulps
        assert ways[SUBGRAPH].max_ulps is not None, ways[SUBGRAPH].why_not
        assert record.replaced > 0
        assert (ways[BODY].max_ulps is not None) == (target == "rmsnorm")


def one_norm(op, x, *others, **attributes):
    """A model of one node of ours on graph inputs, and its feeds."""
    names = ["x", "z", "s"] if len(others) == 2 else ["x", "s"]
    arrays = dict(zip(names, (x, *others), strict=True))
    types = {name: ir_type(array) for name, array in arrays.items()}
    inputs = [norm_models.info(name, types[name], array.shape) for name, array in arrays.items()]
    outputs = [norm_models.info("y", types["x"], x.shape)]
    total = op == "SkipRMSNormalization"
    if total:
        outputs.append(norm_models.info("t", types["x"], x.shape))
    # A body sees only what a node writes.
    written = {a.name: a.default for a in spec.OPS[op].attributes if a.default is not None} | attributes
    return norm_models.model([norm_models.node(op, total=total, **written)], inputs, outputs), arrays


def ir_type(array):
    return next(dtype for dtype, kind in reference.NUMPY_TYPES.items() if kind == array.dtype)


DTYPES = pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.name.lower())


@DTYPES
@pytest.mark.parametrize("op", spec.OPS)
def test_any_finite_values_are_within_the_bounds(op, dtype):
    """Gates from -1000 to 1000, where onnxruntime's Sigmoid is right in absolute terms only; tiny and huge values."""
    kind = reference.NUMPY_TYPES[dtype]
    generator = np.random.default_rng(3)
    magnitudes = np.array([1e-6, 1e-3, 1, 1e3, 1e4])[:, None]
    x = (generator.standard_normal((5, 70)) * magnitudes).astype(kind)
    others = [generator.uniform(-1000, 1000, x.shape).astype(kind)] if len(spec.OPS[op].inputs) == 3 else []
    scale = generator.standard_normal(70).astype(kind)
    stash = DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT
    for narrow in {stash, dtype}:
        attributes = {"stash_type": int(stash), "normalized_type": int(narrow)}
        if op == spec.GATED.name:
            attributes["scaled_type"] = int(narrow)
        model, feeds = one_norm(op, x, *others, scale, **attributes)
        (record,), _ = check(model, model, feeds)
        assert record.ok, record
        assert by_how(record)[BODY].max_ulps is not None, by_how(record)[BODY].why_not


@DTYPES
def test_nan_and_inf_are_compared(dtype):
    kind = reference.NUMPY_TYPES[dtype]
    x = np.ones((4, 8), kind)
    x[1, 2], x[2, 3], x[3, 4] = np.nan, np.inf, -np.inf
    stash = int(DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT)
    model, feeds = one_norm("RMSNormalization", x, np.ones(8, kind), stash_type=stash, normalized_type=stash)
    (record,), _ = check(model, model, feeds)
    assert record.ok, record
    assert by_how(record)[KERNEL].max_ulps < 1
    oracle = consult(spec.RMS, list(feeds.values()), reference.Attributes(1e-5, stash_type=DType(stash)))
    finite_where_nan = oracle.faithful.copy()
    finite_where_nan[1, 2] = 1
    assert not reading(KERNEL, [finite_where_nan], oracle, 15.0).ok
    infinite_elsewhere = oracle.faithful.copy()
    infinite_elsewhere[~np.isnan(oracle.faithful)] = np.inf
    assert not reading(KERNEL, [infinite_elsewhere], oracle, 15.0).ok


def test_an_element_beyond_the_bound_is_a_no():
    x, scale = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32), np.ones(16, np.float32)
    oracle = consult(spec.RMS, [x, scale], reference.Attributes(1e-5))
    limit = reference.bound("RMSNormalization", 16, np.float32, reference.Attributes(1e-5)).ulps
    off = oracle.exact.copy()
    off[2, 5] += 0.9 * limit * reference.ulp(off[2, 5], np.float32)
    assert reading(KERNEL, [off.astype(np.float32)], oracle, limit).ok
    off[2, 5] += 0.2 * limit * reference.ulp(off[2, 5], np.float32)
    assert not reading(KERNEL, [off.astype(np.float32)], oracle, limit).ok


def test_another_residual_sum_is_a_no():
    x, scale = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32), np.ones(16, np.float32)
    oracle = consult(spec.SKIP, [x, x, scale], reference.Attributes(1e-5))
    assert reading(KERNEL, [oracle.faithful, oracle.total], oracle, 15.0).ok
    assert not reading(KERNEL, [oracle.faithful, np.nextafter(oracle.total, np.float32(9))], oracle, 15.0).ok


def test_results_beyond_the_largest_number_may_be_it_or_inf():
    x = np.array([[60000, 0, 0, 0]], np.float16)
    attributes = reference.Attributes(1e-5, normalized_type=DType.FLOAT)
    oracle = consult(spec.RMS, [x, np.full(4, 32752.0, np.float16)], attributes)
    assert 65500 < oracle.exact[0, 0] < 65520
    largest = float(ml_dtypes.finfo(np.float16).max)
    for value in (np.inf, largest):
        assert oracle.ulps(np.array([[value, 0, 0, 0]], np.float16))[0, 0] <= 1


def test_rows_that_overflow_the_stash_type_are_named_not_judged():
    x = np.full((2, 4), 1e30, np.float32)
    x[1] = 1
    model, feeds = one_norm("RMSNormalization", x, np.ones(4, np.float32))
    (record,), _ = check(model, model, feeds)
    assert record.ok
    assert "4 elements" in record.detail


def test_an_original_that_computes_something_else_is_pointed_out():
    path = MODELS / "llama-dynamo18-f32" / "model.onnx"
    fused = rmsnorm_onnx.optimize(path).model
    node = next(n for n in fused.graph.node if n.domain == spec.DOMAIN)
    next(a for a in node.attribute if a.name == "epsilon").f *= 100
    records, _ = check(path, fused)
    suspect = [record for record in records if not by_how(record)[SUBGRAPH].ok]
    assert [record.node for record in suspect] == [node.name]
    assert "original subgraph" in suspect[0].detail
    assert suspect[0].ok


def test_a_model_without_bodies_is_compared_with_the_operators_own():
    path = MODELS / "llama-dynamo18-f32" / "model.onnx"
    fused = rmsnorm_onnx.optimize(path, body=False).model
    assert not fused.functions
    records, _ = check(path, fused)
    assert all(by_how(record)[BODY].max_ulps is not None for record in records)


def test_without_the_library_there_is_no_kernel_to_look_at():
    path = MODELS / "llama-dynamo18-f32" / "model.onnx"
    records, _ = check(path, rmsnorm_onnx.optimize(path).model, library=False)
    assert {by_how(record)[KERNEL].why_not for record in records} == {"run without the library"}
    assert all(record.ok and record.worst is not None for record in records)


def test_nodes_that_do_not_run_are_named():
    path = MODELS / "script-if-torchscript17-f32" / "model.onnx"
    fused = rmsnorm_onnx.optimize(path).model
    feeds = runtime.make_feeds(runtime.load(path).model).arrays
    other = {name: np.zeros_like(array) if array.dtype == np.bool_ else -array for name, array in feeds.items()}
    ran, idle = check(path, fused, feeds), check(path, fused, other)
    assert sorted([len(ran[0]), len(idle[0])]) == [0, 1]
    assert any("did not run" in note for note in (*ran[1], *idle[1]))


def test_values_of_a_branch_keep_their_values_as_outputs():
    path = MODELS / "script-if-torchscript17-f32" / "model.onnx"
    model = runtime.typed_copy(runtime.load(path).model, inline_ours=False)
    inner = [v for n in runtime.nodes_of(model) for v in n.outputs if n.graph is not model.graph]
    shown, places = runtime.with_values(model, [[value] for value in inner])
    names = {value.name: place.names[value.name] for value, (place,) in zip(inner, places, strict=True)}
    feeds = runtime.make_feeds(model).arrays
    run = runtime.run_side(dataclasses.replace(runtime.load(path), model=shown, path=None), feeds, library=False)
    plain = runtime.run_side(runtime.load(path), feeds, library=False)
    for name, array in plain.outputs.items():
        np.testing.assert_allclose(run.outputs[name], array, atol=1e-5)  # other values may be fused
    assert any(run.outputs[name].size for name in names.values())


def test_a_part_that_needs_more_than_is_given_says_so():
    path = MODELS / "llama-dynamo18-f32" / "model.onnx"
    model = runtime.typed_copy(runtime.load(path).model, inline_ours=False)
    with pytest.raises(rmsnorm_onnx.CannotRun, match="also depends on"):
        runtime.between(model, {}, model.graph.outputs)


def test_overridable_weights_are_constants_of_a_part():
    """Old exporters list weights among the graph's inputs."""
    nodes = [onnx.helper.make_node("Mul", ["x", "w"], ["y"])]
    inputs = [norm_models.info("x", 1, [2]), norm_models.info("w", 1, [2])]
    weight = numpy_helper.from_array(np.array([2, 3], np.float32), "w")
    model = norm_models.model(nodes, inputs, [norm_models.info("y", 1, [2])], [weight])
    loaded = runtime.load(model).model
    part = runtime.between(loaded, {"x": np.ones(2, np.float32)}, loaded.graph.outputs)
    assert [value.name for value in part.graph.inputs] == ["x"]
    run = runtime.run_side(runtime.load(part), {"x": np.ones(2, np.float32)}, library=False)
    np.testing.assert_array_equal(run.outputs["y"], [2, 3])


def test_any_names_may_stand_between_the_ends_of_a_part():
    text = """
        <ir_version: 9, opset_import: ["" : 17]>
        m (float[3, 4] x) => (float[3, 4] y) <float[4] w = {1, 2, 3, 4}, float e = {0.1}> {
        constant_0 = Mul(x, x) constant_1 = ReduceMean<axes = [-1]>(constant_0) constant_2 = Add(constant_1, e)
        r = Sqrt(constant_2) left_out_0_0 = Div(x, r) y = Mul(left_out_0_0, w) }
    """
    model = onnx.parser.parse_model(text)
    (record,), _ = check(model, rmsnorm_onnx.optimize(model).model)
    assert by_how(record)[SUBGRAPH].max_ulps is not None, by_how(record)[SUBGRAPH].why_not


def test_functions_may_import_functions_under_another_version():
    """The version of a domain of functions means nothing to onnxruntime."""
    path = MODELS / "llama-norm-torchscript-functions17-f32" / "model.onnx"
    original = onnx.load(path)
    own = {function.domain for function in original.functions}
    for function in original.functions:
        for opset in function.opset_import:
            opset.version += opset.domain in own
    fused = rmsnorm_onnx.optimize(original).model
    records, _ = check(original, fused)
    assert len(records) == 3
    assert all(record.ok for record in records)


def test_a_model_that_is_verified_stays_as_it_was():
    """Names of tensors included: a Constant's tensor may have another name than what it gives."""
    text = """
        <ir_version: 9, opset_import: ["" : 18]>
        m (int64[2, 3] ids) => (float[2, 3, 2] y) <float[5, 2] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 0}> {
        one = Constant <value: tensor = int64 another_name {1}> () next = Add(ids, one)
        half = Constant <value: tensor = float a_third_name {0.3}> () x = Gather(table, next) y = Mul(x, half) }
    """
    model = onnx.parser.parse_model(text)
    before = model.SerializeToString(deterministic=True)
    assert rmsnorm_onnx.verify(model, model, library=False, threads=1).ok
    assert model.SerializeToString(deterministic=True) == before
