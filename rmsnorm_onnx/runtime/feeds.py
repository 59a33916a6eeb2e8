"""Feeds for a model: free dimensions bound, seeded values that fit, or arrays from a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.runtime.inputs import InputSpec, Role, input_specs

Array = npt.NDArray[Any]

DEFAULT_BATCH: Final = 2
DEFAULT_LENGTH: Final = 7
DEFAULT_PAST: Final = 3
#: Integers without a table: trip counts, lengths. Small, and not zero, so that loops run.
_COUNT: Final = 1
_SUM: Final = re.compile(r"\s*\+\s*")


@dataclass(frozen=True, slots=True)
class Feeds:
    """Arrays for every input, and what was chosen to make them.

    Attributes:
        arrays: by input name, in the model's own types (bfloat16 as ml_dtypes.bfloat16).
        dims: value of each free dimension.
        origin: where the values come from, in words.
    """

    arrays: dict[str, Array]
    dims: dict[str, int]
    origin: str


def make_feeds(
    model: ir.Model,
    *,
    dims: Mapping[str, int] | None = None,
    inputs: str | os.PathLike[str] | Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Feeds:
    """Feeds for ``model``.

    Args:
        model: only its inputs and what reads them are looked at.
        dims: values of free dimensions by name; the same name has one value everywhere. Others get 2 (named like a
            batch, or the first axis), 3 (past) or 7; a name that is a sum of names is their sum.
        inputs: arrays by name, an .npz file, or an ONNX test data folder (input_0.pb, ...); then nothing is random.
        seed: of the random values.

    Raises:
        InvalidInput: a name in ``dims`` or ``inputs`` that the model lacks, a missing input, a wrong dtype or shape,
            or both ``dims`` and ``inputs``.
    """
    specs = input_specs(model)
    if inputs is not None:
        if dims:
            raise InvalidInput("dimensions follow from the inputs; give one of the two")
        given = _read(inputs, specs)
        return Feeds(given, _check(given, specs), "given")
    bound = bind_dims(specs, dims or {})
    generator = np.random.default_rng(seed)
    arrays = {spec.name: _values(spec, _shape(spec, bound), generator) for spec in specs}
    return Feeds(arrays, bound, f"seed {seed}")


def bind_dims(specs: tuple[InputSpec, ...], dims: Mapping[str, int]) -> dict[str, int]:
    """A value for every free dimension, in order of appearance; raises InvalidInput for unknown names or values < 0."""
    first_axis: dict[str, bool] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.dims):
            if isinstance(dim, str):
                first_axis.setdefault(dim, axis == 0)
    parts = {part for name in first_axis for part in _SUM.split(name)}
    unknown = sorted(set(dims) - first_axis.keys() - parts)
    if unknown:
        valid = ", ".join(first_axis) or "none: all dimensions are fixed"
        raise InvalidInput(f"no dimension is called {', '.join(unknown)}; valid names: {valid}")
    negative = sorted(name for name, value in dims.items() if value < 0)
    if negative:
        raise InvalidInput(f"dimensions cannot be negative: {', '.join(negative)}")
    return {name: _default(name, first, dims, set(first_axis)) for name, first in first_axis.items()}


def _default(name: str, first: bool, dims: Mapping[str, int], names: set[str]) -> int:
    if name in dims:
        return dims[name]
    if name.isdigit():
        return int(name)
    addends = _SUM.split(name)
    if len(addends) > 1:
        return sum(_default(addend, False, dims, names) for addend in addends)
    lowered = name.lower()
    if "past" in lowered:
        return DEFAULT_PAST
    if "total" in lowered:
        others = [n for n in names if "past" in n.lower() or ("seq" in n.lower() and "total" not in n.lower())]
        return sum(_default(n, False, dims, set()) for n in others) if others else DEFAULT_LENGTH
    return DEFAULT_BATCH if first or "batch" in lowered else DEFAULT_LENGTH


def _shape(spec: InputSpec, bound: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else bound[dim] for dim in spec.dims)


def _values(spec: InputSpec, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    dtype = spec.dtype.numpy()
    if spec.role is Role.INDEX:
        return generator.integers(0, max(spec.rows or 1, 1), shape).astype(dtype)
    if spec.role is Role.POSITION:
        positions = np.arange(shape[-1] if shape else 1) % (spec.rows or 1 << 31)
        return np.broadcast_to(positions[: shape[-1]] if shape else positions[0], shape).astype(dtype)
    if spec.role in {Role.MASK, Role.FLAG}:
        return np.ones(shape, dtype)
    if spec.role is Role.COUNT:
        return np.full(shape, _COUNT, dtype)
    return generator.standard_normal(shape).astype(dtype)


def _read(inputs: str | os.PathLike[str] | Mapping[str, Array], specs: tuple[InputSpec, ...]) -> dict[str, Array]:
    if isinstance(inputs, Mapping):
        return {name: np.asarray(array) for name, array in inputs.items()}
    path = Path(inputs)
    if path.is_dir():
        return _read_folder(path, specs)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidInput(f"expected an .npz file or a folder with input_0.pb, got {path}: {error}") from error


def _read_folder(path: Path, specs: tuple[InputSpec, ...]) -> dict[str, Array]:
    """ONNX backend test data: one TensorProto per file, named after its input or else in the inputs' order."""
    files = sorted(path.glob("input_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
    if len(files) != len(specs):
        raise InvalidInput(f"expected {len(specs)} files input_0.pb, ... in {path}, found {len(files)}")
    names = {spec.name for spec in specs}
    arrays: dict[str, Array] = {}
    for file, spec in zip(files, specs, strict=True):
        tensor = onnx.load_tensor(str(file))
        name = tensor.name if tensor.name in names else spec.name
        arrays[name] = ir.serde.deserialize_tensor(tensor).numpy()
    return arrays


def _check(arrays: dict[str, Array], specs: tuple[InputSpec, ...]) -> dict[str, int]:
    """Compare names, dtypes and shapes with the model; returns the free dimensions' values and fixes bfloat16."""
    expected = {spec.name for spec in specs}
    if expected != arrays.keys():
        missing, extra = sorted(expected - arrays.keys()), sorted(arrays.keys() - expected)
        raise InvalidInput(f"expected inputs {sorted(expected)}; missing {missing}, not in the model {extra}")
    bound: dict[str, int] = {}
    for spec in specs:
        array = arrays[spec.name]
        wanted = spec.dtype.numpy()
        if array.dtype == np.dtype("V2") and spec.dtype == ir.DataType.BFLOAT16:
            # numpy's file format knows no bfloat16 and stores two opaque bytes.
            array = arrays[spec.name] = array.view(wanted)
        if array.dtype != wanted:
            raise InvalidInput(f"input {spec.name}: expected {wanted}, got {array.dtype}")
        fits = len(array.shape) == len(spec.dims) and all(
            size == (dim if isinstance(dim, int) else bound.setdefault(dim, size))
            for size, dim in zip(array.shape, spec.dims, strict=True)
        )
        if not fits:
            raise InvalidInput(f"input {spec.name}: expected shape {spec.dims} with {bound}, got {array.shape}")
    return bound
