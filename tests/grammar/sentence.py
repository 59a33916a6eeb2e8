"""One random graph as a value: which surrounding, which spellings, what is twisted, in which dialect."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import onnx
from zoo.spelling import Spelling

from rmsnorm_onnx.spec import DType

from . import twists
from .dialect import Dialect
from .scopes import SURROUNDINGS
from .twists import HARMLESS, NEAR, Twist

#: Relative rounding of each type to nearest.
_UNIT = {DType.FLOAT: 2.0**-24, DType.FLOAT16: 2.0**-11, DType.BFLOAT16: 2.0**-8, DType.DOUBLE: 2.0**-53}


@dataclass(frozen=True, slots=True)
class Sentence:
    """Everything that makes one graph.

    ``spelling`` writes the first norm, ``second`` a further one where the surrounding has one. ``twist`` names what
    is changed in the first norm: a key of `HARMLESS` or `NEAR`, or of `twists.NEAR_SPELLINGS`.
    """

    seed: int
    surrounding: str
    spelling: Spelling
    second: Spelling
    twist: str | None = None
    habits: tuple[str, ...] = ()

    @property
    def near(self) -> bool:
        """Whether the first norm is none."""
        return self.twist in NEAR or self.twist in twists.NEAR_SPELLINGS

    def write(self) -> tuple[onnx.ModelProto, int]:
        """Return the graph and how many true norms it holds."""
        g = Dialect(self.spelling.opset, self.habits, self.seed)
        spelling = self.spelling
        if self.twist in twists.NEAR_SPELLINGS:
            spelling = twists.spelled_wrong(spelling, self.twist) or spelling
        twist: Twist | None = {**HARMLESS, **NEAR}.get(self.twist or "")
        pick = np.random.default_rng(self.seed)
        norms = SURROUNDINGS[self.surrounding](g, spelling, self.second, twist, pick)
        return g.model(), norms

    def slack(self) -> float:
        """Relative difference that rounded constants allow between the graph and its fused form.

        A factor that the matcher takes for 1/n (or sqrt(n), or 1/sqrt(n)) is off by half a unit of its type, which
        the true mean is not. Constants the matcher adds up or rescales are rounded to float32 once more, or to the
        48 bits of two float32 where the statistics are float64; the root halves either.
        """
        slack = 1e-11
        for s in (self.spelling, self.second):
            unit = _UNIT[s.working]
            exact = s.reduced & (s.reduced - 1) == 0
            if s.mean not in ("ReduceMean", "GlobalAveragePool", "sum/Shape") and not exact:
                slack = max(slack, 4 * unit)
            if self.twist is not None or not exact:
                slack = max(slack, 2.0**-45 if s.working is DType.DOUBLE else 2.0**-24)
        if self.surrounding == "unit_vectors":
            slack = max(slack, 8 * _UNIT[self.spelling.dtype], 2.0**-22)
        return slack

    def describe(self) -> str:
        """The sentence, its spellings by the fields that differ from the default."""
        parts = [f"seed={self.seed}", self.surrounding, f"twist={self.twist}", f"habits={list(self.habits)}"]
        return ", ".join([*parts, _difference(self.spelling), f"second {_difference(self.second)}"])


def _difference(s: Spelling) -> str:
    default = Spelling()
    pairs = ((f.name, getattr(s, f.name)) for f in fields(s))
    return "Spelling(" + ", ".join(f"{n}={v!r}" for n, v in pairs if v != getattr(default, n)) + ")"


def reset(s: Spelling, field: str) -> Spelling:
    """``s`` with one field as in the default spelling."""
    return replace(s, **{field: getattr(Spelling(), field)})
