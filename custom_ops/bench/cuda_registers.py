"""Registers, spills and compile time of the CUDA kernels, by architecture, as ptxas reports them. Needs nvcc, no GPU.

$ python custom_ops/bench/cuda_registers.py [--architectures 75 90] [--sources "rows*"] [--jobs 4] [--kernels]

The table at the end is that of docs/cuda.md. Of a spill or an array in local memory, the build itself warns, and
`make cuda` fails.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).resolve().parents[1] / "src" / "cuda"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 103, 120)
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Kernel(NamedTuple):
    """What ptxas says about one kernel; bytes but for the registers."""

    name: str
    registers: int
    stack: int
    spilled: int


class Compiled(NamedTuple):
    """One source for one architecture."""

    source: str
    architecture: int
    kernels: list[Kernel]
    seconds: float
    size: int


def compile_one(source: Path, architecture: int) -> Compiled:
    """Machine code alone, thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.cubin"
        command = [
            "nvcc",
            "-std=c++17",
            "-O3",
            "-fmad=false",  # as in src/cuda/CMakeLists.txt
            f"-arch=sm_{architecture}",
            "-Xptxas",
            "-v",
            "-cubin",
            "-o",
            str(out),
            str(source),
        ]
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.monotonic() - start
        if done.returncode:
            sys.exit(f"{source.name} does not compile for sm_{architecture}:\n{done.stderr}")
        size = out.stat().st_size
    found = [
        Kernel(m["name"], int(m["registers"]), int(m["stack"]), int(m["stores"]) + int(m["loads"]))
        for m in ENTRY.finditer(done.stderr)
    ]
    return Compiled(source.name, architecture, found, took, size)


def demangled(name: str) -> str:
    """As C++ has it, where c++filt is installed."""
    try:
        text = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return name
    return text.replace("rmsnorm::cuda::", "").split("(Task")[0].strip()


def summary(compiled: list[Compiled]) -> str:
    """A row for every architecture, in Markdown; registers are those of a thread, the most of any kernel."""
    families = ("rows", "reread", "columns")
    lines = [
        f"| architecture | kernels | {' | '.join(families)} | spilled bytes | stack bytes | KB | seconds |",
        "| --- " * (len(families) + 6) + "|",
    ]
    of_architecture = defaultdict(list)
    for done in compiled:
        of_architecture[done.architecture].append(done)
    for architecture, sources in of_architecture.items():
        kernels = [kernel for done in sources for kernel in done.kernels]
        most = (
            max((k.registers for done in sources if done.source.startswith(name) for k in done.kernels), default=0)
            for name in families
        )
        numbers = (len(kernels), *most, sum(k.spilled for k in kernels), sum(k.stack for k in kernels))
        cells = (*numbers, sum(done.size for done in sources) // 1024, round(sum(done.seconds for done in sources)))
        lines.append(f"| sm_{architecture} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> int:
    """The tables; 1 if a kernel spills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES)
    parser.add_argument("--sources", default="*.cu", help="which of src/cuda")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kernels", action="store_true", help="a line for every kernel")
    options = parser.parse_args()
    tasks = [
        (source, arch)
        for arch in options.architectures
        for source in sorted(SOURCES.glob(options.sources), reverse=True)
        if source.suffix == ".cu"
    ]
    print(f"{'architecture':12} {'source':20} {'kernels':>7} {'registers':>9} {'spilling':>8} {'seconds':>7} {'KB':>6}")
    spilling = 0
    compiled = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in pool.map(lambda task: compile_one(*task), tasks):
            if not done.kernels:
                continue
            compiled.append(done)
            registers = [kernel.registers for kernel in done.kernels]
            spills = [kernel for kernel in done.kernels if kernel.spilled or kernel.stack]
            spilling += len(spills)
            print(
                f"sm_{done.architecture:<9} {done.source:20} {len(registers):7} {min(registers):5}-{max(registers):<3} "
                f"{len(spills):8} {done.seconds:7.1f} {done.size / 1024:6.0f}",
                flush=True,
            )
            for kernel in done.kernels if options.kernels else spills:
                print(f"    {kernel.registers:3} registers, {kernel.spilled} bytes spilled, {demangled(kernel.name)}")
    print(f"\n{summary(compiled)}")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
