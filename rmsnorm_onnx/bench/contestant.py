"""What is measured: an implementation of one problem, ready to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from rmsnorm_onnx.bench.problem import Array
from rmsnorm_onnx.bench.timing import Repeat


class Group(Enum):
    """Who made an implementation."""

    OURS = "this package"
    ONNXRUNTIME = "onnxruntime"
    PEER = "peer"
    COPY = "copy"


class Absent(Exception):
    """This implementation cannot take part; the message is one clause that says why."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One implementation.

    Attributes:
        name: in tables.
        group: who made it.
        repeat: runs all its copies of the node so many times.
        outputs: of one run: Y and, where it has one, the sum; nothing for a copy.
        copies: nodes that one run computes.
        overhead_s: seconds of one run that are not its own work and are subtracted (the call of a copy).
    """

    name: str
    group: Group
    repeat: Repeat
    outputs: Callable[[], tuple[Array, ...]]
    copies: int = 1
    overhead_s: float = 0.0
