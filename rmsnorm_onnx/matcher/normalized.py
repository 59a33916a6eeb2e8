"""What a graph has made of x once it is divided by its root mean square: the states up to the final value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import onnx_ir as ir

from rmsnorm_onnx import spec
from rmsnorm_onnx.matcher.match import Operand, Scale
from rmsnorm_onnx.matcher.statistic import Statistic

_Activation = TypeVar("_Activation", bound="Sigmoid")


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """sigmoid(z), computed in ``dtype`` or rounded to it; ``argument`` is z after a widening Cast."""

    z: ir.Value
    argument: ir.Value
    dtype: spec.DType
    nodes: tuple[ir.Node, ...]

    def computed_by(self: _Activation, node: ir.Node, dtype: spec.DType) -> _Activation:
        """The same value, one Cast later."""
        narrowest = min(self.dtype, dtype, key=lambda t: t.bits_of_precision)
        return replace(self, dtype=narrowest, nodes=(*self.nodes, node))


class Silu(Sigmoid):
    """z * sigmoid(z), computed in ``dtype`` or rounded to it."""


@dataclass(frozen=True, slots=True)
class Normalized:
    """gain * x / rms(x), perhaps scaled, perhaps gated.

    Attributes:
        value: the value that means this.
        parent: the Normalized value it was made from, None right after the division.
        statistic: what x was divided by.
        gain: constant left over; 1 once a sum's missing 1/n has been made up for.
        dtype: element type of ``value``.
        narrowest: the least precise type it has had since the division, the scale or the gate, whichever came last.
        flat: the Reshape that put groups back into one axis, or None.
        scale: what it was multiplied by, or None.
        normalized_type: type it was rounded to before the scale; None while there is no scale.
        gate: z where it was multiplied by silu(z), or None.
        scaled_type: type it was rounded to before the gate; None while there is no gate.
        nodes: all nodes from x to ``value``.
        addends: the two values whose sum is normalized, where one node adds and normalizes; x is then the first.
        total: that sum, where it is read.
    """

    value: ir.Value
    parent: ir.Value | None
    statistic: Statistic
    gain: float
    dtype: spec.DType
    narrowest: spec.DType
    nodes: tuple[ir.Node, ...]
    flat: ir.Node | None = None
    scale: Scale | None = None
    normalized_type: spec.DType | None = None
    gate: Operand | None = None
    scaled_type: spec.DType | None = None
    addends: tuple[Operand, ir.Value] | None = None
    total: ir.Value | None = None

    def _next(self, node: ir.Node, dtype: spec.DType, also: tuple[ir.Node, ...] = ()) -> Normalized:
        nodes = (*self.nodes, *also, node)
        return replace(self, value=node.outputs[0], parent=self.value, dtype=dtype, narrowest=dtype, nodes=nodes)

    def cast(self, node: ir.Node, dtype: spec.DType) -> Normalized | None:
        """Rounded to, or widened to, another type; None where the two 16-bit types would mix."""
        if {self.narrowest, dtype} == {spec.DType.FLOAT16, spec.DType.BFLOAT16}:
            return None
        narrowest = min(self.narrowest, dtype, key=lambda t: t.bits_of_precision)
        return replace(self._next(node, dtype), narrowest=narrowest)

    def times(self, number: float, node: ir.Node) -> Normalized:
        """Multiplied by a constant that makes up for a missing 1/n."""
        return replace(self._next(node, self.dtype), gain=self.gain * number, narrowest=self.narrowest)

    def with_gain(self, gain: float) -> Normalized:
        """The same value, its left-over constant stated anew."""
        return replace(self, gain=gain)

    def with_scale(self, scale: Scale, normalized_type: spec.DType) -> Normalized:
        """The same value, the scale being part of how it was computed."""
        return replace(self, scale=scale, normalized_type=normalized_type)

    def flattened(self, node: ir.Node) -> Normalized:
        """Groups put back into one axis; rounds nothing."""
        return replace(self._next(node, self.dtype), flat=node, narrowest=self.narrowest)

    def scaled(self, scale: Operand, node: ir.Node) -> Normalized:
        """Multiplied by the scale."""
        return replace(self._next(node, self.dtype), scale=scale, normalized_type=self.narrowest)

    def gated(self, silu: Silu, gate: Operand, node: ir.Node) -> Normalized:
        """Multiplied by silu(gate)."""
        return replace(self._next(node, self.dtype, silu.nodes), gate=gate, scaled_type=self.narrowest)

    @property
    def x(self) -> ir.Value:
        """The value that is normalized, before any widening Cast."""
        return self.statistic.x

    @property
    def stash_type(self) -> spec.DType:
        """Type the operator computes in: 16-bit statistics are computed in float32."""
        return spec.DType.DOUBLE if self.statistic.dtype is spec.DType.DOUBLE else spec.DType.FLOAT
