"""What the tests on a GPU rest on, tried without one: the CPU's kernels on "device" memory of numpy."""

from __future__ import annotations

import ctypes

import cuda_device
import kernels_abi as abi
import numpy as np
import pytest
from kernel_inputs import same_bits, samples, scales, seconds
from kernels_abi import Norm, run

from rmsnorm_onnx.spec import DType


class Numpy:
    """Memory of the host, with the methods of a GPU's."""

    def allocate(self, content):
        size = content if isinstance(content, int) else content.size
        whole = np.empty(size + 256, np.uint8)
        start = -whole.ctypes.data % 256
        buffer = whole[start : start + size]
        if not isinstance(content, int):
            buffer[:] = content
        return buffer

    def address(self, buffer):
        return buffer.ctypes.data

    def write(self, buffer, content):
        buffer[:] = content

    def read(self, buffer, part):
        return buffer[part].copy()

    def stream(self):
        return 7, lambda: None

    def capture(self, enqueue):
        enqueue(7)
        return lambda: enqueue(7)


def on_cpu(problem, stream):
    assert stream == 7
    return abi.native().rmsnorm_test_run(b"", ctypes.byref(problem)).decode()


@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("how", [cuda_device.directly, cuda_device.replayed])
@pytest.mark.parametrize("offset", [0, 3])
def test_outputs_come_back(form, dtype, how, offset):
    x, second = samples((5, 70), dtype), None if form == "plain" else seconds((5, 70), dtype)
    device = cuda_device.Device(Numpy(), on_cpu, how, offset)
    for norm in (Norm(form), Norm(form, in_place=True), Norm(form, want_sum=False)):
        got, want = run(norm, x, second, scales(70), device), run(norm, x, second, scales(70), abi.native())
        assert same_bits(got[0], want[0])
        assert got[1] is want[1] is None or same_bits(got[1], want[1])


def test_tensors_begin_where_they_are_asked_to():
    seen = []

    def look(problem, stream):
        seen.extend([problem.x % 256, problem.y % 256, problem.scale % 256])
        return "no"

    with pytest.raises(abi.KernelError, match="no"):
        run(Norm(), samples((5, 70), DType.FLOAT16), None, scales(70), cuda_device.Device(Numpy(), look, offset=3))
    assert seen == [6, 6, 12]


def test_outputs_are_poisoned():
    x = samples((2, 70), DType.FLOAT)
    y, total = run(Norm("skip"), x, x, None, cuda_device.Device(Numpy(), lambda *_: ""))
    assert np.isnan(y).all()
    assert np.isnan(total).all()


@pytest.mark.parametrize(("name", "at"), [("y", -1), ("y", 4 * 140), ("x", 5), ("second", 4 * 140 + 30), ("scale", 0)])
def test_writes_outside_the_outputs_are_found(name, at):
    def write(problem, stream):
        byte = ctypes.c_uint8.from_address(getattr(problem, name) + at)
        byte.value ^= 1
        return ""

    x = samples((2, 70), DType.FLOAT)
    with pytest.raises(AssertionError, match=rf"1 bytes written outside the outputs, the first {at} bytes"):
        run(Norm("skip"), x, x.copy(), scales(70), cuda_device.Device(Numpy(), write))


@pytest.mark.parametrize("in_place", [False, True])
def test_where_outputs_are_not_poisoned_nothing_is_read_that_nobody_wrote(monkeypatch, in_place):
    blank, seen = [], []

    class Watched(Numpy):
        def allocate(self, content):
            buffer = super().allocate(content)
            blank.extend([buffer.ctypes.data] if isinstance(content, int) else [])
            return buffer

        def read(self, buffer, part):
            seen.extend([part] if buffer.ctypes.data in blank else [])
            return super().read(buffer, part)

    monkeypatch.setattr(cuda_device, "POISONS", False)
    x = samples((5, 70), DType.FLOAT)
    norm = Norm("skip", in_place=in_place)
    got = run(norm, x, x.copy(), scales(70), cuda_device.Device(Watched(), on_cpu))
    assert all(same_bits(a, b) for a, b in zip(got, run(norm, x, x.copy(), scales(70), abi.native()), strict=True))
    written = slice(cuda_device.GUARD, cuda_device.GUARD + x.nbytes)
    assert seen == [written] * (1 if in_place else 2)
