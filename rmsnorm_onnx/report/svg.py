"""A bar chart as SVG to stand inside a page, whose style sheet gives it its colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Final

from rmsnorm_onnx.report.characters import printable
from rmsnorm_onnx.report.content import BarChart

#: Units of the drawing; the page scales it.
_WIDTH, _HEIGHT = 480, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 20, 26, 42
_PLOT_WIDTH: Final = _WIDTH - _LEFT - _RIGHT
_PLOT_HEIGHT: Final = _HEIGHT - _TOP - _BOTTOM
#: Of a bin's width, left free between bins.
_GAP: Final = 0.25
#: Width of a character and the room around it, at the style sheet's 11 units.
_CHARACTER: Final = 8.0
#: Height of a bar for one, which a logarithm gives none: in powers of ten.
_ONE: Final = 0.3


def to_svg(chart: BarChart) -> str:
    """Bars side by side in each bin; the axis of counts is logarithmic, so that one outlier among millions shows.

    Screen readers get every count: in the description, and as a title of each bar.
    """
    most = max((count for _, counts in chart.series for count in counts), default=0)
    decades = max(1, math.ceil(math.log10(max(most, 1))))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(_spoken(chart))}">',
        f"<title>{_text(chart.title)}</title><desc>{_text(_spoken(chart))}</desc>",
        *_counts_axis(decades),
        *_bars(chart, decades),
        *_bins_axis(chart),
        *_legend(chart),
        "</svg>",
    ]
    return "\n".join(parts)


def _spoken(chart: BarChart) -> str:
    per_series = (
        f"{name}: " + ", ".join(f"{label} {count:,}" for label, count in zip(chart.bins, counts, strict=True))
        for name, counts in chart.series
    )
    return f"{chart.title}; {chart.axis}. " + "; ".join(per_series)


def _height(count: int, decades: int) -> float:
    return (math.log10(count) + _ONE) / (decades + _ONE) * _PLOT_HEIGHT if count else 0.0


def _counts_axis(decades: int) -> Iterator[str]:
    step = math.ceil(decades / 5)
    for decade in range(0, decades + 1, step):
        y = _TOP + _PLOT_HEIGHT - _height(10**decade, decades)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_short(10**decade)}</text>'
    base = _TOP + _PLOT_HEIGHT
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'


def _bars(chart: BarChart, decades: int) -> Iterator[str]:
    bin_width = _PLOT_WIDTH / max(len(chart.bins), 1)
    width = bin_width * (1 - _GAP) / max(len(chart.series), 1)
    for place, (name, counts) in enumerate(chart.series):
        for number, count in enumerate(counts):
            height = _height(count, decades)
            x = _LEFT + bin_width * (number + _GAP / 2) + width * place
            if count:
                yield (
                    f'<rect class="series{place}" x="{x:.1f}" y="{_TOP + _PLOT_HEIGHT - height:.1f}" '
                    f'width="{width:.1f}" height="{height:.1f}">'
                    f"<title>{_text(f'{name}, {chart.bins[number]}: {count:,}')}</title></rect>"
                )


def _bins_axis(chart: BarChart) -> Iterator[str]:
    bin_width = _PLOT_WIDTH / max(len(chart.bins), 1)
    widest = max(map(len, chart.bins), default=0) * _CHARACTER
    for number, label in list(enumerate(chart.bins))[:: math.ceil(widest / bin_width)]:
        x = _LEFT + bin_width * (number + 0.5)
        yield f'<text x="{x:.1f}" y="{_TOP + _PLOT_HEIGHT + 15}" text-anchor="middle">{_text(label)}</text>'
    yield f'<text x="{_LEFT + _PLOT_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{_text(chart.axis)}</text>'


def _legend(chart: BarChart) -> Iterator[str]:
    x = float(_LEFT)
    for place, (name, _) in enumerate(chart.series):
        yield f'<rect class="series{place}" x="{x}" y="5" width="12" height="12"/>'
        yield f'<text x="{x + 17}" y="15">{_text(name)}</text>'
        x += 40 + 7 * len(name)


def _short(count: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count // size}{unit}"
    return str(count)


def _text(text: str) -> str:
    return escape(printable(text))
