"""What the launching code asks of CUDA, as nvcc compiled it: a runtime that writes its calls down, and needs no GPU."""

from __future__ import annotations

import ctypes
import functools
import itertools
import re
import threading

import cuda_abi
import kernels_abi as abi
import pytest
from fake_onnxruntime import FakeOnnxRuntime
from test_cuda_plan import described

from rmsnorm_onnx import spec
from rmsnorm_onnx.spec import DType

#: Index, compute capability and what the code was compiled for; facts of a device are read once.
TURING, AMPERE, HOPPER, OLD_CODE = (0, 75, 75), (1, 86, 80), (2, 90, 90), (3, 90, 80)
PROCESSORS = 132
#: As kernels are instantiated.
NAMES = {
    DType.FLOAT: "float",
    DType.FLOAT16: "rmsnorm::cuda::Half",
    DType.BFLOAT16: "rmsnorm::cuda::BFloat16",
    DType.DOUBLE: "double",
}
STREAM = 0x7000
LIBRARY = abi.BUILD / "librmsnorm_cuda_recorded.so"
fresh = itertools.count(10)


@functools.cache
def recorded():
    """The library of custom_ops/tests/cuda_recorder.cc."""
    if not abi.CUDA_LIBRARY.exists():
        pytest.skip("no CUDA kernels: make cuda builds them")
    abi.build("rmsnorm_cuda_recorded")
    if not LIBRARY.exists():
        pytest.skip("RMSNORM_BUILD names a build without it")
    library = ctypes.CDLL(str(LIBRARY))
    for name in ("rmsnorm_cuda_run", "rmsnorm_cuda_describe", "rmsnorm_recorder_calls"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


def launch(device, *problem, error=0, **changes):
    """The text of the error, and the calls that one launch made."""
    library = recorded()
    library.rmsnorm_recorder_device(*device, PROCESSORS, error)
    library.rmsnorm_recorder_calls()
    problem = described(*problem, **changes)
    text = library.rmsnorm_cuda_run(ctypes.byref(problem), ctypes.c_void_p(STREAM)).decode()
    return text, library.rmsnorm_recorder_calls().decode().splitlines()


def launched(device, *problem, **changes):
    """Numbers of the one launch, and the kernel."""
    text, calls = launch(device, *problem, **changes)
    assert text == ""
    (call,) = (call for call in calls if call.startswith("launch"))
    facts, _, kernel = call.partition(" of ")
    return {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", facts)} | {"kernel": kernel}


def test_a_launch_asks_for_the_device_and_launches():
    """Nothing that waits, allocates or copies, so a graph may capture it: the facts are read before, once."""
    device = (next(fresh), 90, 90)
    first = [call.split()[0] for call in launch(device, (4, 512))[1]]
    assert first == ["cudaGetDevice", *["cudaDeviceGetAttribute"] * 5, "cudaFuncGetAttributes", "launch"]
    for shape in ((4, 512), (1, 8192), (4096, 128), (2, 300001), (1, 1 << 20)):
        assert [call.split()[0] for call in launch(device, shape)[1]] == ["cudaGetDevice", "launch"]
    columns = launch(device, (3, 70, 64), axes=(1,))[1]
    assert [call.split()[0] for call in columns] == ["cudaGetDevice", "launch"]


def test_every_device_is_asked_about_itself():
    for number in (next(fresh), next(fresh)):
        calls = launch((number, 90, 90), (4, 512))[1]
        assert calls.count(f"cudaDeviceGetAttribute device {number}") == 5


@pytest.mark.parametrize(
    ("device", "overlaps", "clusters"),
    [(TURING, False, False), (AMPERE, False, False), (HOPPER, True, True), (OLD_CODE, False, False)],
    ids=["sm_75", "sm_86", "sm_90", "sm_90 with code for sm_80"],
)
def test_only_code_for_sm_90_overlaps_and_has_clusters(device, overlaps, clusters):
    """Code for an older one neither waits for the kernel before it nor reads another block's shared memory."""
    for shape, blocks in (((4096, 128), 1), ((64, 4096), 1), ((64, 65536), 2), ((64, 262144), 8), ((4, 1 << 20), 8)):
        found = launched(device, shape)
        assert found.get("overlaps") == (1 if overlaps else None)
        assert found.get("cluster") == (blocks if clusters and blocks > 1 else None)
        assert found["blocks"] % found.get("cluster", 1) == 0
        assert "attribute" not in found


@pytest.mark.parametrize("form", abi.FORMS)
@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("stash", [DType.FLOAT, DType.DOUBLE])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((300, 128), (-1,)), ((7, 1000), (-1,)), ((1, 8192), (-1,)), ((5, 5003), (-1,)), ((2, 131072), (-1,)),
     ((3, 70, 64), (1,)), ((3, 70, 7), (1,)), ((2, 8, 4, 64), (1, 3))],
    ids=str,
)  # fmt: skip
def test_launches_are_those_of_the_plan(shape, axes, dtype, form, stash):
    """The kernel too: of these types, this form, so many vectors and this access."""
    problem = {"dtype": dtype, "form": form, "stash": stash, "axes": axes}
    found = launched(HOPPER, shape, **problem)
    text = cuda_abi.emulated().plan("sm_90", described(shape, **problem))
    plan = {name: int(number) for name, number in re.findall(r"([a-z]+) (\d+)", text)}
    assert found["stream"] == STREAM
    assert found["blocks"] == plan["blocks"]
    assert found["threads"] == plan["threads"] * plan["rows"]
    assert found["shared"] == plan["shared"]
    assert found.get("cluster", 1) == plan["cluster"]
    access = f"(rmsnorm::cuda::Access){1 if ' shifted' in text else 2 if ' spread' in text else 0}"
    types = f"{NAMES[dtype]}, {NAMES[stash]}, (rmsnorm::Form){abi.FORMS.index(form)}"
    wanted = {
        "rows": f"hold_rows<{types}, {plan['vectors']}, {access}>",
        "reread": f"reread_rows<{types}>",
        "columns": f"side_by_side<{types}, {'true' if plan['vector'] > 1 else 'false'}>",
    }
    assert wanted[text.split()[0]] in found["kernel"]


class OnnxRuntime(FakeOnnxRuntime):
    """Has a stream."""

    def KernelContext_GetGPUComputeStream(self, context, stream, *_):  # noqa: N802
        ctypes.c_size_t.from_address(stream).value = STREAM
        return 0


@pytest.mark.parametrize("op", list(spec.OPS))
def test_nodes_launch_on_the_stream_of_onnxruntime(op):
    recorded().rmsnorm_recorder_device(*HOPPER, PROCESSORS, 0)
    fake = OnnxRuntime(str(LIBRARY))
    (node,) = (o for o in fake.ops() if o.name == op and o.provider and set(o.inputs) == {DType.FLOAT16})
    for shape, launches in (((2, 8), 1), ((0, 8), 0)):
        fake.shape = shape
        recorded().rmsnorm_recorder_calls()
        assert fake.run(node) == ""
        calls = recorded().rmsnorm_recorder_calls().decode().splitlines()
        launched = [call for call in calls if call.startswith("launch")]
        assert len(launched) == launches
        assert all(f" stream {STREAM} " in call and "Half, float" in call for call in launched)


def test_a_refused_launch_says_what_and_where():
    """The error is taken back, or the next launch of anybody would report it."""
    text, calls = launch(HOPPER, (4, 8192), form="skip", error=98)
    assert text.startswith("cannot start the skip norm of bfloat16 in float32 with a scale of bfloat16: 4 rows, ")
    assert text.endswith("on CUDA device 2 with code for sm_90: the error's name: what it means")
    assert calls[-1] == "cudaGetLastError"


def test_a_device_without_code_is_named():
    """What CUDA says to the first question about the code."""
    recorded().rmsnorm_recorder_device(next(fresh), 110, 0, PROCESSORS, 0)
    problem = described((4, 512))
    text = recorded().rmsnorm_cuda_run(ctypes.byref(problem), None).decode()
    assert text == "the current CUDA device cannot be used: the error's name: what it means"


def test_threads_have_devices_of_their_own():
    library, answers = recorded(), {}

    def work(number):
        library.rmsnorm_recorder_device(number, 90, 90, PROCESSORS, 98)
        problem = described((4, 512))
        answers[number] = library.rmsnorm_cuda_run(ctypes.byref(problem), None).decode()

    threads = [threading.Thread(target=work, args=(next(fresh),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"on CUDA device {number} " in text for number, text in answers.items())


def test_the_device_is_described_with_the_code_it_runs():
    recorded().rmsnorm_recorder_device(*OLD_CODE, PROCESSORS, 0)
    text = recorded().rmsnorm_cuda_describe().decode()
    assert '"arch": 90, "code": 80' in text
