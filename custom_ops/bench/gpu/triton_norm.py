"""The norm as one writes it in Triton: a program holds whole rows in registers, as Liger's does."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

#: Wider rows do not fit the registers of a block.
WIDEST = 65536
#: Rows of one program where they are narrow.
_NARROW, _ROWS = 256, 16


@triton.jit
def _norm(
    x,
    second,
    scale,
    y,
    total,
    rows,
    width,
    epsilon,
    FORM: tl.constexpr,  # noqa: N803
    STASH: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row[:, None] < rows) & (column[None, :] < width)
    at = row[:, None] * width + column[None, :]
    given = tl.load(x + at, mask=inside, other=0.0)
    value = given.to(STASH)
    if FORM != "plain":
        other = tl.load(second + at, mask=inside, other=0.0).to(STASH)
    if FORM == "skip":
        added = (value + other).to(given.dtype)
        tl.store(total + at, added, mask=inside)
        value = added.to(STASH)
    if FORM == "pregated":
        value = value * other * (1.0 / (1.0 + tl.exp(-other)))
    weight = tl.load(scale + column, mask=column < width, other=0.0).to(STASH)
    root = tl.sqrt(tl.sum(value * value, axis=1) / width + epsilon)
    result = value * (1.0 / root)[:, None] * weight[None, :]
    if FORM == "gated":
        result = result * other * (1.0 / (1.0 + tl.exp(-other)))
    tl.store(y + at, result.to(given.dtype), mask=inside)


def launch(form: str, x: Any, second: Any, scale: Any, y: Any, total: Any, epsilon: float) -> None:
    """Enqueue one norm over the last axis; tensors that a form lacks are None."""
    width = x.shape[-1]
    rows = x.numel() // width
    block = triton.next_power_of_2(width)
    each = _ROWS if block <= _NARROW else 1
    warps = 32 if block >= 32768 else 16 if block >= 8192 else 8 if block >= 2048 else 4
    stash = tl.float64 if x.dtype is torch.float64 else tl.float32
    _norm[(triton.cdiv(rows, each),)](
        x,
        x if second is None else second,
        scale,
        y,
        y if total is None else total,
        rows,
        width,
        epsilon,
        FORM=form,
        STASH=stash,
        ROWS=each,
        BLOCK=block,
        num_warps=warps,
    )
