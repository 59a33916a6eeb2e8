"""Sets of feeds: products of dimensions, branches and ranges, their names, and sizes that a model needs."""

from __future__ import annotations

import itertools

import feed_models
import numpy as np
import onnx_ir as ir
import pytest
from feed_models import parse

import rmsnorm_onnx
from rmsnorm_onnx import runtime
from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.runtime import Range, make_feed_sets, make_feeds, parse_dims

MIXED = parse("m (float[b, s] x, float16[b] h, int64[b, s] ids, bool[b, s] mask) => (float[b, s] y) { y = Neg (x) }")


def sets(model, **options):
    return make_feed_sets(ir.from_proto(model), **options)


def equal(left, right):
    return left.arrays.keys() == right.arrays.keys() and all(
        np.array_equal(array, right.arrays[name]) for name, array in left.arrays.items()
    )


# --- products -----------------------------------------------------------------------------------------------------


def test_every_combination_is_a_set_with_a_name():
    ranges = [Range(-1, 1), Range(-1000, 1000), Range(0, 1, "h")]
    made = sets(MIXED, dims={"b": (1, 2), "s": [1, 7, 128]}, ranges=ranges)
    assert len(made) == len({feeds.name for feeds in made}) == 12
    assert made[0].name == "batch=1 seq=1 range [-1, 1] h [0, 1]"
    assert made[-1].name == "batch=2 seq=128 range [-1000, 1000] h [0, 1]"
    for feeds, (b, s, high) in zip(made, itertools.product((1, 2), (1, 7, 128), (1, 1000)), strict=True):
        assert feeds.dims == {"b": b, "s": s}
        assert feeds.arrays["x"].shape == (b, s)
        assert np.abs(feeds.arrays["x"]).max() <= high
        assert feeds.arrays["h"].min() >= 0
        assert feeds.arrays["mask"].all()


def test_a_set_is_the_same_whatever_others_are_asked_for():
    several = sets(MIXED, dims={"b": (1, 2), "s": (3, 4)}, ranges=[Range(-1, 1), Range(5, 6)], seed=3)
    for alone in (sets(MIXED, dims={"b": 2, "s": 3}, ranges=[Range(5, 6)], seed=3)[0],):
        (same,) = [feeds for feeds in several if feeds.name == alone.name]
        assert equal(alone, same)
    other = sets(MIXED, dims={"b": 2, "s": 3}, ranges=[Range(5, 6)], seed=4)[0]
    assert not equal(alone, other)
    assert equal(sets(MIXED)[0], make_feeds(ir.from_proto(MIXED)))
    assert equal(sets(MIXED, dims={"b": np.int64(3)})[0], sets(MIXED, dims={"b": 3})[0])


def test_names_say_what_differs():
    model = parse("m (float[b, s] x, float[b, t] z, float[4, u, v] w) => (float[b, s] y) { y = Neg (x) }")
    names = [feeds.name for feeds in sets(model, dims={"u": (2, 3), "v": (4, 5)})]
    assert names == ["batch=2 u=2 v=4", "batch=2 u=2 v=5", "batch=2 u=3 v=4", "batch=2 u=3 v=5"]
    fixed = parse("m (float[2] x) => (float[2] y) { y = Neg (x) }")
    assert [feeds.name for feeds in sets(fixed, ranges=[Range(0, 1)])] == ["fixed shapes range [0, 1]"]


@pytest.mark.parametrize(
    ("texts", "parsed"),
    [
        (["batch=1,2", "seq=7"], {"batch": (1, 2), "seq": (7,)}),
        (["past + seq=9", " n = 1"], {"past + seq": (9,), "n": (1,)}),
        (["n=1,1,2", "n=2,3"], {"n": (1, 2, 3)}),
    ],
)
def test_dimensions_from_text(texts, parsed):
    assert parse_dims(texts) == parsed


@pytest.mark.parametrize("text", ["batch", "=3", "batch=", "batch=x", "batch=1,,2", "batch=1.5"])
def test_dimensions_that_are_none(text):
    with pytest.raises(InvalidInput, match="NAME=N"):
        parse_dims([text])


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"sequ": 3}, "valid names: b, s, batch.*did you mean"),
        ({"past": 0}, "no dimension is called past"),
        ({"b": -1}, "cannot be negative"),
        ({"b": ()}, "whole number or several for dimension b"),
        ({"b": "3"}, "whole number or several for dimension b, got '3'"),
        ({"b": 1.5}, "whole number or several for dimension b"),
    ],
)
def test_wrong_dimensions(dims, message):
    with pytest.raises(InvalidInput, match=message):
        sets(MIXED, dims=dims)


# --- ranges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1,1", Range(-1, 1)),
        ("[-1e3, 1e3]", Range(-1000, 1000)),
        ("x:[0,0]", Range(0, 0, "x")),
        ("scope::x:-1,1", Range(-1, 1, "scope::x")),
    ],
)
def test_ranges_from_text(text, expected):
    assert Range.parse(text) == expected


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "2,1", "nan,1", "0,inf", "[1,2", "x:[0]", "x:"])
def test_ranges_that_are_none(text):
    with pytest.raises(InvalidInput, match="range"):
        Range.parse(text)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (Range(0, 1e5), "input h of type float16 takes values from -65504 to 65504, not range"),
        (Range(0, 1, "hh"), "did you mean h"),
        (Range(0, 1.5, "ids"), "takes whole numbers"),
        (Range(0, 2, "mask"), "takes values from 0 to 1"),
    ],
)
def test_ranges_that_do_not_fit(one, message):
    with pytest.raises(InvalidInput, match=message):
        sets(MIXED, ranges=[one])


def test_a_range_without_any_input_for_it():
    model = parse("m (int64[b] ids) => (int64[b] y) { y = Neg (ids) }")
    with pytest.raises(InvalidInput, match="name one"):
        sets(model, ranges=[Range(0, 1)])
    (named,) = sets(model, ranges=[Range(-3, 9, "ids")], dims={"b": 100})
    assert {*named.arrays["ids"]} == set(range(-3, 10))


def test_a_range_reaches_the_ends_of_a_type():
    model = parse("m (double[n] x, bfloat16[n] b) => (double[n] y) { y = Neg (x) }")
    most = float(np.finfo(np.float64).max)
    (wide,) = sets(model, ranges=[Range(-most, most, "x")], dims={"n": 100})
    assert np.isfinite(wide.arrays["x"]).all()
    assert np.abs(wide.arrays["x"]).max() > most / 2
    with pytest.raises(InvalidInput, match="bfloat16"):
        sets(model, ranges=[Range(0, 3.4e38)])


def test_a_range_keeps_to_the_table():
    with pytest.raises(InvalidInput, match="from 0 to 10"):
        sets(feed_models.genai(), ranges=[Range(0, 11, "input_ids")])


# --- whole decoders -----------------------------------------------------------------------------------------------


def run_on(model):
    loaded = runtime.load(model)
    return lambda feeds: runtime.run_side(loaded, feeds.arrays, library=False, threads=1)


@pytest.mark.parametrize("build", [feed_models.genai, feed_models.grouped, feed_models.merged])
@pytest.mark.parametrize(
    "dims", [{}, {"seq": 1}, {"past": 0}, {"past": 1}, {"past": 40}, {"batch": 1}, {"batch": 3, "past": 0}]
)
def test_decoders_run_without_being_told_how(build, dims):
    model = build()
    run = run_on(model)
    for feeds in make_feed_sets(ir.from_proto(model), dims=dims, run=run):
        past = feeds.arrays["past_key_values_0_key"].shape[2]
        outputs = run(feeds).outputs
        assert outputs["present_0_key"].shape[2] == past + feeds.arrays["input_ids"].shape[1]
        assert all(np.isfinite(array).all() for array in outputs.values())
        assert {("batch=" if name == "batch" else f"{name}=") + str(n) for name, n in dims.items()} <= {
            *feeds.name.split()
        } or feeds.name.endswith("=0")


@pytest.mark.parametrize("past", ["past", "past_sequence_length"])
def test_a_merged_decoder_is_fed_for_both_branches(past):
    made = sets(feed_models.merged(), dims={past: (2, 5)})
    assert [feeds.name for feeds in made] == [
        "batch=2 seq=1 past=2 use_cache_branch=1",
        "batch=2 seq=1 past=0 use_cache_branch=0",
        "batch=2 seq=1 past=5 use_cache_branch=1",
    ]
    assert [feeds.arrays["use_cache_branch"].tolist() for feeds in made] == [[True], [False], [True]]
    assert [feeds.arrays["attention_mask"].shape for feeds in made] == [(2, 3), (2, 1), (2, 6)]


@pytest.mark.parametrize("build", [feed_models.genai, feed_models.merged])
def test_fused_decoders_equal_their_originals(build):
    model = build()
    fused = rmsnorm_onnx.optimize(model).model
    assert len(rmsnorm_onnx.inspect(model).fused) == 2
    for feeds in make_feed_sets(ir.from_proto(model), run=run_on(model)):
        assert rmsnorm_onnx.verify(model, fused, inputs=feeds.arrays, library=False, threads=1, samples=2).ok


# --- sizes that a model needs -------------------------------------------------------------------------------------

CHUNKS = parse(
    """c (float[batch, seq] x) => (float[a, b, c] y) { y = Reshape (x, shape) }""", shape=np.array([0, 2, 4])
)


def test_sizes_are_tried_until_the_model_runs():
    (feeds,) = make_feed_sets(ir.from_proto(CHUNKS), run=run_on(CHUNKS))
    assert feeds.dims == {"batch": 2, "seq": 8}
    by_batch = make_feed_sets(ir.from_proto(CHUNKS), dims={"batch": (1, 3)}, run=run_on(CHUNKS))
    assert [feeds.dims for feeds in by_batch] == [{"batch": 1, "seq": 8}, {"batch": 3, "seq": 8}]


def test_what_is_asked_for_stays_and_its_error_is_seen():
    run = run_on(CHUNKS)
    (feeds,) = make_feed_sets(ir.from_proto(CHUNKS), dims={"seq": 5}, run=run)
    assert feeds.dims == {"batch": 2, "seq": 5}
    with pytest.raises(CannotRun, match="Reshape"):
        run(feeds)


def test_nothing_is_tried_where_nothing_is_free():
    def run(feeds):
        raise AssertionError

    model = ir.from_proto(MIXED)
    make_feed_sets(model, dims={"b": 1, "s": 2}, run=run)
    make_feed_sets(model, inputs=make_feeds(model).arrays, run=run)


def test_errors_that_are_not_about_sizes_end_the_search():
    calls = []

    def run(feeds):
        calls.append(feeds.dims)
        raise CannotRun("no such operator")

    (feeds,) = make_feed_sets(ir.from_proto(CHUNKS), run=run)
    assert feeds.dims == calls[0] == {"batch": 2, "seq": 7}
    assert len(calls) == 4
