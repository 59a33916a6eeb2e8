"""The fuzzer of models: what input a number makes, and whether the package treats it as it must."""

from __future__ import annotations

import random
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

import rmsnorm_onnx
from rmsnorm_onnx import spec
from rmsnorm_onnx.errors import InvalidInput, RmsNormError

from . import graphs, protobuf, seeds
from .isolate import FOREIGN, Finding
from .oracle import compare_numbers, compare_runs, is_valid, runs, why_invalid

#: A statement about a value that onnx's inference could not check before; the fused model is clearer.
_UNTRUE_SHAPE = "Inferred shape and existing shape differ"
_FAULTY_BEFORE = "wrong before too, as inference sees now"
#: Whose operators onnx's inference knows.
_INFERRED = frozenset({"", "ai.onnx", "fuzz"})
TARGETS = ("rmsnorm", "onnx", "ort")
Stage = Callable[[str], None]


class Wrong(Exception):
    """A finding, on its way to ``judge``."""

    def __init__(self, key: str, text: str = ""):
        super().__init__(key)
        self.finding = Finding(key, text)


@dataclass(frozen=True, slots=True)
class Input:
    """A model, or the bytes of a damaged file, and how it came about."""

    number: int
    data: bytes
    damaged: bool
    story: tuple[str, ...]

    def model(self) -> onnx.ModelProto:
        """The model of the undamaged."""
        return onnx.ModelProto.FromString(self.data)


def draw(number: int) -> Input:
    """The input of this number."""
    dice = random.Random(number)
    origin, model = seeds.seed(dice)
    story = [origin]
    for _ in range(dice.choice([0, 1, 1, 1, 2, 2, 3, 5, 8])):
        try:
            story.append((graphs if dice.random() < 0.88 else protobuf).mutate(model, dice))
        except (ValueError, TypeError, OverflowError) as error:  # protobuf refuses it: no such model
            story.append(f"refused: {error}"[:80])
    data = model.SerializeToString(deterministic=True)
    damaged = dice.random() < 0.08
    return Input(number, protobuf.mutate_bytes(data, dice) if damaged else data, damaged, tuple(story))


def judge(number: int, stage: Stage) -> tuple[tuple[str, ...], Finding | None]:
    """What became of the input of this number."""
    if number < 0:
        return (), None
    stage("draw")
    return judge_input(draw(number), stage)


def judge_input(given: Input, stage: Stage) -> tuple[tuple[str, ...], Finding | None]:
    """As above, of an input that is there already."""
    outcomes: list[str] = []
    try:
        if given.damaged:
            _judge_file(given, outcomes, stage)
        else:
            _judge_model(given, outcomes, stage)
    except Wrong as wrong:
        return (*outcomes, "finding"), wrong.finding
    except Exception as error:
        return (*outcomes, "finding"), Finding(_place(error), traceback.format_exc())
    return tuple(outcomes), None


def _place(error: Exception) -> str:
    """Where it was raised: the innermost line of the package, and what."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/rmsnorm_onnx/" in f.filename] or frames
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].name}"


def _judge_file(given: Input, outcomes: list[str], stage: Stage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(given.data)
        stage("inspect a file")
        try:
            found = rmsnorm_onnx.inspect(path)
        except RmsNormError as error:
            outcomes.append(f"file: refused, {type(error).__name__}")
            return
        outcomes.append("file: fused" if found.fused else "file: unchanged")
        stage("optimize a file")
        with suppress(InvalidInput):
            rmsnorm_onnx.optimize(path)
        if path.read_bytes() != given.data:
            raise Wrong("the file was changed")


def _judge_model(given: Input, outcomes: list[str], stage: Stage) -> None:
    dice = random.Random(given.number)
    model = given.model()
    stage(f"{FOREIGN}onnx.checker ")
    valid = is_valid(model)
    targets = [TARGETS[0], *(t for t in TARGETS[1:] if dice.random() < 0.25)]
    for target in targets:
        stage(f"optimize {target}")
        try:
            result = rmsnorm_onnx.optimize(model, target=target)
        except RmsNormError as error:
            outcomes.append(f"{target}: refused, {type(error).__name__}")
            if "cannot be written" not in str(error):
                _must_refuse(model, target, stage)
            continue
        outcomes.append(f"{target}: {'fused' if result.fused else 'unchanged'}")
        stage(f"inspect {target}")
        found = rmsnorm_onnx.inspect(model, target=target) if dice.random() < 0.3 else result
        if (found.fused, found.near_misses) != (result.fused, result.near_misses):
            raise Wrong(f"inspect and optimize differ ({target})", f"{found}\n{result}")
        if model.SerializeToString(deterministic=True) != given.data:
            raise Wrong("the model given was changed")
        if result.fused:
            _judge_result(model, result.model, valid, target, outcomes, stage)
            compare_numbers(model, result.model, valid, outcomes, stage)
        # Verifying takes ten times as long as all the rest. What inference sees now, onnxruntime's sees too.
        chosen = len(model.graph.node) <= 80 and dice.random() < (0.1 if result.fused else 0.01)
        if chosen and _FAULTY_BEFORE not in outcomes:
            compare_runs(model, result.model, target, dice, outcomes, stage)


def _must_refuse(model: onnx.ModelProto, target: str, stage: Stage) -> None:
    stage(f"inspect {target}, which optimize refuses")
    try:
        rmsnorm_onnx.inspect(model, target=target)
    except RmsNormError:
        return
    raise Wrong(f"optimize refuses what inspect takes ({target})")


def _outputs(model: onnx.ModelProto) -> list[tuple[Any, ...]]:
    """What is stated of them; an empty denotation, a negative length and half an entry of metadata state nothing."""
    stated = []
    for output in model.graph.output:
        kept = onnx.ValueInfoProto.FromString(output.SerializeToString())
        for part in (kept.type, *kept.type.tensor_type.shape.dim):
            if not part.denotation:
                part.ClearField("denotation")
        for dim in kept.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")
        stated.append((kept.name, kept.type, kept.doc_string, {p.key: p.value for p in kept.metadata_props}))
    return stated


def _judge_result(
    before: onnx.ModelProto, after: onnx.ModelProto, valid: bool, target: str, outcomes: list[str], stage: Stage
) -> None:
    stage(f"check {target}")
    problem = why_invalid(after) if valid else None
    made = {n.name for n in after.graph.node} - {"", *(n.name for n in before.graph.node)}
    ours = problem is not None and any(name in problem for name in (*made, *spec.OPS))
    if problem is not None and (_UNTRUE_SHAPE in problem or not ours or not runs(before, stage)):
        outcomes.append(_FAULTY_BEFORE)
    elif problem is not None and not (target == "ort" and "No Op registered" in problem):
        raise Wrong(f"valid before, invalid after ({target}): {problem.splitlines()[0][:60]}", problem)
    twice = len({o.name for o in before.graph.output}) < len(before.graph.output)
    if _outputs(before) != _outputs(after) and valid and not twice:
        raise Wrong(f"outputs have other names, types or shapes ({target})")
    stage(f"optimize {target} again")
    again = rmsnorm_onnx.optimize(after, target=target)
    if again.fused and not (valid and all(i.domain in _INFERRED for i in before.opset_import)):
        # What the first run made stands where inference could not follow, and tells the second run types and shapes.
        outcomes.append(f"{target}: a second run fuses more")
        return
    if again.fused:
        raise Wrong(f"a second run fuses again ({target})", str(again.fused))
    if again.model.SerializeToString(deterministic=True) != after.SerializeToString(deterministic=True):
        raise Wrong(f"a second run changes the model ({target})")
