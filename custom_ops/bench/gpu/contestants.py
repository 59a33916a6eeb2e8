"""Who is measured, as something that enqueues one set's work on torch's current stream: ours and copies."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cuda_device
import kernels_abi as abi
import torch

from custom_ops.bench.gpu.buffers import EPSILON, Sets
from rmsnorm_onnx.bench.contestant import Group
from rmsnorm_onnx.spec import DType

#: By index: what rmsnorm_cuda_copy calls them; the first copies one array only.
COPIES = ("cudaMemcpyAsync", "copy, 16 bytes a thread", "copy, 64 bytes a thread", "copy, 64 bytes, streaming stores")
#: By the name that torch gives them.
DTYPES = {"float32": DType.FLOAT, "float16": DType.FLOAT16, "bfloat16": DType.BFLOAT16, "float64": DType.DOUBLE}


@dataclass(frozen=True)
class Contestant:
    """One implementation.

    Attributes:
        name: in tables.
        group: who made it.
        launch: enqueues the work of that set and returns its outputs: Y and, for skip, the sum; nothing for a copy.
        host_ns: nanoseconds of the host for so many launches, where that is not the time of ``launch``.
    """

    name: str
    group: Group
    launch: Callable[[int], tuple[torch.Tensor, ...]]
    host_ns: Callable[[int], float] | None = None


def stream() -> ctypes.c_void_p:
    """Torch's current one."""
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


def _checked(text: bytes) -> None:
    if text:
        raise RuntimeError(text.decode())


def _problems(sets: Sets, count: int) -> list[abi.TestProblem]:
    """Of the first sets, without any rounding before the last."""
    cell, dtype = sets.cell, DTYPES[sets.cell.dtype]
    stash = DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT
    shape, axes, scale = abi.int64s(cell.shape), abi.int64s((cell.axis,)), abi.int64s(sets.scale_shape)
    tensors: dict[str, list[Any]] = {
        "x": sets.x,
        "second": sets.second,
        "scale": sets.scale,
        "y": sets.y,
        "sum": sets.total,
    }
    return [
        abi.TestProblem(
            form=abi.FORMS.index(cell.form), type=dtype, scale_type=dtype, stash=stash, normalized=stash, scaled=stash,
            epsilon=EPSILON, shape=shape, rank=len(shape), axes=axes, axis_count=1, scale_shape=scale,
            scale_rank=len(scale), streaming=-1,
            **{name: None if of[i] is None else of[i].data_ptr() for name, of in tensors.items()},
        )
        for i in range(count)
    ]  # fmt: skip


def ours(sets: Sets) -> Contestant:
    """The kernels of this package, called as the onnxruntime node calls them."""
    library, problems = cuda_device.library(), _problems(sets, sets.count)
    outputs = [(y,) if total is None else (y, total) for y, total in zip(sets.y, sets.total, strict=True)]

    def launch(index: int) -> tuple[torch.Tensor, ...]:
        _checked(library.rmsnorm_cuda_run(ctypes.byref(problems[index]), stream()))
        return outputs[index]

    def host_ns(times: int) -> float:
        took: float = library.rmsnorm_cuda_host(ctypes.byref(problems[0]), stream(), ctypes.c_int64(times))
        return took

    return Contestant("rmsnorm-onnx", Group.OURS, launch, host_ns)


def plan(sets: Sets, arch: int, processors: int, shared_bytes: int, l2_bytes: int) -> str:
    """How ours is launched on a device of these facts."""
    facts = [ctypes.c_int32(fact) for fact in (arch, processors, shared_bytes)]
    problem = ctypes.byref(_problems(sets, 1)[0])
    text: bytes = cuda_device.library().rmsnorm_cuda_plan(problem, *facts, ctypes.c_int64(l2_bytes))
    return text.decode()


def copies(count: int, moved: int, reads: int) -> list[Contestant]:
    """Every kind of copy of as many bytes, each set's memory apart; with two reads, two arrays become one."""
    size = moved // (reads + 1) // 16 * 16
    stride = (size + 255) // 256 * 256
    pool = torch.empty((reads + 1) * count * stride // 2, dtype=torch.bfloat16, device="cuda").normal_()
    base, library = pool.data_ptr(), cuda_device.library()

    def launch(index: int, kind: int) -> tuple[torch.Tensor, ...]:
        first = base + index * (reads + 1) * stride
        places = [ctypes.c_void_p(first + i * stride) for i in range(reads + 1)]
        second = places[2] if reads == 2 else None
        _checked(library.rmsnorm_cuda_copy(kind, places[0], places[1], second, ctypes.c_int64(size), stream()))
        return (pool,)[:0]

    kinds = range(reads - 1, len(COPIES))
    return [Contestant(COPIES[kind], Group.COPY, functools.partial(launch, kind=kind)) for kind in kinds]
