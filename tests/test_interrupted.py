"""Writing that is cut short: the old file stays, byte for byte, and nothing else is left."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import interrupted
import pytest
from command import run
from test_modelfile import ENVIRONMENT

from rmsnorm_onnx import files

SCRIPT = Path(interrupted.__file__)


def files_under(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system has no files without a name")
def test_a_killed_process_leaves_the_old_files():
    command = [sys.executable, str(SCRIPT), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Weights get their name first, so that there is one call between theirs and the model's.
    assert found["every call, new"].keys() == {"old", "old and weights", "new"}
    assert found["every call, new"]["old and weights"] == 1
    # No call replaces a file by one without a name: for one call it has a second.
    assert found["every call, replaced"].keys() == {"old", "old and weights", "litter", "new"}
    assert found["every call, replaced"]["litter"] == 1


@pytest.fixture(params=["unnamed", "named"])
def _kind_of_draft(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of temporary files, as some file systems have no unnamed ones."""
    if request.param == "named":
        monkeypatch.setattr(files, "_UNNAMED", None)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("blocks", [0, 1, 5])
@pytest.mark.usefixtures("_kind_of_draft")
def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch, blocks, old):
    command = interrupted.prepare(tmp_path, weights=20 << 20, old=old)
    before = files_under(tmp_path)
    real, left = os.write, [blocks]

    def write(descriptor: int, data: memoryview) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return real(descriptor, data[: 3 << 20])

    monkeypatch.setattr(os, "write", write)
    error = run(*command, code=2).stderr
    assert "No space left on device" in error
    assert str(tmp_path / "out") in error
    assert files_under(tmp_path) == before


#: Limits the size of files, so that the system itself refuses to write on.
LIMITED = """
import resource, sys
from rmsnorm_onnx import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, 10 << 20))
cli.main(sys.argv[1:])
"""


def test_a_limit_of_the_system_leaves_the_old_files(tmp_path):
    command = interrupted.prepare(tmp_path, weights=20 << 20, old=True)
    before = files_under(tmp_path)
    started = [sys.executable, "-c", LIMITED, *command]
    done = subprocess.run(started, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (2, f"error: File too large: {tmp_path / 'out' / 'data' / 'w.bin'}\n")
    assert files_under(tmp_path) == before


@pytest.mark.parametrize("call", ["fsync", "link", "replace", "chmod"])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.usefixtures("_kind_of_draft")
def test_a_call_that_fails_leaves_the_old_files(tmp_path, monkeypatch, call, old):
    command = interrupted.prepare(tmp_path, weights=1 << 16, old=old)
    before = files_under(tmp_path)
    # The last time that it is called: what had been done by then has to be undone.
    for times in range(10):
        left, real = [times], getattr(os, call)

        def fail(*arguments, left=left, real=real, **named):
            if left[0] == 0:
                raise OSError(errno.EIO, "Input/output error")
            left[0] -= 1
            return real(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            try:
                run(*command, code=2)
            except AssertionError:
                break
        assert files_under(tmp_path) == before
    assert (tmp_path / "out" / "data" / "w.bin").stat().st_size == 1 << 16


@pytest.mark.usefixtures("_kind_of_draft")
def test_permissions_are_those_of_any_new_file(tmp_path):
    command = interrupted.prepare(tmp_path, weights=1 << 16, old=False)
    mask = os.umask(0o027)
    try:
        run(*command)
    finally:
        os.umask(mask)
    for name in ("fused.onnx", "data/w.bin"):
        assert stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) == 0o640


def test_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    for name, old in (("there", "old"), ("dangling", None)):
        target, link = tmp_path / "real" / name, tmp_path / name
        if old:
            target.write_text(old)
        link.symlink_to(target)
        files.write_atomically(link, "new")
        assert link.is_symlink()
        assert target.read_text() == "new"
    assert len(files_under(tmp_path)) == 5


def test_pipes_and_devices_are_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    files.write_atomically(pipe, "through the pipe")
    reader.join()
    assert read == ["through the pipe"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    files.write_atomically(os.devnull, "x")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_folder_in_the_way_stays(tmp_path):
    command = interrupted.prepare(tmp_path, weights=1 << 16, old=False)
    (tmp_path / "out" / "fused.onnx").mkdir()
    before = files_under(tmp_path)
    assert "is a folder" in run(*command, code=2).stderr
    assert files_under(tmp_path) == before


#: Gives up what root may do, if it has it, in a folder that the user after that does not own.
AS_ANYONE = """
import os, sys
from rmsnorm_onnx.files import write_atomically
if os.getuid() == 0:
    os.setuid(65534)
try:
    write_atomically(sys.argv[1], "new")
except PermissionError as error:
    print(error.filename)
"""


@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o555, 0o666), (0o777, 0o444)])
def test_protected_files_stay(folder_mode, file_mode):
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "report").write_text("old")
        (folder / "report").chmod(file_mode)
        folder.chmod(folder_mode)
        command = [sys.executable, "-c", AS_ANYONE, str(folder / "report")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(made)
        assert files_under(folder) == {"report": b"old"}
        folder.chmod(0o700)
