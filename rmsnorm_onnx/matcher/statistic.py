"""The algebra of an RMS norm's statistic: what a graph has computed so far from the squares of x.

Every value is immutable, every step returns a new one or None where the meaning is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx_ir as ir

from rmsnorm_onnx import spec


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first thing that keeps a would-be norm from being one."""

    why: spec.Why
    node: ir.Node
    detail: str


@dataclass(frozen=True, slots=True)
class Squared:
    """factor * x**2, element by element; ``dtype`` is the type it was computed in."""

    x: ir.Value
    dtype: spec.DType
    nodes: tuple[ir.Node, ...]
    factor: float = 1.0
    flaw: Flaw | None = None

    def times(self, number: float) -> Squared:
        """The squares multiplied by a constant."""
        return replace(self, factor=self.factor * number)

    def computed_by(self, node: ir.Node) -> Squared:
        """The same squares, one node later."""
        return replace(self, nodes=(*self.nodes, node))


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number per row: ((max(factor * S, floor) + epsilon) ** (1/2) + epsilon_outside) ** (-1).

    S is the mean of the squares of x over ``axes``, or their sum if ``is_mean`` is false; the root and
    the inversion are there once ``rooted`` and ``inverted`` are true. ``scale`` is a value that was
    multiplied into the inverse root, of any sign and one per column: no step follows it that takes it for a
    positive number per row. ``misfit`` says what lined it up otherwise than with x's rows.
    """

    x: ir.Value
    dtype: spec.DType
    nodes: tuple[ir.Node, ...]
    axes: tuple[int, ...]
    keepdims: bool
    is_mean: bool
    factor: float = 1.0
    floor: float = 0.0
    epsilon: float = 0.0
    epsilon_outside: float = 0.0
    rooted: bool = False
    inverted: bool = False
    scale: ir.Value | None = None
    misfit: Flaw | None = None
    flaw: Flaw | None = None

    def plus(self, number: float) -> Statistic | None:
        """A constant added: epsilon inside the root, or outside."""
        if self.inverted or self.scale is not None:
            return None
        if self.rooted:
            return replace(self, epsilon_outside=self.epsilon_outside + number)
        return replace(self, epsilon=self.epsilon + number)

    def averaged(self) -> Statistic | None:
        """A sum over the number of its elements, which is not known: what was added first would be divided, too."""
        plain = not self.rooted and not self.inverted and self.epsilon == self.floor == 0
        return replace(self, is_mean=True) if plain else None

    def times(self, number: float) -> Statistic | None:
        """Multiplied by a positive constant."""
        if not number > 0 or math.isinf(number):
            return None
        outer = 1 / number if self.inverted else number
        inner = outer * outer if self.rooted else outer
        return replace(
            self,
            factor=self.factor * inner,
            floor=self.floor * inner,
            epsilon=self.epsilon * inner,
            epsilon_outside=self.epsilon_outside * outer,
        )

    def at_least(self, number: float) -> Statistic | None:
        """Bounded from below by a constant: max(mean + epsilon, c) = max(mean, c - epsilon) + epsilon."""
        if self.inverted or self.scale is not None or math.isnan(number):
            return None
        if self.rooted:
            number -= self.epsilon_outside
            number = number * number if number > 0 else 0.0
        return replace(self, floor=max(self.floor, number - self.epsilon))

    def root(self) -> Statistic | None:
        """The square root."""
        return None if self.rooted else replace(self, rooted=True)

    def inverse(self) -> Statistic:
        """The reciprocal."""
        return replace(self, inverted=not self.inverted)

    def square(self) -> Statistic | None:
        """The square of a root."""
        plain = self.rooted and self.epsilon_outside == 0 and self.scale is None
        return replace(self, rooted=False) if plain and self.epsilon >= 0 else None

    def magnitude(self) -> Statistic | None:
        """The absolute value: the same number, unless a negative epsilon or the scale has made it negative."""
        return self if self.scale is None and min(self.epsilon, self.epsilon_outside) >= 0 else None

    def power(self, exponent: float) -> Statistic | None:
        """Raised to 2, 1/2, -1/2 or -1; None for other powers."""
        if exponent == -1:
            return self.inverse()
        if exponent == 2:
            return self.square()
        rooted = self.root() if abs(exponent) == 0.5 else None
        return rooted.inverse() if rooted is not None and exponent < 0 else rooted

    def bad_epsilon(self, node: ir.Node) -> Flaw | None:
        """Which constant no operator takes: they are finite and not negative."""
        for name, number in (("epsilon", self.epsilon), ("epsilon_outside", self.epsilon_outside)):
            if not 0 <= number < math.inf:
                return Flaw(spec.Why.EPSILON_VALUE, node, f"{name} is {number:g}")
        return None

    def lines_up(self, rank: int | None) -> bool:
        """Whether each number stands at its own row of x, of ``rank`` axes, and goes along it by broadcasting."""
        if not rank:
            return self.misfit is None and self.keepdims
        first = sorted(a % rank for a in self.axes) == list(range(len(self.axes)))
        return self.misfit is None and (self.keepdims or first)

    def multiplied_by(self, scale: ir.Value, node: ir.Node) -> Statistic:
        """An inverse root that the scale was multiplied into, before x."""
        return replace(self, scale=scale, nodes=(*self.nodes, node))

    def computed_by(self, node: ir.Node) -> Statistic:
        """The same statistic, one node later."""
        return replace(self, nodes=(*self.nodes, node))

    def flawed(self, why: spec.Why, node: ir.Node, detail: str) -> Statistic:
        """The statistic with a flaw, unless it has one already."""
        return self if self.flaw is not None else replace(self, flaw=Flaw(why, node, detail))


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of some axes of x, or, once ``multiplied``, their product; axes count from the start."""

    x: ir.Value
    axes: tuple[int, ...]
    multiplied: bool = False
    inverted: bool = False

    def inverse(self) -> Lengths:
        """1 / their product."""
        return replace(self, inverted=not self.inverted)
