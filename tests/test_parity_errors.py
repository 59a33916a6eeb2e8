"""Errors against float64: histograms, the worst elements, and whose error is the larger one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper
from parity_models import Network, elementwise, parity, verdicts

from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.parity import OutputParity, Verdict
from rmsnorm_onnx.parity.bound import Spread, spread
from rmsnorm_onnx.parity.errors import EDGES, histogram, margin, rms_error

ULP = 2.0**-23
LAST = len(EDGES)


def bin_of(ulps):
    """Where one element lies that is so many ulps above 1."""
    exact = np.array([1.0])
    # Moving the exact value, not the float32, gives errors that are no whole number of ulps.
    counts = histogram(np.float32(exact), np.float32(exact), exact + ulps * ULP).original
    assert sum(counts) == 1
    return counts.index(1)


@pytest.mark.parametrize(
    ("ulps", "index"),
    [(0, 0), (0.5, 0), (0.6, 1), (1, 1), (1.5, 2), (2, 2), (3, 3), (4, 3), (65536, 17), (65537, LAST)],
)
def test_errors_fall_into_fixed_bins(ulps, index):
    assert bin_of(ulps) == index


def test_what_is_not_finite_is_in_the_last_bin_unless_it_is_right():
    exact = np.array([np.nan, np.inf, 1.0, np.nan, 1e39, -1e39, 1e39])
    values = np.array([np.nan, np.inf, np.inf, 1.0, np.inf, np.inf, 1.0], np.float32)
    counts = histogram(values, values, exact).fused
    assert (counts[0], counts[-1], sum(counts)) == (3, 4, 7)
    assert rms_error(values, exact) == np.inf
    # 1e39 is inf in float32, so a model that says so is right.
    assert rms_error(values[[0, 1, 4]], exact[[0, 1, 4]]) == 0


def test_histograms_of_a_model_count_every_element_of_both():
    result = parity(Network().build(), Network(fused=True).build())
    for output in result.outputs[:2]:
        assert output.histogram.edges == EDGES
        assert sum(output.histogram.original) == sum(output.histogram.fused) == np.prod(output.shape)
        assert output.histogram.original != output.histogram.fused
    assert result.outputs[2].histogram is None


def test_at_most_ten_worst_elements_the_largest_share_first():
    off = np.zeros(4, np.float32)
    off[[1, 2]] = 1e-3, 2e-3
    few, many = ({"x": np.ones((rows, 4), np.float32)} for rows in (3, 30))
    same, moved = elementwise("Add", [np.zeros(4, np.float32)]), elementwise("Add", [off])
    worst = parity(same, moved, inputs=few).outputs[0].worst
    assert [element.index for element in worst] == [(0, 2), (1, 2), (2, 2), (0, 1), (1, 1), (2, 1)]
    worst = parity(same, moved, inputs=many).outputs[0].worst
    assert [element.index for element in worst] == [(row, 2) for row in range(10)]
    assert [worst[0].got, worst[0].expected, worst[0].exact] == pytest.approx([1.002, 1, 1])


def test_the_spread_is_the_largest_error_per_element_and_the_rms_per_run():
    exact = {"y": np.array([1.0, 2.0, np.inf])}
    runs = [{"y": exact["y"] + np.array(off)} for off in ([3.0, 0, 0], [0, -4.0, 0])]
    found = spread(exact, runs)["y"]
    np.testing.assert_array_equal(found.largest, [3, 4, 0])
    assert found.rms == pytest.approx((math.sqrt(3), 4 / math.sqrt(3)))


def test_runs_of_another_shape_have_no_spread():
    """Numpy would compare (3,) with (1, 3)."""
    with pytest.raises(CannotRun, match=r"expected output 'y' of shape \(3,\), .* with other roundings it is \(1, 3\)"):
        spread({"y": np.zeros(3)}, [{"y": np.zeros((1, 3))}])


def sizes(*rms):
    return Spread(np.zeros(1), rms)


def test_the_margin_is_what_samples_differ_by():
    assert margin(sizes(1.0, 1.0, 1.0)) == 1.1
    assert margin(sizes(1.0, 1.5, 2.0)) == 4
    assert margin(sizes(0.0, 0.0)) == 1.1
    assert margin(sizes(0.0, 1.0)) == np.inf
    assert margin(sizes(1.0)) == np.inf


@pytest.mark.parametrize(
    ("original", "fused", "within", "nearer"),
    [
        (1.0, 1.9, 2.0, "neither"),
        (1.0, 2.1, 2.0, "original"),
        (2.1, 1.0, 2.0, "fused"),
        (0.0, 0.0, 1.1, "neither"),
        (0.0, 1e-9, 1.1, "original"),
        (np.inf, 1.0, 2.0, "fused"),
        (np.inf, np.inf, 2.0, "neither"),
        (1.0, 2.1, np.inf, "neither"),
        (None, None, None, None),
    ],
)
def test_who_is_nearer(original, fused, within, nearer):
    output = OutputParity(
        "", "y", "float32", (1,), Verdict.ROUNDING, original_error=original, fused_error=fused, margin=within
    )
    assert output.nearer == nearer


def cut_to_bfloat16():
    """The network with one rounding to 16 bits that it does not have otherwise."""
    model = Network("f32").build()
    for name, to, source in (("cut", TensorProto.BFLOAT16, "hidden"), ("back", TensorProto.FLOAT, "cut")):
        model.graph.node.insert(len(model.graph.node) - 2, helper.make_node("Cast", [source], [name], to=to))
    model.graph.node[-2].input[0] = "back"
    return model


def test_a_mismatch_says_who_is_nearer_to_float64():
    original, cut = Network("f32").build(), cut_to_bfloat16()
    result = parity(original, cut)
    assert verdicts(result)["logits"] is Verdict.ROUNDING
    assert result.outputs[1].nearer == "original"
    assert "the fused model is further from float64 than the original" in result.report().verdict
    better = parity(cut, original)
    assert better.outputs[1].nearer == "fused"
    assert parity(original, original).outputs[1].nearer == "neither"
