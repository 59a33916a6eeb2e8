"""The assertion for other people's test suites."""

from __future__ import annotations

import ast
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from exports import MODELS

from rmsnorm_onnx import InvalidInput, optimize, spec, testing
from rmsnorm_onnx.testing import assert_parity

NORM = MODELS / "torch-rmsnorm-dynamo18-f32" / "model.onnx"
LAYER_NORM = MODELS / "layernorm-hand-dynamo18-f32" / "model.onnx"


@pytest.fixture(scope="module")
def broken() -> onnx.ModelProto:
    model = optimize(NORM).model
    node = next(node for node in model.graph.node if node.domain == spec.DOMAIN)
    next(a for a in node.attribute if a.name == "epsilon").f = 0.5
    return model


def test_a_model_equals_what_optimize_makes_of_it():
    report = assert_parity(NORM, require=3, seed=3)
    assert report.ok
    assert len(report.fusions) == 3
    assert report.repeat.seed == 3


def test_the_model_given_is_not_changed():
    model = ir.load(NORM)
    before = ir.to_proto(model)
    assert_parity(model, require=3)
    assert ir.to_proto(model) == before


def test_arguments_are_those_of_verify():
    assert assert_parity(NORM, optimize(NORM).model, library=False).repeat.isa == ""
    with pytest.raises(TypeError, match="nothing"):
        assert_parity(NORM, nothing=1)
    with pytest.raises(InvalidInput):
        assert_parity(NORM, dims={"nothing": 1})


def test_a_mismatch_says_what_differs_where_and_how_to_repeat_it(broken):
    with pytest.raises(AssertionError) as failed:
        assert_parity(NORM, broken)
    lines = str(failed.value).splitlines()
    assert lines[0].startswith("NOT equal: 1 of 1 outputs differ; the fused model is further from float64")
    assert "another function: the models differ even without rounding" in lines[1]
    assert "  at [" in lines[2]
    assert "ulps apart" in lines[2]
    assert any(line.startswith("seed: 0") for line in lines)
    assert any(line.startswith("versions: python 3.") for line in lines)
    assert len(lines) < 30
    assert max(map(len, lines)) < 400


def test_a_mismatch_of_files_tells_the_command(broken, tmp_path):
    onnx.save(broken, tmp_path / "broken model.onnx")
    with pytest.raises(AssertionError) as failed:
        assert_parity(NORM, tmp_path / "broken model.onnx", seed=7)
    command = str(failed.value).splitlines()[-1]
    assert command.startswith("repeat: rmsnorm-onnx verify ")
    assert f"'{tmp_path}/broken model.onnx'" in command
    assert "--seed 7" in command


def test_too_few_norms_are_a_failure_with_the_reasons():
    assert assert_parity(LAYER_NORM).ok
    with pytest.raises(AssertionError) as failed:
        assert_parity(LAYER_NORM, require=1)
    lines = str(failed.value).splitlines()
    assert lines[0] == "0 RMS norms are fused, 1 required; near misses: 3"
    assert "mean subtracted" in lines[1]
    assert lines[4].startswith("equal: ")


def test_it_needs_no_test_framework():
    tree = ast.parse(Path(testing.__file__).read_text())
    imported = [n for node in ast.walk(tree) if isinstance(node, ast.Import) for n in (a.name for a in node.names)]
    imported += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not any(name.split(".")[0] in ("pytest", "_pytest", "unittest") for name in imported)
