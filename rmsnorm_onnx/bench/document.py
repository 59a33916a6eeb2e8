"""Measures anew what a Markdown page shows: python -m rmsnorm_onnx.bench.document docs/benchmarks.md [PART].

The page says itself what to run: between ``<!-- benchmark ARGUMENTS -->`` and ``<!-- /benchmark -->`` stands what
``rmsnorm-onnx benchmark ARGUMENTS`` gives as Markdown. Arguments may name environment variables; where one is not
set, the old text stays. With PART, a regular expression, only commands that it is found in are run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rmsnorm_onnx.errors import CannotRun, InvalidInput
from rmsnorm_onnx.files import write_atomically

_BLOCK: Final = re.compile(r"(<!-- benchmark (.+?) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)


def main(page: Path, part: str = "") -> None:
    """Run the page's commands in order, and write the page after each.

    Raises:
        InvalidInput: the page is missing or names no command.
        CannotRun: a command failed; what was written before stays.
    """
    if not page.is_file():
        raise InvalidInput(f"no page at {page}")
    text = page.read_text()
    commands = [found[2] for found in _BLOCK.finditer(text)]
    if not commands:
        raise InvalidInput(f"{page} holds no <!-- benchmark ARGUMENTS --> ... <!-- /benchmark -->")
    for command in (c for c in commands if re.search(part, c)):
        arguments = [os.path.expandvars(argument) for argument in shlex.split(command)]
        if any("$" in argument for argument in arguments):
            sys.stderr.write(f"left as it is, a variable is not set: {command}\n")
            continue
        sys.stderr.write(f"rmsnorm-onnx benchmark {command}\n")
        found = _markdown(arguments)
        text = _replace(text, command, found)
        write_atomically(page, text)


def _replace(text: str, command: str, found: str) -> str:
    return _BLOCK.sub(lambda old: f"{old[1]}{found}{old[3]}" if old[2] == command else old[0], text)


def _markdown(arguments: list[str]) -> str:
    """What the command writes with ``--markdown``, one heading level lower."""
    with tempfile.TemporaryDirectory(prefix="rmsnorm-onnx-") as folder:
        path = Path(folder) / "result.md"
        command = [sys.executable, "-m", "rmsnorm_onnx", "benchmark", *arguments, "--markdown", str(path)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode or not path.is_file():
            raise CannotRun(f"{shlex.join(command)} ended with {done.returncode}")
        # The page has headings of its own; the command's title says nothing new.
        lines = path.read_text().splitlines()[1:]
        return "\n".join(re.sub(r"^###", "####", line) for line in lines).strip() + "\n\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
