"""Random feeds: what inputs are for, values that suit that, and dimensions that fit each other."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from feed_models import parse

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.runtime import make_feeds


def feeds(model, **dims):
    return make_feeds(ir.from_proto(model), dims=dims)


def identity(inputs, body="y = Identity (x)", outputs="float[n] y", functions="", **weights):
    """A graph that needs no more than its inputs."""
    return parse(f"g ({inputs}) => ({outputs}) {{ {body} }} {functions}", **weights)


def arrays(inputs, **dims):
    return feeds(identity(inputs), **dims).arrays


# --- token numbers and positions ----------------------------------------------------------------------------------

TABLE = {"table": np.zeros((5, 4), np.float32)}
PATHS = {
    "gather": "y = Gather (table, x)",
    "transposed": "t = Transpose <perm = [1, 0]> (wide)  y = Gather (t, x)",
    "column": "y = Gather <axis = 1> (wide, x)",
    "reshaped": "f = Flatten (x)  c = Cast <to = 6> (f)  y = Gather (table, c)",
    "clamped": "i = Where (flag, x, minus)  y = Gather (table, i)",
    "branch": """y = If (flag) <then_branch = a () => (float[n] p) { p = Gather (table, x) },
        else_branch = b () => (float[n] q) { q = Gather (table, x) }>""",
    "out of a branch": """z = If (flag) <then_branch = a () => (int64[n] p) { p = Identity (x) },
        else_branch = b () => (int64[n] q) { q = Neg (x) }>  y = Gather (table, z)""",
    "loop": """y = Loop (two, flag, x) <body = b (int64 i, bool c, int64[n] v) => (bool d, int64[n] w, float[n] s)
        { d = Identity (c)  w = Identity (v)  s = Gather (table, v) }>""",
    "one hot": "y = OneHot (x, five, ends)",
    "nd": "u = Unsqueeze (x, last)  y = GatherND (table, u)",
    "embedding": "y, m = com.microsoft.EmbedLayerNormalization (x, , table, table, , g, g)",
    "function": "y = local.outer (x, table)",
}
LOCAL = """<domain : "local", opset_import : ["" : 18]> outer (i, t) => (r) { r = local.inner (t, i) }
<domain : "local", opset_import : ["" : 18]> inner (t, i) => (r) { c = Cast <to = 6> (i)  r = Gather (t, c) }"""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("offset", [0, 2])
def test_indices_stay_within_the_smallest_table(path, offset):
    shift = "x = Add (given, two) " if offset else "x = Identity (given) "
    model = identity(
        "int64[n] given",
        shift + PATHS[path],
        functions=LOCAL if path == "function" else "",
        **TABLE,
        wide=np.zeros((4, 5), np.float32),
        flag=np.array(True),
        minus=np.array(-1),
        two=np.array(2),
        five=np.array(5),
        ends=np.zeros(2, np.float32),
        last=np.array([-1]),
        g=np.zeros(4, np.float32),
    )
    given = feeds(model, n=100).arrays["given"]
    assert set(np.unique(given)) == set(range(5 - offset))


def test_float_token_numbers_are_indices():
    model = identity("float[n, 7] tokens", "i = Cast <to = 6> (tokens)  y = Gather (table, i)", **TABLE)
    assert set(np.unique(feeds(model, n=30).arrays["tokens"])) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("position_ids[batch, seq]", np.tile([3, 4], (2, 1))),
        ("position_ids[3, batch, seq]", np.tile([3, 4], (3, 2, 1))),
        ("cache_position[seq]", [3, 4]),
        ("position_ids[batch, total]", np.tile(np.arange(5), (2, 1))),
    ],
)
def test_positions_continue_after_the_past(declared, expected):
    given = arrays(f"int64[batch, seq] ids, float[batch, 2, past, 4] past_key, int64{bracket(declared)}", seq=2)
    np.testing.assert_array_equal(given[declared.split("[")[0]], expected)


def bracket(declared):
    name, dims = declared.split("[")
    return f"[{dims} {name}"


# --- lengths, masks and past --------------------------------------------------------------------------------------

CACHE = "float[a, 2, b, 4] past_key_values_0_key, float[c, 2, d, 4] past_key_values_0_value"


@pytest.mark.parametrize(
    ("mask", "length"),
    [("total_sequence_length", 10), ("s9", 10), ('"past + 1"', 10), ('"b + s1"', 10), ("kv_length", 10)],
)
@pytest.mark.parametrize("past", [0, 1, 3, 40])
def test_a_mask_is_as_long_as_past_and_new(mask, length, past):
    inputs = f"int64[s0, s1] input_ids, int64[s8, {mask}] attention_mask, {CACHE}"
    given = arrays(inputs, batch=3, seq=7, past=past)
    assert given["input_ids"].shape == (3, 7)
    assert given["attention_mask"].shape == (3, length - 3 + past)
    assert (given["attention_mask"] == 1).all()
    assert given["past_key_values_0_key"].shape == given["past_key_values_0_value"].shape == (3, 2, past, 4)


def test_a_length_called_past_plus_one_asks_for_one_new_token():
    made = feeds(identity('int64[b, s] input_ids, int64[b, "past + 1"] attention_mask, float[b, 2, past, 4] past_key'))
    assert made.dims == {"b": 2, "s": 1, "past + 1": 4, "past": 3}
    assert made.name == "batch=2 seq=1 past=3"


@pytest.mark.parametrize(
    ("inputs", "dims", "expected"),
    [
        ("int64[2, s] ids, int64[2, 9] attention_mask", {}, {"s": 9}),
        ("int64[2, s] ids, int64[2, 9] attention_mask, float[2, 1, p, 4] past_key", {}, {"s": 7, "p": 2}),
        ("int64[2, 4] ids, int64[b, t] attention_mask", {}, {"b": 2, "t": 4}),
        ("int64[b, s] ids, int64[b, t] attention_mask, float[b, 1, p, 4] past_key", {"t": 9, "s": 4}, {"p": 5}),
        ("int64[b, s] ids, float[b, 1, p, 4] past_key", {"s": 2, "p": 0, "b": 1}, {"b": 1, "s": 2, "p": 0}),
    ],
)
def test_what_is_fixed_or_asked_for_settles_the_rest(inputs, dims, expected):
    assert feeds(identity(inputs), **dims).dims.items() >= expected.items()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('"past + seq"', 10),
        ('"2*seq"', 14),
        ('"seq//2 + 1"', 4),
        ('"(seq - 1)*past"', 18),
        ('"Max(1, seq - 9)"', 1),
        ('"seq x past"', 21),
        ('"seq/0"', 7),
        ('"seq**9**9**9"', 7),
        ('"seq - 9"', 0),
    ],
)
def test_names_that_are_arithmetic(name, expected):
    given = arrays(f"int64[batch, seq] ids, float[batch, 2, past, 4] past_key, float[1, {name}] x")
    assert given["x"].shape == (1, expected)


def test_a_hyphen_between_words_is_no_minus():
    assert feeds(identity('float[4, "seq-len"] x')).dims == {"seq-len": 7}


def test_encoder_and_decoder_have_lengths_of_their_own():
    given = arrays(
        "int64[b, s] encoder_attention_mask, int64[b, t] input_ids, float[b, e, 8] encoder_hidden_states,"
        "float[b, 2, p, 4] past_0_decoder_key, float[b, 2, q, 4] past_0_encoder_key"
    )
    shapes = {name: array.shape[:3] for name, array in given.items()}
    assert shapes["encoder_attention_mask"] == (2, 5)
    assert shapes["input_ids"] == (2, 7)
    assert shapes["encoder_hidden_states"] == (2, 5, 8)
    assert shapes["past_0_decoder_key"] == (2, 2, 3)
    assert shapes["past_0_encoder_key"] == (2, 2, 5)
    given = arrays("int64[b, s] input_ids, int64[c, t] attention_mask, int64[b, d] decoder_input_ids", encoder=4)
    assert {name: array.shape for name, array in given.items()} == {
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
        "decoder_input_ids": (2, 7),
    }


def test_a_buffer_is_filled_in_part():
    given = arrays("int64[1, 2] ids, int64[2] cache_position, int64[1, 9] attention_mask, float[1, 2, 9, 4] past_key")
    np.testing.assert_array_equal(given["cache_position"], [3, 4])
    np.testing.assert_array_equal(given["attention_mask"], [[1] * 5 + [0] * 4])


def test_states_of_recurrences_say_nothing_about_the_past():
    inputs = "int64[b, s] ids, float[b, 8, 4] past_conv_state, float[b, 2, p, 4] past_key, int64[b, t] attention_mask"
    assert feeds(identity(inputs)).dims == {"b": 2, "s": 7, "p": 3, "t": 10}
    alone = arrays("int64[b, s] ids, float[b, 8, 4] past_conv_state, int64[b, s] position_ids")
    assert alone["position_ids"].max() == 6


def test_a_layer_with_a_window_says_nothing_about_the_others():
    inputs = "int64[b, s] ids, float[b, 2, 4, 8] past_0_key, float[b, 2, p, 8] past_1_key"
    assert feeds(identity(inputs)).dims["p"] == 3


def test_a_cache_is_known_by_its_growth():
    model = identity(
        "float[b, 2, s, 4] x, float[b, 2, unknown, 4] mystery, int64[b, t] attention_mask",
        "new = Neg (x)  y = Concat <axis = 2> (mystery, new)",
    )
    assert feeds(model).dims["unknown"] == 3


# --- masks --------------------------------------------------------------------------------------------------------

CAUSAL = np.arange(10) <= np.arange(7)[:, None] + 3
MASKS = {
    "float[b, t] attention_mask": ("d = Sub (one, attention_mask)  y = Mul (d, low)", np.ones((2, 10))),
    "float[b, 1, s, t] attention_mask_2": ("d = Sub (one, attention_mask_2)  y = Mul (d, low)", CAUSAL),
    "float[b, 1, s, t] attention_mask": ("y = Add (scores, attention_mask)", np.where(CAUSAL, 0, -1e38)),
    "float[s, t] attn": ("y = Attention (x, x, x, attn)", np.zeros((7, 10))),
    "bool[b, 1, s, t] mask": ("y = Where (mask, x, low)", CAUSAL),
    "bool[b, 1, s, t] hidden_mask": ("y = Where (hidden_mask, low, x)", ~CAUSAL),
    "bool[b, t] unseen_mask": ("n = Not (unseen_mask)  y = Where (n, x, low)", np.zeros((2, 10))),
    "bool[b, t] padding_mask": ("y = Identity (padding_mask)", np.zeros((2, 10))),
    "int64[b, t] mask": ("n = Equal (mask, zero)  y = Where (n, low, x)", np.ones((2, 10))),
}


@pytest.mark.parametrize("declared", MASKS)
def test_masks_mean_what_the_graph_makes_of_them(declared):
    body, expected = MASKS[declared]
    model = identity(
        f"int64[b, s] ids, float[b, 2, p, 4] past_key, float[b, 2, s, t] x, {declared}",
        f"scores = Identity (x)  {body}",
        one=np.float32(1),
        low=np.float32(-1e9),
        zero=np.array(0),
    )
    got = feeds(model).arrays[declared.split()[-1]]
    if expected.min() < 0:
        assert np.isfinite(got - np.float32(3e38) / 4).all()
        got, expected = got < -1e30, expected < -1e30
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))


# --- other inputs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("int32[b] seqlens_k", [9, 9]),
        ("int32 total_sequence_length", 10),
        ("int64 past_sequence_length", 3),
        ("int64[b] lengths", [7, 7]),
        ("int64[b] encoder_lengths", [5, 5]),
        ("int64 num_logits_to_keep", 0),
        ("int64 max_length", 1),
        ("bool use_cache", True),
        ("int64[g, 3] image_grid_thw", [[1, 2, 4], [1, 2, 4]]),
        ("string[b] texts", ["a", "a"]),
    ],
)
def test_what_a_name_says(declared, expected):
    given = arrays(f"int64[b, s] ids, float[b, 2, past, 4] past_key, float[n, 12] pixel_values, {declared}")
    np.testing.assert_array_equal(given[declared.split()[-1]], expected)
    assert given["pixel_values"].shape == (16, 12)


def test_operands_of_attention_say_what_they_are():
    model = identity(
        "float[b, s, 32] q, float[b, 2, m, 16] u, float[b, 2, m, 16] w, int32[b] i, int32 j",
        "y, k, v = com.microsoft.GroupQueryAttention (q, q, q, u, w, i, j)",
    )
    given = feeds(model).arrays
    assert given["u"].shape == given["w"].shape == (2, 2, 3, 16)
    np.testing.assert_array_equal(given["i"], [9, 9])
    assert given["j"] == 10


def test_beams_are_rows_of_the_batch():
    given = arrays("int64[b, s] ids, int32[b] beam_idx", b=5)["beam_idx"]
    assert given.min() >= 0
    assert given.max() in range(1, 5)


def test_images_and_sound_are_large_enough_for_strides():
    given = arrays("float[n, 3, h, w] pixel_values, float[n, t] input_values, uint8[n, h, w, 3] image")
    assert given["pixel_values"].shape == (2, 3, 64, 64)
    assert given["input_values"].shape == (2, 1600)
    assert given["image"].std() > 10


def test_sizes_beyond_memory_are_refused():
    with pytest.raises(InvalidInput, match=r"input x of shape \[2, 1000000, 1000000\] is larger than 4 GiB"):
        arrays("float[b, n, n] x", n=10**6)
