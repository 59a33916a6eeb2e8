"""A picture of a benchmark of kernels as SVG: rate over bytes, one line per implementation, beside the copies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Final

from rmsnorm_onnx.bench.cell import Cell
from rmsnorm_onnx.bench.contestant import Group
from rmsnorm_onnx.bench.kernel_records import KernelBenchmark

_WIDTH: Final = 600
_HEIGHT: Final = 300
#: Room around the plot of one panel: left, top, right (for the legend), bottom; in pixels.
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 34, 240, 40
#: Cold for onnxruntime's, warm for the others; after Okabe and Ito, whom any kind of colour vision tells apart.
_COLOURS: Final = {
    Group.ONNXRUNTIME: ("#0072b2", "#56b4e9", "#009e73", "#8a63d2"),
    Group.PEER: ("#cc79a7", "#e69f00", "#a05a2c", "#b8a000"),
}
_OURS: Final = "#d55e00"
_COPY: Final = "#777777"
_DASHES: Final = ("2 3", "7 3")


def to_svg(result: KernelBenchmark) -> str:
    """The picture: one panel per form, type and number of threads.

    Rates are 10^9 bytes read and written per second. Lines join the shapes of the most common width; other shapes are
    rings, chains left out.
    """
    alone = replace(result, cells=tuple(cell for cell in result.cells if cell.chain == 1))
    groups = list(alone.groups())
    columns = min(2, len(groups))
    rows = -(-len(groups) // max(columns, 1))
    # A peer keeps its colour in all panels; onnxruntime's ways are others in every form.
    peers = _colours(Group.PEER, result.cells)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns * _WIDTH}" height="{rows * _HEIGHT + 24}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, cells) in enumerate(groups):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _Panel(title, cells, {**peers, **_colours(Group.ONNXRUNTIME, cells)}).draw()
        parts.append("</g>")
    parts.append(f'<text x="8" y="{rows * _HEIGHT + 14}" fill="#555">{escape(result.machine.line())}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _colours(group: Group, cells: tuple[Cell, ...]) -> dict[str, str]:
    names = dict.fromkeys(m.name for c in cells for m in c.measurements if m.group is group)
    palette = _COLOURS[group]
    return {name: palette[number % len(palette)] for number, name in enumerate(names)}


class _Panel:
    """Axes, lines and legend of one group of cells; both axes are logarithmic."""

    def __init__(self, title: str, cells: tuple[Cell, ...], colours: dict[str, str]) -> None:
        self._title = title
        self._cells = sorted(cells, key=lambda cell: cell.bytes)
        self._colours = colours
        rates = [m.gb_per_s for cell in cells for m in cell.measurements]
        self._bytes = _range([cell.bytes for cell in cells])
        self._rates = _range(rates)
        self._width = Counter(cell.width for cell in cells).most_common(1)[0][0]

    def draw(self) -> Iterator[str]:
        yield f'<text x="{_LEFT}" y="20" font-size="13" font-weight="bold">{escape(self._title)}</text>'
        yield from self._axes()
        legend = []
        copies = 0
        for name, group in {m.name: m.group for cell in self._cells for m in cell.measurements}.items():
            colour, dash, weight = self._colours.get(name, _OURS), "", 1.5
            if group is Group.OURS:
                weight = 3
            elif group is Group.COPY:
                colour, dash = _COPY, f' stroke-dasharray="{_DASHES[copies % 2]}"'
                copies += 1
            style = f'stroke="{colour}" stroke-width="{weight}" fill="none"{dash}'
            legend.append((name, style))
            yield from self._line(name, colour, style)
        for number, (name, style) in enumerate(legend):
            x, y = _WIDTH - _RIGHT + 12, _TOP + 8 + 16 * number
            yield f'<line x1="{x}" y1="{y}" x2="{x + 22}" y2="{y}" {style}/>'
            yield f'<text x="{x + 28}" y="{y + 4}">{escape(name)}</text>'

    def _line(self, name: str, colour: str, style: str) -> Iterator[str]:
        points: list[tuple[float, float, str, float]] = []
        rings: list[tuple[float, float, str, float]] = []
        for cell in self._cells:
            for measured in cell.measurements:
                if measured.name == name and measured.correct:
                    rate = measured.gb_per_s
                    kind = points if cell.width == self._width else rings
                    kind.append((self._x(cell.bytes), self._y(rate), cell.shape, rate))
        if points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in points)
            yield f'<polyline points="{path}" {style}/>'
        for marks, fill in ((points, colour), (rings, "white")):
            for x, y, shape, rate in marks:
                text = f"<title>{escape(name)} {shape}: {rate:.3g} GB/s</title>"
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{colour}">{text}</circle>'

    def _axes(self) -> Iterator[str]:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for value in _ticks(self._bytes, 10):
            x = self._x(value)
            yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#e5e5e5"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{_bytes(value)}</text>'
        for value in _ticks(self._rates, 10, (1, 2, 5)):
            y = self._y(value)
            yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e5e5e5"/>'
            yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        size = f'width="{right - _LEFT}" height="{bottom - _TOP}"'
        yield f'<rect x="{_LEFT}" y="{_TOP}" {size} fill="none" stroke="#999"/>'
        middle = (_TOP + bottom) / 2
        yield f'<text x="{(_LEFT + right) / 2}" y="{bottom + 31}" text-anchor="middle">bytes read and written</text>'
        yield f'<text transform="rotate(-90 14 {middle})" x="14" y="{middle}" text-anchor="middle">GB/s</text>'

    def _x(self, value: float) -> float:
        low, high = self._bytes
        return _LEFT + (_WIDTH - _RIGHT - _LEFT) * math.log(value / low) / math.log(high / low)

    def _y(self, value: float) -> float:
        low, high = self._rates
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * math.log(value / low) / math.log(high / low)


def _range(values: list[float] | list[int]) -> tuple[float, float]:
    return min(values) / 1.5, max(values) * 1.5


def _ticks(limits: tuple[float, float], base: int, steps: tuple[int, ...] = (1,)) -> Iterator[float]:
    low, high = limits
    for exponent in range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1):
        for step in steps:
            value = float(step * base**exponent)
            if low <= value <= high:
                yield value


def _bytes(value: float) -> str:
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if value >= 10**power:
            return f"{value / 10**power:g} {unit}"
    return f"{value:g} B"
