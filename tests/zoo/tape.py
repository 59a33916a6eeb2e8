"""The interface a test program is written against: once it writes an ONNX graph, once it computes the truth.

A program such as ``g.output(g.norm(g.op("Add", x, skip), LLAMA), "y")`` runs on a `Writer`
(``writer.py``: values are names in a graph, a norm is spelled out in its many nodes) and on a `Truth`
(``truth.py``: values are float64 arrays, a norm is its formula). So a case states its graph and what
that graph must compute in one place, and neither can drift from the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias
from zlib import crc32

import ml_dtypes
import numpy as np

from rmsnorm_onnx.spec import DType

from .spelling import Shape, Spelling

Value: TypeAlias = Any
"""What a program handles: a value name on a `Writer`, a float64 array on a `Truth`."""

NUMPY: dict[int, np.dtype[Any]] = {
    DType.FLOAT: np.dtype(np.float32),
    DType.FLOAT16: np.dtype(np.float16),
    DType.DOUBLE: np.dtype(np.float64),
    DType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


def rounded(array: Any, dtype: DType) -> np.ndarray:
    """Return ``array`` in float64 after rounding to ``dtype``: the values a tensor of that type holds."""
    return np.asarray(array, np.float64).astype(NUMPY[dtype]).astype(np.float64)


def weight_values(name: str, shape: Sequence[int], dtype: DType) -> np.ndarray:
    """Weights of both signs around 1, the same for the same name, exactly representable in ``dtype``."""
    rng = np.random.default_rng(crc32(name.encode()))
    values = rng.uniform(0.25, 1.75, tuple(shape)) * rng.choice([1.0, 1.0, 1.0, -1.0], tuple(shape))
    return rounded(values, dtype)


class Tape(ABC):
    """Where a program is written: inputs, weights, operators, norms, scopes, outputs."""

    @abstractmethod
    def input(self, name: str, shape: Shape | None, dtype: int = DType.FLOAT) -> Value:
        """A graph input; ``shape`` may hold symbolic names, None is an unknown rank."""

    @abstractmethod
    def weight(self, name: str, shape: Sequence[int], dtype: DType = DType.FLOAT) -> Value:
        """An initializer holding `weight_values`."""

    @abstractmethod
    def constant(self, values: Any, dtype: int = DType.FLOAT) -> Value:
        """A constant with these values."""

    @abstractmethod
    def op(self, op_type: str, *inputs: Value, domain: str = "", **attributes: Any) -> Value:
        """One operator with one output."""

    @abstractmethod
    def output(self, value: Value, name: str, dtype: int = DType.FLOAT, shape: Shape | None = None) -> None:
        """Make ``value`` a graph output under ``name``."""

    @abstractmethod
    def lift(self, x: Value, s: Spelling) -> Value:
        """Return ``x`` in the type the statistics are computed in."""

    @abstractmethod
    def mean_square(self, x: Value, s: Spelling) -> Value:
        """Mean of the squares of a lifted ``x``."""

    @abstractmethod
    def root(self, mean: Value, s: Spelling) -> Value:
        """Root of floor and epsilon applied to ``mean``."""

    @abstractmethod
    def normalized(self, x: Value, root: Value, s: Spelling) -> Value:
        """Quotient of a lifted ``x`` and its root."""

    @abstractmethod
    def scaled(self, normalized: Value, s: Spelling, scale: Value | None = None) -> Value:
        """Cast, scale and bias as spelled; ``scale`` replaces the spelling's own."""

    @abstractmethod
    def norm(self, x: Value, s: Spelling, scale: Value | None = None) -> Value:
        """All of the above."""

    @abstractmethod
    def branch(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        """An If node; both branches see every value made so far."""

    @abstractmethod
    def loop(self, trips: int, body: Callable[[Value], Value], initial: Value, shape: Shape) -> Value:
        """A Loop node that carries one float32 value of this shape."""

    @abstractmethod
    def scan(self, body: Callable[[Value], Value], rows: Value) -> Value:
        """A Scan node over the first axis of ``rows``."""

    @abstractmethod
    def call(self, name: str, body: Callable[..., Value], *arguments: Value) -> Value:
        """Call the model-local function ``name``, which is defined by the first call."""

    def cast(self, value: Value, to: int) -> Value:
        return self.op("Cast", value, to=int(to))

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        return self.op("Reshape", value, self.constant(list(shape), dtype=7))
