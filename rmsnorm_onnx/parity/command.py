"""The shell command that repeats a verification."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rmsnorm_onnx import runtime
from rmsnorm_onnx.parity.runs import Models, Options
from rmsnorm_onnx.runtime.given import Given

#: One length or several, by name.
Dims: TypeAlias = Mapping[str, int | Sequence[int]]
#: One set of inputs or several.
Inputs: TypeAlias = Given | Sequence[Given]
#: From the smaller to the larger number, perhaps for one input only; as ``Range.parse`` takes it, or as an object.
Range: TypeAlias = runtime.Range | tuple[float, float] | str


def command(models: Models, options: Options, dims: Dims | None, inputs: Inputs | None, ranges: Sequence[Range]) -> str:
    """What to type in a POSIX shell, in the same folder; empty where something was given that has no file.

    Options of ``verify`` that have their default value are left out.
    """
    paths = [model.path for model in models]
    given = _listed(inputs)
    usual = Options()
    if None in paths or any(isinstance(one, Mapping) for one in given) or options.optimization != usual.optimization:
        return ""
    words = ["rmsnorm-onnx", "verify", *map(str, paths)]
    for name, lengths in (dims or {}).items():
        listed = (lengths,) if isinstance(lengths, int) else lengths
        words += ["--dim", f"{name}={','.join(map(str, listed))}"]
    for one in ranges:
        words += ["--val-range", _range(one)]
    for path in given:
        words += ["--inputs", os.fspath(path)] if not isinstance(path, Mapping) else []
    for name in ("seed", "samples", "threads"):
        if getattr(options, name) != getattr(usual, name):
            words += [f"--{name}", str(getattr(options, name))]
    words += ["--per-node"] if options.per_node else []
    words += [] if options.library else ["--no-library"]
    return shlex.join(words)


def _listed(inputs: Inputs | None) -> Sequence[Given]:
    if inputs is None:
        return ()
    return (inputs,) if isinstance(inputs, str | os.PathLike | Mapping) else inputs


def _range(one: Range) -> str:
    if isinstance(one, str):
        return one
    if not isinstance(one, runtime.Range):
        return f"{one[0]!r},{one[1]!r}"
    bounds = f"{one.low!r},{one.high!r}"
    return bounds if one.name is None else f"{one.name}:[{bounds}]"
