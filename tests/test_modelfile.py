"""Models with external weights: not copied, not lost, not overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
#: Where a subprocess finds the package that is tested, installed or not.
PACKAGE = Path(rmsnorm_onnx.__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])}


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


def optimize_file(source, target, *, copy_weights=True):
    model = modelfile.load(source)
    assert len(fuse(model).fused) == 1
    modelfile.save(model, target, source, copy_weights=copy_weights)


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


def test_weights_are_copied_only_when_that_was_asked_for(external, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInput, match=r"(?s)weights\.bin beside it.*--copy-weights"):
        optimize_file(external, tmp_path / "out" / "fused.onnx", copy_weights=False)
    assert not list((tmp_path / "out").iterdir())
    optimize_file(external, external.parent / "fused.onnx", copy_weights=False)
    (tmp_path / "link").symlink_to(external.parent)
    optimize_file(external, tmp_path / "link" / "again.onnx", copy_weights=False)


#: Runs the command in this process and prints by how many MB its peak of memory is above that of the bare imports.
MEASURED = """
import resource, sys
import numpy, onnx, onnx_ir, onnxscript, rich.console, typer
import rmsnorm_onnx.api, rmsnorm_onnx.cli, rmsnorm_onnx.modelfile, rmsnorm_onnx.passes
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
rmsnorm_onnx.cli.app(sys.argv[1:], standalone_mode=False)
print(peak() - before)
"""


@pytest.mark.parametrize("target", ["rmsnorm", "onnx", "ort"])
def test_eight_gigabytes_of_weights_are_not_read(tmp_path, target):
    width, layers = 16384, 8
    size = width * width * 4
    nodes, weights = [], []
    for i in range(layers):
        tensor = onnx.TensorProto(name=f"w{i}", dims=[width, width], data_type=1)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", str(i * size)), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        weights.append(tensor)
        nodes += [
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"h{i}"]),
            helper.make_node("Pow", [f"h{i}", "two"], [f"square{i}"]),
            helper.make_node("ReduceMean", [f"square{i}"], [f"mean{i}"], axes=[-1]),
            helper.make_node("Add", [f"mean{i}", "epsilon"], [f"shifted{i}"]),
            helper.make_node("Sqrt", [f"shifted{i}"], [f"root{i}"]),
            helper.make_node("Div", [f"h{i}", f"root{i}"], [f"x{i + 1}"]),
        ]
    weights += [numpy_helper.from_array(np.array(v, np.float32), n) for v, n in ((2, "two"), (1e-5, "epsilon"))]
    ends = [helper.make_tensor_value_info(name, 1, ["batch", width]) for name in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "sparse", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    data = tmp_path / "weights.bin"
    with data.open("wb") as file:
        file.truncate(layers * size)
    before = data.stat()

    arguments = ["optimize", "model.onnx", "fused.onnx", "--require", str(layers), "--target", target]
    command = [sys.executable, "-c", MEASURED, *arguments]
    run = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout.split()[-1]) < 300
    assert data.stat() == before or data.stat().st_mtime_ns == before.st_mtime_ns
    assert data.stat().st_blocks == before.st_blocks
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fused.onnx", "model.onnx", "weights.bin"]
    assert (tmp_path / "fused.onnx").stat().st_size < 1_000_000
    fused = onnx.load(tmp_path / "fused.onnx", load_external_data=False)
    assert sum(t.data_location == onnx.TensorProto.EXTERNAL for t in fused.graph.initializer) == layers


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


_NORM_OF = "s = Pow({0}, two) m = ReduceMean <axes = [-1]> (s) r = Sqrt(m) [quotient] y = Div({0}, r)"
_BRANCHES = "then_branch = then () => (t) {{ [inner] t = Neg({0}) }}, else_branch = other () => (e) {{ e = Neg(x) }}"


@pytest.mark.parametrize(
    ("nodes", "node", "value"),
    [
        ("h = Neg(x) " + _NORM_OF.format("lost"), "Pow", "lost"),
        (_NORM_OF.format("x").replace("x, r", "x, lost"), "quotient", "lost"),
        (f"y = If(c) <{_BRANCHES.format('lost')}>", "inner", "lost"),
    ],
    ids=["first-node", "named-node", "in-a-branch"],
)
def test_a_value_that_nothing_gives_is_named_with_its_reader(tmp_path, nodes, node, value):
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[B, 8] x, bool c) => (float[B, 8] y) '
        f"<float two = {{2}}> {{ {nodes} }}"
    )
    path = tmp_path / "dangling.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    for read in (modelfile.load, rmsnorm_onnx.optimize):
        with pytest.raises(InvalidInput, match=rf"node '{node}' of .*: it reads '{value}', which nothing gives"):
            read(path)
    onnx.save(onnx.parser.parse_model(text.replace(value, "x")), path)
    assert modelfile.load(path).graph.outputs[0].name == "y"


def test_a_value_that_nothing_gives_in_a_function_is_named(tmp_path):
    function = helper.make_function(
        "local",
        "Root",
        ["a"],
        ["b"],
        [helper.make_node("Sqrt", ["lost"], ["b"], name="root")],
        [helper.make_opsetid("", 17)],
    )
    ends = [helper.make_tensor_value_info(name, 1, ["B", 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Root", ["x"], ["y"], domain="local")], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
    onnx.save(model, tmp_path / "dangling.onnx")
    with pytest.raises(InvalidInput, match="node 'root' of function 'Root': it reads 'lost', which nothing gives"):
        modelfile.load(tmp_path / "dangling.onnx")
