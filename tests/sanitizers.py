"""Builds the library and the kernels with sanitizers, runs tests in them, and prints what was found.

    python tests/sanitizers.py [address] [thread] [undefined] [-n PROCESSES]

Sanitizers see accesses of code compiled with them, and that is ours alone: Python, numpy and onnxruntime are as they
come. Needs GCC, whose sanitizers are libraries that a Python may be started with.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import kernels_abi as abi

BUILD = abi.ROOT / "build"
KERNELS = ("test_kernels", "test_kernel_bits")
SESSIONS = ("test_threads", "test_library", "test_override")
#: Tests that weigh a process, which holds what a sanitizer notes besides. tests/leaks.py looks closer.
LEFT_OUT = "not leave_nothing_behind and not takes_over_the_memory"
#: Address spaces more random than this leave ThreadSanitizer no room.
RANDOM_BITS = 28


@dataclass(frozen=True)
class Flavour:
    """One build. ``preload`` are the libraries that Python starts with."""

    name: str
    sanitize: str
    preload: tuple[str, ...]
    options: dict[str, str]
    targets: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return BUILD / f"{self.name[0]}san"

    @property
    def findings(self) -> Path:
        """Sanitizers write their reports to files of this name and a process number."""
        return self.folder / "findings"


LIBRARIES = ("rmsnorm_onnx", "rmsnorm_kernels_test")
FLAVOURS = (
    Flavour(
        "address",
        "address,undefined",
        # The C++ library too: AddressSanitizer looks for its exceptions before Python has loaded it.
        ("libasan.so", "libubsan.so", "libstdc++.so"),
        # Leaks are asked for by tests/leaks.py.
        {"ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=64", "UBSAN_OPTIONS": "print_stacktrace=1"},
        LIBRARIES,
        (*KERNELS, *SESSIONS),
    ),
    # A long history: without it, half of the reports lack one of the two accesses. Only reports tell what was found.
    Flavour(
        "thread",
        "thread",
        ("libtsan.so",),
        {"TSAN_OPTIONS": "history_size=7:exitcode=0"},
        LIBRARIES,
        (*KERNELS, *SESSIONS),
    ),
    # The emulated kernels for GPUs read whole words of 16 bytes around what they are given, as GPUs may, which
    # AddressSanitizer takes for mistakes. The emulator checks addresses itself.
    Flavour(
        "undefined",
        "undefined",
        ("libubsan.so",),
        {"UBSAN_OPTIONS": "print_stacktrace=1"},
        ("rmsnorm_cuda_emulated",),
        ("test_cuda_kernels", "test_cuda_plan", "test_cuda_columns_plan"),
    ),
)


def build(flavour: Flavour) -> None:
    configure = [abi.tool("cmake"), "-S", str(abi.ROOT / "custom_ops"), "-B", str(flavour.folder), "-G", "Ninja"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={abi.tool('ninja')}", f"-DPython3_EXECUTABLE={sys.executable}"]
    configure += ["-DRMSNORM_TESTS=ON", f"-DRMSNORM_SANITIZE={flavour.sanitize}"]
    compile_ = [abi.tool("cmake"), "--build", str(flavour.folder), "--target", *flavour.targets]
    for command in (configure, compile_):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def environment(flavour: Flavour) -> dict[str, str]:
    """Of a Python that runs tests in a build."""
    cache = (flavour.folder / "CMakeCache.txt").read_text(encoding="utf-8")
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, re.MULTILINE)[1]  # type: ignore[index]
    ask = [[compiler, f"-print-file-name={name}"] for name in flavour.preload]
    paths = [subprocess.run(each, check=True, capture_output=True, text=True).stdout.strip() for each in ask]
    options = {name: f"{text}:log_path={flavour.findings}".lstrip(":") for name, text in flavour.options.items()}
    # Every object of Python is memory of its own, which sanitizers watch.
    own = {"LD_PRELOAD": ":".join(paths), "PYTHONMALLOC": "malloc", "RMSNORM_BUILD": str(flavour.folder)}
    return {**os.environ, **options, **own, "PYTHONPATH": str(abi.ROOT)}


def python() -> list[str]:
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    fixed = bits.exists() and int(bits.read_text()) > RANDOM_BITS
    return [*["setarch", "-R"] * fixed, sys.executable]


def found(flavour: Flavour) -> list[str]:
    """The reports, but for those about onnxruntime alone; the files are removed."""
    files = sorted(flavour.folder.glob("findings.*"))
    texts = [text for path in files for text in path.read_text(errors="replace").split("=" * 18 + "\n")]
    for path in files:
        path.unlink()
    reports = [text for text in texts if re.search("ERROR: |WARNING: |runtime error: ", text)]
    return [report for report in reports if not is_race_of_onnxruntime(report)]


def is_race_of_onnxruntime(report: str) -> bool:
    """Whether all known accesses of a data race are calls from onnxruntime's own code, which is not instrumented.

    Its threads hand tasks to each other by atomic operations that ThreadSanitizer does not see; that they allocate and
    free them it does see. Suppressions would not do: they look for onnxruntime among all callers, where it always is.
    """
    if "data race" not in report:
        return False
    accesses = re.findall(
        r"^  (?:Previous )?(?:atomic )?(?:read|write) of size.*\n((?:    .*\n)+)", report, re.M | re.I
    )
    frames = [[line for line in access.splitlines() if "(libtsan.so" not in line] for access in accesses]
    known = [lines[0] for lines in frames if lines and "failed to restore" not in lines[0]]
    return bool(known) and all("(onnxruntime_pybind11_state" in line for line in known)


def run_tests(flavour: Flavour, processes: str) -> str:
    """The tests, and the last line that pytest says of them."""
    files = [str(abi.ROOT / "tests" / f"{name}.py") for name in flavour.tests]
    options = ["-q", "-k", LEFT_OUT, "-p", "no:cacheprovider", "-n", processes, "--dist", "worksteal"]
    command = [*python(), "-m", "pytest", *options, *files]
    done = subprocess.run(command, env=environment(flavour), capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr)
    return done.stdout.strip().splitlines()[-1] if done.stdout else f"exit status {done.returncode}"


def leaks(flavour: Flavour) -> list[str]:
    """Blocks that the library asked for and lost."""
    env = environment(flavour)
    # Callers are found without frame pointers too: the C++ library has none.
    env["ASAN_OPTIONS"] += ":detect_leaks=1:leak_check_at_exit=0:fast_unwind_on_malloc=0"
    subprocess.run([*python(), str(abi.ROOT / "tests" / "leaks.py")], env=env, check=True)
    reports = found(flavour)
    assert any("LeakSanitizer" in report for report in reports), "LeakSanitizer finds something in every Python"
    blocks = [block for report in reports for block in report.split("\n\n") if "leak of" in block]
    # Code that is not there any more may have been the library's.
    return [block for block in blocks if "/custom_ops/src/" in block or "<unknown module>" in block]


def main() -> int:
    """0: nothing found; 1: something was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "flavours", nargs="*", metavar="address|thread|undefined", help="all of them where none is named"
    )
    parser.add_argument("-n", default="auto", metavar="PROCESSES")
    given = parser.parse_args()
    bad = False
    for flavour in FLAVOURS:
        if given.flavours and flavour.name not in given.flavours:
            continue
        start = time.monotonic()
        build(flavour)
        found(flavour)  # what an earlier run left
        lost = leaks(flavour) if flavour.name == "address" else []
        built = time.monotonic()
        said = run_tests(flavour, given.n)
        reports = [*found(flavour), *lost]
        bad |= bool(reports) or "failed" in said or "passed" not in said
        took = f"build {built - start:.0f} s, tests {time.monotonic() - built:.0f} s"
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        took += f", so far {children.ru_utime + children.ru_stime:.0f} s of processor time"
        print(*reports, f"-fsanitize={flavour.sanitize}: {len(reports)} findings; {said}; {took}", sep="\n", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
