"""The CI recipes of docs/ci.md, step by step in bash; all but the installation: the package under test runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
import yaml
from exports import MODELS

from rmsnorm_onnx import optimize, spec

ROOT = Path(__file__).parent.parent
ACTION = ROOT / ".github" / "actions" / "rmsnorm-onnx"
RECIPE = yaml.safe_load((ACTION / "action.yml").read_text())
STEPS = {step["name"]: step for step in RECIPE["runs"]["steps"]}
DOCS = (ROOT / "docs" / "ci.md").read_text()
NORMS = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace with a model, and beside it the command on a PATH of its own."""
    workspace, tools = tmp_path / "work", tmp_path / "tools"
    workspace.mkdir()
    tools.mkdir()
    shutil.copy(MODELS / "llama-norm-torchscript11-f16" / "model.onnx", workspace / "model.onnx")
    for name, line in (("rmsnorm-onnx", f'exec "{sys.executable}" -m rmsnorm_onnx "$@"'), ("pip", "exit 99")):
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(stat.S_IRWXU)
    return workspace


def bash(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """As GitHub's runner starts ``shell: bash``."""
    path = [str(folder.parent / "tools"), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(path), **variables}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run_action(folder: Path, *names: str, **given: str) -> tuple[int, str]:
    """Run steps as the runner does: up to the first that fails. Its exit code, and the job's summary."""
    values = {name: given.get(name, about.get("default", "")) for name, about in RECIPE["inputs"].items()}
    summary = folder.parent / "summary.md"
    summary.write_text("what was there before\n")
    for name in names:
        step = STEPS[name]
        assert step["shell"] == "bash"
        variables = {
            key: re.sub(r"\${{ inputs\.(\w+) }}", lambda found: values[found[1]], text)
            for key, text in step.get("env", {}).items()
        }
        runner = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTION_PATH": str(ACTION)}
        done = bash(step["run"], folder, **runner, **variables)
        if done.returncode:
            break
    assert summary.read_text().startswith("what was there before\n")
    return done.returncode, summary.read_text()


def test_the_action_fuses_verifies_and_reports(folder):
    (folder / "model.onnx").rename(folder / "my model.onnx")
    code, summary = run_action(
        folder,
        "Fuse",
        "Verify",
        model="my model.onnx",
        output="fused model.onnx",
        require=str(NORMS),
        dims="batch=1,2 sequence=1,3",
        arguments="--seed 4\n--html parity.html",
    )
    assert code == 0
    assert f"**{NORMS} RMS norms fused, 0 near misses**" in summary
    assert "**equal: 4 of 4 outputs on 4 sets of inputs**" in summary
    assert "\\-\\-seed" in summary or "--seed 4" in summary
    assert sum(node.domain == spec.DOMAIN for node in onnx.load(folder / "fused model.onnx").graph.node) == NORMS
    root = ElementTree.parse(folder / "rmsnorm-onnx.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("4", "0")
    assert (folder / "parity.html").read_text().startswith("<!doctype html>")


def test_too_few_norms_fail_the_job_and_the_summary_says_why(folder):
    code, summary = run_action(folder, "Fuse", "Verify", model="model.onnx", output="fused.onnx", require="4")
    assert code == 1
    assert f"**{NORMS} norms fused, 4 required: nothing was written**" in summary
    assert not (folder / "fused.onnx").exists()


def test_a_model_that_cannot_be_read_fails_the_job(folder):
    code, summary = run_action(folder, "Fuse", "Verify", model="missing.onnx", output="fused.onnx")
    assert code == 2
    assert "optimize could not run (exit code 2)" in summary


def test_a_mismatch_fails_the_job_and_the_summary_says_where(folder):
    model = optimize(folder / "model.onnx").model
    node = next(node for node in model.graph.node if node.domain == spec.DOMAIN)
    next(a for a in node.attribute if a.name == "epsilon").f = 0.5
    onnx.save(model, folder / "broken.onnx")
    code, summary = run_action(folder, "Verify", model="model.onnx", output="broken.onnx", junit="parity.xml")
    assert code == 1
    assert "**NOT equal: 1 of 1 outputs differ" in summary
    assert "another function" in summary
    assert ElementTree.parse(folder / "parity.xml").getroot().get("failures") == "1"


def test_the_installation_is_of_the_repository_that_the_action_is_part_of(folder):
    # The step itself would compile the library: only what it would install is looked at.
    tools = folder.parent / "tools"
    (tools / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tools / "python").chmod(stat.S_IRWXU)
    done = bash(STEPS["Install"]["run"], folder, GITHUB_ACTION_PATH=str(ACTION))
    assert done.stdout.splitlines() == ["-m", "pip", "install", "--quiet", f"{ROOT}[cpu]"]
    assert (ROOT / "pyproject.toml").is_file()


def test_every_input_is_used_and_documented():
    used = set(re.findall(r"inputs\.(\w+)", str(RECIPE["runs"])))
    documented = set(re.findall(r"^\| `(\w+)` \|", DOCS, re.MULTILINE))
    assert used == set(RECIPE["inputs"]) == documented
    (workflow,) = (y for y in blocks("yaml") if "jobs" in y)
    (step,) = (s for s in workflow["jobs"]["fuse"]["steps"] if "rmsnorm-onnx" in s.get("uses", ""))
    assert set(step["with"]) <= set(RECIPE["inputs"])
    assert step["uses"].partition("/rmsnorm-onnx/")[2].partition("@")[0] == str(ACTION.relative_to(ROOT))


def blocks(language: str) -> list:
    texts = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return [yaml.safe_load(text) for text in texts] if language == "yaml" else texts


def without_installation(script: str) -> str:
    lines = script.splitlines()
    kept = [line for line in lines if not line.startswith("pip install")]
    assert len(kept) == len(lines) - 1
    return "\n".join(kept)


def test_the_shell_recipe_runs_as_it_stands(folder):
    (script,) = blocks("sh")
    done = bash(without_installation(script), folder)
    assert done.returncode == 0, done.stderr
    for name in ("fused.onnx", "fused.md", "parity.xml", "parity.md", "parity.html"):
        assert (folder / name).stat().st_size > 0


def test_the_gitlab_recipe_is_the_shell_recipe():
    # Whose commands the test above runs; there is no summary to write Markdown for.
    (job,) = (y["fuse"] for y in blocks("yaml") if "fuse" in y)
    (script,) = blocks("sh")
    shell = re.sub(r" --markdown \S+", "", script.replace("\\\n", " ").replace("set -e\n", ""))
    assert [shlex.split(line) for line in job["script"]] == [
        shlex.split(line, comments=True) for line in shell.splitlines()
    ]
    written = {word for line in job["script"] for word in shlex.split(line)}
    assert {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]} <= written


def test_the_snippet_for_test_suites_runs_as_it_stands(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    (snippet,) = blocks("python")
    exec(compile(snippet, "docs/ci.md", "exec"), names)
    names["test_export"]()
