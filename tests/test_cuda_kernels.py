"""The CUDA kernels' own source, run by an emulator of blocks, warps and clusters: the tests of the CPU kernels, and more."""

from __future__ import annotations

import types

import cuda_abi
import kernels_abi as abi
import numpy as np
import pytest
import test_kernel_bits
import test_kernels


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    """What the tests of the CPU kernels call."""
    monkeypatch.setattr(abi, "shim", cuda_abi.emulated)


def on_devices(test, *devices):
    """The same test, of devices instead of instruction sets."""
    copy = types.FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    copy.__doc__ = test.__doc__
    marks = [mark for mark in test.pytestmark if mark.args[0] != "isa"]
    copy.pytestmark = [*marks, pytest.mark.parametrize("isa", devices).mark]
    return copy


ALL = ("sm_75", "sm_90")
for module in (test_kernels, test_kernel_bits):
    for name, test in list(vars(module).items()):
        if name.startswith("test_") and any(m.args[0] == "isa" for m in getattr(test, "pytestmark", [])):
            globals()[name] = on_devices(test, *ALL)
