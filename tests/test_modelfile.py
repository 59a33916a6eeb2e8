"""Models with external weights: not copied, not lost, not overwritten."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import rmsnorm_onnx
from rmsnorm_onnx import modelfile
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.passes import fuse

WIDTH = 256


@pytest.fixture
def external(tmp_path):
    """A MatMul and a norm whose weights lie in a file of their own, in folder ``in``."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((WIDTH, WIDTH), np.float32), "w"),
        numpy_helper.from_array(np.ones(WIDTH, np.float32), "scale"),
        numpy_helper.from_array(np.array(2, np.float32), "two"),
        numpy_helper.from_array(np.array(1e-5, np.float32), "epsilon"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Pow", ["h", "two"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["mean"], axes=[-1]),
        helper.make_node("Add", ["mean", "epsilon"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["root"]),
        helper.make_node("Div", ["h", "root"], ["normalized"]),
        helper.make_node("Mul", ["normalized", "scale"], ["y"]),
    ]
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes,
        "external",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    return path


def optimize_file(source, target):
    model = modelfile.load(source)
    assert len(fuse(model).fused) == 1
    modelfile.save(model, target, source)


@pytest.mark.parametrize("folder", ["in", "out"])
def test_weights_stay_or_come_along(external, tmp_path, folder):
    (tmp_path / "out").mkdir()
    target = tmp_path / folder / "fused.onnx"
    optimize_file(external, target)
    data = external.parent / "weights.bin"
    assert (target.parent / "weights.bin").samefile(data) == (folder == "in")
    assert (target.parent / "weights.bin").read_bytes() == data.read_bytes()
    assert {file.name for file in target.parent.iterdir()} <= {"model.onnx", "fused.onnx", "weights.bin"}
    assert target.stat().st_size < 10_000
    assert rmsnorm_onnx.verify(str(external), str(target), library=False).ok


def test_a_data_file_in_the_way_is_not_overwritten(external, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights.bin").write_bytes(b"mine")
    with pytest.raises(InvalidInput, match="not the model's data file"):
        optimize_file(external, tmp_path / "out" / "fused.onnx")
    assert (tmp_path / "out" / "weights.bin").read_bytes() == b"mine"
    assert not (tmp_path / "out" / "fused.onnx").exists()


def test_a_missing_data_file_is_named(external, tmp_path):
    (tmp_path / "out").mkdir()
    model = modelfile.load(external)
    (external.parent / "weights.bin").unlink()
    with pytest.raises(InvalidInput, match=r"weights\.bin is missing"):
        modelfile.save(model, tmp_path / "out" / "fused.onnx", external)


def test_models_come_back_as_the_kind_they_were_given(external):
    assert isinstance(rmsnorm_onnx.optimize(str(external)).model, onnx.ModelProto)
    assert isinstance(rmsnorm_onnx.optimize(external).model, onnx.ModelProto)
    proto = onnx.load(external)
    before = proto.SerializeToString()
    assert isinstance(rmsnorm_onnx.optimize(proto).model, onnx.ModelProto)
    assert proto.SerializeToString() == before
    model = ir.load(external)
    assert rmsnorm_onnx.optimize(model).model is model


def test_other_kinds_are_refused():
    with pytest.raises(InvalidInput, match="expected a path, an onnx"):
        rmsnorm_onnx.optimize(42)
