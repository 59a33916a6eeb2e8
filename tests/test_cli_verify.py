"""``rmsnorm-onnx verify`` as a user or a CI job meets it."""

from __future__ import annotations

import inspect
import json
import os
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import run
from exports import MODELS

from rmsnorm_onnx import cli, parity, spec

LLAMA = MODELS / "llama-dynamo18-f32" / "model.onnx"
NAMED = MODELS / "llama-torchscript17-f32" / "model.onnx"


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "fused.onnx"
    run("optimize", LLAMA, path)
    return path


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "a fused file.onnx"
    run("optimize", NAMED, path)
    return path


@pytest.mark.parametrize("library", [[], ["--no-library"]])
def test_verify_says_yes(fused, library, tmp_path):
    reports = ["--junit", tmp_path / "p.xml", "--markdown", tmp_path / "p.md", "--html", tmp_path / "p.html"]
    result = run("verify", LLAMA, fused, "--seed", 3, *library, *reports)
    assert "equal" in result.stdout
    assert all(file.stat().st_size > 0 for file in reports[1::2])
    document = json.loads(run("verify", LLAMA, fused, *library, "--json").stdout)
    assert document["schema_version"] == parity.records.SCHEMA_VERSION
    assert [record["op"] for record in document["fusions"]] == ["RMSNormalization", *["SkipRMSNormalization"] * 4]
    assert bool(document["repeat"]["isa"]) is not bool(library)


def test_verify_says_no(fused, tmp_path):
    model = onnx.load(fused)
    node = next(node for node in model.graph.node if node.domain == spec.DOMAIN)
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-2
    onnx.save(model, tmp_path / "wrong.onnx")
    said = run("verify", LLAMA, tmp_path / "wrong.onnx", code=1).stdout
    assert "the fused model is further from float64 than the original" in " ".join(said.split())


def test_the_printed_command_repeats_every_set(named):
    asked = ["--dim", "batch=1,2", "--dim", "sequence=5", "--seed", 7, "--samples", 1, "--threads", 1, "--per-node"]
    first = json.loads(run("verify", NAMED, named, *asked, "--json").stdout)
    assert [one["name"] for one in first["sets"]] == ["batch=1 seq=5", "batch=2 seq=5"]
    assert first["verdict"] == "equal: 2 of 2 outputs on 2 sets of inputs, 10 of 10 nodes"
    program, *arguments = shlex.split(first["repeat"]["command"])
    assert program == "rmsnorm-onnx"
    again = json.loads(run(*arguments, "--json").stdout)
    assert again | {"seconds": 0} == first | {"seconds": 0}


def test_given_inputs_and_ranges(named, tmp_path):
    for name, shape in (("one.npz", (1, 2)), ("two.npz", (3, 4))):
        np.savez(tmp_path / name, input_ids=np.ones(shape, np.int64), attention_mask=np.ones(shape, np.int64))
    files = ["--inputs", tmp_path / "one.npz", "--inputs", tmp_path / "two.npz"]
    document = json.loads(run("verify", NAMED, named, *files, "--threads", 1, "--json").stdout)
    assert [one["name"] for one in document["sets"]] == ["one.npz", "two.npz"]
    ranged = run("verify", NAMED, named, "--val-range", "input_ids:[0,3]", "--json")
    assert "input_ids [0, 3]" in json.loads(ranged.stdout)["sets"][0]["name"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dim", "batch"], "NAME=N"),
        (["--dim", "bach=2"], "did you mean batch?"),
        (["--val-range", "5"], "LOW,HIGH"),
        (["--val-range", "5,2"], "the smaller one first"),
        (["--inputs", "missing.npz"], "missing.npz"),
        (["--samples", "0"], "at least 1"),
        (["--threads", "0"], "at least 1"),
        (["--dim", "batch=2", "--inputs", MODELS / "llama-torchscript17-f32" / "test_data_set_0"], "one of the two"),
    ],
)
def test_bad_usage_is_explained(options, says):
    assert says in run("verify", NAMED, NAMED, *options, code=2).stderr


def test_a_fused_model_without_bodies_needs_the_library(tmp_path):
    run("optimize", NAMED, tmp_path / "bare.onnx", "--no-body")
    run("verify", NAMED, tmp_path / "bare.onnx", "--threads", 1)
    said = run("verify", NAMED, tmp_path / "bare.onnx", "--no-library", code=3).stderr
    assert "stores no function bodies for RMSNormalization, SkipRMSNormalization" in said
    assert "expected ORIGINAL, then FUSED" in run("verify", tmp_path / "bare.onnx", NAMED, code=3).stderr


def test_the_command_has_the_api_s_defaults():
    assert inspect.signature(cli.verify).parameters["samples"].default == parity.DEFAULT_SAMPLES


@pytest.mark.parametrize("option", ["--html", "--junit", "--markdown"])
def test_no_report_is_written_over_an_input(option, tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(LLAMA.read_bytes())
    assert "is the input" in run("verify", model, model, option, model, code=2).stderr
    assert model.read_bytes() == LLAMA.read_bytes()


def test_two_reports_need_two_names_and_a_folder(tmp_path):
    report = tmp_path / "report"
    assert "two outputs" in run("verify", LLAMA, LLAMA, "--html", report, "--junit", report, code=2).stderr
    assert "does not exist" in run("verify", LLAMA, LLAMA, "--html", tmp_path / "no" / "p", code=2).stderr
    assert "is a folder" in run("verify", LLAMA, LLAMA, "--html", tmp_path, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_no_file_of_inputs(tmp_path):
    """Reading one would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe.npz")
    assert "expected an .npz file" in run("verify", LLAMA, LLAMA, "--inputs", tmp_path / "pipe.npz", code=2).stderr
