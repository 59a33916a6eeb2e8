"""A writer that spells single operators and constants in other words that mean the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from onnx import TensorProto
from zoo.emit import with_axes
from zoo.spelling import Kind, Shape
from zoo.tape import NUMPY, Value
from zoo.writer import Writer

#: Every habit a dialect may have, each applied to some of the operators it fits.
HABITS = (
    "commute",  # a + b, a * b with the operands exchanged
    "identity",  # an Identity behind the operator
    "dropout",  # a Dropout in inference behind the operator
    "recip",  # a / b as a * Reciprocal(b)
    "sub-neg",  # a + b as a - Neg(b), unless a is a constant
    "halves",  # a constant as the sum of its halves
    "twice-half",  # a constant as twice itself times 1/2
    "named",  # a constant behind an Identity
    "negated",  # a constant as Neg of its negative
    "cast-constant",  # a constant behind a Cast from double (exact: the double is the rounded value)
    "one-element",  # a scalar behind an Unsqueeze
    "shadow",  # the value is computed a second time by an unread twin
)
_BINARY = frozenset({"Add", "Mul"})


class Dialect(Writer):
    """Writes with ``habits``, each on about every second occasion as ``seed`` decides."""

    def __init__(self, opset: int, habits: Sequence[str] = (), seed: int = 0):
        super().__init__(opset)
        self._habits = frozenset(habits)
        self._seed = seed
        self._occasions: Counter[str] = Counter()
        self._plain = 0
        self._known: dict[str, Any] = {}
        self._constants: set[str] = set()

    def _takes(self, habit: str) -> bool:
        """Whether to use this habit now; one habit's choices do not depend on which others there are."""
        if habit not in self._habits:
            return False
        self._occasions[habit] += 1
        return crc32(f"{self._seed} {habit} {self._occasions[habit]}".encode()) % 2 == 0

    # operators

    def op(self, op_type: str, *inputs: Value, domain: str = "", **attributes: Any) -> Value:
        if domain or self._plain or op_type in {"Constant", "If", "Loop"}:
            return super().op(op_type, *inputs, domain=domain, **attributes)
        if op_type in _BINARY and inputs[0] != inputs[1] and self._takes("commute"):
            inputs = inputs[::-1]
        if op_type == "Add" and inputs[0] not in self._constants and self._takes("sub-neg"):
            op_type, inputs = "Sub", (inputs[0], super().op("Neg", inputs[1]))
        elif op_type == "Div" and self._takes("recip"):
            op_type, inputs = "Mul", (inputs[0], super().op("Reciprocal", inputs[1]))
        value = super().op(op_type, *inputs, **attributes)
        if self._takes("shadow"):
            super().op(op_type, *inputs, **attributes)
        if self._takes("identity"):
            value = super().op("Identity", value)
        if op_type in {"Mul", "Add", "Div", "Pow", "Sqrt", "ReduceMean"} and self._takes("dropout"):
            value = super().op("Dropout", value)
        return value

    # constants

    def number(self, values: Any, dtype: int, kind: Kind = "initializer", like: str = "") -> str:
        self._plain += 1
        try:
            if self._plain > 1 or dtype not in NUMPY or kind in ("input", "overridable", "castlike", "value"):
                name = super().number(values, dtype, kind, like)
            else:
                name = self._reworded(np.asarray(values, np.float64), dtype, kind)
        finally:
            self._plain -= 1
        self._constants.add(name)
        return name

    def _reworded(self, values: np.ndarray, dtype: int, kind: Kind) -> str:
        exact = values.astype(NUMPY[dtype]).astype(np.float64)
        roomy = bool(np.all((np.abs(exact) < 1e4) & ((np.abs(exact) > 1e-3) | (exact == 0))))
        if roomy and self._takes("halves"):
            half = super().number(exact / 2, dtype, kind)
            value = self.op("Add", half, half)
        elif roomy and self._takes("twice-half"):
            value = self.op("Mul", super().number(exact * 2, dtype, kind), super().number(0.5, dtype))
        elif self._takes("negated"):
            value = self.op("Neg", super().number(-exact, dtype, kind))
        elif self._takes("cast-constant"):
            value = self.op("Cast", super().number(exact, TensorProto.DOUBLE), to=int(dtype))
        else:
            value = super().number(values, dtype, kind)
        if self._takes("named"):
            value = self.op("Identity", value)
        if not values.shape and self._takes("one-element"):
            value = with_axes(self, "Unsqueeze", value, [0])
        return value

    # leaves: names that several norms of one graph may use for different things

    def input(self, name: str, shape: Shape | None, dtype: int = 1) -> Value:
        return super().input(self._unique(name, dtype, shape), shape, dtype)

    def tensor(self, name: str, values: Any, dtype: int) -> str:
        return super().tensor(self._unique(name, dtype, np.shape(values)), values, dtype)

    def _unique(self, name: str, dtype: int, shape: Shape | None) -> str:
        wanted = (int(dtype), shape)
        while self._known.setdefault(name, wanted) != wanted:
            name = f"{name}'"
        return name
