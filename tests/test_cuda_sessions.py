"""The operators inside onnxruntime's CUDA provider: needs a GPU, onnxruntime-gpu and a library with CUDA kernels."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import cuda_device
import cuda_memory
import numpy as np
import pytest

if importlib.util.find_spec("onnxruntime") is None:
    pytest.skip("no onnxruntime", allow_module_level=True)

import onnxruntime as ort
from norm_models import check, feeds_of, info, model, node, one_norm, run, session, types_of, values
from onnx import helper, numpy_helper

from rmsnorm_onnx import library, spec
from rmsnorm_onnx.spec import DType

# Warnings of packages that only such a machine has are not ours to end on.
pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]
CUDA = "CUDAExecutionProvider"
ops = pytest.mark.parametrize("op", list(spec.OPS))


@pytest.fixture(autouse=True)
def _cuda(monkeypatch):
    if not cuda_memory.has_gpu():
        pytest.skip("no NVIDIA GPU")
    if CUDA not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime {ort.__version__} has no CUDA provider")
    monkeypatch.setattr(library, "get_library_path", cuda_device.onnxruntime_library)
    started()


@functools.cache
def started():
    """The provider, or the test fails: it falls back to the CPU where it does not find CUDA's own libraries."""
    if hasattr(ort, "preload_dlls"):  # those of Python packages are not where the loader looks
        ort.preload_dlls()
    providers = session(one_norm(spec.RMS.name), providers=[CUDA]).get_providers()
    assert CUDA in providers, f"there is a GPU, and onnxruntime {ort.__version__} starts only {providers}"


def cuda_session(proto, profile=None, **options):
    """Without the CPU to fall back to, but for what onnxruntime itself puts there."""
    return session(proto, providers=[(CUDA, {name: str(value) for name, value in options.items()})], profile=profile)


def placement(made):
    """(operator, provider) of every node that ran."""
    with open(made.end_profiling(), encoding="utf-8") as file:
        events = [event["args"] for event in json.load(file) if event["cat"] == "Node"]
    return [(args["op_name"], args["provider"]) for args in events if "provider" in args]


@ops
@pytest.mark.parametrize(("dtype", "scale_type"), list(itertools.product(DType, DType)), ids=str)
def test_every_type_runs_on_the_device(op, dtype, scale_type, tmp_path):
    total = op == spec.SKIP.name
    feeds = feeds_of(op, values((6, 300), dtype), values(300, scale_type, 1))
    types = types_of(op, dtype)
    proto = one_norm(op, dtype, scale_type, total=total, **types)
    made = cuda_session(proto, tmp_path / "profile")
    check(op, feeds, types, *run(made, proto, feeds, ("y", "t") if total else ("y",)))
    assert placement(made) == [(op, CUDA)]


@ops
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 3, 4096), [-1]), ((1, 131), [-1]), ((2, 24, 5, 7), [1]), ((3, 4, 5, 6), [1, 3]), ((70000,), [-1])],
    ids=str,
)
def test_shapes_and_axes_give_what_the_cpu_gives(op, shape, axes):
    x, scale = values(shape), values(1, seed=1)
    feeds = feeds_of(op, x, scale)
    proto = one_norm(op, dims=[None] * len(shape), axes=axes)
    got, wanted = (run(made, proto, feeds)[0] for made in (cuda_session(proto), session(proto)))
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=1e-7)


@ops
def test_a_constant_scale_and_an_empty_batch(op):
    scale = values(64, seed=1)
    for rows in (0, 5):
        feeds = feeds_of(op, values((rows, 64)))
        proto = one_norm(op, scale=scale)
        got, wanted = (run(made, proto, feeds)[0] for made in (cuda_session(proto), session(proto)))
        np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=1e-7)


def chain(length, width=256, dtype=DType.FLOAT):
    """Skip norms one after the other, each on the sum of the one before, as in a transformer."""
    names = [("x", "z"), *((f"y{i}", f"t{i}") for i in range(length))]
    nodes = []
    for before, after in itertools.pairwise(names):
        nodes.append(helper.make_node(spec.SKIP.name, [*before, "s"], list(after), domain=spec.DOMAIN, epsilon=1e-5))
    last = names[-1]
    scale = numpy_helper.from_array(values(width, dtype, 1), "s")
    ends = [info(name, dtype, ["n", width]) for name in ("x", "z", *last)]
    return model(nodes, ends[:2], ends[2:], [scale]), last


def test_a_chain_has_no_copies_and_agrees_with_the_cpu(tmp_path):
    proto, last = chain(12)
    feeds = {"x": values((9, 256)), "z": values((9, 256), seed=2)}
    made = cuda_session(proto, tmp_path / "profile")
    got, wanted = run(made, proto, feeds, last), run(session(proto), proto, feeds, last)
    for ours, cpu in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, cpu, rtol=1e-4, atol=1e-5)
    assert placement(made) == [(spec.SKIP.name, CUDA)] * 12


def on_device(array):
    return ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)


def bound(made, arrays, outputs):
    """A binding whose inputs and outputs stay on the device, and the outputs' values."""
    binding = made.io_binding()
    inputs = {name: on_device(array) for name, array in arrays.items()}
    results = {name: on_device(np.zeros_like(arrays["x"])) for name in outputs}
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in results.items():
        binding.bind_ortvalue_output(name, value)
    return binding, inputs, results


@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.FLOAT16], ids=str)
def test_tensors_that_stay_on_the_device(dtype):
    proto = one_norm(spec.RMS.name, dtype, dtype)
    feeds = feeds_of(spec.RMS.name, values((33, 500), dtype), values(500, dtype, 1))
    made = cuda_session(proto)
    binding, _, results = bound(made, feeds, ["y"])
    made.run_with_iobinding(binding)
    check(spec.RMS.name, feeds, types_of(spec.RMS.name, dtype), results["y"].numpy())


@pytest.mark.parametrize("rows", [1, 40])
def test_captured_in_a_cuda_graph(rows):
    proto, last = chain(4)
    made = cuda_session(proto, enable_cuda_graph=1)
    feeds = {"x": values((rows, 256)), "z": values((rows, 256), seed=2)}
    binding, inputs, results = bound(made, feeds, last)
    made.run_with_iobinding(binding)  # captures
    for seed in range(3):  # replays
        new = {name: values((rows, 256), seed=10 * seed + i) for i, name in enumerate(feeds)}
        for name, array in new.items():
            inputs[name].update_inplace(array)
        made.run_with_iobinding(binding)
        plain = run(cuda_session(proto), proto, new, last)
        for name, wanted in zip(last, plain, strict=True):
            assert results[name].numpy().tobytes() == wanted.tobytes()


def test_threads_and_streams_give_the_same_bits():
    """Two threads share a session; other sessions have streams of their own, and all run at once."""
    proto, last = chain(6)
    feeds = [{"x": values((17, 256), seed=i), "z": values((17, 256), seed=50 + i)} for i in range(8)]
    shared = cuda_session(proto)
    alone = [run(shared, proto, given, last) for given in feeds]
    sessions = [shared, shared, cuda_session(proto), cuda_session(proto)]

    def work(made):
        return [run(made, proto, given, last) for _ in range(25) for given in feeds]

    with ThreadPoolExecutor(len(sessions)) as pool:
        for got in pool.map(work, sessions):
            for result, wanted in zip(got, alone * 25, strict=True):
                assert [array.tobytes() for array in result] == [array.tobytes() for array in wanted]


def test_bits_do_not_depend_on_the_number_of_rows():
    proto = one_norm(spec.RMS.name, DType.FLOAT16, scale=values(4096, DType.FLOAT16, 1))
    x = values((300, 4096), DType.FLOAT16)
    made = cuda_session(proto)
    whole = run(made, proto, {"x": x})[0]
    for rows in (1, 2, 63):
        assert run(made, proto, {"x": x[:rows]})[0].tobytes() == whole[:rows].tobytes()


def test_a_wrong_shape_names_the_node():
    proto = model([node(spec.RMS.name)], [info("x", 1, None), info("s", 1, None)], [info("y", 1, None)])
    with pytest.raises(Exception, match=r"RMSNormalization node 'norm': expected a scale that broadcasts"):
        cuda_session(proto).run(None, {"x": np.zeros((2, 8), np.float32), "s": np.zeros(3, np.float32)})


def test_the_device_is_named():
    said = library.info().cuda
    assert said is not None
    assert isinstance(said.device, dict)
