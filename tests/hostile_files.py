"""Folders with a model whose file, or whose data files, are not what they should be, and the reason to be given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from changed_models import norm_model, tensor_of
from google.protobuf import text_format
from onnx import TensorProto

SCALE: Final = np.arange(1, 9, dtype=np.float32).tobytes()
#: Puts a model into a folder that has room beside it, and gives its path.
Build: TypeAlias = Callable[[Path], Path]


def external(
    prepare: Callable[[Path], object] = lambda folder: None,
    *,
    weights: bytes = SCALE,
    name: str = "scale",
    **where: object,
) -> Build:
    """A tensor's data is in another file, as ``where`` says; w.bin holds ``weights``."""

    def build(folder: Path) -> Path:
        (folder / "w.bin").write_bytes(weights)
        prepare(folder)
        return write(folder, refer(norm_model(), name, **where).SerializeToString())

    return build


def refer(model, name: str, **where: object):
    tensor = tensor_of(model, name)
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in where.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return path


def content(data: bytes) -> Build:
    return lambda folder: write(folder, data)


def made_by(make: Callable[[Path], object]) -> Build:
    """What stands where the model should be."""

    def build(folder: Path) -> Path:
        make(folder / "model.onnx")
        return folder / "model.onnx"

    return build


def hugging_face_cache(folder: Path) -> Path:
    """Model and weights are links into one folder beside theirs."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    model = refer(norm_model(), "scale", location="model.onnx_data", offset=0, length=32)
    refer(model, "epsilon", location="model.onnx_data", offset=32, length=4)
    (blobs / "aa").write_bytes(model.SerializeToString())
    (blobs / "bb").write_bytes(SCALE + np.float32(1e-5).tobytes())
    for name, blob in (("model.onnx", "aa"), ("model.onnx_data", "bb")):
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot / "model.onnx"


def _weights_outside(folder: Path) -> None:
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside" / "w.bin").write_bytes(SCALE)
    (folder.parent / "w.bin").write_bytes(SCALE)
    (folder / "inner").mkdir()
    (folder / "link.bin").symlink_to("../w.bin")
    (folder / "link").symlink_to("../outside")
    (folder / "loop").symlink_to("loop")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")


def _inner(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "w.bin").write_bytes(SCALE)
    (folder / "link.bin").symlink_to("inner/w.bin")


def _twice(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(SCALE)
    model = refer(norm_model(), "scale", location="w.bin")
    tensor_of(model).external_data.add(key="location", value="../w.bin")
    return write(folder, model.SerializeToString())


def _both_places(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(SCALE)
    model = refer(norm_model(), "scale", location="w.bin")
    tensor_of(model).raw_data = SCALE
    return write(folder, model.SerializeToString())


def _sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(norm_model().SerializeToString())
        os.truncate(path, size)

    return make


_MODEL: Final = norm_model().SerializeToString()
_OUTSIDE: Final = "outside the model's folder"
_UP: Final = "is absolute, or goes up"
_NOT_A_MODEL: Final = "does not hold an ONNX model|no graph with outputs|IR versions|is given by nothing|cannot be read"

REFUSED: Final[dict[str, tuple[Build, str]]] = {
    # Where the data is said to be.
    "parent": (external(_weights_outside, location="../w.bin"), f"'scale' of graph 'g'.*'../w.bin' {_UP}"),
    "absolute": (external(location="/etc/passwd"), f"'/etc/passwd' {_UP}"),
    "parent of a folder": (external(_weights_outside, location="inner/../../w.bin"), _UP),
    "link": (external(_weights_outside, location="link.bin"), f"'link.bin' is a link to .*, {_OUTSIDE}"),
    "linked folder": (external(_weights_outside, location="link/w.bin"), f"is a link to .*, {_OUTSIDE}"),
    "parent of a linked folder": (external(_weights_outside, location="link/../w.bin"), _UP),
    "there and back": (external(_inner, location="inner/../w.bin"), _UP),
    "link to itself": (external(_weights_outside, location="loop"), "'loop' cannot be found"),
    "device": (external(_weights_outside, location="zero"), f"is a link to '/dev/zero', {_OUTSIDE}"),
    "pipe": (external(_weights_outside, location="pipe"), "'pipe' is not a regular file"),
    "epsilon in a pipe": (external(_weights_outside, location="pipe", name="epsilon"), "'epsilon'.*not a regular file"),
    "folder": (external(_weights_outside, location="inner"), "'inner' is not a regular file"),
    "the model's folder": (external(location="."), "'.' is not a regular file"),
    "empty name": (external(location=""), "'' has no name that a file can have"),
    "no name": (external(), "'' has no name that a file can have"),
    "name with a zero byte": (external(location="w\0.bin"), r"'w\\x00.bin' has no name"),
    "name too long": (external(location="w" * 5000), r"'w{79}\.\.\.' cannot be found: File name too long"),
    "missing": (external(location="v.bin"), "'v.bin' cannot be found: No such file"),
    "two names": (_twice, "more than one location"),
    "data here and there": (_both_places, "said to be in another file, but there is raw_data"),
    # Which part of the file it is said to be.
    **{
        f"{key} {value[:9]}": (external(location="w.bin", **{key: value}), f"the {key} of its data is not a number")
        for key in ("offset", "length")
        for value in ("-4", "abc", "1e1", "\uff13\uff12", "", "9" * 5000, str(2**64))
    },
    "file too short": (external(weights=SCALE[:16], location="w.bin"), "bytes 0 to 32 of 'w.bin', which has 16"),
    "file empty": (external(weights=b"", location="w.bin"), "bytes 0 to 32 of 'w.bin', which has 0"),
    "offset too large": (external(location="w.bin", offset=1), "bytes 1 to 33 of 'w.bin', which has 32"),
    "offset far beyond": (external(location="w.bin", offset=10**18), "of 'w.bin', which has 32"),
    "length too small": (external(location="w.bin", length=16), "take 32 bytes, and 'w.bin' is said to hold 16"),
    "length too large": (external(weights=SCALE * 2, location="w.bin", length=64), "take 32 bytes.*hold 64"),
    # What the model's own file holds.
    "empty": (content(b""), _NOT_A_MODEL),
    "JSON": (content(b'{"irVersion": 8}'), "does not hold an ONNX model"),
    "text": (content(b"hello\n" * 10), "does not hold an ONNX model"),
    "text form": (content(text_format.MessageToString(norm_model()).encode()), "does not hold an ONNX model"),
    "web page": (content(b"<!doctype html><html>Not Found</html>"), "does not hold an ONNX model"),
    "ZIP": (content(b"PK\x03\x04" + bytes(100)), "does not hold an ONNX model"),
    "ELF": (content(b"\x7fELF\x02\x01\x01" + bytes(100)), "does not hold an ONNX model"),
    "pickle": (content(b"\x80\x04\x95" + bytes(100)), "does not hold an ONNX model"),
    "zeros": (content(bytes(1000)), "does not hold an ONNX model"),
    "ones": (content(b"\xff" * 1000), "does not hold an ONNX model"),
    "random": (content(np.random.default_rng(0).bytes(5000)), "does not hold an ONNX model"),
    "LFS pointer": (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "git lfs pull"),
    "graph": (content(norm_model().graph.SerializeToString()), _NOT_A_MODEL),
    "tensor": (content(tensor_of(norm_model()).SerializeToString()), _NOT_A_MODEL),
    **{f"first {n} bytes": (content(_MODEL[:n]), _NOT_A_MODEL) for n in range(1, len(_MODEL) - 4, 13)},
    # What stands in its place.
    "nothing": (made_by(lambda path: None), "no model file"),
    "a folder": (made_by(Path.mkdir), "no model file"),
    "a pipe": (made_by(os.mkfifo), "no model file"),
    "an endless device": (made_by(lambda path: path.symlink_to("/dev/zero")), "no model file"),
    "a model of 3 GB": (made_by(_sparse(3 << 30)), "3,221,225,472 bytes, and a model at most 2 GB"),
    "a model of 1 TB": (made_by(_sparse(1 << 40)), "1,099,511,627,776 bytes, and a model at most 2 GB"),
}


def _overlap(*ranges: tuple[str, int, int]) -> Build:
    def build(folder: Path) -> Path:
        (folder / "w.bin").write_bytes(SCALE * 2)
        model = norm_model()
        for name, offset, length in ranges:
            refer(model, name, location="w.bin", offset=offset, length=length)
        return write(folder, model.SerializeToString())

    return build


def _hard_link(folder: Path) -> None:
    os.link(folder / "w.bin", folder / "link.bin")


#: What onnxruntime loads as well, and so has to be fused.
ACCEPTED: Final[dict[str, Build]] = {
    "beside": external(location="w.bin", offset=0, length=32),
    "no length": external(weights=SCALE * 2, location="w.bin"),
    "length zero": external(location="w.bin", length=0),
    "inner folder": external(_inner, location="inner/w.bin"),
    "link inside": external(_inner, location="link.bin"),
    "hard link": external(_hard_link, location="link.bin"),
    "epsilon behind a hard link": external(_hard_link, name="epsilon", location="link.bin", length=4),
    "same bytes": _overlap(("scale", 0, 32), ("epsilon", 0, 4)),
    "bytes that overlap": _overlap(("scale", 0, 32), ("epsilon", 30, 4)),
}
