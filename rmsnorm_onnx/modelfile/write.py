"""Writing a model: complete with its weights, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir
from google.protobuf.message import EncodeError

from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.files import AppearTogether
from rmsnorm_onnx.modelfile import read
from rmsnorm_onnx.modelfile.weights import external_tensors


def save(
    model: ir.Model, path: str | os.PathLike[str], source: str | os.PathLike[str], *, copy_weights: bool = False
) -> None:
    """Write ``model``, loaded from ``source``, to ``path``: all of it or nothing, whenever it is interrupted.

    External weights are not read. In the source's folder the output refers to the same data file; in another
    folder it needs a copy of it, under the same relative name. Copies appear before the model, so that a model
    never refers to weights that are not there.

    Args:
        model: what to write.
        path: where to write it; a symbolic link is followed.
        source: the file it was loaded from.
        copy_weights: copy data files that the output cannot refer to.

    Raises:
        InvalidInput: ``path`` is the source itself or one of its data files, its folder is missing, data files
            would have to be copied and that was not asked for, one is missing or a different file is in its way,
            or the model is larger than protobuf's 2 GB.
        OSError: the disk is full, or the folder not writable. In both cases nothing is written.
    """
    target, origin = Path(os.path.realpath(path)), Path(source)
    if not target.parent.is_dir():
        raise InvalidInput(f"the folder of {path} does not exist; create it first")
    locations = sorted({os.fspath(tensor.location) for tensor in external_tensors(model)})
    for location in locations:
        if not (origin.parent / location).is_file():
            raise InvalidInput(f"the model's data file {origin.parent / location} is missing")
    for file in (origin, *(folder / location for folder in (origin.parent, target.parent) for location in locations)):
        if _is_same(target, file) or target == Path(os.path.realpath(file)):
            what = "input" if file == origin else "model's data file"
            raise InvalidInput(f"the output {path} is the {what}; give another name, the input is never changed")
    for location in locations:
        if _is_same(target.parent / location, origin.parent / location) and _leaves(
            target.parent / location, target.parent
        ):
            raise InvalidInput(
                f"{location}, the data file in the folder of {path}, is a link that leaves it, as in Hugging Face's "
                "cache; an output there could not follow it: write to another folder, with --copy-weights"
            )
    elsewhere = [at for at in locations if not _is_same(target.parent / at, origin.parent / at)]
    if elsewhere and not copy_weights:
        raise InvalidInput(
            f"the weights of {source} are in {', '.join(elsewhere)} beside it, and {path} in another folder would need "
            "copies: onnx and onnx_ir refuse data files behind hard or symbolic links. Write the output to "
            f"{origin.parent}, or copy the weights with --copy-weights"
        )
    for location in elsewhere:
        if os.path.lexists(target.parent / location):
            raise InvalidInput(
                f"{target.parent / location} exists and is not the model's data file {origin.parent / location}; "
                "choose another folder"
            )
    data = _serialize(model, path)
    with AppearTogether() as files:
        for location in elsewhere:
            # Measured with onnx 1.23 and onnx_ir 1.1: no link to a data file is followed, so only a copy will do.
            files.copy(origin.parent / location, target.parent / location)
        files.write(target, data)


def _serialize(model: ir.Model, path: str | os.PathLike[str]) -> bytes:
    try:
        data: bytes = ir.to_proto(model).SerializeToString()
    except (EncodeError, ValueError) as error:
        raise InvalidInput(f"{path} would be larger than protobuf allows (2 GB): {error}") from error
    if len(data) > read.LARGEST:
        raise InvalidInput(f"{path} would have {len(data):,} bytes, and protobuf allows 2 GB: move weights to a file")
    return data


def _leaves(file: Path, folder: Path) -> bool:
    """Whether a file in ``folder``, with links followed, is outside."""
    root = os.path.realpath(folder)
    return os.path.commonpath((os.path.realpath(file), root)) != root


def _is_same(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
