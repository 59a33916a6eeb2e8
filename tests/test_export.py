"""Straight from torch: what the translations write, and, where torch is installed, what the exporter makes of it."""

from __future__ import annotations

import sys
import types

import ml_dtypes
import norm_models
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxscript import evaluator

import rmsnorm_onnx
from rmsnorm_onnx import export, reference, runtime, spec
from rmsnorm_onnx.spec import DType

DTYPES = pytest.mark.parametrize("dtype", list(DType), ids=lambda dtype: dtype.name.lower())


class Recorder(evaluator.Evaluator):
    """Stands for the exporter: keeps what is called as nodes."""

    def __init__(self):
        self.nodes = []

    def eval(self, schema, inputs, attributes):
        names = [str(getattr(value, "name", value)) for value in inputs]
        output = ir.Value(name=f"v{len(self.nodes)}")
        node = onnx.helper.make_node(schema.name, names, [output.name], domain=schema.domain, **attributes)
        self.nodes.append(node)
        return output

    def eval_op(self, op, args, kwargs):
        return self.eval(op.op_schema, args, kwargs)


def translated(dtype, shape, *, has_weight, eps):
    """The model that a translation writes for an input of ``shape``, normalized over its last two axes."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType(int(dtype))))
    weight = ir.Value(name="s") if has_weight else None
    recorder = Recorder()
    with evaluator.default_as(recorder):
        result = export.rms_norm(x, shape[-2:], weight, eps)
    inputs = [norm_models.info("x", dtype, shape)]
    inputs += [norm_models.info("s", dtype, shape[-2:])] if has_weight else []
    return norm_models.model(recorder.nodes, inputs, [norm_models.info(result.name, dtype, shape)])


@DTYPES
@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize("has_weight", [True, False])
def test_the_translation_computes_what_torch_defines(dtype, has_weight, eps):
    kind = reference.NUMPY_TYPES[dtype]
    model = translated(dtype, (2, 3, 4), has_weight=has_weight, eps=eps)
    generator = np.random.default_rng(0)
    # So small that torch's default epsilon (2^-23, also for 16-bit types, or 2^-52) decides the result.
    feeds = {"x": (generator.standard_normal((2, 3, 4)) * 1e-4).astype(kind)}
    if has_weight:
        feeds["s"] = generator.standard_normal((3, 4)).astype(kind)
    epsilon = eps if eps is not None else 2.0**-52 if dtype is DType.DOUBLE else 2.0**-23
    stash = DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT
    attributes = reference.Attributes(epsilon, (1, 2), stash_type=stash, normalized_type=stash)
    x, scale = (array.astype(np.longdouble) for array in (feeds["x"], feeds.get("s", np.ones(1))))
    want = x / np.sqrt(np.mean(x * x, axis=(1, 2), keepdims=True) + epsilon) * scale
    limit = reference.bound("RMSNormalization", 12, kind, attributes).ulps
    whole = rmsnorm_onnx.optimize(model).model
    assert {function.name for function in whole.functions} == {"RMSNormalization"}
    onnx.checker.check_model(whole, full_check=True)
    for library in (True, False):
        run = runtime.run_side(runtime.load(whole), feeds, library=library)
        (got,) = run.outputs.values()
        assert got.dtype == kind
        assert np.max(reference.ulps(got, want, kind)) <= limit


def test_integers_are_refused():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.INT64))
    with pytest.raises(rmsnorm_onnx.InvalidInput, match="INT64"):
        export.rms_norm(x, [8])


def test_bodies_are_stored_once_and_only_where_they_are_wanted():
    model = translated(DType.FLOAT, (2, 3, 4), has_weight=True, eps=None)
    assert not rmsnorm_onnx.optimize(model, body=False).model.functions
    graph_model = ir.from_proto(model)
    assert rmsnorm_onnx.FuseRmsNorm()(graph_model).modified
    assert not rmsnorm_onnx.FuseRmsNorm()(graph_model).modified


def test_without_torch_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(rmsnorm_onnx.CannotRun, match="pip install torch"):
        rmsnorm_onnx.translation_table()


def test_an_old_torch_without_an_rms_norm_is_named(monkeypatch):
    old = types.SimpleNamespace(ops=types.SimpleNamespace(aten=object()), __version__="2.3.1")
    monkeypatch.setitem(sys.modules, "torch", old)
    with pytest.raises(rmsnorm_onnx.CannotRun, match=r"2\.3\.1"):
        rmsnorm_onnx.translation_table()


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.filterwarnings("ignore")
def test_torch_exports_its_own_norm_as_one_node(name, opset):
    torch = pytest.importorskip("torch", reason="needs torch")
    dtype = getattr(torch, name)
    module = torch.nn.RMSNorm((3, 8), eps=None, dtype=dtype).eval()
    torch.nn.init.normal_(module.weight)
    x = torch.randn(2, 3, 8, dtype=dtype) * 0.01
    table = rmsnorm_onnx.translation_table()
    program = torch.onnx.export(module, (x,), dynamo=True, opset_version=opset, custom_translation_table=table)
    rmsnorm_onnx.optimize(program.model)
    proto = program.model_proto
    onnx.checker.check_model(proto, full_check=True)
    assert [(node.domain, node.op_type) for node in proto.graph.node] == [(spec.DOMAIN, "RMSNormalization")]
    array = x.float().numpy().astype(ml_dtypes.bfloat16) if name == "bfloat16" else x.numpy()
    run = runtime.run_side(runtime.load(proto), {proto.graph.input[0].name: array}, library=True)
    (got,) = run.outputs.values()
    want = module(x).detach().double().numpy()
    assert np.max(reference.ulps(got, want, got.dtype)) <= 4
