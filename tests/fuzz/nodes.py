"""Random nodes of the compiled library: attributes, types, shapes and values, most of them legal, and which are not."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rmsnorm_onnx import reference, spec
from rmsnorm_onnx.spec import DType

BUILT_IN = ("RMSNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")
_TYPES = tuple(DType)
_LENGTHS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 70)
#: Rows as models have them: heads, and whole steps and blocks of elements. Kernels take them apart from others.
_HEADS, _STEPS, _MOST_STEPS = (64, 128, 256), (64, 256), 16
#: From half of the last cache on, and at most from here on.
_STREAMED_BYTES = 16 << 20
_BAD_NUMBERS = (float("nan"), float("inf"), float("-inf"), -1e-6, -1.0, -1e-45)
_GOOD_NUMBERS = (0.0, -0.0, 1e-45, 1e-38, 1e-12, 1e-6, 1e-5, 1e-3, 0.5, 1.0, 7.0)
_BAD_INTS = (0, 2, 7, -1, 17, 1 << 40)
#: Values that the bound says nothing of.
SPECIAL = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e30, -1e30, 1e-30, 1e-42, 6e-8, 65504.0, 3.4e38)


@dataclass(slots=True)
class Node:
    """One node and what it is fed; ``wrong`` names what makes it illegal."""

    op: str
    built_in: bool
    dtype: DType
    scale_type: DType
    attributes: dict[str, Any]
    x: np.ndarray
    second: np.ndarray | None
    scale: np.ndarray
    constant_scale: bool
    outputs: int = 1
    inputs: int | None = None
    length: int = 1
    wrong: list[str] = field(default_factory=list)
    special: bool = False
    threads: int = 1
    isa: int = 0

    def __str__(self) -> str:
        second = None if self.second is None else self.second.shape
        return (
            f"{'built-in ' * self.built_in}{self.op} {self.dtype.name} x {self.scale_type.name}, X {self.x.shape}, "
            f"second {second}, scale {self.scale.shape} {'constant' if self.constant_scale else 'fed'}, "
            f"{self.attributes}, {self.inputs or 'all'} inputs, {self.outputs} outputs, {self.length} in a row, "
            f"{self.threads} threads, special={self.special}, wrong: {', '.join(self.wrong) or 'nothing'}"
        )

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes that one mean is taken over."""
        if not self.built_in:
            return tuple(self.attributes.get("axes", (-1,)))
        axis, rank = self.attributes.get("axis", -1), self.x.ndim
        return tuple(range(axis if axis < 0 else axis - rank, 0))

    def meaning(self) -> reference.Attributes:
        """The attributes as the oracle takes them."""
        given = {name: value for name, value in self.attributes.items() if name not in ("axis", "axes")}
        for name in ("epsilon", "epsilon_low", "epsilon_outside", "floor"):
            if name in given:
                given[name] = float(np.float32(given[name]))
        if self.built_in:
            stash = DType.DOUBLE if DType.DOUBLE in (self.dtype, given.get("stash_type")) else DType.FLOAT
            twice = self.op == "RMSNormalization" and self.dtype is self.scale_type
            given |= {"stash_type": stash, "normalized_type": self.dtype if twice else stash}
        for name in ("stash_type", "normalized_type", "scaled_type"):
            if name in given:
                given[name] = DType(given[name])
        return reference.Attributes(axes=self.axes, **given)


def draw(number: int) -> Node:
    """The node of this number."""
    dice = random.Random(number)
    built_in = dice.random() < 0.2
    op = dice.choice(BUILT_IN if built_in else list(spec.OPS))
    skip = op == "SkipSimplifiedLayerNormalization"
    dtype = dice.choice(_TYPES)
    scale_type = dtype if skip else dice.choice(_TYPES)
    dense = dice.random() < 0.3
    rank = dice.choice([0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 8])
    shape = _rows(dice, dtype) if dense else _shape(dice, rank)
    rank = len(shape)
    wrong = ["a scalar"] if rank == 0 else []
    attributes = _attributes(dice, op, built_in, rank, wrong)
    if dense:
        simple = {"axis": -1} if built_in else {"axes": [-1], "stash_type": 1, "normalized_type": 1}
        attributes |= {n: v for n, v in simple.items() if n in attributes and not any(n in text for text in wrong)}
    rng = np.random.default_rng(number)
    x, special = _values(dice, rng, shape, dtype, 0.25)
    needs_second = skip or len(spec.OPS[op].inputs) == 3 if op in spec.OPS else skip
    second = None
    if needs_second:
        # Sums do not cancel: what is left of a difference has no bound.
        least = 8.0 if "Skip" in op else 0.25
        second_shape = shape
        if dice.random() < 0.08:
            second_shape = _other_shape(dice, shape)
            fits = skip and _trails(second_shape, shape)
            if second_shape != shape and not fits:
                wrong.append("shape of the second input")
        second = np.asarray(np.abs(_ordinary(rng, second_shape, least)), reference.NUMPY_TYPES[dtype])
        if "Skip" in op:
            x = np.asarray(np.abs(x))
    scale_shape = shape[-1:] if dense else _scale_shape(dice, shape, wrong)
    scale = _ordinary(rng, scale_shape, 0.25).astype(reference.NUMPY_TYPES[scale_type])
    if dice.random() < 0.1:
        scale = np.ones_like(scale)
    node = Node(op, built_in, dtype, scale_type, attributes, x, second, scale, dice.random() < 0.4, wrong=wrong)
    node.special = special
    node.outputs = _outputs(dice, op, wrong)
    node.threads = dice.choice([1, 1, 1, 4])
    node.isa = dice.choice([0, 0, 0, 1, 2, 3])
    if not wrong and not built_in and node.outputs == 1 and dice.random() < 0.2:
        node.length = dice.choice([2, 3, 5])
    if dice.random() < 0.03:
        node.inputs = dice.choice([0, 1, 5])
        wrong.append("number of inputs")
    return node


def _shape(dice: random.Random, rank: int) -> tuple[int, ...]:
    most = 60_000 if dice.random() < 0.03 else 3000
    shape = [dice.choice(_LENGTHS) for _ in range(rank)]
    while math.prod(shape) > most:
        at = dice.randrange(rank)
        shape[at] = max(1, shape[at] // 2)
    if rank and most == 60_000:
        shape[dice.randrange(rank)] *= max(1, most // math.prod(shape))
    if rank and dice.random() < 0.05:
        shape[dice.randrange(rank)] = 0
    return tuple(shape)


def _rows(dice: random.Random, dtype: DType) -> tuple[int, ...]:
    """Dense rows: few of them, or more than are computed together, or so many that Y is written past the caches."""
    width = dice.choice(_HEADS) if dice.random() < 0.4 else dice.choice(_STEPS) * dice.randint(1, _MOST_STEPS)
    rows = dice.choice([dice.randint(0, 8), dice.randint(9, 24), dice.randint(25, 70), dice.randint(71, 300)])
    rows = min(rows, max(dice.randint(1, 5), 60_000 // width))
    if width in _HEADS and dice.random() < 0.01:
        return rows + _STREAMED_BYTES // (width * reference.NUMPY_TYPES[dtype].itemsize), width
    return (rows, width) if dice.random() < 0.7 else (dice.choice([1, 2, 3]), rows, width)


def _attributes(dice: random.Random, op: str, built_in: bool, rank: int, wrong: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if built_in:
        if op != BUILT_IN[2] and rank:
            made["axis"] = dice.randrange(-rank, rank)
            if dice.random() < 0.05:
                made["axis"] = dice.choice([rank, -rank - 1, 1 << 40])
                wrong.append("axis")
        made["epsilon"] = _number(dice, "epsilon", wrong)
        return made
    made["axes"] = _axes(dice, rank, wrong)
    made["epsilon"] = _number(dice, "epsilon", wrong)
    for name in ("epsilon_outside", "floor"):
        if dice.random() < 0.3:
            made[name] = _number(dice, name, wrong)
    if dice.random() < 0.1:
        made["epsilon_low"] = dice.choice([1e-12, 0.0])
        if -1e-12 < made["epsilon"] < 0 and made["epsilon_low"]:
            wrong.remove("epsilon")  # the sum is not negative
    types = {"stash_type": (1, 11), "normalized_type": _TYPES}
    if op == spec.GATED.name:
        types["scaled_type"] = _TYPES
    for name, legal in types.items():
        if dice.random() < 0.6:
            made[name] = int(dice.choice(legal))
            if dice.random() < 0.04:
                made[name] = dice.choice(_BAD_INTS)
                wrong.append(name)
    if dice.random() < 0.03:
        name = dice.choice(list(made))
        made[name] = dice.choice(["text", [0.5]])
        wrong.append(f"type of {name}")
    return made


def _number(dice: random.Random, name: str, wrong: list[str]) -> float:
    if dice.random() < 0.04:
        wrong.append(name)
        return dice.choice(_BAD_NUMBERS)
    return dice.choice(_GOOD_NUMBERS)


def _axes(dice: random.Random, rank: int, wrong: list[str]) -> list[int]:
    axes = dice.sample(range(rank), dice.randint(1, rank)) if rank and dice.random() < 0.5 else [max(0, rank - 1)]
    axes = [axis - rank if dice.random() < 0.5 else axis for axis in axes]
    if dice.random() < 0.06:
        wrong.append("axes")
        return dice.choice([[], [*axes, axes[0]], [rank], [-rank - 1], [*axes, 1 << 62], [-(1 << 63)]])
    return axes


def _scale_shape(dice: random.Random, shape: tuple[int, ...], wrong: list[str]) -> tuple[int, ...]:
    tail = shape[dice.randint(0, len(shape)) :]
    made = tuple(1 if dice.random() < 0.25 else length for length in tail)
    if dice.random() < 0.08:
        made = _other_shape(dice, made)
        if not (len(made) <= len(shape) and _trails_or_one(made, shape)):
            wrong.append("scale widens")
    return made


def _other_shape(dice: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape or dice.random() < 0.4:
        return (dice.choice([1, 2, 3]), *shape)
    at = dice.randrange(len(shape))
    return (*shape[:at], dice.choice([0, 1, 2, shape[at] + 1]), *shape[at + 1 :]) if dice.random() < 0.7 else shape[1:]


def _trails_or_one(shape: tuple[int, ...], x: tuple[int, ...]) -> bool:
    return all(n in (1, m) for n, m in zip(reversed(shape), reversed(x), strict=False))


def _trails(shape: tuple[int, ...], x: tuple[int, ...]) -> bool:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return len(shape) <= len(x) and shape == x[len(x) - len(shape) :]


def _outputs(dice: random.Random, op: str, wrong: list[str]) -> int:
    if op == spec.SKIP.name:
        return dice.choice([1, 2, 2])
    if op in BUILT_IN[1:]:
        return dice.choice([1, 2]) if op == BUILT_IN[1] else dice.choice([1, 4])
    if dice.random() < 0.02:
        wrong.append("number of outputs")
        return 2
    return 1


def _ordinary(rng: np.random.Generator, shape: tuple[int, ...], least: float) -> np.ndarray:
    """Both signs, magnitudes within a factor of 16: every result is a normal number in every type."""
    return np.asarray(rng.uniform(least, 16 * least, shape) * rng.choice([-1.0, 1.0], shape))


def _values(
    dice: random.Random, rng: np.random.Generator, shape: tuple[int, ...], dtype: DType, least: float
) -> tuple[np.ndarray, bool]:
    values, special = _ordinary(rng, shape, least), dice.random() < 0.2
    if special and values.size:
        flat = values.reshape(-1)
        for _ in range(dice.choice([1, 2, 5])):
            flat[dice.randrange(flat.size)] = dice.choice(SPECIAL)
    with np.errstate(all="ignore"):
        return values.astype(reference.NUMPY_TYPES[dtype]), special
