"""Kills ``optimize`` before every system call by which it writes, and at random moments; counts what is left.

Run as a script: ``python tests/interrupted.py 200`` for so many random moments; it prints one JSON document.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from changed_models import norm_model, tensor_of
from onnx import TensorProto, numpy_helper

import rmsnorm_onnx.api  # before the first fork, which then need not
import rmsnorm_onnx.function.definition
import rmsnorm_onnx.passes  # noqa: F401
from rmsnorm_onnx import cli, modelfile

OLD = b"what was there before"
#: Every call of rmsnorm_onnx.files that changes something.
CALLS = ("open", "write", "chmod", "fsync", "link", "replace", "mkdir")
#: Large enough for a dozen writes.
WEIGHTS = 48 << 20


def prepare(folder: Path, *, weights: int, old: bool) -> list[str]:
    """A model with weights of so many bytes in an inner folder, perhaps an old output, and the command."""
    source, out = folder / "in", folder / "out"
    (source / "data").mkdir(parents=True)
    out.mkdir()
    (source / "data" / "w.bin").write_bytes(np.random.default_rng(0).bytes(weights))
    model = norm_model()
    large = numpy_helper.from_array(np.zeros((1, 8), np.float32), "large")
    large.dims[0] = weights // 32
    large.ClearField("raw_data")
    large.data_location = TensorProto.EXTERNAL
    large.external_data.add(key="location", value="data/w.bin")
    model.graph.initializer.append(large)
    tensor_of(model).doc_string = "d" * (1 << 20)
    (source / "model.onnx").write_bytes(model.SerializeToString())
    if old:
        (out / "fused.onnx").write_bytes(OLD)
    return ["optimize", str(source / "model.onnx"), str(out / "fused.onnx"), "--copy-weights"]


def state(folder: Path, before: dict[Path, bytes], after: bytes) -> str:
    """What is to be found now: "old", "new", "old and weights", "litter"; or what is damaged."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    for path, content in before.items():
        if files[path].read_bytes() != content:
            return f"damaged: {path}"
    output, weights = Path("out/fused.onnx"), Path("out/data/w.bin")
    content = files.pop(output).read_bytes() if output in files else OLD
    copied = files.pop(weights, None)
    for path in before:
        del files[path]
    if copied is not None and copied.read_bytes() != before[Path("in/data/w.bin")]:
        return "damaged: copied weights"
    if content not in {OLD, after}:
        return "damaged: output"
    if content == after and copied is None:
        return "damaged: a model without its weights"
    if files:
        whole = all(path.read_bytes() in {after, before[Path("in/data/w.bin")]} for path in files.values())
        return "litter" if whole else "litter, incomplete"
    return "new" if content == after else "old" if copied is None else "old and weights"


def in_child(command: list[str], hook: Callable[[], None]) -> int:
    """Start the command in a process of its own."""
    child = os.fork()
    if child == 0:
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        with suppress(SystemExit):
            hook()
            cli.main(command)
        os._exit(0)
    return child


def tell(pipe: int) -> Callable[[], None]:
    """Let the process write a byte to a pipe when it begins to save, and one when it is done."""

    def hook() -> None:
        real_save = modelfile.save

        def save(*arguments: object, **named: object) -> None:
            os.write(pipe, b"b")
            real_save(*arguments, **named)
            os.write(pipe, b"d")

        modelfile.save = save

    return hook


def die_before(call: int) -> Callable[[], None]:
    """Let the process kill itself before it makes its ``call``-th call of CALLS, counted from where saving begins."""

    def hook() -> None:
        real_save, left = modelfile.save, [call]

        def watched(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def call_or_die(*arguments: object, **named: object) -> object:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*arguments, **named)

            return call_or_die

        def save(*arguments: object, **named: object) -> None:
            for name in CALLS:
                setattr(os, name, watched(name))
            real_save(*arguments, **named)

        modelfile.save = save

    return hook


def killed(*, weights: int, old: bool, moments: int | None) -> Counter[str]:
    """States after each kill: at so many random moments while it saves, or before every call."""
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as first:
        child = in_child(prepare(Path(first), weights=weights, old=old), tell(writing))
        os.read(reading, 1)
        began = time.perf_counter()
        os.read(reading, 1)
        took = time.perf_counter() - began
        os.waitpid(child, 0)
        after = (Path(first) / "out" / "fused.onnx").read_bytes()
    states: Counter[str] = Counter()
    generator = random.Random(0)
    for moment in range(moments if moments is not None else 1000):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            command = prepare(folder, weights=weights, old=old)
            before = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            before.pop(Path("out/fused.onnx"), None)
            if moments is None:
                child = in_child(command, die_before(moment))
            else:
                child = in_child(command, tell(writing))
                os.read(reading, 1)
                time.sleep(generator.uniform(0, took))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            states[state(folder, before, after)] += 1
        if moments is None and not os.WIFSIGNALED(status):
            break
        if moments is not None:
            os.close(reading)
            os.close(writing)
            reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    return states


def main(moments: int) -> None:
    """Print what was left, for a new output and for one that replaces an old one."""
    document = {
        f"{kind}, {'replaced' if old else 'new'}": dict(killed(weights=weights, old=old, moments=count))
        for kind, weights, count in (("every call", 1 << 16, None), ("random moments", WEIGHTS, moments))
        for old in (False, True)
        if count != 0
    }
    json.dump(document, sys.stdout, indent=2)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
