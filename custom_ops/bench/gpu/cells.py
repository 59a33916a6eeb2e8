"""What is measured on a GPU and what is wanted of it, as data: shapes, bytes, goals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: Tensors of the size of X that are read, and written, by the form.
STREAMS: Final = {"plain": (1, 1), "skip": (2, 2), "gated": (2, 1), "pregated": (2, 1)}
SIZES: Final = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}

#: A launch that waits for the one before it, and this share of the copy's rate: what no cell should need more than.
LAUNCH_US: Final = 1.0
COPY_SHARE: Final = 0.98
#: A set of buffers is used again after this many times the L2 cache went by.
COLD: Final = 3
#: More sets than this would only make the graphs longer.
MOST_SETS: Final = 8192
#: A set that takes no more than this share of L2 stays in it when it is used again and again.
WARM: Final = 0.5
#: What the goals were set for; on another GPU the shares hold and microseconds are to be read beside its copy.
GOALS_FOR: Final = "H200"

#: No cell may be further behind the best peer, and this is wanted in the geometric mean; onnxruntime's own likewise.
WORST_PEER: Final = 0.99
MEAN_PEER: Final = 1.05
ORT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One problem and its goal.

    Attributes:
        form: plain, skip, gated or pregated.
        dtype: of every tensor, the scale included.
        shape: of X.
        share: wanted share of the rate of the copy; None where none is set.
        us: wanted microseconds; None where none are set.
        axis: that is reduced.
        offset: elements by which tensors begin after a multiple of 256 bytes.
    """

    form: str
    dtype: str
    shape: tuple[int, ...]
    share: float | None = None
    us: float | None = None
    axis: int = -1
    offset: int = 0

    @property
    def name(self) -> str:
        """Unique among ``CELLS``."""
        text = f"{self.form} {self.dtype} {'x'.join(map(str, self.shape))}"
        text += "" if self.axis == -1 else f" axis {self.axis}"
        return text + (f" off by {self.offset}" if self.offset else "")

    @property
    def elements(self) -> int:
        """Of X."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Elements of one mean, and of the scale."""
        return self.shape[self.axis]

    @property
    def reads(self) -> int:
        """Tensors of the size of X that are read."""
        return STREAMS[self.form][0]

    @property
    def moved(self) -> int:
        """Bytes that must be read and written."""
        return (sum(STREAMS[self.form]) * self.elements + self.width) * SIZES[self.dtype]

    @property
    def few(self) -> bool:
        """Whether the launch weighs more than the bytes: then host and warm-L2 time are of interest too."""
        return self.moved <= 4 << 20

    def sets(self, l2_bytes: int) -> int:
        """Buffer sets to go through so that none is in L2 when its turn comes again; two at least."""
        return max(2, min(MOST_SETS, COLD * l2_bytes // self.moved + 1))

    def warm(self, l2_bytes: int) -> bool:
        """Whether one set stays in L2."""
        return self.moved <= WARM * l2_bytes

    def model_us(self, copy_rate: float) -> float:
        """Microseconds that no cell should exceed, at so many bytes per second of the copy."""
        return LAUNCH_US + self.moved / (COPY_SHARE * copy_rate) * 1e6

    def goal_us(self, copy_rate: float) -> float | None:
        """The goal in microseconds, whichever way it is set."""
        return self.us if self.share is None else self.moved / (self.share * copy_rate) * 1e6

    def goal(self) -> str:
        """The goal as it is set."""
        if self.us is not None:
            return f"<= {self.us:g} us"
        return "-" if self.share is None else f">= {self.share:g}"


def _plain(dtype: str, goals: dict[tuple[int, int], float]) -> list[Cell]:
    return [Cell("plain", dtype, shape, share) for shape, share in goals.items()]


CELLS: Final = (
    *_plain(
        "bfloat16",
        {
            (32768, 128): 0.75,
            (221184, 128): 0.92,
            (32768, 1024): 0.95,
            (4096, 4096): 0.92,
            (32768, 4096): 0.975,
            (8192, 16384): 0.975,
            (8192, 65536): 0.975,
            (2048, 131072): 0.96,
            (1024, 262144): 0.96,
        },
    ),
    *_plain("float16", {(32768, 128): 0.75, (32768, 1024): 0.95, (32768, 4096): 0.975, (2048, 131072): 0.96}),
    *_plain("float32", {(16384, 4096): 0.96, (4096, 16384): 0.96}),
    *_plain("float64", {(8192, 4096): 0.96, (4096, 16384): 0.96}),
    Cell("skip", "bfloat16", (2048, 4096), 0.92),
    Cell("skip", "bfloat16", (4096, 7168), 0.97),
    Cell("skip", "bfloat16", (2048, 8192), 0.95),
    Cell("skip", "bfloat16", (2048, 16384), 0.96),
    Cell("gated", "bfloat16", (65536, 128), 0.92),
    Cell("gated", "bfloat16", (16384, 4096), 0.97),
    Cell("pregated", "bfloat16", (16384, 4096), 0.97),
    Cell("plain", "bfloat16", (8192, 4097), 0.9),
    Cell("plain", "bfloat16", (8192, 5003), 0.9),
    Cell("plain", "float32", (8192, 4097), 0.9),
    Cell("plain", "bfloat16", (8192, 4096), 0.9, offset=1),
    Cell("plain", "bfloat16", (32, 256, 56, 56), 0.93, axis=1),
    Cell("plain", "bfloat16", (8, 512, 64, 64), 0.93, axis=1),
    Cell("plain", "float32", (32, 256, 56, 56), 0.93, axis=1),
    Cell("skip", "bfloat16", (1, 4096), us=1.6),
    Cell("skip", "bfloat16", (1, 8192), us=1.8),
    Cell("skip", "bfloat16", (1, 16384), us=2.1),
    Cell("plain", "bfloat16", (1, 4096), us=1.5),
    Cell("plain", "bfloat16", (32, 8192), us=2.1),
)


def goal_table(l2_bytes: int, copy_rate: float) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns and rows: cells, bytes, buffer sets, goals, at such a cache and such a copy."""
    columns = ("cell", "MB moved", "buffer sets", "goal: share of copy, or time", "us then", "us of the model")
    rows = []
    for cell in CELLS:
        goal = cell.goal_us(copy_rate)
        numbers = ("-" if goal is None else f"{goal:.1f}", f"{cell.model_us(copy_rate):.1f}")
        rows.append((cell.name, f"{cell.moved / 1e6:.3g}", str(cell.sets(l2_bytes)), cell.goal(), *numbers))
    return columns, tuple(rows)
