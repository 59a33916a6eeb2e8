"""The CUDA kernels on a GPU: the tests of the CPU's kernels, and what only a GPU has. Skipped where there is none."""

from __future__ import annotations

import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor

import cuda_device
import cuda_memory
import kernels_abi as abi
import numpy as np
import pytest
from kernel_inputs import same_bits, samples, scales, seconds, supported, types
from kernels_abi import NUMPY, Norm, run

from rmsnorm_onnx.spec import DType

if not cuda_memory.has_gpu():
    pytest.skip("no NVIDIA GPU", allow_module_level=True)
if cuda_device.nvcc() is None:
    pytest.skip("no nvcc to compile the kernels with", allow_module_level=True)

from test_kernel_bits import (
    test_a_scale_of_16_bits_gives_the_bits_of_the_same_in_float32,
    test_bits_do_not_depend_on_streaming,
    test_bits_do_not_depend_on_the_split,
    test_bits_of_a_column_do_not_depend_on_those_beside_it,
    test_bits_of_columns_do_not_depend_on_streaming,
    test_bits_of_wide_rows_do_not_depend_on_who_sums_which_chunk,
)
from test_kernels import (
    test_any_axes_and_any_scale,
    test_double_rounds_once_to_sixteen_bits,
    test_error_of_a_row,
    test_error_of_a_row_of_one_value,
    test_float_squares_overflow_as_the_formula_does,
    test_rounds_where_the_attributes_say,
    test_silu,
    test_silu_of_sixteen_bits,
    test_sixteen_bit_conversion,
    test_stash_type_of_another_width,
    test_type_of_the_scale_changes_nothing,
    test_zeros_nan_and_infinity,
)

__all__ = [
    "supported",
    "test_a_scale_of_16_bits_gives_the_bits_of_the_same_in_float32",
    "test_any_axes_and_any_scale",
    "test_bits_do_not_depend_on_streaming",
    "test_bits_do_not_depend_on_the_split",
    "test_bits_of_a_column_do_not_depend_on_those_beside_it",
    "test_bits_of_columns_do_not_depend_on_streaming",
    "test_bits_of_wide_rows_do_not_depend_on_who_sums_which_chunk",
    "test_double_rounds_once_to_sixteen_bits",
    "test_error_of_a_row",
    "test_error_of_a_row_of_one_value",
    "test_float_squares_overflow_as_the_formula_does",
    "test_rounds_where_the_attributes_say",
    "test_silu",
    "test_silu_of_sixteen_bits",
    "test_sixteen_bit_conversion",
    "test_stash_type_of_another_width",
    "test_type_of_the_scale_changes_nothing",
    "test_zeros_nan_and_infinity",
]

# Warnings of packages that only such a machine has are not ours to end on.
pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]
forms = pytest.mark.parametrize("form", abi.FORMS)
#: Fewer than a vector, parts of a warp, a warp, odd, a block, more than one block holds.
WIDTHS = (5, 64, 128, 1000, 4096, 5003, 16384, 40001, 131072, 300001)
PLACED = [
    *(((5, width), (-1,)) for width in (5, 128, 1000, 4096, 5003, 40001)),
    ((1, 8192), (-1,)),
    ((3, 70, 64), (1,)),
    ((2, 37, 7), (1,)),
]
CAPTURED = [((1, 8192), (-1,)), ((300, 128), (-1,)), ((3, 40001), (-1,)), ((2, 300001), (-1,)), ((3, 70, 64), (1,))]


@pytest.fixture(scope="module")
def memory():
    found = cuda_memory.memory()
    if isinstance(found, str):
        pytest.skip(found)
    cuda_device.library()
    return found


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch, memory):
    device = cuda_device.Device(memory)
    monkeypatch.setattr(abi, "shim", lambda: device)
    monkeypatch.setattr(abi, "isas", lambda: ("baseline",))


def given(form, shape, dtype):
    return samples(shape, dtype), None if form == "plain" else seconds(shape, dtype)


def same(results, others):
    return all(a is b is None or same_bits(a, b) for a, b in zip(results, others, strict=True))


def test_runs_the_code_that_was_compiled():
    facts = json.loads(cuda_device.library().rmsnorm_cuda_describe())
    assert facts["arch"] == cuda_device.capability()
    assert facts["code"] == cuda_device.architecture()


@types
@forms
@pytest.mark.parametrize("width", WIDTHS)
def test_bits_do_not_depend_on_the_number_of_rows(form, dtype, width):
    """From one row, which many processors may share, to more than run at once."""
    count = max(9, min(1100, 2_000_000 // width))
    (x, second), norm = given(form, (count, width), dtype), Norm(form)
    whole = run(norm, x, second, scales(width))
    for rows in (1, 2, 7, 67, 300):
        part = np.s_[count - rows :] if rows < count else np.s_[:]
        got = run(norm, x[part], None if second is None else second[part], scales(width))
        assert same(got, [None if array is None else array[part] for array in whole])


@types
@forms
@pytest.mark.parametrize("offset", [1, 3, 6])
@pytest.mark.parametrize(("shape", "axes"), PLACED, ids=str)
def test_bits_do_not_depend_on_where_tensors_begin(memory, form, dtype, offset, shape, axes):
    (x, second), norm = given(form, shape, dtype), Norm(form, axes=axes)
    moved = cuda_device.Device(memory, offset=offset)
    for change in ({}, {"in_place": True}, {"streaming": 1}):
        changed = dataclasses.replace(norm, **change)
        wanted = run(norm, x, second, scales(shape[-1:]))
        assert same(run(changed, x, second, scales(shape[-1:]), moved), wanted)


@types
@forms
@pytest.mark.parametrize(("shape", "axes"), CAPTURED, ids=str)
def test_runs_in_a_captured_graph(memory, form, dtype, shape, axes):
    (x, second), norm = given(form, shape, dtype), Norm(form, axes=axes)
    graph = cuda_device.Device(memory, how=cuda_device.replayed)
    wanted = run(norm, x, second, scales(shape[-1:]))
    assert same(run(norm, x, second, scales(shape[-1:]), graph), wanted)


def test_several_threads_with_a_stream_each():
    questions = [(Norm(form), *given(form, (rows, width), dtype), scales(width))
                 for form in abi.FORMS for dtype in (DType.FLOAT, DType.BFLOAT16)
                 for rows, width in ((1, 8192), (300, 128), (2, 131072))]  # fmt: skip
    wanted = [run(*question) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(lambda q: run(*q), questions), wanted, strict=True):
                assert same(got, want)


def test_a_scale_of_ones_may_be_left_out():
    x = samples((7, 1000), DType.BFLOAT16)
    assert same(run(Norm(), x), run(Norm(), x, None, np.ones(1000, np.float32)))


@pytest.mark.slow
def test_more_elements_than_32_bits_count():
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 40 << 30:
        pytest.skip("takes 30 GB of the host's memory")
    width = 4096
    few = samples((64, width), DType.BFLOAT16)
    count = 2**31 // few.size + 1
    x = np.tile(few, (count, 1))
    y = run(Norm(), x, None, scales(width))[0].reshape(count, *few.shape)
    wanted = run(Norm(), few, None, scales(width))[0]
    assert y.dtype == NUMPY[DType.BFLOAT16]
    assert all(same_bits(y[i], wanted) for i in (0, count // 2 - 1, count // 2, count - 2, count - 1))
