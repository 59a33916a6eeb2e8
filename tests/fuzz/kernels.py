"""The fuzzer of the compiled library: random nodes in onnxruntime sessions, against the float64 oracle."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from rmsnorm_onnx import library, reference, spec
from rmsnorm_onnx.errors import LibraryMissing
from rmsnorm_onnx.spec import DType

from .isolate import Finding
from .nodes import Node, draw

#: Names another library file to test, a build with sanitizers for example.
LIBRARY = "RMSNORM_FUZZ_LIBRARY"
#: Of ONNX's RMSNormalization; older releases of onnxruntime know none of them.
_NEWEST_OPSET = 23


@functools.cache
def library_path() -> str:
    """The library under test: the one named, else the installed one, else one built from this tree."""
    try:
        return os.environ.get(LIBRARY) or _installed()
    except LibraryMissing:
        import kernels_abi

        return kernels_abi.library_path()


_installed = library.get_library_path


def judge(number: int, stage: Callable[[str], None]) -> tuple[tuple[str, ...], Finding | None]:
    """What became of the node of this number."""
    library.get_library_path = library_path
    if number < 0:
        _isas()
        return (), None
    node = draw(number)
    try:
        outcome, problem = _judge(node, stage)
    except Exception as error:
        return ("finding",), Finding(f"{type(error).__name__} in the fuzzer", f"{node}\n{traceback.format_exc()}")
    if problem is not None:
        return ("finding",), Finding(f"{problem.splitlines()[0]}: {node.op}", f"{node}\n{problem}")
    return (outcome,), None


@functools.cache
def _isas() -> tuple[str, ...]:
    return library.info().isa_supported


def _judge(node: Node, stage: Callable[[str], None]) -> tuple[str, str | None]:
    os.environ[spec.ISA_VARIABLE] = _isas()[node.isa % len(_isas())]
    stage(f"session of {node}")
    try:
        made = _session(node)
        stage(f"run of {node}")
        got = _run(made, node)
    except Exception as error:  # onnxruntime raises a dozen classes without a common base
        text = str(error)
        if not node.wrong:
            return "", f"refused, though legal\n{text}"
        ours = "expected" in text
        return f"refused by {'the library' if ours else 'onnxruntime'}", None if text else "refused without a word"
    if node.wrong:
        # What onnxruntime takes, the library must have taken care of: nothing was read that is not there.
        return "illegal, but without effect", None if _harmless(node) else f"accepted: {', '.join(node.wrong)}"
    if node.length > 1:
        stage(f"one by one: {node}")
        return "in a row: same bits", _chain_problem(node, got[0])
    return "special values" if node.special else "right", _problem(node, got)


def _harmless(node: Node) -> bool:
    """Whether onnxruntime drops what is wrong before the library sees it: an output too many that is optional."""
    return node.wrong == ["number of outputs"]


def _session(node: Node, length: int | None = None) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = node.threads
    options.log_severity_level = 4
    library.register(options, override="all" if node.built_in else False)
    data = _model(node, node.length if length is None else length).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _model(node: Node, length: int) -> onnx.ModelProto:
    free = [None] * node.x.ndim
    inputs = [helper.make_tensor_value_info("x", int(node.dtype), free)]
    names = ["x"]
    if node.second is not None:
        inputs.append(helper.make_tensor_value_info("z", int(node.dtype), [None] * node.second.ndim))
        names.append("z")
    names.append("s")
    held = []
    if node.constant_scale:
        held = [numpy_helper.from_array(node.scale, "s")]
    else:
        inputs.append(helper.make_tensor_value_info("s", int(node.scale_type), [None] * node.scale.ndim))
    if node.inputs is not None:
        names = [*names, *["s"] * 5][: node.inputs]
    domain = "" if node.built_in else spec.DOMAIN
    if node.op.startswith("SkipSimplified"):
        domain = "com.microsoft"
    nodes, outputs = [], []
    for step in range(length):
        given = [f"v{step}" if step else "x", *names[1:]] if names else []
        results = [f"v{step + 1}"]
        if node.outputs > 1:
            # Of the skip norm of onnxruntime the sum only: mean and inverse root have tests of their own.
            results += ["", "", "t"] if node.outputs == 4 else ["t"]
        nodes.append(helper.make_node(node.op, given, results, name=f"norm{step}", domain=domain, **node.attributes))
    result = node.scale_type if node.built_in else node.dtype
    outputs.append(helper.make_tensor_value_info(f"v{length}", int(result), None))
    if node.outputs > 1:
        statistic = node.op == "SimplifiedLayerNormalization"
        outputs.append(helper.make_tensor_value_info("t", int(DType.FLOAT if statistic else node.dtype), None))
    graph = helper.make_graph(nodes, "graph", inputs, outputs, held)
    opset = _NEWEST_OPSET if node.built_in and node.op == "RMSNormalization" else 18
    imports = {"": opset, spec.DOMAIN: spec.VERSION, "com.microsoft": 1}
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*i) for i in imports.items()], ir_version=10)


def _run(made: Any, node: Node) -> list[np.ndarray]:
    arrays = {"x": node.x, "z": node.second, "s": node.scale}
    binding = made.io_binding()
    for given in made.get_inputs():
        binding.bind_ortvalue_input(given.name, _ort_value(arrays[given.name]))
    for output in made.get_outputs():
        binding.bind_output(output.name)
    made.run_with_iobinding(binding)
    return [_numpy(value) for value in binding.get_outputs()]


def _ort_value(array: np.ndarray) -> Any:
    if array.dtype != reference.NUMPY_TYPES[DType.BFLOAT16]:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), int(DType.BFLOAT16))


def _numpy(value: Any) -> np.ndarray:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    import ctypes

    shape = tuple(value.shape())
    count = int(np.prod(shape, initial=1))
    bits = (ctypes.c_uint16 * count).from_address(value.data_ptr()) if count else []
    return np.array(bits, np.uint16).view(reference.NUMPY_TYPES[DType.BFLOAT16]).reshape(shape)


def _chain_problem(node: Node, got: np.ndarray) -> str | None:
    """Nodes in a row work in place; one by one they must give the same bits."""
    single = _session(node, 1)
    x = node.x
    for _ in range(node.length):
        node.x = _run(single, node)[0]
    wanted, node.x = node.x, x
    return None if wanted.tobytes() == got.tobytes() else "other bits in a row than one by one"


def _problem(node: Node, got: list[np.ndarray]) -> str | None:
    x, second = node.x, node.second
    if got[0].shape != x.shape:
        return f"shape\n{got[0].shape} instead of {x.shape}"
    if not x.size:
        return None
    op = {"SimplifiedLayerNormalization": spec.RMS.name, "SkipSimplifiedLayerNormalization": spec.RMS.name}.get(
        node.op, node.op
    )
    with np.errstate(all="ignore"):
        if node.op in (spec.SKIP.name, "SkipSimplifiedLayerNormalization"):
            assert second is not None
            second = second.reshape(second.shape[max(0, second.ndim - x.ndim) :])  # ones in front
            x = (x.astype(np.float64) + np.broadcast_to(second, x.shape).astype(np.float64)).astype(x.dtype)
            if node.outputs > 1 and not _same(got[1], x):
                return "sum\nthe sum is not that of X and skip, rounded"
            second, op = None, spec.RMS.name
        attributes = node.meaning()
        stash = reference.NUMPY_TYPES[attributes.stash_type]
        given = [a for a in (x, second, node.scale.astype(stash)) if a is not None]
        wanted = reference.exact(op, given, attributes)[0]
    axes = tuple(axis % x.ndim for axis in attributes.axes)
    width = int(np.prod([x.shape[axis] for axis in axes]))
    dtype = got[0].dtype
    if node.built_in and dtype == np.float64:
        dtype = np.dtype(stash)
    bound = reference.bound(op, width, dtype, attributes)
    settled = _settled(x, axes) if node.special else np.ones(x.shape, bool)
    with np.errstate(all="ignore"):
        ulps = reference.ulps(got[0].astype(dtype), wanted, dtype)
    wrong = settled & ~(ulps <= bound.ulps)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        error = f"{ulps[where]:.3g} ulps, bound {bound.ulps:.3g}"
        return f"value\n{got[0][where]!r} instead of {wanted[where]!r} at {where}: {error}"
    return _special_problem(x, axes, got[0]) if node.special and op == spec.RMS.name else None


def _settled(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The norms of ordinary values only."""
    wide = np.abs(x.astype(np.float64))
    return np.broadcast_to(np.all((wide >= 2.0**-4) & (wide <= 2.0**9), axis=axes, keepdims=True), x.shape)


def _special_problem(x: np.ndarray, axes: tuple[int, ...], y: np.ndarray) -> str | None:
    """NaN spreads over its norm; inf makes 0 of everything else in it, and NaN of itself."""
    wide = x.astype(np.float64)
    has_nan = np.broadcast_to(np.any(np.isnan(wide), axis=axes, keepdims=True), x.shape)
    has_inf = np.broadcast_to(np.any(np.isinf(wide), axis=axes, keepdims=True), x.shape) & ~has_nan
    got = y.astype(np.float64)
    if not np.isnan(got[has_nan]).all():
        return "NaN\na norm of values with NaN is not NaN"
    if not (np.isnan(got) == np.isinf(wide))[has_inf].all() or (got[has_inf & np.isfinite(wide)] != 0).any():
        return "inf\na norm of values with inf is not 0, and NaN at the inf"
    return None


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.array_equal(a.astype(np.float64), b.astype(np.float64), equal_nan=True))
