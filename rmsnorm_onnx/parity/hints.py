"""What users mix up, said in a sentence: the order of the models, their inputs and outputs, bodies that are missing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import runtime, spec
from rmsnorm_onnx.errors import InvalidInput
from rmsnorm_onnx.parity.runs import Models
from rmsnorm_onnx.runtime.inputs import input_specs

Array = npt.NDArray[Any]

_SWAPPED = "the first model holds norms that are fused already and the second does not; expected ORIGINAL, then FUSED"


def check_inputs(models: Models) -> None:
    """Raise InvalidInput, saying what differs, if the models do not take the same inputs."""
    left, right = ({spec.name: spec.dtype.name for spec in input_specs(model.model)} for model in models)
    problems = []
    for name in left.keys() - right.keys():
        close = difflib.get_close_matches(name, right.keys() - left.keys(), 1)
        problems.append(f"the fused model lacks '{name}'" + (f" (it has '{close[0]}')" if close else ""))
    problems += [f"the original lacks '{name}'" for name in right.keys() - left.keys()]
    problems += [
        f"'{name}' is {left[name]} in the original and {right[name]} in the fused model"
        for name in left.keys() & right.keys()
        if left[name] != right[name]
    ]
    if problems:
        raise InvalidInput(
            f"the models take different inputs: {'; '.join(sorted(problems))}; "
            "give two files of one model, with the inputs' names and types unchanged"
        )


def notes(models: Models) -> tuple[str, ...]:
    """What a reader should know about the two models, whatever they are fed."""
    return tuple(_notes(*models))


def _notes(original: runtime.LoadedModel, fused: runtime.LoadedModel) -> Iterator[str]:
    if original.sha256 == fused.sha256:
        yield "both models are the same file, so this says nothing about a fusion"
    elif _ours(original.model) and not _ours(fused.model):
        yield _SWAPPED
    left, right = ([str(value.name) for value in model.model.graph.outputs] for model in (original, fused))
    if left != right and sorted(left) == sorted(right):
        yield f"the outputs stand in another order ({', '.join(right)}); they are compared by name"


def why_not(models: Models, *, library: bool) -> str:
    """What to do about a model that does not run; empty if nothing is known."""
    original, fused = (_ours(model.model) - _bodies(model.model) for model in models)
    if original:
        swapped = "" if _ours(models[1].model) else f"; {_SWAPPED}"
        return f"the original holds {', '.join(sorted(original))} without function bodies, and gets no library{swapped}"
    if fused and not library:
        return (
            f"the fused model stores no function bodies for {', '.join(sorted(fused))} (optimize --no-body), "
            "so it runs with the library only: leave --no-library (in Python library=False) out"
        )
    return ""


def renamed(array: Array, others: Mapping[str, Array]) -> str:
    """Which of the ``others``, outputs that only the other model has, could be this one; or nothing."""
    alike = [other for other, values in others.items() if values.dtype == array.dtype and values.shape == array.shape]
    return f"; was it renamed to '{alike[0]}', of the same type and shape?" if len(alike) == 1 else ""


def _ours(model: ir.Model) -> set[str]:
    """The operators of ``spec.DOMAIN`` that nodes call."""
    bodies = [function.graph for function in model.functions.values() if function.domain != spec.DOMAIN]
    return {
        node.op_type for graph in (model.graph, *bodies) for node in graph.all_nodes() if node.domain == spec.DOMAIN
    }


def _bodies(model: ir.Model) -> set[str]:
    return {function.name for function in model.functions.values() if function.domain == spec.DOMAIN}
