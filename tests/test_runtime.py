"""Sessions, feeds, bfloat16 on CPU, the float64 reading and its rounding noise."""

from __future__ import annotations

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper, parser

from rmsnorm_onnx import library, reference, runtime, spec
from rmsnorm_onnx.errors import CannotRun, InvalidInput, LibraryMissing
from rmsnorm_onnx.function import Form, function_proto
from rmsnorm_onnx.runtime.evaluator import run_reference
from rmsnorm_onnx.runtime.exact import widened_feeds
from rmsnorm_onnx.runtime.noise import with_rounding_noise

BF16 = ml_dtypes.bfloat16


def parse(text, **weights):
    """A model from ONNX's text form; ``weights`` become initializers."""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18, "{spec.DOMAIN}" : 1]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items())
    return model


def run(model, feeds, **options):
    options.setdefault("library", False)
    return runtime.run_side(runtime.load(model), feeds, threads=1, **options)


# --- models and sessions ------------------------------------------------------------------------------------------

NEG = parse("neg (float[n] x) => (float[n] y) { y = Neg (x) }")
X = np.array([1.0, -2.0], np.float32)


@pytest.mark.parametrize("kind", ["path", "proto", "ir"])
def test_a_session_from_every_kind_of_model(kind, tmp_path):
    onnx.save(NEG, tmp_path / "neg.onnx")
    model = {"path": tmp_path / "neg.onnx", "proto": NEG, "ir": ir.from_proto(NEG)}[kind]
    session = runtime.make_session(model, library=False, threads=1)
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], -X)


def test_a_session_with_external_weights(tmp_path):
    model = parse("add (float[64] x) => (float[64] y) { y = Add (x, w) }", w=np.arange(64, dtype=np.float32))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    loaded = runtime.load(tmp_path / "m.onnx")
    x = np.zeros(64, np.float32)
    for given in (tmp_path / "m.onnx", loaded.model):
        session = runtime.make_session(given, library=False)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.arange(64))
    before = loaded.sha256
    data = bytearray((tmp_path / "m.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "m.data").write_bytes(data)
    assert runtime.load(tmp_path / "m.onnx").sha256 != before


def test_unusable_files_are_bad_input(tmp_path):
    with pytest.raises(InvalidInput, match="no model file"):
        runtime.load(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InvalidInput, match="does not hold an ONNX model"):
        runtime.load(tmp_path / "text.onnx")


def test_onnxruntime_keeps_its_own_words():
    unknown = parse("u (float[n] x) => (float[n] y) { y = Neg (x) }")
    unknown.graph.node[0].op_type = "Mystery"
    with pytest.raises(CannotRun, match="Mystery"):
        runtime.make_session(unknown, library=False)


@pytest.mark.parametrize("what", ["opset", "IR version"])
def test_a_model_newer_than_onnxruntime_is_called_that(what):
    model = ir.from_proto(NEG)  # in memory: what is read is compared with the installed onnx first
    if what == "opset":
        model.graph.opset_imports[""] = 999
    else:
        model.ir_version = 999
    with pytest.raises(CannotRun, match=rf"neg: expected {what} \d+ or lower, got 999; upgrade onnxruntime"):
        runtime.make_session(model, library=False)


def test_a_missing_onnxruntime_names_the_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CannotRun, match=r"not both.*rmsnorm-onnx\[cpu\].*rmsnorm-onnx\[cuda\]"):
        runtime.make_session(NEG, library=False)


def test_an_absent_provider_is_not_replaced():
    with pytest.raises(CannotRun, match="lacks NoSuchProvider"):
        runtime.make_session(NEG, library=False, providers=("NoSuchProvider",))


def test_a_missing_library_is_said_and_not_worked_around(monkeypatch):
    def missing():
        raise LibraryMissing("no library")

    monkeypatch.setattr(library, "get_library_path", missing)
    with pytest.raises(LibraryMissing):
        run(NEG, {"x": X}, library=True)


# --- feeds --------------------------------------------------------------------------------------------------------

DECODER = parse(
    """decoder (int64[batch, seq] input_ids, int64[batch, all] attention_mask, int64[batch, seq] position_ids,
                float[batch, 2, past, 4] past_key, bool[1] use_cache, int64 steps, bfloat16[batch, 3] extra)
       => (float[batch, seq, 8] y)
       { flat = Cast <to = 6> (input_ids)  y = Gather (table, flat) }""",
    table=np.ones((5, 8), np.float32),
)
# A name that the parser of onnx 1.19 does not take.
DECODER.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "past + seq"


def test_feeds_fit_the_model():
    feeds = runtime.make_feeds(ir.from_proto(DECODER), dims={"seq": 100})
    assert feeds.dims == {"batch": 2, "seq": 100, "past + seq": 103, "past": 3}
    arrays = feeds.arrays
    assert set(np.unique(arrays["input_ids"])) == {0, 1, 2, 3, 4}
    assert arrays["attention_mask"].shape == (2, 103)
    assert (arrays["attention_mask"] == 1).all()
    np.testing.assert_array_equal(arrays["position_ids"], np.tile(np.arange(3, 103), (2, 1)))
    assert arrays["past_key"].shape == (2, 2, 3, 4)
    assert arrays["past_key"].std() > 0.5
    assert arrays["use_cache"].dtype == bool
    assert arrays["steps"] == 1
    assert arrays["extra"].dtype == BF16
    assert {name: a.dtype for name, a in arrays.items()}.keys() == {i.name for i in DECODER.graph.input}


def test_feeds_are_seeded():
    model = ir.from_proto(DECODER)
    first, again, other = (runtime.make_feeds(model, seed=seed).arrays["past_key"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_defaults_of_free_dimensions():
    model = parse("m (float[N, seq, 3] a, float[batch_size, unknown, seq] b) => (float[N, seq, 3] y) { y = Neg (a) }")
    model.graph.input[1].type.tensor_type.shape.dim[1].Clear()
    feeds = runtime.make_feeds(ir.from_proto(model))
    assert feeds.dims == {"N": 2, "seq": 7, "batch_size": 2, "b[1]": 7}
    assert runtime.make_feeds(ir.from_proto(model), dims={"b[1]": 4}).arrays["b"].shape == (2, 4, 7)


@pytest.mark.parametrize(
    ("dims", "message"),
    [({"sequence": 3}, "valid names: batch, seq, past"), ({"seq": -1}, "cannot be negative")],
)
def test_wrong_dimensions(dims, message):
    with pytest.raises(InvalidInput, match=message):
        runtime.make_feeds(ir.from_proto(DECODER), dims=dims)


PAIR = parse("p (float[n, 2] a, bfloat16[n] b) => (float[n, 2] y) { y = Neg (a) }")


def test_inputs_from_an_archive(tmp_path):
    a, b = np.ones((3, 2), np.float32), np.array([1.5, -2, 3], BF16)
    np.savez(tmp_path / "in.npz", a=a, b=b)
    feeds = runtime.make_feeds(ir.from_proto(PAIR), inputs=tmp_path / "in.npz")
    assert feeds.dims == {"n": 3}
    np.testing.assert_array_equal(feeds.arrays["b"], b)
    assert feeds.arrays["b"].dtype == BF16


@pytest.mark.parametrize("named", [True, False])
def test_inputs_from_onnx_test_data(tmp_path, named):
    arrays = [np.ones((3, 2), np.float32), np.array([1.5, -2, 3], BF16)]
    order = [1, 0] if named else [0, 1]
    for index, which in enumerate(order):
        tensor = numpy_helper.from_array(arrays[which], "ab"[which] if named else "")
        onnx.save_tensor(tensor, tmp_path / f"input_{index}.pb")
    feeds = runtime.make_feeds(ir.from_proto(PAIR), inputs=tmp_path)
    np.testing.assert_array_equal(feeds.arrays["b"], arrays[1])
    (tmp_path / "input_1.pb").unlink()
    with pytest.raises(InvalidInput, match="expected 2 files"):
        runtime.make_feeds(ir.from_proto(PAIR), inputs=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, r"missing \['b'\]"),
        ({"c": np.zeros(3)}, r"not in the model \['c'\]"),
        ({"a": np.zeros((3, 2))}, "expected float32, got float64"),
        ({"a": np.zeros((3, 3), np.float32)}, "expected shape"),
        ({"a": np.zeros((4, 2), np.float32)}, "expected shape"),
        ({"a": np.zeros(2, np.float32)}, "expected shape"),
    ],
)
def test_given_inputs_are_checked(change, message):
    given = {"a": np.zeros((3, 2), np.float32), "b": np.zeros(3, BF16)} | change
    given = {name: array for name, array in given.items() if array is not None}
    with pytest.raises(InvalidInput, match=message):
        runtime.make_feeds(ir.from_proto(PAIR), inputs=given)


def test_inputs_and_dimensions_exclude_each_other(tmp_path):
    with pytest.raises(InvalidInput, match="one of the two"):
        runtime.make_feeds(ir.from_proto(PAIR), inputs={}, dims={"n": 2})
    with pytest.raises(InvalidInput, match=r"\.npz"):
        runtime.make_feeds(ir.from_proto(PAIR), inputs=tmp_path / "absent.npz")


# --- bfloat16 -----------------------------------------------------------------------------------------------------

BRANCHES = """b (bfloat16[n, 8] x, bool flag) => (bfloat16[n, 8] y, bfloat16[n] z) {
    doubled = Add (x, x)
    y = If (flag) <
        then_branch = yes () => (bfloat16[n, 8] t) { m = Mul (doubled, w)  t = Sqrt (m) },
        else_branch = no () => (bfloat16[n, 8] e) { e = Neg (doubled) }
    >
    axes = Constant <value = int64[1] {-1}> ()
    z = ReduceSum <keepdims = 0> (y, axes)
}"""


@pytest.mark.parametrize("flag", [True, False])
def test_bfloat16_rounds_once_per_node(flag):
    generator = np.random.default_rng(0)
    w = np.abs(generator.standard_normal(8)).astype(BF16)
    x = np.abs(generator.standard_normal((3, 8))).astype(BF16)
    model = parse(BRANCHES, w=w)
    side = run(model, {"x": x, "flag": np.array(flag)})
    assert "computed in float32" in side.how
    assert len(side.passed_over) == 1
    doubled = x + x
    y = np.sqrt((doubled * w).astype(np.float32)).astype(BF16) if flag else -doubled
    np.testing.assert_array_equal(side.outputs["y"], y)
    assert side.outputs["z"].dtype == BF16
    assert reference.ulps(side.outputs["z"], y.astype(np.float64).sum(-1), BF16).max() <= 0.51


def test_emulation_is_pure_and_names_stay():
    model = ir.from_proto(parse(BRANCHES, w=np.ones(8, BF16)))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    emulated = runtime.emulate_bfloat16(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert [v.name for v in emulated.graph.outputs] == ["y", "z"]
    assert {v.dtype for v in (*emulated.graph.inputs, *emulated.graph.outputs)} == {
        ir.DataType.FLOAT,
        ir.DataType.BOOL,
    }


def test_a_mixed_norm_that_stock_onnxruntime_cannot_load_runs():
    model = parser.parse_model(
        """<ir_version: 11, opset_import: ["" : 23]>
        m (float16[n, 8] x) => (float16[n, 8] y) { y = RMSNormalization <axis = -1, epsilon = 0.001> (x, w) }"""
    )
    w = np.linspace(0.5, 2, 8, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float16)
    side = run(model, {"x": x})
    assert "computed in float32" in side.how
    expected = reference.exact("RMSNormalization", [x, w], reference.Attributes(float(np.float32(0.001))))[0]
    assert reference.ulps(side.outputs["y"], expected, np.float16).max() <= 0.51


def test_the_reference_evaluator_is_the_last_way():
    model = parse(
        "q (float16[4] x) => (bool[4] y) { y = IsInf (x) }"  # no float16 kernel in onnxruntime
    )
    model.opset_import[0].version = 20
    x = np.array([1, np.inf, -np.inf, np.nan], np.float16)
    side = run(model, {"x": x})
    np.testing.assert_array_equal(side.outputs["y"], [False, True, True, False])
    plain = run(NEG, {"x": X})
    assert plain.how == "onnxruntime"
    assert plain.passed_over == ()


# --- the float64 reading ------------------------------------------------------------------------------------------


def doubles(model):
    widened = runtime.widen_to_float64(ir.from_proto(model))
    values = [v for node in ir.traversal.RecursiveGraphIterator(widened.graph) for v in node.outputs]
    values += [*widened.graph.inputs, *widened.graph.outputs, *widened.graph.initializers.values()]
    return {value.dtype for value in values} & {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def test_nothing_narrow_is_left():
    assert doubles(parse(BRANCHES, w=np.ones(8, BF16))) == set()


def test_casts_lose_nothing():
    model = parse("c (float[n] x) => (float[n] y) { h = Cast <to = 10> (x) b = CastLike (h, w) y = Cast <to = 1> (b) }",
                  w=np.ones(1, BF16))  # fmt: skip
    x = np.array([1 / 3, 1e-30, 1e30], np.float32)
    exact = runtime.run_exact(ir.from_proto(model), {"x": x})
    np.testing.assert_array_equal(exact.outputs["y"], x.astype(np.float64))
    assert exact.roundoff == 2.0**-53


def test_constants_are_folded_in_their_own_type():
    """1 + w is a bfloat16 number in every runtime, so the float64 reading starts from that number."""
    w = np.array([2.0**-10, 1.0], BF16)
    model = parse(
        "f (bfloat16[2] x) => (bfloat16[2] y) { one = Constant <value_float = 1.0> () c = CastLike (one, w) "
        "s = Add (c, w) y = Mul (x, s) }",
        w=w,
    )
    exact = runtime.run_exact(ir.from_proto(model), {"x": np.ones(2, BF16)})
    np.testing.assert_array_equal(exact.outputs["y"], [1.0, 2.0])


def test_skip_norms_of_onnxruntime_are_read_in_float64():
    model = parse(
        """s (float[2, 8] x, float[2, 8] r) => (float[2, 8] y, float[2, 8] total)
        { y, u1, u2, total = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.01> (x, r, w, b) }""",
        w=np.linspace(1, 2, 8, dtype=np.float32),
        b=np.linspace(0, 1, 8, dtype=np.float32),
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[0].output[1:3] = ["", ""]
    generator = np.random.default_rng(0)
    x, r = generator.standard_normal((2, 2, 8)).astype(np.float32)
    exact = runtime.run_exact(ir.from_proto(model), {"x": x, "r": r})
    total = x.astype(np.float64) + r + np.linspace(0, 1, 8, dtype=np.float32)
    norm = total / np.sqrt(np.square(total).mean(-1, keepdims=True) + float(np.float32(0.01)))
    assert reference.ulps(exact.outputs["total"], total, np.float64).max() <= 1
    assert reference.ulps(exact.outputs["y"], norm * np.linspace(1, 2, 8, dtype=np.float32), np.float64).max() <= 8


def test_an_operator_that_only_onnxruntime_has_runs_in_float32():
    model = parse("g (float[n] x) => (float[n] y) { d = Add (x, x) y = com.microsoft.FastGelu (d) }")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    exact = runtime.run_exact(ir.from_proto(model), {"x": X})
    assert exact.how == "onnxruntime in float64, FastGelu in float32"
    assert exact.roundoff == 2.0**-24
    assert exact.outputs["y"].dtype == np.float64


def test_what_nobody_can_run_says_why():
    model = parse("m (float[n] x) => (float[n] y) { y = Neg (x) }")
    model.graph.node[0].op_type = "Mystery"
    with pytest.raises(CannotRun, match=r"onnxruntime.*Mystery.*onnx\.reference"):
        runtime.run_exact(ir.from_proto(model), {"x": X})


# --- rounding noise -----------------------------------------------------------------------------------------------


def test_noise_leaves_special_values_alone():
    model = ir.from_proto(parse("m (float[n] x) => (float[n] y) { y = Add (x, x) }"))
    x = np.array([0, np.inf, -np.inf, np.nan, np.finfo(np.float32).max / 2], np.float32)
    (noisy,) = runtime.noise_runs(model, {"x": x}, count=1, seed=0)
    np.testing.assert_array_equal(noisy["y"][:4], [0, np.inf, -np.inf, np.nan])
    assert np.isfinite(noisy["y"][4])


def test_noise_reaches_branches_and_counts_each_rounding():
    model = ir.from_proto(parse(BRANCHES, w=np.ones(8, BF16)))
    noisy = with_rounding_noise(model)
    # Add, Mul, Sqrt and ReduceSum; Neg and If round nothing.
    assert noisy.roundings == 4
    feeds = widened_feeds({"x": np.ones((1, 8), BF16), "flag": np.array(True)})
    grids = {"rounding_scales": np.ones(4)}
    np.testing.assert_array_equal(
        run_reference(noisy.model, feeds | grids)["y"], np.full((1, 8), np.float64(BF16(2**0.5)))
    )


# --- placement ----------------------------------------------------------------------------------------------------

NORMS = parse(
    f"""n (float[n, 8] x) => (float[n, 8] y) {{
        h = {spec.DOMAIN}.RMSNormalization <axes = [-1], epsilon = 1e-6, epsilon_low = 0.0, epsilon_outside = 0.0,
            floor = 0.0, stash_type = 1, normalized_type = 1> (x, w)
        y = {spec.DOMAIN}.RMSNormalization <axes = [-1], epsilon = 1e-6, epsilon_low = 0.0, epsilon_outside = 0.0,
            floor = 0.0, stash_type = 1, normalized_type = 1> (h, w) }}""",
    w=np.ones(8, np.float32),
)
NORMS.functions.append(function_proto("RMSNormalization", Form(18)))


def test_without_the_library_the_body_runs():
    placed = runtime.placement(runtime.load(NORMS), library=False)
    assert placed.by_body == {"RMSNormalization": 2}
    assert placed.by_library == {}


def test_with_the_library_its_kernel_runs():
    if not Path(library.__file__).with_name(library.LIBRARY_NAME).is_file():
        pytest.skip("the library is not built in this checkout")
    placed = runtime.placement(runtime.load(NORMS), library=True)
    assert placed.by_library == {"RMSNormalization": 2}
    assert placed.by_body == {}
