"""Makes a model with a finding smaller: drops what the finding does not need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import onnx

from .edit import scopes_of
from .isolate import Finding, run
from .models import Input, judge_input

#: Seconds that one finding is worth.
BUDGET = 120


def finding_of(given: Input) -> Finding | None:
    """What judging this input finds, in a process of its own."""
    judge = lambda number, stage: judge_input(given, stage) if number >= 0 else ((), None)  # noqa: E731
    return next(run(judge, iter([given.number]), time.monotonic() + 60)).finding


def shrink(given: Input, finding: Finding) -> Input:
    """The smallest input found with the same finding."""
    if given.damaged:
        return given
    until = time.monotonic() + BUDGET
    shrunk = True
    while shrunk and time.monotonic() < until:
        shrunk = False
        for data in _smaller(given.model()):
            if time.monotonic() > until:
                break
            trial = replace(given, data=data)
            if len(data) < len(given.data) and finding_of(trial) == finding:
                given, shrunk = trial, True
                break
    return given


def _smaller(model: onnx.ModelProto) -> Iterator[bytes]:
    """With one thing less each: outputs, runs of nodes, whatever is not read, single fields."""
    for part in ("output", "node", "initializer", "input", "value_info"):
        count = len(getattr(model.graph, part))
        size = count // 2
        while size >= 1:
            for start in range(0, count, size):
                trial = onnx.ModelProto.FromString(model.SerializeToString())
                del getattr(trial.graph, part)[start : start + size]
                yield trial.SerializeToString(deterministic=True)
            size //= 2
    for index in range(len(model.functions)):
        trial = onnx.ModelProto.FromString(model.SerializeToString())
        del trial.functions[index]
        yield trial.SerializeToString(deterministic=True)
    for at, scope in enumerate(scopes_of(model)):
        for index, node in enumerate(scope.node):
            for change in ("bypass", "name", "doc_string", "metadata_props", "attribute"):
                trial = onnx.ModelProto.FromString(model.SerializeToString())
                copy = scopes_of(trial)[at]
                if change != "bypass":
                    copy.node[index].ClearField(change)
                elif node.input and node.output:
                    for reader in copy.node:
                        reader.input[:] = [node.input[0] if i == node.output[0] else i for i in reader.input]
                    del copy.node[index]
                yield trial.SerializeToString(deterministic=True)
    for field in ("doc_string", "metadata_props", "producer_name", "producer_version", "training_info"):
        trial = onnx.ModelProto.FromString(model.SerializeToString())
        trial.ClearField(field)
        trial.graph.ClearField("metadata_props")
        trial.graph.ClearField("quantization_annotation")
        yield trial.SerializeToString(deterministic=True)
