"""Progress shows on a terminal and nowhere else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from command import TESTS, run
from exports import MODELS

from rmsnorm_onnx import cli
from rmsnorm_onnx.progress import on_terminal

NORM = MODELS / "torch-rmsnorm-dynamo18-f32" / "model.onnx"


class Terminal(io.StringIO):
    """Collects what is written, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_bar_shows_what_is_done_and_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(Terminal()) as shown, on_terminal() as progress:
        progress("reading [red]x[/red]", 1, 3)
        progress("writing", 2, 3)
    text = shown.getvalue()
    assert "reading [red]x[/red]" in text
    assert "1/3" in text
    assert "2/3" in text
    # The last thing is to erase the line and to show the cursor again.
    assert text.rindex("\x1b[2K") > text.rindex("writing")
    assert "\x1b[?25h" in text


def test_the_cursor_is_back_after_an_error(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(Terminal()) as shown, contextlib.suppress(ValueError), on_terminal() as progress:
        progress("reading", 1, 3)
        raise ValueError("wrong")
    assert shown.getvalue().rindex("\x1b[?25h") > shown.getvalue().rindex("reading")


def test_nothing_shows_where_nobody_watches():
    with redirect_stderr(io.StringIO()) as shown, on_terminal() as progress:
        progress("reading", 1, 3)
    assert shown.getvalue() == ""


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (("optimize", NORM), "finding and fusing norms"),
        (("benchmark", "model", NORM, "--seconds", "0.01", "--threads", "1"), "profiling"),
    ],
)
def test_long_commands_say_what_they_do(arguments, step, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(Terminal()) as shown, redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main([str(argument) for argument in arguments])
    assert step in shown.getvalue()


def test_a_real_terminal_shows_steps_and_a_pipe_gets_one_json_document():
    arguments = ("verify", NORM, NORM, "--json")
    ours, theirs = os.openpty()
    line = [sys.executable, "-m", "rmsnorm_onnx", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=theirs, cwd=TESTS, env=environment) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: _read(ours), b""))
        out = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0, shown
    assert b"float64" in shown
    assert json.loads(out)["ok"]
    assert run(*arguments).stderr == ""


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when the other end is closed
        return b""
