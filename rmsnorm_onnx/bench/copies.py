"""Contestants that only copy: what the memory allows, on as many bytes as the problem moves."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from rmsnorm_onnx.bench.contestant import Contestant, Group
from rmsnorm_onnx.bench.problem import Problem
from rmsnorm_onnx.bench.timing import seconds

_LINE: Final = 64
_EMPTY_CALLS: Final = [math.inf]


def memcpy(problem: Problem, threads: int) -> Contestant:
    """The C library's memcpy, called through ctypes; every thread copies a part of its own, without waiting.

    What an empty call takes is subtracted: it is Python's work, and as long as the copy of a small tensor.
    """
    half = problem.moved_bytes // 2
    # np.full writes, so that every page is there before it is timed.
    source, target = np.full(half, 1, np.uint8), np.full(half, 2, np.uint8)
    function = ctypes.CDLL(None).memcpy
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    function.restype = ctypes.c_void_p
    share = -(-half // threads // _LINE) * _LINE
    parts = [(start, min(share, half - start)) for start in range(0, half, share)]
    loops = [_loop(function, target.ctypes.data + start, source.ctypes.data + start, size) for start, size in parts]
    empty = _loop(function, target.ctypes.data, source.ctypes.data, 0)
    overhead = _least(seconds(empty, 1000) for _ in range(31))
    alive = (source, target)  # the loops hold addresses only
    if len(loops) == 1:
        return Contestant("memcpy", Group.COPY, loops[0], lambda: alive[:0], overhead_s=overhead)
    pool = ThreadPoolExecutor(len(loops))

    def together(times: int) -> None:
        list(pool.map(lambda loop: loop(times), loops))

    return Contestant("memcpy", Group.COPY, together, lambda: alive[:0], overhead_s=overhead)


def _least(samples: Iterable[float]) -> float:
    """What an empty call takes: the least ever seen, as on a busy machine even many samples in a row are long."""
    _EMPTY_CALLS[:] = [min(*_EMPTY_CALLS, *samples)]
    return _EMPTY_CALLS[0]


def _loop(function: Any, target: int, source: int, size: int) -> Callable[[int], None]:
    arguments = (ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size))

    def repeat(times: int) -> None:
        for _ in range(times):
            function(*arguments)

    return repeat
