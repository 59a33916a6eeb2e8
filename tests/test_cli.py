"""The command line as a user or a CI job meets it: output, exit codes, files."""

from __future__ import annotations

import json

import onnx
import pytest
from command import run, run_process
from exports import MODELS

from rmsnorm_onnx import cli, spec
from rmsnorm_onnx.passes.target import TARGETS

LLAMA = MODELS / "llama-dynamo18-f32" / "model.onnx"


def test_optimize_writes_a_fused_model_and_says_what_to_do_next(tmp_path):
    before = LLAMA.read_bytes()
    result = run("optimize", LLAMA, tmp_path / "out.onnx")
    assert "5 RMS norms fused" in result.stdout
    assert f"rmsnorm-onnx verify {LLAMA} {tmp_path / 'out.onnx'}" in result.stderr
    nodes = onnx.load(tmp_path / "out.onnx").graph.node
    assert sum(node.domain == spec.DOMAIN for node in nodes) == 5
    assert LLAMA.read_bytes() == before


def test_optimize_without_output_writes_nothing(tmp_path):
    run("optimize", LLAMA)
    assert not list(tmp_path.iterdir())


def test_require_that_is_not_reached_is_a_no_and_writes_nothing(tmp_path):
    result = run("optimize", LLAMA, tmp_path / "out.onnx", "--require", 6, code=1)
    assert "5 norms fused, 6 required" in result.stderr
    assert not list(tmp_path.iterdir())


def test_onnxruntime_leaves_no_device_number_in_the_home(tmp_path, monkeypatch):
    """Where its telemetry is on, it keeps one below the cache, and events that it will send."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    run_process("verify", LLAMA, LLAMA, "--samples", 1)
    assert not list(tmp_path.rglob("*onnxruntime*"))


def test_json_is_one_document(tmp_path):
    document = json.loads(run("optimize", LLAMA, tmp_path / "out.onnx", "--json").stdout)
    assert document["schema_version"] == 1
    assert len(document["fused"]) == 5
    assert document["target"] == "rmsnorm"
    assert set(document["fused"][0]) == {"op", "node", "output", "pattern", "replaced"}
    assert document["near_misses"] == []
    assert json.loads(run("inspect", LLAMA, "--json").stdout)["fused"] == document["fused"]


def test_inspect_explains_near_misses():
    plain = run("inspect", MODELS / "qwen3-next-dynamo18-f32" / "model.onnx").stdout
    explained = run("inspect", MODELS / "qwen3-next-dynamo18-f32" / "model.onnx", "--explain").stdout
    assert "8 RMS norms found" in plain
    assert "not-a-mean" in explained
    assert "<-- a factor of 0.353553 is left" in explained
    assert "change: divide the sum of squares" in explained
    assert "not-a-mean" not in plain


@pytest.mark.parametrize(
    ("target", "operators"),
    [("onnx", {"RMSNormalization"}), ("ort", {"SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"})],
)
def test_other_targets(target, operators, tmp_path):
    result = run("optimize", LLAMA, tmp_path / "out.onnx", "--target", target, "--require", 5, "--json")
    document = json.loads(result.stdout)
    assert document["target"] == target
    assert {record["op"] for record in document["fused"]} == operators
    assert json.loads(run("inspect", LLAMA, "--target", target, "--json").stdout)["fused"] == document["fused"]
    model = onnx.load(tmp_path / "out.onnx")
    assert not model.functions
    assert {node.op_type for node in model.graph.node} >= operators
    if target == "onnx":
        onnx.checker.check_model(model, full_check=True)


def test_the_command_knows_every_target():
    assert [target.value for target in cli.Target] == list(TARGETS)
    assert "is not one of" in run("optimize", LLAMA, "--target", "tensorrt", code=2).stderr


def test_near_misses_of_a_target_are_explained():
    channel = MODELS / "channel-dynamo18-f16" / "model.onnx"
    document = json.loads(run("inspect", channel, "--target", "onnx", "--json").stdout)
    (miss,) = document["near_misses"]
    assert miss["why"] == "target"
    assert "change: use the target 'rmsnorm'" in miss["tree"][-1]


def test_weights_are_copied_when_asked(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source, target = tmp_path / "in" / "model.onnx", tmp_path / "out" / "model.onnx"
    onnx.save(onnx.load(LLAMA), source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert "--copy-weights" in run("optimize", source, target, code=2).stderr
    assert not list((tmp_path / "out").iterdir())
    run("optimize", source, target, "--copy-weights")
    assert (tmp_path / "out" / "weights.bin").read_bytes() == (tmp_path / "in" / "weights.bin").read_bytes()


def test_info_names_the_library():
    document = json.loads(run("info", "--json").stdout)
    assert document["library"]["isa_active"] in document["library"]["isa_supported"]
    assert document["library"]["spec"]
    assert "the compiled library answers" in run("info").stdout


@pytest.mark.parametrize("command", ["optimize", "inspect"])
def test_bad_files_are_named_and_exit_2(command, tmp_path):
    (tmp_path / "garbage.onnx").write_bytes(b"\x99garbage" * 100)
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("missing.onnx", "garbage.onnx", "empty.onnx", "."):
        assert "error:" in run(command, tmp_path / name, code=2).stderr


def test_output_must_not_be_the_input(tmp_path):
    copy = tmp_path / "model.onnx"
    copy.write_bytes(LLAMA.read_bytes())
    assert "is the input" in run("optimize", copy, copy, code=2).stderr
    assert copy.read_bytes() == LLAMA.read_bytes()
    assert "does not exist" in run("optimize", copy, tmp_path / "no" / "out.onnx", code=2).stderr


def test_bad_usage_exits_2():
    run("optimize", code=2)
    run("optimize", LLAMA, "--no-such-option", code=2)


def test_version_and_help():
    assert run_process("--version").stdout.strip()
    assert "optimize" in run_process("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("inspect", LLAMA, "--json"), 0), (("optimize", LLAMA, "--require", 6), 1), (("inspect", "missing.onnx"), 2)],
)
def test_a_process_says_the_same(arguments, code):
    done, same = run_process(*arguments, code=code), run(*arguments, code=code)
    assert (done.stdout, done.stderr) == (same.stdout, same.stderr)
