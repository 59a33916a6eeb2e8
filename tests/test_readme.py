"""The README is true: its commands and snippets run, its table is what comes out."""

from __future__ import annotations

import re
import shlex
import shutil

import numpy as np
import pytest
from command import run
from exports import MODELS
from readme_table import README, REFUSALS, refusals, section, table

from rmsnorm_onnx.spec import Why

TEXT = README.read_text()
COMMANDS = re.findall(r"^    rmsnorm-onnx ([^#\n]+)", TEXT, re.MULTILINE)
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copy(MODELS / "llama-torchscript17-f32" / "model.onnx", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_run_as_they_stand(folder):
    assert len(COMMANDS) >= 5
    for command in COMMANDS:
        run(*shlex.split(command))


def test_snippets_run_and_give_the_values_they_show(folder):
    assert len(SNIPPETS) == 3
    names: dict[str, object] = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)
    result = names["rmsnorm_onnx"].rms_normalization(names["x"], scale=None, axis=-1, epsilon=None)
    shown = re.search(r"\[\[([0-9., ]+)\]", SNIPPETS[1].split("epsilon=None)")[1]).group(1)
    np.testing.assert_allclose(result[0], [float(number) for number in shown.split(",")], rtol=3e-7)


def test_the_table_of_exports_is_what_comes_out():
    assert section() == table()


def test_the_refusals_are_those_of_the_zoo():
    assert REFUSALS.read_text() == refusals()


def test_every_reason_is_explained():
    listed = set(re.findall(r"[a-z]+(?:-[a-z]+)*", " ".join(re.findall(r"^\| ([a-z, -]+) \|", TEXT, re.MULTILINE))))
    assert {why.value for why in Why} <= listed
