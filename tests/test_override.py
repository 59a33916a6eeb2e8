"""Drop-in mode: unmodified models whose norms are ONNX's or onnxruntime's own operators run on our kernels."""

from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path

import kernels_abi as abi
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from kernels_abi import NUMPY
from onnx import TensorProto, helper, numpy_helper

from rmsnorm_onnx import library, reference, spec
from rmsnorm_onnx.spec import DType

ONNX = "RMSNormalization"
SIMPLIFIED = "SimplifiedLayerNormalization"
SKIP = "SkipSimplifiedLayerNormalization"
MODELS = abi.ROOT / "models"


@pytest.fixture(autouse=True)
def _built_library(monkeypatch):
    """Sessions use the library built from this tree, installed or not."""
    monkeypatch.setattr(library, "get_library_path", abi.library_path)


def session(proto, *, override: bool | str = "all", threads=1):
    """A session of a model or a path; onnxruntime as it is where ``override`` is None."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if override is not None:
        library.register(options, override=override)
    source = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def one_node(op, inputs, outputs, **attributes):
    """A model of one node. bfloat16 comes and goes as float32: numpy and onnxruntime < 1.27 share no bfloat16.

    ``inputs`` are arrays by name; ``outputs`` types by name, None for one left out.
    """
    before, after, ins, outs = [], [], [], []
    for name, array in inputs.items():
        dtype = abi.DTYPE[array.dtype]
        if dtype is DType.BFLOAT16:
            before.append(helper.make_node("Cast", [f"{name}_f32"], [name], to=int(dtype)))
        given = (f"{name}_f32", DType.FLOAT) if dtype is DType.BFLOAT16 else (name, dtype)
        ins.append(helper.make_tensor_value_info(given[0], int(given[1]), [None] * array.ndim))
    for name, dtype in outputs.items():
        if dtype is DType.BFLOAT16:
            after.append(helper.make_node("Cast", [name], [f"{name}_f32"], to=int(DType.FLOAT)))
        if dtype:
            given = (f"{name}_f32", DType.FLOAT) if dtype is DType.BFLOAT16 else (name, dtype)
            outs.append(helper.make_tensor_value_info(given[0], int(given[1]), None))
    domain = "com.microsoft" if op == SKIP else ""
    names = [name if dtype else "" for name, dtype in outputs.items()]
    node = helper.make_node(op, list(inputs), names, name="norm", domain=domain, **attributes)
    graph = helper.make_graph([*before, node, *after], "graph", ins, outs)
    # The newest only where the operator is: older releases of onnxruntime know no opset 23.
    opsets = [helper.make_opsetid("", 23 if op == ONNX else 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def run(op, inputs, outputs, *, threads=1, **attributes):
    """The outputs asked for, of the types asked for."""
    made = session(one_node(op, inputs, outputs, **attributes), threads=threads)
    feeds = [a.astype(np.float32) if abi.DTYPE[a.dtype] is DType.BFLOAT16 else a for a in inputs.values()]
    got = made.run(None, dict(zip([i.name for i in made.get_inputs()], feeds, strict=True)))
    types = [dtype for dtype in outputs.values() if dtype]
    return [array.astype(NUMPY[dtype]) for array, dtype in zip(got, types, strict=True)]


def values(shape, dtype=DType.FLOAT, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(NUMPY[dtype])


def inverse_root(x, axes, epsilon):
    return 1 / np.sqrt(np.mean(np.square(x.astype(np.float64)), axes, keepdims=True) + np.float32(epsilon))


@pytest.mark.parametrize("shape", [(3, 4, 50), (3, 4, 1), (40, 2, 512)], ids=str)
@pytest.mark.parametrize(("t", "v"), list(itertools.product(DType, DType)), ids=str)
@pytest.mark.parametrize("op", [ONNX, SIMPLIFIED])
def test_every_mix_of_types_is_within_its_bound(op, t, v, shape):
    x, scale = values(shape, t), values(shape[1:], v, seed=1)
    axes = (1, 2) if shape[-1] == 50 else (2,)
    outputs = {"y": v} | ({"i": DType.FLOAT} if op == SIMPLIFIED else {})
    got = run(op, {"x": x, "s": scale}, outputs, axis=axes[0], epsilon=1e-3, threads=2)
    stash = DType.DOUBLE if t is DType.DOUBLE else DType.FLOAT
    normalized = t if op == ONNX and t is v else stash
    attributes = reference.Attributes(
        axes=axes, epsilon=float(np.float32(1e-3)), stash_type=stash, normalized_type=normalized
    )
    wanted = reference.exact(spec.RMS.name, [x, scale.astype(NUMPY[stash])], attributes)[0]
    # A result of float arithmetic in a double has the error of a float.
    dtype = NUMPY[stash if v is DType.DOUBLE else v]
    bound = reference.bound(spec.RMS.name, 512, dtype, attributes, additions=16)
    assert reference.ulps(got[0].astype(dtype), wanted, dtype).max() <= bound.ulps
    if op == SIMPLIFIED:
        root = inverse_root(x, axes, 1e-3)
        assert got[1].shape == root.shape
        np.testing.assert_allclose(got[1], root, rtol=2**-22)


def test_default_epsilon_and_axis():
    x, scale = values((6, 32)) * np.float32(1e-3), np.ones(32, np.float32)
    for op, epsilon in ((ONNX, 1e-5), (SIMPLIFIED, 1e-5), (SKIP, 1e-12)):
        inputs = {"x": x} | ({"z": np.zeros_like(x)} if op == SKIP else {}) | {"s": scale}
        got = run(op, inputs, {"y": DType.FLOAT})[0]
        np.testing.assert_allclose(got, x * inverse_root(x, -1, epsilon), rtol=1e-6)


@pytest.mark.parametrize("form", ["skip", "bias", "short", "short-bias"])
@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.FLOAT16, DType.BFLOAT16], ids=str)
@pytest.mark.parametrize("width", [128, 200, 512])
def test_residual_form(dtype, form, width):
    """The sum of two or three, rounded once; the norm of the rounded sum; its root."""
    x, scale = values((3, 40, width), dtype), values(width, dtype, 1)
    skip = values((40, width) if form.startswith("short") else x.shape, dtype, 2)
    bias = values(width, dtype, 3)
    inputs = {"x": x, "z": skip, "s": scale} | ({"b": bias} if form.endswith("bias") else {})
    outputs = {"y": dtype, "m": None, "i": DType.FLOAT, "t": dtype}
    y, inverse, total = run(SKIP, inputs, outputs, epsilon=1e-5, threads=2)
    wanted = x.astype(np.float32) + skip.astype(np.float32)
    wanted = (wanted + bias.astype(np.float32) if "b" in inputs else wanted).astype(x.dtype)
    assert total.tobytes() == wanted.tobytes()
    same = run(SIMPLIFIED, {"x": wanted, "s": scale}, {"y": dtype, "i": DType.FLOAT}, epsilon=1e-5)
    assert y.tobytes() == same[0].tobytes()
    assert inverse.tobytes() == same[1].tobytes()
    np.testing.assert_allclose(inverse, inverse_root(wanted, -1, 1e-5), rtol=2**-22)
    assert run(SKIP, inputs, {"y": dtype}, epsilon=1e-5)[0].tobytes() == y.tobytes()


@pytest.mark.parametrize("bias", [False, True])
def test_residual_sum_is_the_one_of_onnxruntime(bias):
    x = values((2, 5, 64), DType.FLOAT16)
    inputs = {"x": x, "z": values((5, 64), DType.FLOAT16, 1), "s": values(64, DType.FLOAT16, 2)}
    inputs |= {"b": values(64, DType.FLOAT16, 3)} if bias else {}
    proto = one_node(SKIP, inputs, {"y": DType.FLOAT16, "m": None, "i": None, "t": DType.FLOAT16}, epsilon=1e-5)
    stock, ours = (session(proto, override=override).run(None, inputs) for override in (None, "all"))
    assert stock[1].tobytes() == ours[1].tobytes()
    np.testing.assert_allclose(stock[0].astype(np.float32), ours[0].astype(np.float32), rtol=2e-3, atol=1e-4)


def test_mean_is_refused_and_a_wrong_addend_named():
    x = values((2, 3, 8))
    inputs = {"x": x, "z": x, "s": values(8)}
    with pytest.raises(Exception, match=r"SkipSimplifiedLayerNormalization node 'norm': expected no use of .* mean"):
        session(one_node(SKIP, inputs, {"y": DType.FLOAT, "m": DType.FLOAT}))
    with pytest.raises(Exception, match=re.escape("expected skip of the shape of X, [2, 3, 8], got [2, 8]")):
        run(SKIP, inputs | {"z": values((2, 8))}, {"y": DType.FLOAT})
    with pytest.raises(Exception, match=re.escape("expected a bias of the innermost dimensions of X, [2, 3, 8]")):
        run(SKIP, inputs | {"b": values(3)}, {"y": DType.FLOAT})


@pytest.mark.parametrize("op", [ONNX, SIMPLIFIED])
def test_empty_tensors(op):
    for shape in ((0, 8), (3, 0)):
        assert run(op, {"x": values(shape), "s": values(1)}, {"y": DType.FLOAT})[0].shape == shape


def test_mixed_gemma_export_loads_and_agrees():
    folder = MODELS / "gemma3-dynamo23-f16"
    with pytest.raises(Exception, match=r"Mul.*bound to different types"):
        session(folder / "model.onnx", override=None)
    made = session(folder / "model.onnx", override=True)
    load = lambda name: numpy_helper.to_array(onnx.load_tensor(folder / "test_data_set_0" / name))  # noqa: E731
    feeds = {v.name: load(f"input_{i}.pb") for i, v in enumerate(made.get_inputs())}
    for i, got in enumerate(made.run(None, feeds)):
        wanted = load(f"output_{i}.pb").astype(np.float32)
        assert np.max(np.abs(got.astype(np.float32) - wanted)) <= 2**-7 * np.max(np.abs(wanted))


def test_bfloat16_norm_loads():
    """Alone: onnxruntime's CPU has no bfloat16 kernels for what stands around it in the exports."""
    inputs = {"x": values((4, 64), DType.BFLOAT16), "s": values(64, DType.BFLOAT16, 1)}
    proto = one_node(ONNX, inputs, {"y": DType.BFLOAT16})
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        session(proto, override=None)
    assert session(proto, override=True) is not None


def test_cases_of_onnx():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other operators' cases
        cases = [case for case in collect_testcases(None) if case.name.startswith("test_rms_normalization_")]
    cases = [case for case in cases if not case.name.endswith("_expanded")]
    assert len(cases) >= 19
    for case in cases:
        made = session(case.model, override=True)
        for inputs, outputs in case.data_sets:
            got = made.run(None, dict(zip([i.name for i in made.get_inputs()], inputs, strict=True)))
            # The expected values are float32 numpy's, off by a few roundings themselves.
            assert np.max(reference.ulps(got[0], outputs[0], np.float32)) <= 8, case.name


def decomposed(opsets):
    """What onnxruntime's optimizer turns into SimplifiedLayerNormalization."""
    constants = {"two": 2.0, "eps": 1e-5}
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["mean"], axes=[-1]),
        helper.make_node("Add", ["mean", "eps"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["normalized"]),
        helper.make_node("Mul", ["normalized", "s"], ["y"]),
    ]
    held = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    held.append(numpy_helper.from_array(values(256, seed=1), "s"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 256])
    return helper.make_model(helper.make_graph(nodes, "graph", [x], [y], held), opset_imports=opsets, ir_version=8)


def test_nodes_that_the_optimizer_makes_run_on_our_kernels(monkeypatch):
    proto, x = decomposed([helper.make_opsetid("", 17)]), values((64, 256))
    ours = session(proto, override=True).run(None, {"x": x})[0]
    direct = run(SIMPLIFIED, {"x": x, "s": values(256, seed=1)}, {"y": DType.FLOAT})[0]
    assert ours.tobytes() == direct.tobytes()
    # Only our kernels read this variable.
    monkeypatch.setenv(spec.ISA_VARIABLE, "mmx")
    with pytest.raises(Exception, match=r"SimplifiedLayerNormalization node .*instruction set 'mmx'"):
        session(proto, override=True)
    for override in (False, None):
        np.testing.assert_allclose(session(proto, override=override).run(None, {"x": x})[0], ours, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama-dynamo23-f32", "mamba2-dynamo23-f16"])
def test_other_nodes_are_as_without(name, tmp_path):
    """The same nodes run, onnxruntime's fusions into com.microsoft operators among them."""
    kinds = []
    for override in (None, True):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        if override:
            library.register(options, override=True)
        ort.InferenceSession(str(MODELS / name / "model.onnx"), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
        kinds.append(sorted((n.domain, n.op_type) for n in nodes if n.op_type not in {ONNX, "Cast"}))
    assert kinds[0] == kinds[1]
    assert any(domain == "com.microsoft" for domain, _ in kinds[0])


def test_registering_again_and_more():
    x = values((4, 16))
    proto = one_node(ONNX, {"x": x, "s": values(16)}, {"y": DType.FLOAT})
    for order in ([True, True], [False, True], [True, False], ["all", True, "all"], [False, True, "all"]):
        options = ort.SessionOptions()
        for override in order:
            library.register(options, override=override)
        assert ort.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x, "s": values(16)})


def test_bits_do_not_depend_on_threads_or_place():
    x, scale = values((300, 512), DType.FLOAT16), values(512, DType.DOUBLE, 1)
    results = [run(ONNX, {"x": x, "s": scale}, {"y": DType.DOUBLE}, threads=threads)[0] for threads in (1, 4)]
    assert results[0].tobytes() == results[1].tobytes()
    part = run(ONNX, {"x": x[7:9], "s": scale}, {"y": DType.DOUBLE})[0]
    assert part.tobytes() == results[0][7:9].tobytes()
