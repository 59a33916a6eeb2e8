"""``info``: what there is, and whether the library is right; and what may be imported for --help."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from command import TESTS, run

from rmsnorm_onnx import info, library, reference, selftest, spec
from rmsnorm_onnx.errors import CannotRun, LibraryMissing
from rmsnorm_onnx.library import CudaInfo


@pytest.fixture(scope="module")
def found() -> info.Info:
    return info.info()


def test_info_says_all_on_one_screen(found):
    lines = run("info").stdout.splitlines()
    assert len(lines) <= 24
    # A path may be as long as it wants; everything else fits.
    assert max(len(line) for line in lines if library.get_library_path() not in line) <= 80
    text = "\n".join(lines)
    for part in (f"{found.library.isa_active} (in use)", "CPUExecutionProvider", *spec.OPS, "onnxruntime 1.", "CUDA"):
        assert part in text
    assert lines[-1] == "the compiled library answers; 16 kernels run and are within their bounds"


def test_info_as_json_holds_the_same(found):
    document = json.loads(run("info", "--json").stdout)
    assert document["ok"]
    assert document["problem"] == ""
    assert document["library"]["isa_active"] in document["library"]["isa_supported"]
    assert len(document["self_test"]) == len(spec.OPS) * 4
    assert all(check["ok"] and 0 < check["max_ulps"] <= check["bound_ulps"] for check in document["self_test"])
    assert "CPUExecutionProvider" in document["providers"]


def test_a_gpu_is_named_or_the_reason_why_there_is_none(found):
    for device, text in (({"name": "H100", "sm": 90}, "GPU: name H100, sm 90"), ("no driver", "GPU: no driver")):
        built = replace(found.library, cuda=CudaInfo(("90",), device))
        facts = replace(found, library=built).report().facts
        assert text in [f"{label}: {line}" for label, line in facts]


def test_a_wrong_kernel_is_found_and_named(monkeypatch, found):
    exact = reference.exact

    def off_by_a_little(op, inputs, attributes):
        y, *rest = exact(op, inputs, attributes)
        return (y * (1 + 2e-5) if op == spec.GATED.name else y, *rest)

    monkeypatch.setattr(reference, "exact", off_by_a_little)
    done = run("info", code=3)
    assert "WRONG" in done.stdout
    verdict = " ".join(done.stdout.splitlines()).rpartition("the library is WRONG, the self-test failed: ")[2]
    assert {part.split()[0] for part in verdict.split(", ")} == {spec.GATED.name}


def test_a_kernel_that_gives_nan_is_wrong():
    op, dtype = spec.RMS, spec.DType.FLOAT
    check = selftest._check(op, dtype, selftest._feeds(), np.full(selftest._SHAPE, np.nan))
    assert not check.ok


@pytest.mark.parametrize(
    ("module", "function", "error"),
    [(library, "info", LibraryMissing("no librmsnorm_onnx.so")), (info, "self_test", CannotRun("it does not run"))],
)
def test_a_library_that_does_not_work_is_exit_code_3(module, function, error, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr(module, function, fail)
    assert run("info", code=3).stdout.splitlines()[-1] == str(error)
    document = json.loads(run("info", "--json", code=3).stdout)
    assert (document["ok"], document["problem"]) == (False, str(error))


def test_without_onnxruntime_info_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = run("info", code=3).stdout
    assert "providers: none: onnxruntime is not installed" in out
    assert "pip install" in out


HEAVY = ("onnx", "onnx_ir", "numpy", "onnxruntime", "jinja2", "onnxscript", "ml_dtypes")
COMMANDS = ("optimize", "inspect", "verify", "info", "benchmark", "benchmark kernels", "benchmark model")
#: After each command, what was imported for it, though it is long since in memory.
CALLS = """
import sys
from rmsnorm_onnx.cli import main
for command in sys.argv[1:]:
    try:
        main(command.split())
    except SystemExit as done:
        print(command, done.code or 0, *sys.modules, file=sys.stderr)
"""


def test_help_imports_nothing_heavy():
    commands = ["--version", "--help", *(f"{name} --help" for name in COMMANDS)]
    line = [sys.executable, "-c", CALLS, *commands]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=TESTS)
    for command, told in zip(commands, done.stderr.splitlines(), strict=True):
        assert told.startswith(f"{command} 0 ")
        assert set(told.split()).isdisjoint(HEAVY), command
