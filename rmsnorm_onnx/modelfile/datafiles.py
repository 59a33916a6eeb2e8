"""Data files beside a model: inside its folder, regular, and as long as the tensors say; only their sizes are read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import onnx

from rmsnorm_onnx.modelfile.flaw import Flaw, Place, flaw, shown

#: Digits of the largest 64-bit number.
_DIGITS: Final = 19


class DataFiles:
    """The data files of one model.

    Which files a model may refer to is onnxruntime's rule (1.25): a relative path, here without "..", whose file,
    with all links followed, is inside the model's folder, or inside the folder that the model file itself is a link
    into. The second holds in Hugging Face's cache, where models and weights are links into one folder.

    Ranges of one file may overlap, as onnxruntime and onnx's checker allow: data is only ever read, and tensors
    that are tied share theirs.
    """

    def __init__(self, model: Path | None) -> None:
        """Of the model in this file; of one without a file, paths are checked but not looked for."""
        self._model = model
        self._roots: tuple[str, ...] = ()
        if model is not None:
            self._roots = (os.path.realpath(model.parent), os.path.dirname(os.path.realpath(model)))
        self._found: dict[str, tuple[int | None, bool]] = {}

    def check(self, entries: Iterable[onnx.StringStringEntryProto], needed: int, place: Place) -> None:
        """Raise a Flaw unless ``entries`` say where ``needed`` bytes are."""
        given = [(entry.key, entry.value) for entry in entries]
        known = dict(given)
        for key in ("location", "offset", "length"):
            if sum(name == key for name, _ in given) > 1:
                raise flaw(place, f"its data has more than one {key}")
        location = known.get("location", "")
        try:
            if location not in self._found:
                self._found[location] = self._find(location)
        except Flaw as reason:
            raise flaw(place, f"its data file {shown(location)} {reason}") from None
        size, _ = self._found[location]
        offset, length = (_number(known.get(key, "0"), key, place) for key in ("offset", "length"))
        # onnxruntime takes a length of 0 as none.
        if length not in {0, needed}:
            raise flaw(place, f"its shape and type take {needed} bytes, and {shown(location)} is said to hold {length}")
        if size is not None and offset + needed > size:
            raise flaw(
                place,
                f"its data would be bytes {offset} to {offset + needed} of {shown(location)}, which has {size}; "
                "the file is cut short, or another one",
            )

    def linked(self, location: str) -> bool:
        """Whether a file that was checked is a link that leaves the folder, or has several names."""
        return self._found[location][1]

    def _find(self, location: str) -> tuple[int | None, bool]:
        """Its size, and whether it is linked."""
        if not location or "\0" in location:
            raise Flaw("has no name that a file can have")
        if os.path.isabs(location) or os.pardir in Path(location).parts:
            raise Flaw("is absolute, or goes up: it has to be inside the model's folder")
        if self._model is None:
            return None, False
        try:
            path = os.path.realpath(self._model.parent / location)
            if not any(_inside(path, root) for root in self._roots):
                raise Flaw(f"is a link to {shown(path)}, outside the model's folder")
            found = os.stat(path)
        except OSError as error:
            raise Flaw(f"cannot be found: {error.strerror}") from None
        if not stat.S_ISREG(found.st_mode):
            raise Flaw("is not a regular file")
        return found.st_size, found.st_nlink > 1 or not _inside(path, self._roots[0])


def _inside(path: str, root: str) -> bool:
    return os.path.commonpath((path, root)) == root


def _number(text: str, key: str, place: Place) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise flaw(place, f"the {key} of its data is not a number of bytes: {shown(text)}")
    return int(text)
