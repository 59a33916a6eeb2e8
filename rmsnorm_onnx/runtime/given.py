"""Inputs that are given: arrays by name, .npz files, ONNX test data folders."""

from __future__ import annotations

import difflib
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.runtime.inputs import InputSpec

Array = npt.NDArray[Any]
Given: TypeAlias = str | os.PathLike[str] | Mapping[str, Array]

_BFLOAT16: Final = np.dtype(ml_dtypes.bfloat16)
_INPUT_FILE: Final = re.compile(r"input_([0-9]{1,6})\.pb")
_SETS: Final = re.compile(r"test_data_set_([0-9]{1,9})")
#: DEFLATE makes at most 1032 bytes of one (zlib's own documentation); numpy knows no other compression.
_DEFLATE_RATIO: Final = 1032
_METHODS: Final = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE_RATIO}
#: Parsers quote what they refuse, whatever its size.
_LONGEST_REASON: Final = 300


def read(inputs: Given | Sequence[Given], specs: Sequence[InputSpec]) -> Iterator[tuple[str, dict[str, Array]]]:
    """Name and arrays of each set, in the model's own types; nothing is compared with the model but names of files.

    Raises:
        InvalidInput: a file that is missing, broken or of another kind.
    """
    if isinstance(inputs, Mapping):
        yield "given", {name: np.asarray(array) for name, array in inputs.items()}
    elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
        if not inputs:
            raise InvalidInput("expected at least one set of inputs, got none")
        for one in inputs:
            yield from read(one, specs)
    else:
        path = Path(inputs)
        if not path.is_dir():
            if not path.is_file():  # a pipe would keep the reader waiting
                raise InvalidInput(f"expected an .npz file or a folder of test data, got {path}: no such file")
            yield path.name, read_archive(path)
            return
        numbered = [(int(match[1]), entry) for entry in path.iterdir() if (match := _SETS.fullmatch(entry.name))]
        folders = [entry for _, entry in sorted(numbered)] or [path]
        for folder in folders:
            yield folder.resolve().name, read_folder(folder, specs)


def read_archive(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file; sizes are compared with the file's before anything is allocated.

    Raises:
        InvalidInput: no such file, not an .npz file, truncated, pickled, or claiming more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in arrays or name == member.filename:
                    raise InvalidInput(f"{path}: {member.filename} stands twice or is no array")
                arrays[name] = _member(path, archive, member)
    except InvalidInput:
        raise
    except Exception as error:  # zipfile, zlib and numpy's header parser raise a dozen classes without a common base
        raise InvalidInput(
            f"expected an .npz file or a folder with input_0.pb, got {path}: {_reason(error)}"
        ) from error
    return arrays


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    ratio = _METHODS.get(member.compress_type, 0)
    if member.compress_size > path.stat().st_size or member.file_size > ratio * member.compress_size:
        raise ValueError(f"{member.filename} claims {member.file_size} bytes that the file cannot hold")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in header:
            raise ValueError(f"{member.filename} is of numpy's file format {version}, expected (1, 0) or (2, 0)")
        shape, _, dtype = header[version](stream)
        if any(size < 0 for size in shape) or prod(shape) * dtype.itemsize != member.file_size - stream.tell():
            raise ValueError(f"{member.filename} claims shape {shape} of {dtype}, but holds another number of bytes")
    with archive.open(member) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def read_folder(path: Path, specs: Sequence[InputSpec]) -> dict[str, Array]:
    """ONNX backend test data: one TensorProto per file, named after its input or else in the inputs' order.

    Raises:
        InvalidInput: another number of files than inputs, or a broken file.
    """
    numbered = [(int(match[1]), entry) for entry in path.iterdir() if (match := _INPUT_FILE.fullmatch(entry.name))]
    files = [entry for _, entry in sorted(numbered)]
    if len(files) != len(specs):
        raise InvalidInput(f"expected {len(specs)} files input_0.pb, ... in {path}, found {len(files)}")
    names = {spec.name for spec in specs}
    arrays: dict[str, Array] = {}
    for file, spec in zip(files, specs, strict=True):
        name, array = _tensor(file)
        arrays[name if name in names else spec.name] = array
    return arrays


def _tensor(file: Path) -> tuple[str, Array]:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ValueError("its data are in another file, expected them inside")
        array: Array = ir.serde.deserialize_tensor(tensor).numpy()
        if array.shape != tuple(tensor.dims):
            raise ValueError(f"it claims shape {list(tensor.dims)} and holds {list(array.shape)}")
    except Exception as error:  # protobuf, onnx_ir and numpy: as above
        raise InvalidInput(f"expected an ONNX tensor in {file}: {_reason(error)}") from error
    return tensor.name, array


def _reason(error: Exception) -> str:
    return f"{error.__cause__ or error}"[:_LONGEST_REASON] or type(error).__name__


def fit(arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> tuple[dict[str, Array], dict[str, int]]:
    """The arrays in the model's order and types, and the value of each free dimension.

    bfloat16, which numpy's files cannot hold, may come as two opaque bytes, as uint16 (its bits), or as float32 whose
    values bfloat16 can hold; every other type must be the model's own.

    Raises:
        InvalidInput: names, types or shapes do not fit.
    """
    _check_names(set(arrays), [spec.name for spec in specs])
    bound: dict[str, int] = {}
    fitted = {spec.name: _typed(spec, arrays[spec.name]) for spec in specs}
    for spec in specs:
        shape = fitted[spec.name].shape
        fits = not spec.rank_known or len(shape) == len(spec.dims)
        pairs = zip(spec.dims, shape, strict=True) if len(shape) == len(spec.dims) else ()
        if not fits or any(size != (d if isinstance(d, int) else bound.setdefault(d, size)) for d, size in pairs):
            known = {dim: bound[dim] for dim in spec.dims if isinstance(dim, str) and dim in bound}
            told = ", ".join(f"{name} = {value}" for name, value in known.items())
            expected = f"{list(spec.dims)}" + (f" with {told}" if told else "")
            raise InvalidInput(f"input {spec.name}: expected shape {expected}, got {list(shape)}")
    return fitted, bound


def _check_names(given: set[str], expected: Sequence[str]) -> None:
    if given == set(expected):
        return
    missing, extra = sorted(set(expected) - given), sorted(given - set(expected))
    close = [(name, difflib.get_close_matches(name, missing, 1)) for name in extra]
    hints = "".join(f"; did you mean {match[0]} by {name}?" for name, match in close if match)
    raise InvalidInput(f"expected inputs {sorted(expected)}; missing {missing}, not in the model {extra}{hints}")


def _typed(spec: InputSpec, array: Array) -> Array:
    wanted = np.dtype(spec.dtype.numpy())
    if array.dtype == wanted:
        return array
    if wanted == _BFLOAT16:
        if array.dtype in (np.dtype("V2"), np.dtype(np.uint16)):
            return array.view(wanted)
        if array.dtype == np.float32:
            rounded = array.astype(wanted)
            if np.array_equal(rounded.astype(np.float32), array, equal_nan=True):
                return rounded
            raise InvalidInput(f"input {spec.name}: bfloat16 cannot hold these float32 values; round them first")
    raise InvalidInput(f"input {spec.name}: expected {wanted}, got {array.dtype}")
