"""The tensors of one cell, often enough that they are out of L2 when their turn comes again."""

from __future__ import annotations

from typing import Any

import torch

from custom_ops.bench.gpu.cells import Cell

#: Where every tensor begins, offset aside.
_ALIGNMENT = 256
#: Of one piece of a check in float64.
_PIECE = 1 << 26
EPSILON = 1e-5
DEVICE = "cuda"


class Sets:
    """Random inputs and unwritten outputs; each list has one tensor per set."""

    def __init__(self, cell: Cell, count: int) -> None:
        self.cell, self.count = cell, count
        self.dtype: torch.dtype = getattr(torch, cell.dtype)
        self.x = self._random(cell.shape)
        self.second: list[Any] = self._random(cell.shape) if cell.reads == 2 else [None] * count
        # Values that are far from zero: an element that is not scaled is seen.
        self.scale = self._pool(self.scale_shape, lambda pool: pool.uniform_(0.5, 1.5), 0)
        self.y = self.unwritten()
        self.total: list[Any] = self.unwritten() if cell.form == "skip" else [None] * count

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Broadcasts along the axis."""
        after = len(self.cell.shape) - 1 - self.cell.axis % len(self.cell.shape)
        return (self.cell.width, *(1,) * after)

    def unwritten(self) -> list[torch.Tensor]:
        """Outputs of every set, NaN until they are written."""
        return self._pool(self.cell.shape, lambda pool: pool.fill_(float("nan")), self.cell.offset)

    def _random(self, shape: tuple[int, ...]) -> list[torch.Tensor]:
        return self._pool(shape, lambda pool: pool.normal_(), self.cell.offset)

    def _pool(self, shape: tuple[int, ...], fill: Any, offset: int) -> list[torch.Tensor]:
        elements = int(torch.Size(shape).numel())
        step = _ALIGNMENT // self.dtype.itemsize
        stride = (elements + offset + step - 1) // step * step
        pool = torch.empty(self.count * stride, dtype=self.dtype, device=DEVICE)
        fill(pool)
        return [pool[i * stride + offset :][:elements].view(shape) for i in range(self.count)]

    def error(self, index: int, outputs: tuple[torch.Tensor, ...]) -> float:
        """Largest error of one set's outputs against float64, in roundoffs of the type; NaN counts as infinite.

        Subnormal results count as the smallest normal number: their spacing is that of it.
        """
        info = torch.finfo(self.dtype)
        rows = max(1, _PIECE // max(1, self.cell.elements // self.cell.shape[0]))
        worst = 0.0
        for begin in range(0, self.cell.shape[0], rows):
            part = slice(begin, begin + rows)
            for got, want in zip(outputs, self._exact(index, part), strict=True):
                relative = (got[part].double() - want).abs() / want.abs().clamp_min(float(info.smallest_normal))
                worst = max(worst, float(relative.nan_to_num(nan=torch.inf).max()))
        return worst / (float(info.eps) / 2)

    def _exact(self, index: int, part: slice) -> tuple[torch.Tensor, ...]:
        form, x = self.cell.form, self.x[index][part]
        if form == "skip":
            x = total = x + self.second[index][part]
        value = x.double()
        gate: Any = torch.nn.functional.silu(self.second[index][part].double()) if "gated" in form else None
        value = value * gate if form == "pregated" else value
        y = value / (value.square().mean(self.cell.axis, keepdim=True) + EPSILON).sqrt() * self.scale[index].double()
        y = y * gate if form == "gated" else y
        return (y, total.double()) if form == "skip" else (y,)

    @property
    def bound(self) -> float:
        """Roundoffs that the error of ours may have: one unit in the last place of 16 bits, else the contract's."""
        if self.dtype.itemsize == 2:
            return 2.0
        return (3.0 if self.dtype is torch.float32 else 6.0) + (5.0 if "gated" in self.cell.form else 0.0)

    @property
    def peers_bound(self) -> float:
        """Roundoffs that look like rounding, here and there once more than ours."""
        return 64.0 if self.dtype.itemsize >= 4 else 6.0
