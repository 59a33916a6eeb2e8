"""A library with CUDA kernels on a machine without a GPU: what it holds, what it says, that the CPU still works."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections import Counter

import cuda_memory
import kernels_abi as abi
import numpy as np
import onnxruntime as ort
import pytest
from fake_onnxruntime import FakeOnnxRuntime
from norm_models import check, execute, feeds_of, one_norm, types_of, values

from rmsnorm_onnx import library, spec
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.info import info
from rmsnorm_onnx.runtime import make_session
from rmsnorm_onnx.spec import DType

CUDA = "CUDAExecutionProvider"
ops = pytest.mark.parametrize("op", list(spec.OPS))


@pytest.fixture(autouse=True)
def _library_with_cuda(monkeypatch):
    monkeypatch.setattr(library, "get_library_path", abi.cuda_library_path)


def listing(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_without_nvcc_the_build_says_what_it_needs(tmp_path):
    """Also where there is one: programs are looked for in an empty folder."""
    command = [abi.tool("cmake"), "-S", abi.ROOT / "custom_ops", "-B", tmp_path / "build", "-G", "Ninja"]
    command += [f"-DCMAKE_MAKE_PROGRAM={abi.tool('ninja')}", f"-DPython3_EXECUTABLE={sys.executable}"]
    command += [f"-DCMAKE_CXX_COMPILER={abi.tool('c++')}", "-DRMSNORM_CUDA=ON"]
    command += [f"-DCMAKE_FIND_ROOT_PATH={tmp_path / 'empty'}", "-DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=ONLY"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "RMSNORM_CUDA needs nvcc 12 or 13, and none is on PATH" in re.sub(r"\s+", " ", done.stderr)


def test_exports_one_symbol_and_needs_no_cuda_library():
    path = abi.cuda_library_path()
    assert [line.split()[-1] for line in listing(abi.tool("nm"), "-D", "--defined-only", path)] == ["RegisterCustomOps"]
    needed = [line for line in listing(abi.tool("readelf"), "-d", path) if "NEEDED" in line]
    assert needed
    assert not [line for line in needed if "cuda" in line or "nv" in line]


def test_every_operator_is_there_for_both_devices_with_every_mix_of_types():
    found = [op for op in FakeOnnxRuntime(abi.cuda_library_path()).ops() if op.name in spec.OPS]
    cpu, cuda = ({(op.name, op.inputs, op.outputs) for op in found if op.provider == name} for name in ("", CUDA))
    assert cpu >= cuda
    assert Counter(name for name, *_ in cuda) == dict.fromkeys(spec.OPS, len(DType) ** 2)


def test_only_our_operators_run_on_a_gpu():
    found = FakeOnnxRuntime(abi.cuda_library_path()).ops()
    assert {op.name for op in found if op.provider} == set(spec.OPS)
    assert Counter(op.provider for op in found)[CUDA] == len(spec.OPS) * len(DType) ** 2


@pytest.mark.skipif(cuda_memory.has_gpu(), reason="the tensors are not there")
@ops
def test_a_launch_without_a_device_names_the_node_and_the_reason(op):
    fake = FakeOnnxRuntime(abi.cuda_library_path())
    node = next(o for o in fake.ops() if o.name == op and o.provider)
    assert fake.run(node).startswith(f"{op} node 'the node': ")
    fake.shape = (0, 8)
    assert fake.run(node) == ""


@ops
@pytest.mark.parametrize("mix", list(itertools.product((DType.FLOAT, DType.FLOAT16), repeat=2)), ids=str)
def test_the_cpu_runs_as_without_cuda(op, mix):
    dtype, scale_type = mix
    feeds = feeds_of(op, values((3, 72), dtype), values(72, scale_type, 1))
    types = types_of(op, dtype)
    got = execute(one_norm(op, dtype, scale_type, **types), feeds)
    check(op, feeds, types, *got)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "get_library_path", abi.library_path)
        assert execute(one_norm(op, dtype, scale_type, **types), feeds)[0].tobytes() == got[0].tobytes()


def test_info_names_architectures_and_the_device_or_why_there_is_none():
    said = library.info().cuda
    assert said is not None
    assert said.architectures
    assert said.device
    facts = dict(info().report().facts)
    assert facts["CUDA"] == f"compiled for {', '.join(said.architectures)}"
    assert facts["GPU"]


@pytest.mark.filterwarnings(f"ignore:.*{CUDA}:UserWarning")  # of onnxruntime's package for the CPU
def test_a_cuda_session_without_cuda_is_refused(monkeypatch):
    proto = one_norm(spec.RMS.name, scale=np.ones(8, np.float32))
    if CUDA not in ort.get_available_providers():
        with pytest.raises(CannotRun, match=f"lacks {CUDA}"):
            make_session(proto, library=True, providers=(CUDA,))

    # onnxruntime's package for GPUs goes on without the provider where there is no device.
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(CannotRun, match=f"could not start {CUDA}"):
        make_session(proto, library=True, providers=(CUDA,))
