"""How often to measure in the time that is left: repetitions are dropped, cells never."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

#: Samples of each contestant: as many as are worth it, and the fewest that have a median.
MOST: Final = 21
FEWEST: Final = 3


@dataclass
class Budget:
    """Seconds for everything, counted from the start.

    Attributes:
        seconds: in all.
        reserve: of them for what comes after the cells.
        clock: seconds, in any origin.
        short: cells that got fewer samples than ``MOST``, with their number.
    """

    seconds: float
    reserve: float = 0.0
    clock: Callable[[], float] = time.monotonic
    short: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The time begins."""
        self._start = self.clock()

    def spent(self) -> float:
        """Seconds since the start."""
        return self.clock() - self._start

    def share(self, cells_left: int) -> float:
        """Seconds for the next of so many cells."""
        return max(0.0, self.seconds - self.reserve - self.spent()) / max(1, cells_left)

    def rounds(self, cell: str, cells_left: int, round_s: float) -> int:
        """Samples of each contestant of that cell, where one sample of all takes ``round_s``."""
        rounds = max(FEWEST, min(MOST, int(self.share(cells_left) / max(round_s, 1e-9))))
        if rounds < MOST:
            self.short[cell] = rounds
        return rounds

    def line(self) -> str:
        """What was dropped, in words."""
        spent = f"{self.spent():.0f} of {self.seconds:.0f} s"
        if not self.short:
            return f"{spent}; {MOST} samples everywhere"
        fewest = min(self.short.values())
        return f"{spent}; fewer than {MOST} samples (down to {fewest}) in {len(self.short)} cells"
