"""What may be asked of a model's values, and in which terms it is answered."""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

import onnx_ir as ir

#: Names of the domain of ONNX's own operators.
DEFAULT_DOMAINS: Final = frozenset({"", "ai.onnx"})

#: One axis: its length, the name of an unknown length, or None where even a name is missing.
Dim: TypeAlias = int | str | None
Dims: TypeAlias = tuple[Dim, ...]


class Known(Protocol):
    """What a rule may ask."""

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Element type."""

    def shape(self, value: ir.Value) -> Dims | None:
        """Length of each axis."""

    def ints(self, value: ir.Value) -> tuple[int, ...] | None:
        """The integers that a constant holds."""


def producer(value: ir.Value, *operators: str) -> ir.Node | None:
    """The node that gives ``value`` if it is one of these, of ONNX's own; another domain's may mean anything."""
    node = value.producer()
    return node if node is not None and node.domain in DEFAULT_DOMAINS and node.op_type in operators else None
