"""What is installed, and whether the compiled library answers: the facts a bug report needs."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from rmsnorm_onnx import library
from rmsnorm_onnx.errors import RmsNormError
from rmsnorm_onnx.report import Report, Status, Table

#: What decides what this package gives.
PACKAGES: Final = ("rmsnorm-onnx", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


@dataclass(frozen=True, slots=True)
class Environment:
    """Versions, the library's own words, or the reason why it says nothing."""

    versions: Mapping[str, str]
    machine: str
    library: library.LibraryInfo | None
    problem: str

    def report(self) -> Report:
        """The result for any renderer."""
        facts = [("machine", self.machine)]
        if self.library is not None:
            facts += [
                ("library", f"{self.library.path} ({self.library.size_bytes:,} bytes)"),
                ("instruction sets", ", ".join(self.library.isa_supported)),
                ("in use", self.library.isa_active),
                *_cuda_facts(self.library.cuda),
            ]
        return Report(
            title="rmsnorm-onnx info",
            status=Status.PASSED if self.library is not None else Status.FAILED,
            verdict="the compiled library answers" if self.library is not None else self.problem,
            facts=tuple(facts),
            tables=(Table("Versions", ("package", "version"), tuple(self.versions.items())),),
            document={
                "schema_version": 1,
                "command": "info",
                "versions": dict(self.versions),
                "machine": self.machine,
                "library": asdict(self.library) if self.library is not None else None,
                "problem": self.problem,
            },
        )


def _cuda_facts(cuda: library.CudaInfo | None) -> list[tuple[str, str]]:
    if cuda is None:
        return [("CUDA", "not compiled in")]
    device = cuda.device
    text = device if isinstance(device, str) else ", ".join(f"{name} {value}" for name, value in device.items())
    return [("CUDA", f"compiled for {', '.join(cuda.architectures)}"), ("GPU", text)]


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def machine() -> str:
    """System, architecture and processor, in one line."""
    return f"{platform.system()} {platform.machine()}, {processor()}"


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def environment() -> Environment:
    """Look around; nothing that is missing raises."""
    versions = versions_of(PACKAGES)
    try:
        answer, problem = library.info(), ""
    except RmsNormError as error:
        answer, problem = None, str(error)
    return Environment(versions, machine(), answer, problem)
