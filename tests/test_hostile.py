"""Broken and hostile files: one sentence that says what is wrong and where, exit code 2, and nothing written."""

from __future__ import annotations

import os
import re
from pathlib import Path

import hostile_files
import hostile_models
import onnx
import pytest
from changed_models import Change, backwards, both, chain, functions, nested, node, norm_model, opset, renamed
from command import run

import rmsnorm_onnx
from rmsnorm_onnx import modelfile
from rmsnorm_onnx.errors import InvalidInput

COMMANDS = {
    "optimize": lambda model, good, out: ("optimize", model, out),
    "inspect": lambda model, good, out: ("inspect", model, "--explain"),
    "verify, original": lambda model, good, out: ("verify", model, good, "--html", out),
    "verify, fused": lambda model, good, out: ("verify", good, model, "--junit", out),
    "benchmark": lambda model, good, out: ("benchmark", "model", model, "--seconds", "0.01", "--markdown", out),
}


def in_file(change: Change) -> hostile_files.Build:
    def build(folder: Path) -> Path:
        model = norm_model()
        changed = change(model)
        return hostile_files.write(folder, changed if isinstance(changed, bytes) else model.SerializeToString())

    return build


REFUSED = hostile_files.REFUSED | {
    name: (in_file(change), reason) for name, (change, reason) in hostile_models.REFUSED.items()
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def files_under(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("name", REFUSED)
def test_every_command_refuses(name, folder):
    build, reason = REFUSED[name]
    model, good = build(folder), folder / "good.onnx"
    good.write_bytes(norm_model().SerializeToString())
    before = files_under(folder.parent)
    # All read models by one function: optimize, and one of the others in turns, show that each does.
    optimize, *others = COMMANDS.values()
    for command in (optimize, others[list(REFUSED).index(name) % len(others)]):
        error = run(*command(model, good, folder / "out"), code=2).stderr
        assert re.search(reason, error), error
        assert error.startswith("error: ")
        assert str(model) in error
        assert error.count("\n") == 1
        assert error[:-1].isprintable()
        assert len(error) < 1000
        assert files_under(folder.parent) == before


@pytest.mark.parametrize("name", hostile_models.REFUSED)
def test_a_message_is_refused_like_a_file(name):
    change, reason = hostile_models.REFUSED[name]
    model = norm_model()
    changed = change(model)
    if isinstance(changed, bytes):
        model = onnx.ModelProto.FromString(changed)
    for verb in (rmsnorm_onnx.optimize, rmsnorm_onnx.inspect):
        with pytest.raises(InvalidInput, match=reason):
            verb(model)


def test_a_message_100_000_messages_deep_is_refused():
    model = norm_model()
    nested(30_000)(model)
    with pytest.raises(InvalidInput, match="nested deeper"):
        rmsnorm_onnx.optimize(model)


@pytest.mark.parametrize("name", hostile_files.ACCEPTED)
def test_weights_that_onnxruntime_finds_are_fused(name, folder, monkeypatch):
    model = hostile_files.ACCEPTED[name](folder)
    fused = model.with_name("fused.onnx")
    # Relative paths too: onnx_ir reads any file for a model that has no folder.
    monkeypatch.chdir(model.parent)
    for target in ("rmsnorm", "onnx"):
        run("optimize", "model.onnx", "fused.onnx", "--target", target, "--require", 1)
    run("optimize", model, fused, "--require", 1)
    run("verify", model, fused, "--no-library")
    (folder.parent / "out").mkdir()
    run("optimize", model, folder.parent / "out" / "fused.onnx", "--copy-weights")
    run("verify", model, folder.parent / "out" / "fused.onnx", "--no-library")


def test_weights_are_found_in_hugging_faces_cache(folder):
    model = hostile_files.hugging_face_cache(folder)
    (folder / "out").mkdir()
    run("optimize", model, folder / "out" / "fused.onnx", "--copy-weights", "--require", 1)
    run("verify", model, folder / "out" / "fused.onnx", "--no-library")
    before = files_under(folder)
    # From a file that is no link, onnxruntime does not follow the weights' link.
    for option in ([], ["--copy-weights"]):
        error = run("optimize", model, model.with_name("fused.onnx"), *option, code=2).stderr
        assert "is a link that leaves it" in error
    assert files_under(folder) == before


def loop_without_a_count(model: onnx.ModelProto) -> None:
    """A Loop whose first input is left out, which may be."""
    values = [onnx.helper.make_tensor_value_info(name, dtype, []) for name, dtype in (("i", 7), ("k", 9))]
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Not", ["k"], ["l"])], "body", values, [onnx.ValueInfoProto(name="l")]
    )
    model.graph.node.append(onnx.helper.make_node("Loop", ["", "c"], [], body=body))


def axes_as_input(model: onnx.ModelProto) -> None:
    """ReduceMean as of opset 18, in a model that states 17: jax2onnx writes that."""
    model.graph.node[1].ClearField("attribute")
    model.graph.node[1].input.append("axes")
    model.graph.initializer.append(onnx.helper.make_tensor("axes", 7, [1], [-1]))


#: Odd, but no reason to refuse: how many norms are fused.
ODD = {
    "nodes in the wrong order": backwards,
    "an unknown domain": both(opset(7, "other"), node("Odd", ["x"], ["z"], domain="other", s=b"\xff")),
    "an unknown domain that is not imported": node("Odd", ["x"], ["z"], domain="other"),
    "an unknown operator of ONNX's domain": node("Odd", ["x"], ["z"]),
    "a form of a later opset": axes_as_input,
    "an attribute that is not text": node("Odd", ["x"], ["z"], domain="other", s=b"\xff\xfe"),
    "a loop without a count": loop_without_a_count,
    "the same import twice": lambda m: m.opset_import.append(m.opset_import[0]),
    "ONNX's domain by its other name": lambda m: setattr(m.opset_import[0], "domain", "ai.onnx"),
    "an initializer twice": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "one name for all nodes": lambda m: [setattr(n, "name", "n") for n in m.graph.node] and None,
    "stated types that contradict": lambda m: m.graph.value_info.extend(
        onnx.helper.make_tensor_value_info("mean", dtype, [3]) for dtype in (1, 7)
    ),
    "branches 31 deep": nested(31),
    "functions 400 deep": functions(*(f"F{n + 1}" for n in range(399)), "Neg"),
    "control characters": renamed("\x1b[31m\0\r\n[red]\u202e"),
    "a name of 100,000 letters": renamed("n" * 10**5),
    "a chain of 5,000 nodes": chain(5_000),
    "a dimension called like code": lambda m: setattr(
        m.graph.input[0].type.tensor_type.shape.dim[0], "dim_param", "(" * 5000 + "__import__('os')"
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_but_valid_is_fused(name, folder):
    model = in_file(ODD[name])(folder)
    run("optimize", model, folder / "out.onnx", "--require", 1)
    run("inspect", model, "--explain")
    run("inspect", folder / "out.onnx", "--json")


@pytest.mark.parametrize("name", ["nodes in the wrong order", "ONNX's domain by its other name", "branches 31 deep"])
def test_what_is_odd_but_runs_is_fused_rightly(name, folder):
    model = in_file(ODD[name])(folder)
    run("optimize", model, folder / "out.onnx", "--require", 1)
    run("verify", model, folder / "out.onnx", "--no-library")


def test_an_unknown_operator_is_left_as_it_is(folder):
    model = in_file(ODD["an unknown domain"])(folder)
    run("optimize", model, folder / "out.onnx")
    before, after = (
        [n for n in onnx.load(path).graph.node if n.op_type == "Odd"] for path in (model, folder / "out.onnx")
    )
    assert before == after
    assert "cannot" in run("verify", model, folder / "out.onnx", code=3).stderr


@pytest.mark.parametrize("output", ["model.onnx", "link", "hard", "w.bin", "weights"])
def test_inputs_are_never_overwritten(output, folder):
    model = hostile_files.ACCEPTED["beside"](folder)
    (folder / "link").symlink_to("model.onnx")
    (folder / "weights").symlink_to("w.bin")
    os.link(model, folder / "hard")
    before = {path: path.read_bytes() for path in files_under(folder)}
    assert "give another name" in run("optimize", model, folder / output, code=2).stderr
    assert {path: path.read_bytes() for path in files_under(folder)} == before


def test_an_output_is_not_called_like_its_weights(folder):
    model = hostile_files.ACCEPTED["beside"](folder)
    (folder.parent / "out").mkdir()
    assert "data file" in run("optimize", model, folder.parent / "out" / "w.bin", "--copy-weights", code=2).stderr
    assert not files_under(folder.parent / "out")


def test_outputs_above_protobufs_limit_are_refused(folder, monkeypatch):
    monkeypatch.setattr(modelfile.read, "LARGEST", len(norm_model().SerializeToString()))
    model = in_file(lambda m: None)(folder)
    assert "protobuf allows 2 GB" in run("optimize", model, folder / "out.onnx", code=2).stderr
    assert files_under(folder) == [model]
