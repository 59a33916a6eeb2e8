"""Models whose operators are functions, as torch.onnx.dynamo_export wrote them up to torch 2.3."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import rmsnorm_onnx

_HEAD = """<ir_version: 8, opset_import: ["": 18, "pkg.onnxscript.torch_lib": 1, "pkg.onnxscript.torch_lib.common": 1,
"pkg.model": 1]>
g (float[B, S, 8] x) => (float[B, S, 8] y) <float[8] w = {1, 2, 3, 1, 2, 3, 1, 2}> { y = pkg.model.Norm(x, w) }
"""
_OPERATORS = """
<domain: "pkg.onnxscript.torch_lib", opset_import: ["": 18]>
aten_pow (self, exponent) => (result) { result = Pow(self, exponent) }
<domain: "pkg.onnxscript.torch_lib", opset_import: ["": 18]>
aten_rsqrt (self) => (result) { root = Sqrt(self) result = Reciprocal(root) }
<domain: "pkg.onnxscript.torch_lib.common", opset_import: ["": 18]>
IsScalar (value) => (result) {
  shape = Shape(value) rank = Size(shape) zero = Constant <value_int = 0> () result = Equal(rank, zero)
}
<domain: "pkg.onnxscript.torch_lib", opset_import: ["": 18, "pkg.onnxscript.torch_lib.common": 1]>
aten_mean_dim (self, dim) => (result) {
  scalar = pkg.onnxscript.torch_lib.common.IsScalar(self)
  result = If (scalar) <
    then_branch = unchanged () => (float same) { same = Identity(self) },
    else_branch = reduced () => (float mean) { axes = Identity(dim) mean = ReduceMean(self, axes) }
  >
}
"""
_NORM = """
<domain: "pkg.model", opset_import: ["": 18, "pkg.onnxscript.torch_lib": 1]> Norm (x, w) => (y) {
  two = Constant <value_float = 2.0> () last = Constant <value_ints = [-1]> () eps = Constant <value_float = 1e-5> ()
  squares = pkg.onnxscript.torch_lib.aten_pow(x, two)
  mean = pkg.onnxscript.torch_lib.aten_mean_dim(squares, last)
  added = Add(mean, eps)
  inverse = pkg.onnxscript.torch_lib.aten_rsqrt(added)
  unit = Mul(DIVIDED, inverse) y = Mul(unit, w)
}
"""


def _model(divided: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(_HEAD + _OPERATORS + _NORM.replace("DIVIDED", divided))
    onnx.checker.check_model(model)
    return model


def test_a_norm_of_calls_is_fused_and_computes_the_same():
    model = _model("x")
    result = rmsnorm_onnx.optimize(model)
    assert [fused.op for fused in result.fused] == ["RMSNormalization"]
    onnx.checker.check_model(result.model)
    functions = {(f.domain, f.name) for f in result.model.functions}
    assert functions == {("pkg.model", "Norm"), ("pkg.rmsnorm_onnx", "RMSNormalization")}
    (norm,) = (f for f in result.model.functions if f.name == "Norm")
    assert {node.op_type for node in norm.node} == {"RMSNormalization"}
    x = np.linspace(-2, 3, 48, dtype=np.float32).reshape(2, 3, 8)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (got,) = onnxruntime.InferenceSession(result.model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("divided", ["squares", "mean"])
def test_what_holds_no_norm_keeps_its_calls(divided):
    model = _model(divided)
    result = rmsnorm_onnx.optimize(model)
    assert not result.fused
    assert _calls(result.model) == _calls(model)


def _calls(model: onnx.ModelProto) -> dict[str, list[str]]:
    return {function.name: [node.op_type for node in function.node] for function in model.functions}
