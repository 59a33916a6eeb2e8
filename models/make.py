"""Regenerates the exports in this folder: `python models/make.py [NAME ...]` (all without names).

Needs what `pip install .[models]` installs. Keras serves one backend per process, so this starts
one process for the torch backend (which also runs torch's exporters), one for TensorFlow (with
tf2onnx) and one for JAX (with jax2onnx).
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import traceback

from case import Case, Exporter
from cases import CASES
from readme import write_table

_BACKENDS = {Exporter.JAX2ONNX: "jax", Exporter.TF2ONNX: "tensorflow"}


def main() -> int:
    """Export the chosen cases; the exit status says whether all succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="cases to export; all of them if none is given")
    parser.add_argument("--backend", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.names or case.name in arguments.names]
    if unknown := set(arguments.names) - {case.name for case in CASES}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if arguments.backend:
        return _export_all(chosen)
    backends = {_backend(case) for case in chosen}
    failed = [backend for backend in sorted(backends) if not _start(backend, chosen)]
    write_table()
    return 1 if failed else 0


def _backend(case: Case) -> str:
    return case.exporter.keras_backend or _BACKENDS.get(case.exporter, "torch")


def _start(backend: str, chosen: list[Case]) -> bool:
    """Run this script again in a process whose Keras uses this backend."""
    fixed = {"OMP_NUM_THREADS": "2", "KERAS_BACKEND": backend}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TORCH_LOGS": "-all", "CUDA_VISIBLE_DEVICES": ""}
    quiet["JAX_PLATFORMS"] = "cpu"
    names = [case.name for case in chosen if _backend(case) == backend]
    process = subprocess.run(
        [sys.executable, __file__, "--backend", backend, *names],
        env={**os.environ, **quiet, **fixed},
        check=False,
    )
    return process.returncode == 0


def _export_all(chosen: list[Case]) -> int:
    """Export these cases here; one that fails does not keep the others from being written."""
    from saving import save

    failures = 0
    for case in chosen:
        try:
            script = importlib.import_module(case.exporter.script)
            facts = save(case, script.export(case))
        except Exception:
            failures += 1
            print(f"{case.name}: failed", flush=True)
            traceback.print_exc()
            continue
        verdicts = "; ".join(f"{k} {facts[k]}" for k in ("checker", "onnxruntime", "reference"))
        print(f"{case.name}: {facts['norms']} norms; {verdicts}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
