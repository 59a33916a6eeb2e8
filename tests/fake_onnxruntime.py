"""Enough of onnxruntime's function table, in Python, to see what a library registers and to run a node of it.

For operators of an execution provider that this machine does not have. Speaks version 18, the oldest.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from typing import Final

import kernels_abi as abi

POINTER = ctypes.c_void_p
FAILED = 1  # what a failed call returns
ABSENT = {"KernelInfoGetAttribute_int64", "KernelInfoGetAttribute_string", "KernelInfoGetAttributeArray_int64"}


def slots() -> dict[str, int]:
    """Slot numbers by name, from the library's own header."""
    text = (abi.ROOT / "custom_ops" / "src" / "ort" / "abi.h").read_text(encoding="utf-8")
    return {name: int(slot) for name, slot in re.findall(r"^  (\w+) = (\d+),$", text, re.MULTILINE)}


@dataclass(frozen=True)
class Op:
    """One OrtCustomOp, by what its callbacks answer."""

    address: int
    name: str
    provider: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class CustomOp(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("callbacks", POINTER * 25))


def answer(address: int, field: int, result: type, *args: int) -> object:
    """What callback ``field`` of the CustomOp at ``address`` says."""
    kinds = (POINTER, ctypes.c_size_t)[: 1 + len(args)]
    function = CustomOp.from_address(address).callbacks[field - 1]
    return ctypes.CFUNCTYPE(result, *kinds)(function)(address, *args)


def read_op(address: int) -> Op:
    provider = answer(address, 3, ctypes.c_char_p)
    inputs = tuple(answer(address, 4, ctypes.c_int, i) for i in range(answer(address, 5, ctypes.c_size_t)))
    outputs = tuple(answer(address, 6, ctypes.c_int, i) for i in range(answer(address, 7, ctypes.c_size_t)))
    return Op(address, answer(address, 2, ctypes.c_char_p).decode(), (provider or b"").decode(), inputs, outputs)


class FakeOnnxRuntime:
    """Holds what the library told; ``shape`` is that of every tensor, none of which is ever read.

    Never freed: the library keeps pointers to it, as to a real one.
    """

    alive: Final[list[FakeOnnxRuntime]] = []

    def __init__(self, path: str) -> None:
        self.alive.append(self)
        self.added: list[int] = []
        self.said: list[str] = []
        self.shape: tuple[int, ...] = (2, 8)
        self.keep: list[object] = []
        self.table = (POINTER * 600)()
        for name, slot in slots().items():
            if slot < 285:
                self.table[slot] = self.function(name)
        get_api = ctypes.CFUNCTYPE(POINTER, ctypes.c_uint32)(lambda version: ctypes.addressof(self.table))
        get_version = ctypes.CFUNCTYPE(POINTER)(lambda: ctypes.addressof(self.version))
        self.version = ctypes.create_string_buffer(b"1.18.0")
        self.base = (POINTER * 2)(*(ctypes.cast(f, POINTER).value for f in (get_api, get_version)))
        self.keep += [get_api, get_version]
        register = ctypes.CDLL(path).RegisterCustomOps
        register.restype, register.argtypes = POINTER, (POINTER, POINTER)
        assert register(None, ctypes.addressof(self.base)) is None, self.said

    def function(self, name: str) -> int:
        """A function pointer for one slot. Arguments are eight words, as registers hold them."""
        body = getattr(self, name, None)
        if body is None:
            body = (lambda *words: FAILED) if name in ABSENT else (lambda *words: 0)
        made = ctypes.CFUNCTYPE(ctypes.c_size_t, *[ctypes.c_size_t] * 5)(body)
        self.keep.append(made)
        return ctypes.cast(made, POINTER).value or 0

    def ops(self) -> list[Op]:
        return [read_op(address) for address in self.added]

    def run(self, op: Op) -> str:
        """Makes a kernel of ``op`` and calls it once: what it says."""
        kernel, create = POINTER(), ctypes.CFUNCTYPE(POINTER, POINTER, POINTER, POINTER, POINTER)
        fields = CustomOp.from_address(op.address).callbacks
        assert create(fields[16])(op.address, ctypes.addressof(self.table), None, ctypes.addressof(kernel)) is None
        failed = ctypes.CFUNCTYPE(POINTER, POINTER, POINTER)(fields[17])(kernel, None)
        ctypes.CFUNCTYPE(None, POINTER)(fields[8])(kernel)
        return self.said.pop() if failed else ""

    # The slots that do something, each with the signature of its name in abi.h.

    def CustomOpDomain_Add(self, domain, op, *_):  # noqa: N802
        self.added.append(op)
        return 0

    def CreateStatus(self, code, text, *_):  # noqa: N802
        self.said.append(ctypes.string_at(text).decode())
        return FAILED

    def GetErrorMessage(self, *_):  # noqa: N802
        return ctypes.addressof(self.version)

    def KernelInfo_GetNodeName(self, info, text, size, *_):  # noqa: N802
        ctypes.c_size_t.from_address(size).value = len(b"the node") + 1
        if text:
            ctypes.memmove(text, b"the node", 9)
        return 0

    def KernelInfoGetAttribute_float(self, info, name, value, *_):  # noqa: N802
        ctypes.c_float.from_address(value).value = 1e-5
        return 0 if ctypes.string_at(name) == b"epsilon" else FAILED

    def KernelInfo_GetOutputCount(self, info, count, *_):  # noqa: N802
        ctypes.c_size_t.from_address(count).value = 1
        return 0

    def KernelContext_GetInput(self, context, index, value, *_):  # noqa: N802
        ctypes.c_size_t.from_address(value).value = 64  # any handle but null
        return 0

    def KernelContext_GetOutput(self, context, index, shape, rank, value):  # noqa: N802
        return self.KernelContext_GetInput(context, index, value)

    def GetDimensionsCount(self, info, rank, *_):  # noqa: N802
        ctypes.c_size_t.from_address(rank).value = len(self.shape)
        return 0

    def GetDimensions(self, info, lengths, rank, *_):  # noqa: N802
        for i, length in enumerate(self.shape):
            ctypes.c_int64.from_address(lengths + 8 * i).value = length
        return 0
