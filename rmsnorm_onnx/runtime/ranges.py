"""Value ranges of random inputs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from rmsnorm_onnx.errors import InvalidInput

_FORM: Final = re.compile(r"(?:(?P<name>.*):)?\s*(?:\[(?P<inside>[^\[\]]*)\]|(?P<bare>[^\[\]:]*))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Range:
    """Uniform values from ``low`` to ``high``, both included.

    Attributes:
        low: smallest value.
        high: largest value; may equal ``low``.
        name: the one input that it is for, of any type but strings; None means every input of real numbers that has
            no range of its own. Token numbers, positions, masks and lengths keep values that mean something.

    Raises:
        InvalidInput: NaN, an infinity, or low > high.
    """

    low: float
    high: float
    name: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low > self.high:
            raise InvalidInput(
                f"a range needs two finite numbers, the smaller one first; got [{self.low}, {self.high}]"
            )

    def __str__(self) -> str:
        bounds = f"[{self.low:g}, {self.high:g}]"
        return f"range {bounds}" if self.name is None else f"{self.name} {bounds}"

    @classmethod
    def parse(cls, text: str) -> Range:
        """A range from ``LOW,HIGH``, ``[LOW,HIGH]`` or ``NAME:[LOW,HIGH]`` (a name may itself hold colons).

        Raises:
            InvalidInput: another form, or numbers that make no range.
        """
        form = _FORM.fullmatch(text.strip())
        parts = (form["inside"] if form["inside"] is not None else form["bare"]).split(",") if form else []
        try:
            low, high = (float(part) for part in parts)
        except ValueError:
            raise InvalidInput(f"expected a range as LOW,HIGH or NAME:[LOW,HIGH], got '{text}'") from None
        return cls(low, high, (form["name"] or "").strip() or None if form else None)
