"""Models of one norm, their sessions, and the float64 oracle beside what they computed."""

from __future__ import annotations

import dataclasses

import kernels_abi as abi
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from kernels_abi import NUMPY
from onnx import helper, numpy_helper
from versions import lacking

from rmsnorm_onnx import library, reference, spec
from rmsnorm_onnx.spec import DType

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid(spec.DOMAIN, spec.VERSION)]


def info(name, dtype, shape):
    return helper.make_tensor_value_info(name, int(dtype), shape)


def node(op, *, second=True, total=False, **attributes):
    """One node of ours on x, z (where the operator has a second input) and s."""
    names = ["x", "z", "s"] if len(spec.OPS[op].inputs) == 3 and second else ["x", "s"]
    made = helper.make_node(op, names, ["y", "t"] if total else ["y"], name="norm", domain=spec.DOMAIN)
    for name, value in {"epsilon": 1e-5, **attributes}.items():
        kind = onnx.AttributeProto.INTS if value == [] else None
        made.attribute.append(helper.make_attribute(name, value, attr_type=kind))
    return made


def model(nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def session(proto, *, threads=1, providers=("CPUExecutionProvider",), profile=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    library.register(options)
    return ort.InferenceSession(proto.SerializeToString(), options, providers=list(providers))


def ort_value(array):
    """Shares the memory of the array; numpy has no bfloat16 of its own."""
    if abi.DTYPE[array.dtype] != DType.BFLOAT16:
        return ort.OrtValue.ortvalue_from_numpy(array)
    if not hasattr(ort.OrtValue, "ortvalue_from_numpy_with_onnx_type"):
        pytest.skip(lacking("for bfloat16 tensors in Python"))
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), int(DType.BFLOAT16))


def execute(proto, feeds, outputs=("y",), **options):
    """Outputs as numpy arrays, of the shape of the first input."""
    return run(session(proto, **options), proto, feeds, outputs)


def run(made, proto, feeds, outputs=("y",)):
    """As above, in a session that is there already."""
    binding = made.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort_value(array))
    shape = next(iter(feeds.values())).shape
    results = {v.name: np.zeros(shape, NUMPY[DType(v.type.tensor_type.elem_type)]) for v in proto.graph.output}
    for name, array in results.items():
        binding.bind_ortvalue_output(name, ort_value(array))
    made.run_with_iobinding(binding)
    return tuple(results[name] for name in outputs)


def one_norm(op, dtype=DType.FLOAT, scale_type=DType.FLOAT, *, scale=None, total=False, dims=("n", "d"), **attributes):
    """A model of one node; a scale given is constant."""
    inputs = [info("x", dtype, dims)] + [info("z", dtype, dims)] * (len(spec.OPS[op].inputs) == 3)
    constant = [] if scale is None else [numpy_helper.from_array(scale, "s")]
    inputs += [] if constant else [info("s", scale_type, ["k"])]
    outputs = [info("y", dtype, dims)] + [info("t", dtype, dims)] * total
    return model([node(op, total=total, **attributes)], inputs, outputs, constant)


def values(shape, dtype=DType.FLOAT, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(NUMPY[dtype])


def feeds_of(op, x, scale=None):
    given = {"x": x} | ({"z": values(x.shape, abi.DTYPE[x.dtype], 2)} if len(spec.OPS[op].inputs) == 3 else {})
    return given | ({} if scale is None else {"s": scale})


def types_of(op, dtype):
    """Attributes of a node that computes in the widest sensible type and rounds once."""
    stash = DType.DOUBLE if dtype == DType.DOUBLE else DType.FLOAT
    types = {"stash_type": stash, "normalized_type": stash}
    return types | ({"scaled_type": stash} if op == spec.GATED.name else {})


def check(op, feeds, types, y, total=None):
    """Y is within its bound of the float64 oracle, and the sum is the rounded sum."""
    x, width, stash = feeds["x"], feeds["x"].shape[-1], types["stash_type"]
    attributes = dataclasses.replace(reference.Attributes(epsilon=float(np.float32(1e-5))), **types)
    given = feeds | {"s": feeds["s"].astype(NUMPY[stash])}
    if op == spec.SKIP.name:
        added = (x.astype(np.float64) + feeds["z"].astype(np.float64)).astype(x.dtype)
        assert total is None or total.tobytes() == added.tobytes()
        given |= {"x": added, "z": np.zeros_like(x)}
    wanted = reference.exact(op, [given[name] for name in ("x", "z", "s") if name in given], attributes)[0]
    bound = reference.bound(op, width, x.dtype, attributes, additions=16)
    assert reference.ulps(y, wanted, x.dtype).max() <= bound.ulps
