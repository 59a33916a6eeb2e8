"""The command line, called as a user types it: in this process, where a call costs no start of Python."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from rmsnorm_onnx import cli

#: Where no source tree shadows the installed package.
TESTS = Path(__file__).parent
Done = subprocess.CompletedProcess


def run(*arguments: object, code: int = 0) -> Done[str]:
    """What the command prints; an error that it does not turn into an exit code is raised."""
    texts = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main(texts)
    return _checked(Done(texts, ended.value.code or 0, out.getvalue(), err.getvalue()), code)


def run_process(*arguments: object, code: int = 0) -> Done[str]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "rmsnorm_onnx", *map(str, arguments)]
    return _checked(subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS), code)


def _checked(done: Done[str], code: int) -> Done[str]:
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done
