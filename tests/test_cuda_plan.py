"""How CUDA norms are launched: a pure function of the problem and the device, asked without a GPU."""

from __future__ import annotations

import math
import re

import cuda_abi
import kernels_abi as abi
import pytest

from rmsnorm_onnx.spec import DType

BYTES = {DType.FLOAT: 4, DType.FLOAT16: 2, DType.DOUBLE: 8, DType.BFLOAT16: 2}


def described(shape, dtype=DType.BFLOAT16, form="plain", stash=None, axes=(-1,), **changes):
    """A problem whose addresses are made up, because nobody reads there."""
    scale_shape = changes.pop("scale_shape", shape[-1:])
    stash = stash or (DType.DOUBLE if dtype == DType.DOUBLE else DType.FLOAT)
    fields = {
        "form": abi.FORMS.index(form),
        "type": dtype,
        "scale_type": dtype,
        "stash": stash,
        "normalized": stash,
        "scaled": stash,
        "x": 1 << 40,
        "second": None if form == "plain" else 2 << 40,
        "scale": 3 << 40,
        "y": 4 << 40,
        "sum": 5 << 40 if form == "skip" else None,
    }
    return abi.TestProblem(
        **{**fields, **changes},
        shape=abi.int64s(shape),
        axes=abi.int64s(axes),
        scale_shape=abi.int64s(scale_shape),
        rank=len(shape),
        axis_count=len(axes),
        scale_rank=len(scale_shape),
    )


def plan(shape, dtype=DType.BFLOAT16, device="sm_90", form="plain", stash=None, axes=(-1,), **changes):
    """The plan's words and numbers."""
    text = cuda_abi.emulated().plan(device, described(shape, dtype, form, stash, axes, **changes))
    found = {name: int(number) for name, number in re.findall(r"([a-z]+) (\d+)", text)}
    flags = {flag: f" {flag}" in text for flag in ("streaming", "shifted", "spread")}
    return {**found, **flags, "path": text.split()[0], "text": text}


def order(found):
    """What the order of a sum depends on."""
    return found["threads"], found["vectors"], found["cluster"], found["spread"]


@pytest.mark.parametrize(
    ("width", "device", "form", "expected"),
    [
        (8, "sm_90", "plain", ("rows", 1, 1, 1)),
        (64, "sm_90", "skip", ("rows", 4, 2, 1)),
        (128, "sm_90", "plain", ("rows", 8, 2, 1)),
        (256, "sm_90", "plain", ("rows", 8, 4, 1)),
        (1024, "sm_90", "plain", ("rows", 32, 4, 1)),
        (4096, "sm_90", "plain", ("rows", 128, 4, 1)),
        (8192, "sm_90", "skip", ("rows", 256, 4, 1)),
        (32768, "sm_90", "plain", ("rows", 512, 8, 1)),
        (32768, "sm_90", "skip", ("rows", 512, 4, 2)),
        (65536, "sm_90", "plain", ("rows", 512, 8, 2)),
        (65536, "sm_86", "plain", ("reread", 512, 8, 1)),
        (262144, "sm_90", "plain", ("rows", 512, 8, 8)),
        (1 << 20, "sm_90", "plain", ("reread", 512, 8, 8)),
    ],
)
def test_width_and_form_choose_the_threads(width, device, form, expected):
    found = plan((4096, width), device=device, form=form)
    assert (found["path"], *order(found)) == (*expected, False)


@pytest.mark.parametrize("device", list(cuda_abi.DEVICES))
@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("stash", [DType.FLOAT, DType.DOUBLE])
def test_nothing_but_the_width_and_types_makes_the_order(device, form, dtype, stash):
    for width in (2, 5, 128, 1000, 4096, 5003, 40000, 300000):
        usual = plan((4096, width), dtype, device, form, stash)
        others = [
            plan((1, width), dtype, device, form, stash),
            plan((1 << 20, width), dtype, device, form, stash),
            plan((3, width), dtype, device, form, stash, x=(1 << 40) + BYTES[dtype]),
            plan((3, width), dtype, device, form, stash, y=1 << 40),
            plan((3, width), dtype, device, form, stash, scale=None),
            plan((3, width), dtype, device, form, stash, scale_type=DType.FLOAT16),
        ]
        assert all(order(other) == order(usual) for other in others)
        vectors = -(-width * BYTES[dtype] // 16)
        for found in (usual, *others):
            assert found["threads"] & (found["threads"] - 1) == 0
            assert 1 <= found["threads"] * found["rows"] <= 512
            assert found["rows"] == 1 or found["threads"] <= 32
            assert found["vectors"] % found["slices"] == 0
            assert found["path"] == "rows" or found["slices"] == 1
            capacity = found["threads"] * found["vectors"] * found["cluster"]
            assert found["path"] == "reread" or vectors <= capacity


@pytest.mark.parametrize("rows", [1, 2, 15, 66, 132, 133, 100000])
@pytest.mark.parametrize("width", [16, 128, 4096, 16384, 131072])
def test_blocks_have_every_row(rows, width):
    found = plan((rows, width))
    blocks = math.ceil(rows / found["rows"]) * found["slices"] * found["cluster"]
    assert found["blocks"] == blocks


def test_few_wide_rows_are_written_by_several_blocks():
    assert plan((1, 8192))["slices"] == 4
    assert plan((33, 8192))["slices"] == 4
    assert plan((66, 8192))["slices"] == 2
    assert plan((67, 8192))["slices"] == 1
    assert plan((1, 2048))["slices"] == 1
    assert plan((1, 8192), y=1 << 40)["slices"] == 1, "a block would read what another has written"
    assert plan((1, 8192), form="skip", sum=2 << 40)["slices"] == 1


def test_registers_hold_rows_of_one_run():
    """At any address, with a scale of X's type or of the stash type."""
    for held in (plan((64, 4096)), plan((64, 4096), scale_type=DType.FLOAT)):
        assert (held["path"], held["shifted"]) == ("rows", False)
    for held in (
        plan((64, 500)),
        plan((64, 4096), x=(1 << 40) + 2),
        plan((64, 4096), y=(4 << 40) + 8),
        plan((64, 4096), scale=(3 << 40) + 2),
    ):
        assert (held["path"], held["shifted"]) == ("rows", True)
    for other in (
        plan((64, 32768), x=(1 << 40) + 2),
        plan((64, 4096), scale_type=DType.FLOAT16),
        plan((64, 4096), scale_shape=(1,)),
        plan((64, 4096), stash=DType.DOUBLE),
        plan((2, 8, 4, 64), axes=(1, 3), scale_shape=(64,)),
    ):
        assert other["path"] == "reread"


@pytest.mark.parametrize("width", [513, 4097, 4100, 5003, 16391, 100001])
def test_registers_hold_rows_that_no_vectors_fit(width):
    """In an order of their own, wherever they begin."""
    for changes in ({}, {"x": (1 << 40) + 2}, {"scale": (3 << 40) + 2}, {"scale": None}, {"scale_type": DType.FLOAT}):
        found = plan((64, width), **changes)
        assert (found["path"], found["spread"]) == ("rows", True)
    for changes in ({"scale_type": DType.FLOAT16}, {"scale_shape": (1,)}, {"stash": DType.DOUBLE}):
        found = plan((64, width), **changes)
        assert (found["path"], found["spread"]) == ("reread", True)
    assert not plan((2, 8, 4, width), axes=(1, 3), scale_shape=(width,))["spread"]


def test_y_that_the_cache_does_not_hold_is_streamed():
    assert not plan((1000, 4096))["streaming"]
    assert plan((100000, 4096))["streaming"]


def test_narrow_rows_fill_blocks_only_where_all_processors_have_one():
    assert plan((100000, 128))["rows"] == 32
    assert plan((32, 128))["rows"] == 4
