"""The version matrix: one wheel, tested with old and new releases of what it stands on.

``python tests/matrix.py`` (``make matrix``) builds the wheel once, makes an environment per combination under
``build/matrix``, runs a share of the tests in each with that wheel installed, and prints a table. Exit 1 if a test
failed anywhere. The oldest combination takes the lower bounds that pyproject.toml states.

What an old release cannot do is listed in ``versions.py``; tests that need it are skipped with a reason that
begins with package and version, and these reasons are the table's last column.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import kernels_abi

from rmsnorm_onnx.report import Report, Status, Table, print_text, to_json, to_markdown

ROOT: Final = kernels_abi.ROOT
FOLDER: Final = ROOT / "build" / "matrix"
#: What varies, and is shown.
PACKAGES: Final = ("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy", "ml-dtypes")
#: Enough to run every test, and the first cases of all of its parameters, in a minute or two on one core.
SHARE: Final = 6
OLDEST: Final = "oldest"
OUTCOMES: Final = ("passed", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Combination:
    """One environment: an interpreter, and what deviates from the newest releases (or, if oldest, from the oldest)."""

    name: str
    python: str
    pins: tuple[str, ...] = ()
    oldest: bool = False
    #: Packages that are the newest, whatever the others are.
    upgraded: tuple[str, ...] = ()
    quick: bool = False

    @property
    def folder(self) -> Path:
        """Of the environment and its results."""
        return FOLDER / re.sub(r"[^\w.]+", "-", f"{self.name} {self.python}")


@dataclass(frozen=True, slots=True)
class Row:
    """What the tests said in one environment."""

    combination: str
    versions: dict[str, str]
    by_file: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0
    lacks: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether tests ran and none failed."""
        return not self.failures and self.count("passed") > 0

    def count(self, outcome: str) -> int:
        """Tests of all files that ended so."""
        return sum(counts.get(outcome, 0) for counts in self.by_file.values())


def combinations(pythons: list[str]) -> Iterator[Combination]:
    """All of them: releases on the first interpreter, both ends on the others."""
    first, *others = pythons
    yield Combination(OLDEST, first, oldest=True, quick=True)
    for version in ("1.18", "1.20", "1.22", "1.24", "1.27", "1.31"):
        yield Combination(f"onnxruntime {version}", first, (f"onnxruntime=={version}.*",))
    yield Combination("newest", first, quick=True)
    yield Combination("oldest, newest onnxruntime", first, oldest=True, upgraded=("onnxruntime",))
    yield Combination("onnx 1.21", first, ("onnx==1.21.*",))
    for python in others:
        yield Combination(OLDEST, python, oldest=True)
        yield Combination("newest", python)


def build_wheel() -> Path:
    """The package as users install it, built in a folder of its own, and again only after a change."""
    wheels = FOLDER / "wheel"
    sources = _run(["git", "ls-files", "rmsnorm_onnx", "custom_ops", "pyproject.toml", "README.md"]).splitlines()
    changed = max((ROOT / source).stat().st_mtime for source in sources)
    for wheel in wheels.glob("*.whl"):
        if wheel.stat().st_mtime > changed:
            return wheel
        wheel.unlink()
    settings = f"build-dir={FOLDER / 'kernels'}"
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--config-settings", settings]
    _run([*pip, "--wheel-dir", str(wheels), str(ROOT)])
    (wheel,) = wheels.glob("*.whl")
    return wheel


def make_environment(combination: Combination, wheel: Path) -> Path:
    """The environment's Python. uv links files from its cache, so that this takes seconds and little room."""
    environment = combination.folder / "venv"
    python = environment / "bin" / "python"
    if not python.exists():
        _uv("venv", "--quiet", "--clear", "--python", combination.python, str(environment))
    install = ("pip", "install", "--quiet", "--python", str(python))
    resolution = ("--resolution", "lowest-direct" if combination.oldest else "highest")
    wanted = ("-r=pyproject.toml", "--extra=cpu", *combination.pins)
    # No release without a wheel: old ones would be compiled.
    _uv(*install, "--upgrade", "--only-binary=:all:", *resolution, *wanted)
    for package in combination.upgraded:
        _uv(*install, f"--upgrade-package={package}", package)
    _uv(*install, "--group", "test")
    _uv(*install, "--no-deps", "--force-reinstall", str(wheel))
    return python


def test(combination: Combination, wheel: Path, library: Path, arguments: list[str]) -> Row:
    """Run the tests in the combination's environment."""
    combination.folder.mkdir(parents=True, exist_ok=True)
    try:
        python = make_environment(combination, wheel)
    except RuntimeError as error:
        return Row(combination.name, {"python": combination.python}, failures=(str(error),))
    result = combination.folder / "tests.xml"
    result.unlink(missing_ok=True)
    # The script, unlike `python -m pytest`, does not put the source tree before what is installed.
    command = [python.parent / "pytest", "-p", "share", "-p", "no:cacheprovider", "--quiet", f"--junitxml={result}"]
    own = {"PYTHONPATH": str(ROOT / "tests"), "RMSNORM_BUILD": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
    start = time.monotonic()
    with (combination.folder / "tests.log").open("w") as log:
        subprocess.run(
            [*map(str, command), *arguments], cwd=ROOT, env=os.environ | own, stdout=log, stderr=log, check=False
        )
    return read(combination, installed(python), result, time.monotonic() - start)


def installed(python: Path) -> dict[str, str]:
    """Versions of Python and of the packages that vary."""
    code = f"import importlib.metadata as m, platform; print(platform.python_version(), *map(m.version, {PACKAGES}))"
    return dict(zip(("python", *PACKAGES), _run([str(python), "-c", code]).split(), strict=True))


def read(combination: Combination, versions: dict[str, str], result: Path, seconds: float) -> Row:
    """A row from pytest's JUnit file; without one, everything failed."""
    by_file: dict[str, Counter[str]] = {}
    lacks: Counter[str] = Counter()
    failures = []
    for case in ElementTree.parse(result).iter("testcase") if result.exists() else ():
        file, name = case.get("classname", "").rpartition(".")[2] or "collection", case.get("name", "")
        outcome = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
        if outcome in {"failure", "error"}:
            failures.append(f"{file}::{name}")
            outcome = "failed"
        if outcome == "skipped":
            reason = case.find("skipped").get("message", "")  # type: ignore[union-attr]
            if re.match(rf"({'|'.join(PACKAGES)}) \d", reason):
                lacks[reason] += 1
        by_file.setdefault(file, Counter()).update([outcome])
    return Row(
        combination.name,
        versions,
        {file: dict(counter) for file, counter in sorted(by_file.items())},
        round(seconds, 1),
        tuple(f"{reason} ({number})" for reason, number in lacks.most_common()),
        tuple(failures) if result.exists() else (f"no result: see {result.with_suffix('.log').relative_to(ROOT)}",),
    )


def report(rows: list[Row], share: int) -> Report:
    """The table, what each combination lacks, and what failed."""
    ok = all(row.ok for row in rows)
    columns = ("combination", "versions", *OUTCOMES, "seconds")
    versions = [", ".join(f"{name} {version}" for name, version in row.versions.items()) for row in rows]
    cells = tuple(
        (row.combination, shown, *(str(row.count(outcome)) for outcome in OUTCOMES), f"{row.seconds:.0f}")
        for row, shown in zip(rows, versions, strict=True)
    )
    lacks = tuple((f"{row.combination}, Python {row.versions['python']}", "\n".join(row.lacks)) for row in rows)
    failed = tuple((row.combination, name) for row in rows for name in row.failures)
    tables = [
        Table("Combinations", columns, cells),
        Table("Not there, and tests skipped for it", ("combination", "what"), tuple(r for r in lacks if r[1])),
    ]
    tables += [Table("Failed", ("combination", "test"), failed)] if failed else []
    return Report(
        title="rmsnorm-onnx version matrix",
        status=Status.PASSED if ok else Status.FAILED,
        verdict=f"{sum(row.ok for row in rows)} of {len(rows)} combinations pass",
        facts=(("tests", "all" if share == 1 else f"all, of the cases of each every {share}th"),),
        tables=tuple(tables),
        document={"schema_version": 1, "command": "matrix", "ok": ok, "share": share, "rows": [*map(asdict, rows)]},
    )


def _uv(*arguments: str) -> None:
    # Its cache and the environments are on one disk, or files are copied instead of linked.
    _run([sys.executable, "-m", "uv", *arguments])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Parse, run, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="the oldest and the newest combination only")
    parser.add_argument("--share", type=int, default=SHARE, help="of the cases of each test, one in so many")
    parser.add_argument("--full", action="store_const", const=1, dest="share", help="every case of every test")
    parser.add_argument("--only", metavar="TEXT", help="combinations whose name holds it")
    parser.add_argument("--python", action="append", metavar="PYTHON", help="interpreter; the first runs most rows")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="combinations tested at the same time")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write Markdown")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files; default: all")
    given = parser.parse_args()
    chosen = [
        one
        for one in combinations(given.python or [sys.executable])
        if (one.quick or not given.quick) and (given.only or "") in one.name
    ]
    library, wheel = kernels_abi.build(), build_wheel()
    with ThreadPoolExecutor(given.jobs) as pool:
        rows = list(pool.map(lambda one: test(one, wheel, library, [f"--share={given.share}", *given.tests]), chosen))
    result = report(rows, given.share)
    if given.markdown:
        given.markdown.write_text(to_markdown(result), encoding="utf-8")
    if given.json:
        sys.stdout.write(to_json(result))
    else:
        print_text(result)
    sys.exit(not all(row.ok for row in rows))


if __name__ == "__main__":
    main()
