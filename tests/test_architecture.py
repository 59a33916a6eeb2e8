"""The shape of the code: imports point down, files hold one idea, public names are public."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rmsnorm_onnx

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rmsnorm_onnx"
LAYER = {
    **dict.fromkeys(["errors", "spec", "files", "progress"], 0),
    **dict.fromkeys(["function", "reference", "library", "report", "modelfile", "environment"], 1),
    **dict.fromkeys(["matcher", "runtime", "selftest"], 2),
    **dict.fromkeys(["passes", "info", "parity", "layers", "bench", "export"], 3),
    "api": 4,
    "__init__": 5,
    "testing": 5,
    "cli": 6,
    "__main__": 7,
}
LINES = 300
TEST_LINES = 400


def module_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(file: Path) -> set[str]:
    """Modules of this package that ``file`` imports, at the top or inside a function."""
    found = set()
    package = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            parts = (*base, *(node.module or "").split("."))
            parts = tuple(part for part in parts if part)
            names = [(*parts, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == PACKAGE.name and len(name) > 1 and name[1] in LAYER}
    return found


PYTHON = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", PYTHON, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file):
    own = module_of(file)
    upward = {name for name in imported_modules(file) if name != own and LAYER[name] >= LAYER[own]}
    assert not upward


def test_every_module_has_a_layer():
    assert {module_of(file) for file in PYTHON} == set(LAYER)


def test_files_hold_one_idea():
    sources = [
        f for pattern in ("*.py", "*.cc", "*.h", "*.cu", "*.cuh") for f in (*PACKAGE.rglob(pattern), *_sources(pattern))
    ]
    long = {str(f.relative_to(ROOT)): n for f in sources if (n := _lines(f)) > (TEST_LINES if _is_test(f) else LINES)}
    assert not long


def _sources(pattern: str) -> list[Path]:
    return [f for folder in ("custom_ops", "tests", "models") for f in (ROOT / folder).rglob(pattern)]


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def _is_test(file: Path) -> bool:
    return "tests" in file.relative_to(ROOT).parts


def test_kernels_know_nothing_of_onnxruntime():
    for file in (ROOT / "custom_ops" / "src").rglob("*"):
        if file.is_file() and "ort" not in file.relative_to(ROOT / "custom_ops" / "src").parts:
            assert "Ort" not in file.read_text(), file


def test_public_names_exist():
    for name in rmsnorm_onnx.__all__:
        assert getattr(rmsnorm_onnx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rmsnorm_onnx.nothing  # noqa: B018
