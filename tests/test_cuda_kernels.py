"""The CUDA kernels' own source, run by an emulator of blocks, warps and clusters.

First the tests of the CPU kernels, then what only these kernels can do wrong: tensors that begin anywhere, writes past
an end, few rows shared by many blocks, and launches.
"""

from __future__ import annotations

import ctypes
import re
import types

import cuda_abi
import kernels_abi as abi
import numpy as np
import pytest
import test_kernel_bits
import test_kernels
from kernel_inputs import OPS, attributes, exact, same_bits, samples, scales, seconds
from kernel_inputs import types as element_types
from kernels_abi import NUMPY, Norm, run

from rmsnorm_onnx import reference

forms = pytest.mark.parametrize("form", abi.FORMS)


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    """What run() calls."""
    monkeypatch.setattr(abi, "shim", cuda_abi.emulated)


def on_devices(test, *devices, **keep):
    """The same test, of devices instead of instruction sets, and of fewer values of what ``keep`` names."""
    copy = types.FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    copy.__doc__ = test.__doc__
    copy.pytestmark = [pytest.mark.parametrize("isa", devices).mark]
    for mark in test.pytestmark:
        name = mark.args[0]
        if name in keep:
            copy.pytestmark.append(pytest.mark.parametrize(name, keep[name]).mark)
        elif name != "isa":
            copy.pytestmark.append(mark)
    return copy


test_error_of_a_row = on_devices(test_kernels.test_error_of_a_row, "sm_75", "sm_90")
test_error_of_a_row_of_one_value = on_devices(
    test_kernels.test_error_of_a_row_of_one_value, "sm_75", "sm_90", width=[128, 1024, 16384]
)
test_type_of_the_scale_changes_nothing = on_devices(test_kernels.test_type_of_the_scale_changes_nothing, "sm_86")
test_stash_type_of_another_width = on_devices(test_kernels.test_stash_type_of_another_width, "sm_75", "sm_90")
test_any_axes_and_any_scale = on_devices(test_kernels.test_any_axes_and_any_scale, "sm_90")
test_rounds_where_the_attributes_say = on_devices(test_kernels.test_rounds_where_the_attributes_say, "sm_120")
test_zeros_nan_and_infinity = on_devices(test_kernels.test_zeros_nan_and_infinity, "sm_90")
test_float_squares_overflow_as_the_formula_does = on_devices(
    test_kernels.test_float_squares_overflow_as_the_formula_does, "sm_75"
)
test_sixteen_bit_conversion = on_devices(test_kernels.test_sixteen_bit_conversion, "sm_90")
test_double_rounds_once_to_sixteen_bits = on_devices(test_kernels.test_double_rounds_once_to_sixteen_bits, "sm_75")
test_silu = on_devices(test_kernels.test_silu, "sm_75")
test_silu_of_sixteen_bits = on_devices(test_kernels.test_silu_of_sixteen_bits, "sm_90")
test_bits_do_not_depend_on_the_split = on_devices(test_kernel_bits.test_bits_do_not_depend_on_the_split, "sm_90")
test_a_scale_of_16_bits_gives_the_bits_of_the_same_in_float32 = on_devices(
    test_kernel_bits.test_a_scale_of_16_bits_gives_the_bits_of_the_same_in_float32,
    "sm_90",
    shape=[(1, 320), (1, 4099), (11, 1024)],
)
test_bits_of_a_column_do_not_depend_on_those_beside_it = on_devices(
    test_kernel_bits.test_bits_of_a_column_do_not_depend_on_those_beside_it, "sm_90", count=[3, 75, 1030]
)


class Zone:
    """A copy of an array, `shift` elements past 16 bytes, amid bytes that nobody may write."""

    def __init__(self, array, shift=0):
        self._bytes = np.full(array.nbytes + 256, 0xA5, np.uint8)
        start = -self._bytes.ctypes.data % 64 + 64 + shift * array.itemsize
        self._inside = np.s_[start : start + array.nbytes]
        self.array = self._bytes[self._inside].view(array.dtype).reshape(array.shape)
        self.array[...] = array

    def is_whole(self):
        outside = np.delete(self._bytes, self._inside)
        return bool((outside == 0xA5).all())


def run_in_zones(norm, x, second, scale, shifts=(0, 0, 0, 0), y_over=None, sum_over=None):
    """Y and sum where X, the second input, Y and sum begin so many elements past 16 bytes, or lie over an input."""
    zones = {"x": Zone(x, shifts[0])}
    if second is not None:
        zones["second"] = Zone(second, shifts[1])
    zones["y"] = zones[y_over] if y_over else Zone(np.zeros_like(x), shifts[2])
    if norm.form == "skip" and norm.want_sum:
        zones["sum"] = zones[sum_over] if sum_over else Zone(np.zeros_like(x), shifts[3])
    tensors = [zones[name].array if name in zones else None for name in ("x", "second", "y", "sum")]
    problem = abi.problem_of(norm, tensors[0], tensors[1], scale, tensors[2], tensors[3])
    text = cuda_abi.emulated().rmsnorm_test_run(norm.isa.encode(), ctypes.byref(problem)).decode()
    assert not text
    assert all(zone.is_whole() for zone in zones.values())
    assert "x" in (y_over, sum_over) or same_bits(zones["x"].array, x)
    assert second is None or "second" in (y_over, sum_over) or same_bits(zones["second"].array, second)
    return tensors[2], tensors[3]


PLACES = [
    ((5, 1000), (-1,)),
    ((3, 4096), (-1,)),
    ((9, 33), (-1,)),
    ((2, 1027), (-1,)),
    ((40, 64), (-1,)),
    ((3, 2, 9, 40), (0, 2, 3)),
    ((2, 70, 24), (1,)),
    ((3, 9, 7), (1,)),
]
places = pytest.mark.parametrize(("shape", "axes"), PLACES, ids=str)


@element_types
@forms
@pytest.mark.parametrize(("shape", "axes"), [*PLACES, ((1, 36864), (-1,))], ids=str)
@pytest.mark.parametrize("device", ["sm_75", "sm_90"])
def test_tensors_may_begin_anywhere(device, dtype, form, shape, axes):
    """The same bits, nothing read or written outside: the emulator ends a launch that reads elsewhere."""
    x, second = samples(shape, dtype), None if form == "plain" else seconds(shape, dtype)
    norm, scale = Norm(form, axes=axes, isa=device), scales(shape[-1:])
    y, total = run_in_zones(norm, x, second, scale)
    for shifts, where in (((1, 1, 1, 1), 0), ((3, 0, 1, 5), 0), ((0, 0, 0, 0), 1)):
        moved, moved_total = run_in_zones(norm, x, second, Zone(scale, where).array, shifts)
        assert same_bits(moved, y)
        assert total is None or same_bits(moved_total, total)


@element_types
@forms
@places
@pytest.mark.parametrize("shift", [0, 1])
def test_outputs_may_lie_over_inputs(dtype, form, shape, axes, shift):
    x, second = samples(shape, dtype), None if form == "plain" else seconds(shape, dtype)
    norm, scale, shifts = Norm(form, axes=axes, isa="sm_90"), scales(shape[-1:]), (shift,) * 4
    y, total = run_in_zones(norm, x, second, scale, shifts)
    for over in ("x", "second")[: 1 if form == "plain" else 2]:
        assert same_bits(run_in_zones(norm, x, second, scale, shifts, y_over=over)[0], y)
        if form == "skip":
            got = run_in_zones(norm, x, second, scale, shifts, sum_over=over)
            assert same_bits(got[0], y)
            assert same_bits(got[1], total)
            silent = Norm(form, axes=axes, isa="sm_90", want_sum=False)
            assert same_bits(run_in_zones(silent, x, second, scale, shifts, y_over=over)[0], y)


@element_types
@forms
@pytest.mark.parametrize(
    ("rows", "vectors"), [(7, 12), (3, 128), (5, 130), (3, 512), (2, 1030), (2, 5000), (1, 9000)], ids=str
)
def test_bits_do_not_depend_on_how_many_rows_there_are(dtype, form, rows, vectors):
    """Few rows on many processors, and many on few, are launched otherwise: `vectors` are 16 bytes of a row."""
    shape = (rows, vectors * 16 // NUMPY[dtype].itemsize)
    x, second = samples(shape, dtype), None if form == "plain" else seconds(shape, dtype)
    given = (x, second, scales(shape[-1:]))
    (many, many_sum), (few, few_sum) = (run(Norm(form, isa=device), *given) for device in ("sm_90", "sm_90 small"))
    assert same_bits(many, few)
    assert many_sum is None or same_bits(many_sum, few_sum)
    bound = reference.bound(OPS[form], x.size, x.dtype, attributes(Norm(form)), additions=16)
    added, zeros = (x, second) if many_sum is None else (many_sum, np.zeros_like(x))
    assert reference.ulps(many, exact(Norm(form), added, zeros, scales(shape[-1:])), x.dtype).max() <= bound.ulps


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        ("right", "^$"),
        ("barrier", "block 0 thread 0 waits at a barrier of its block for ever: block 0 thread 40 has returned"),
        ("lanes", "waits for lanes of its warp, .* for ever: block 0 thread 30 has returned"),
        ("source", "reads lane 16 with mask 65535"),
        ("elsewhere", "waits for lanes of its warp, .* for ever: .* waits at a barrier of its block"),
        ("alignment", "accesses 16 bytes 8 bytes past their alignment"),
        ("outside", "accesses 16 bytes outside all tensors"),
        ("before", "writes before its shared memory"),
        ("gone", "maps a block that has returned"),
        ("leaving", "returns while others may still read its shared memory"),
        ("early", "accesses memory before the wait for the kernels before"),
        ("unwaited", "returns without a wait for the kernels before"),
        ("race", "a value that nobody wrote"),
    ],
)
def test_the_emulator_sees_what_is_wrong(kernel, text):
    assert re.search(text, cuda_abi.emulated().misuse(kernel))
