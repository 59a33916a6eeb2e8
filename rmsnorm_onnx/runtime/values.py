"""Values that fit what an input is for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isqrt, prod
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.runtime.dimensions import Binding
from rmsnorm_onnx.runtime.inputs import InputSpec
from rmsnorm_onnx.runtime.ranges import Range
from rmsnorm_onnx.runtime.roles import Axis, Role, length_of

Array = npt.NDArray[Any]

#: Integers without a table: trip counts and the like. Small, and not zero, so that loops run.
_COUNT: Final = 1
#: Token numbers where no table was found.
_FEW_ROWS: Final = 2
#: One input of random values; beyond that a dimension is a mistake.
_LARGEST_BYTES: Final = 1 << 32


def values(spec: InputSpec, binding: Binding, generator: np.random.Generator, ranges: Sequence[Range] = ()) -> Array:
    """An array for one input.

    Args:
        spec: of the input.
        binding: of the free dimensions.
        generator: of random values.
        ranges: at most one for all inputs of real numbers, and one for each named input.

    Raises:
        InvalidInput: the range does not fit the type, or the array would have more than 4 GiB.
    """
    shape = tuple(dim if isinstance(dim, int) else binding.dims[dim] for dim in spec.dims)
    dtype = np.dtype(spec.dtype.numpy())
    if prod(max(size, 1) for size in shape) * max(dtype.itemsize, 8) > _LARGEST_BYTES:
        raise InvalidInput(f"input {spec.name} of shape {list(shape)} is larger than 4 GiB; give smaller dimensions")
    chosen = [r for r in ranges if r.name == spec.name or (r.name is None and takes_default_range(spec))]
    if chosen:
        return _uniform(spec, dtype, shape, max(chosen, key=lambda r: r.name is not None), generator)
    if dtype.kind in "OSU":
        return np.full(shape, "a", object)
    if spec.role is Role.INDEX:
        rows = binding.sizes[Axis.BATCH] if "beam" in spec.name.lower() else spec.seen.rows or _FEW_ROWS
        return generator.integers(0, max(rows, 1), shape).astype(dtype)
    if spec.role is Role.POSITION:
        return _positions(spec, shape, binding.sizes).astype(dtype)
    if spec.role is Role.MASK:
        return _mask(spec, dtype, shape, binding.sizes)
    if spec.role is Role.FLAG:
        return np.ones(shape, dtype)
    if spec.role is Role.LENGTH:
        return np.full(shape, _length(spec, binding.sizes), dtype)
    if spec.role is Role.COUNT:
        return _counts(spec, dtype, shape, binding.sizes, generator)
    return generator.standard_normal(shape).astype(dtype)


def takes_default_range(spec: InputSpec) -> bool:
    """Whether a range without a name is for this input."""
    return spec.role in {Role.REAL, Role.CACHE} and spec.dtype.is_floating_point()


def _uniform(
    spec: InputSpec, dtype: np.dtype[Any], shape: tuple[int, ...], wanted: Range, generator: np.random.Generator
) -> Array:
    kind = _limits(dtype)
    if kind is None:
        raise InvalidInput(f"input {spec.name} of type {dtype} takes no {wanted}")
    whole, low, high = kind
    if spec.role is Role.INDEX and spec.seen.rows is not None:
        low, high = 0, spec.seen.rows - 1
    if wanted.low < low or wanted.high > high:
        raise InvalidInput(f"input {spec.name} of type {dtype} takes values from {low:g} to {high:g}, not {wanted}")
    if whole:
        if wanted.low % 1 or wanted.high % 1:
            raise InvalidInput(f"input {spec.name} of type {dtype} takes whole numbers, not {wanted}")
        return generator.integers(int(wanted.low), int(wanted.high), shape, endpoint=True).astype(dtype)
    weight = generator.random(shape)
    return ((1 - weight) * wanted.low + weight * wanted.high).astype(dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[bool, float, float] | None:
    """Whether only whole numbers, the smallest and the largest; None for strings and complex numbers."""
    if dtype == np.bool_:
        return True, 0, 1
    if dtype.kind in "iu":
        # generator.integers draws int64; float(2**63 - 1) would be beyond it.
        return True, max(float(np.iinfo(dtype).min), -(2.0**62)), min(float(np.iinfo(dtype).max), 2.0**62)
    if dtype.kind == "f" or dtype == ml_dtypes.bfloat16:
        return False, _smallest(dtype), -_smallest(dtype)
    return None


def _smallest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).min)  # type: ignore[no-untyped-call]


def _counts(
    spec: InputSpec,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    sizes: Mapping[Axis, int],
    generator: np.random.Generator,
) -> Array:
    lowered = spec.name.lower()
    if "grid_thw" in lowered and shape[-1:] == (3,):
        # One frame for each image; rows and columns of patches are even where they can be, as 2 x 2 are merged.
        patches = sizes[Axis.PATCHES] // max(prod(shape[:-1]), 1)
        even = [n for n in range(2, isqrt(patches) + 1, 2) if patches % (2 * n) == 0]
        rows = max(even, default=1)
        return np.broadcast_to(np.array([1, rows, patches // rows], dtype), shape).copy()
    if dtype.itemsize == 1 and len(shape) > 2:
        return generator.integers(0, 128, shape).astype(dtype)  # the pixels of an image
    # "The last n logits" with n = 0 are all of them.
    return np.full(shape, 0 if "logits_to_keep" in lowered else _COUNT, dtype)


def _positions(spec: InputSpec, shape: tuple[int, ...], sizes: Mapping[Axis, int]) -> Array:
    """New tokens come after the past; positions of everything start at 0."""
    length = shape[-1] if shape else 1
    first = sizes[Axis.PAST] if not shape or length == sizes[Axis.SEQUENCE] else max(sizes[Axis.TOTAL] - length, 0)
    if Axis.ENCODER in spec.axes:
        first = 0
    positions = (first + np.arange(length)) % max(spec.seen.rows or 1 << 31, 1)
    return np.broadcast_to(positions if shape else positions[0], shape)


def _mask(spec: InputSpec, dtype: np.dtype[Any], shape: tuple[int, ...], sizes: Mapping[Axis, int]) -> Array:
    """Everything is kept, but what a token must not see yet where the mask has an axis for that.

    No padding: rows that are masked as a whole become NaN in some exports, and norms do not mix rows.
    """
    keeps = np.ones(shape, np.bool_)
    if Axis.TOTAL in spec.axes and shape[-1] > sizes[Axis.TOTAL]:
        keeps[..., sizes[Axis.TOTAL] :] = False
    if len(shape) > 2 and spec.axes[-2] is Axis.SEQUENCE and shape[-2] > 1:
        keeps &= np.arange(shape[-1]) <= np.arange(shape[-2])[:, None] + (sizes[Axis.TOTAL] - shape[-2])
    if _is_added(spec):
        # Half the smallest number: adding scores to that itself may overflow.
        return np.where(keeps, 0.0, _smallest(dtype) / 2).astype(dtype)
    by_name = spec.dtype == ir.DataType.BOOL and "padding_mask" in spec.name.lower()
    drops = spec.seen.drops if spec.seen.drops is not None else by_name
    return (~keeps if drops else keeps).astype(dtype)


def _is_added(spec: InputSpec) -> bool:
    """Whether a mask is added to scores, so that 0 keeps and a very negative number leaves out."""
    if not spec.dtype.is_floating_point() or spec.seen.complemented:
        return False
    return spec.seen.added or (len(spec.dims) > 2 and re.search("att|causal|bias", spec.name.lower()) is not None)


def _length(spec: InputSpec, sizes: Mapping[Axis, int]) -> int:
    length = spec.seen.length or length_of(spec.name.lower()) or Axis.SEQUENCE
    if length is Axis.BATCH:
        return sizes[Axis.BATCH]
    index = spec.seen.index or "seqlens_k" in spec.name.lower()
    return max(sizes[length] - 1, 0) if index else sizes[length]
