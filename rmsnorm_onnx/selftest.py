"""Does the compiled library give what the operators mean here: each of them, in each type, in one small session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rmsnorm_onnx import library, reference, spec
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.reference import Attributes, Doubles
from rmsnorm_onnx.spec import DType, Op

#: Three rows; the width is odd, so that vectors have a remainder.
_SHAPE: Final = (3, 67)
_EPSILON: Final = 2.0**-20
_TYPES: Final = (DType.FLOAT, DType.FLOAT16, DType.BFLOAT16, DType.DOUBLE)


@dataclass(frozen=True, slots=True)
class Check:
    """One operator in one type.

    Attributes:
        op: its name.
        dtype: element type of the input, the scale and the result.
        max_ulps: largest error of the kernel against float64, in ulps of that type.
        bound_ulps: what rounding may give (``reference.bound``).
    """

    op: str
    dtype: str
    max_ulps: float
    bound_ulps: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the bound."""
        return self.max_ulps <= self.bound_ulps


def self_test() -> tuple[Check, ...]:
    """Run every operator on the CPU and compare it with float64.

    Raises:
        CannotRun: onnxruntime is missing, or cannot load the library or run it; LibraryMissing: it was not built.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    library.register(options)
    feeds = _feeds()
    try:
        session = onnxruntime.InferenceSession(_model(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, {name: values.astype(np.float32) for name, values in feeds.items()})
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        raise CannotRun(f"the self-test does not run: {error}") from error
    return tuple(_check(op, dtype, feeds, got) for (op, dtype), got in zip(_questions(), results, strict=True))


def _questions() -> Iterator[tuple[Op, DType]]:
    return ((op, dtype) for op in spec.OPS.values() for dtype in _TYPES)


def _check(op: Op, dtype: DType, feeds: dict[str, Doubles], got: npt.NDArray[Any]) -> Check:
    attributes = _attributes(dtype)
    exact, *_ = reference.exact(op.name, [feeds[name] for name in op.inputs], attributes)
    numpy_type = reference.NUMPY_TYPES[dtype]
    allowed = reference.bound(op.name, _SHAPE[-1], numpy_type, attributes)
    error = float(np.max(reference.ulps(got, exact, numpy_type)))
    return Check(op.name, str(numpy_type), error, allowed.ulps)


def _attributes(dtype: DType) -> Attributes:
    stash = DType.DOUBLE if dtype is DType.DOUBLE else DType.FLOAT
    return Attributes(_EPSILON, stash_type=stash, normalized_type=stash, scaled_type=stash)


def _feeds() -> dict[str, Doubles]:
    """Eighths up to 2: every type holds them, and the sums of two."""

    def eighths(factor: int, shape: tuple[int, ...]) -> Doubles:
        count = int(np.prod(shape))
        return ((np.arange(count) * factor) % 33 - 16).reshape(shape) / 8.0

    rows, width = _SHAPE
    x, second = eighths(7, (rows, width)), eighths(5, (rows, width))
    return {"X": x, "skip": second, "gate": second, "scale": eighths(11, (width,))}


def _model() -> bytes:
    """Each operator in each type, between Casts from float32 and to float64."""
    from onnx import TensorProto, helper

    nodes, outputs = [], []
    for name in _feeds():
        nodes += [helper.make_node("Cast", [name], [f"{name}_{t.name}"], to=int(t)) for t in _TYPES]
    for op, dtype in _questions():
        result, output = f"{op.name}_{dtype.name}_T", f"{op.name}_{dtype.name}"
        given = [f"{name}_{dtype.name}" for name in op.inputs]
        of_type = _attributes(dtype)
        values: dict[str, Any] = {"epsilon": of_type.epsilon, "stash_type": int(of_type.stash_type)}
        values["normalized_type"] = int(of_type.normalized_type)
        if any(attribute.name == "scaled_type" for attribute in op.attributes):
            values["scaled_type"] = int(of_type.scaled_type)
        nodes.append(helper.make_node(op.name, given, [result], domain=spec.DOMAIN, **values))
        nodes.append(helper.make_node("Cast", [result], [output], to=TensorProto.DOUBLE))
        outputs.append(helper.make_tensor_value_info(output, TensorProto.DOUBLE, _SHAPE))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in _feeds().items()]
    graph = helper.make_graph(nodes, "self-test", inputs, outputs)
    opsets = [helper.make_opsetid(spec.DOMAIN, spec.VERSION), helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    data: bytes = model.SerializeToString()
    return data
