"""Writing files so that an interruption at any moment leaves the old ones as they were, and nothing else."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

#: Linux: a file without a name, which is gone with the process that dies before it gets one.
_UNNAMED: Final[int | None] = getattr(os, "O_TMPFILE", None)
_DESCRIPTORS: Final = Path("/proc/self/fd")
_BLOCK: Final = 1 << 22


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path``: readers see the old file or the new one, never a part.

    Permissions are those a plain ``open`` would give, and a symbolic link is followed. What is no regular file (a
    pipe, a terminal, /dev/null) is written to as it is.

    Raises:
        OSError: the disk is full, the folder is missing or not writable, or the old file is write-protected; ``path``
            is untouched and nothing is left behind.
    """
    with AppearTogether() as files:
        files.write(path, content)


class AppearTogether:
    """Files that get their names when all of them are complete and on the disk, in the order they were given.

    On Linux (ext4, xfs, btrfs, tmpfs) they have none until then, so that a process that is killed leaves nothing.
    The window that remains is between two names: a file that is replaced has a second one for two system calls.
    """

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []

    def __enter__(self) -> AppearTogether:
        return self

    def write(self, path: str | os.PathLike[str], content: str | bytes) -> None:
        """Give ``path`` this content, text as UTF-8."""
        data = content.encode() if isinstance(content, str) else content
        if Path(path).exists() and not Path(path).is_file():
            Path(path).write_bytes(data)
        else:
            self._add(path, [data], make_folder=False)

    def copy(self, source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
        """Give ``path`` the content of ``source``, and make its folder if need be."""
        self._add(path, _blocks(source), make_folder=True)

    def _add(self, path: str | os.PathLike[str], blocks: Iterable[bytes], *, make_folder: bool) -> None:
        draft = _Draft(Path(os.path.realpath(path)), make_folder=make_folder)
        self._drafts.append(draft)
        draft.fill(blocks)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                for draft in self._drafts:
                    draft.appear()
                for draft in self._drafts:
                    draft.keep()
        finally:
            for draft in reversed(self._drafts):
                draft.discard()


class _Draft:
    """One file on its way to its name; until it is kept, discarding it undoes everything."""

    def __init__(self, target: Path, *, make_folder: bool) -> None:
        self._target = target
        self._old_mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        if self._old_mode is not None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the old file is write-protected", str(target))
        self._folder = target.parent
        while make_folder and not self._folder.exists():
            self._folder = self._folder.parent
        #: What is to be removed again: the name that the file has, if any, and folders.
        self._name: Path | None = None
        self._made: list[Path] = []
        self._file = self._open()

    def _open(self) -> int:
        if _UNNAMED is not None and _DESCRIPTORS.is_dir():
            with suppress(OSError):  # a file system without them (NFS); any other reason comes again below
                return os.open(self._folder, _UNNAMED | os.O_WRONLY, 0o666)
        self._name = self._temporary()
        return os.open(self._name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)

    def _temporary(self) -> Path:
        return self._folder / f".{secrets.token_hex(8)}.tmp"

    def fill(self, blocks: Iterable[bytes]) -> None:
        """Write, and wait until the disk has it."""
        try:
            for block in blocks:
                view = memoryview(block)
                while view:
                    view = view[os.write(self._file, view) :]
            if self._old_mode is not None:
                os.chmod(self._file, self._old_mode)
            os.fsync(self._file)
        except OSError as error:
            error.filename = error.filename or str(self._target)
            raise

    def appear(self) -> None:
        """Give the file its name."""
        for folder in reversed([f for f in self._target.parents if not f.exists()]):
            folder.mkdir()
            self._made.append(folder)
        if self._name is None and self._old_mode is None:
            self._link(self._target)
        else:
            if self._name is None:
                # No call replaces a file by one without a name.
                name = self._temporary()
                self._link(name)
                self._name = name
            os.replace(self._name, self._target)
        self._name = self._target if self._old_mode is None else None

    def _link(self, name: Path) -> None:
        # Only with a descriptor does Python call linkat, which follows the link that stands for the file.
        os.link(_DESCRIPTORS / str(self._file), name, src_dir_fd=self._file, follow_symlinks=True)

    def keep(self) -> None:
        """From here on, nothing is undone."""
        self._name = None
        self._made.clear()
        if hasattr(os, "O_DIRECTORY"):
            with suppress(OSError):  # the name is there; a file system that cannot wait for it is no failure
                folder = os.open(self._target.parent, os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)

    def discard(self) -> None:
        """Close, and remove what was not kept."""
        os.close(self._file)
        if self._name is not None:
            self._name.unlink(missing_ok=True)
        for folder in reversed(self._made):
            with suppress(OSError):  # someone else uses it by now
                folder.rmdir()


def _blocks(source: str | os.PathLike[str]) -> Iterator[bytes]:
    with open(source, "rb") as file:
        while block := file.read(_BLOCK):
            yield block
