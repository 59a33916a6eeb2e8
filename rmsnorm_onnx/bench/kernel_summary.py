"""What the cells of one form, type and number of threads come to, against each other way of computing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Final

from rmsnorm_onnx.bench.cell import Cell
from rmsnorm_onnx.bench.contestant import Group

#: Bytes read and written from which on a cell counts as large: below, the call weighs as much as the work.
LARGE_BYTES: Final = 64 << 10
#: Widths of heads.
NARROW: Final = range(64, 257)
#: The cell whose time is that of a call.
SMALLEST: Final = (1, 64)

#: Of ``Summary.row``.
COLUMNS: Final = (
    "",
    "against",
    "mean from 64 KB on",
    "mean of widths 64 to 256",
    "worst",
    "chains",
    "microseconds of 1x64: ours, theirs",
)


@dataclass(frozen=True, slots=True)
class Summary:
    """Ours against one other; ratios are how many times as fast ours is, None where no such cell was measured.

    Attributes:
        form: of the cells.
        dtype: likewise.
        threads: likewise.
        other: name of the implementation, or of a group its fastest in every cell.
        large: geometric mean of cells of at least ``LARGE_BYTES``.
        narrow: geometric mean of cells of a width in ``NARROW``.
        worst: the smallest ratio of all but chains.
        worst_shape: where that is.
        fixed_us: microseconds of ours and of the other in the cell ``SMALLEST``.
        chain: geometric mean of chains, which are in no other mean.
    """

    form: str
    dtype: str
    threads: int
    other: str
    large: float | None
    narrow: float | None
    worst: float
    worst_shape: str
    fixed_us: tuple[float, float] | None
    chain: float | None

    def row(self) -> tuple[str, ...]:
        """As text, in the order of ``COLUMNS``."""
        fixed = "-" if self.fixed_us is None else "{:.3g}, {:.3g}".format(*self.fixed_us)
        worst = f"{self.worst:.2f} ({self.worst_shape})"
        what = kind(self.form, self.dtype, self.threads)
        return what, self.other, _text(self.large), _text(self.narrow), worst, _text(self.chain), fixed


def kind(form: str, dtype: str, threads: int) -> str:
    """What the cells of one summary have in common, in words."""
    return f"{form} {dtype}, {threads} thread{'s' * (threads > 1)}"


def summaries(cells: Sequence[Cell]) -> Iterator[Summary]:
    """One per way of onnxruntime's, then one for its fastest and one for the fastest peer, over cells of one kind."""
    names = dict.fromkeys(m.name for c in cells for m in c.measurements if m.group is Group.ONNXRUNTIME)
    for name in names:
        yield from _summary(name, [(c, name) for c in cells if name in c.speedups()])
    for text, group in (("onnxruntime's fastest", Group.ONNXRUNTIME), ("fastest peer", Group.PEER)):
        yield from _summary(text, [(c, best.name) for c in cells if (best := c.fastest(group)) and c.speedups()])


def _summary(text: str, others: Sequence[tuple[Cell, str]]) -> Iterator[Summary]:
    """The summary against the implementation named beside each cell; none where there is no cell."""
    if not others:
        return
    ratios = [(cell, cell.speedups()[name]) for cell, name in others]
    single = [(cell, ratio) for cell, ratio in ratios if cell.chain == 1]
    slowest, worst = min(single or ratios, key=lambda pair: pair[1])
    yield Summary(
        slowest.form,
        slowest.dtype,
        slowest.threads,
        text,
        large=_mean(ratio for cell, ratio in single if cell.bytes >= LARGE_BYTES),
        narrow=_mean(ratio for cell, ratio in single if cell.width in NARROW),
        worst=worst,
        worst_shape=slowest.shape,
        fixed_us=next((_fixed(c, n) for c, n in others if (c.rows, c.width, c.chain) == (*SMALLEST, 1)), None),
        chain=_mean(ratio for cell, ratio in ratios if cell.chain > 1),
    )


def _fixed(cell: Cell, name: str) -> tuple[float, float]:
    times = {m.name: m.us_p50 for m in cell.measurements}
    return times[name] / cell.speedups()[name], times[name]


def _mean(ratios: Iterable[float]) -> float | None:
    found = list(ratios)
    return geometric_mean(found) if found else None


def _text(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.2f}"
