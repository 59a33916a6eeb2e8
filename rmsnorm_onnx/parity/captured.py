"""What the values around a fused node hold while the model runs: once, or in two iterations of the loops around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from rmsnorm_onnx import runtime
from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.parity.runs import Options

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Captured:
    """Values that one node knows, at one time.

    Attributes:
        held: arrays by name of the value.
        feeds: what the model was fed.
        iterations: number of the iteration of each loop around the node, outermost first.
    """

    held: Mapping[str, Array]
    feeds: Mapping[str, Array]
    iterations: tuple[int, ...]

    def of(self, value: ir.Value) -> Array:
        """What ``value`` held; constants and the model's own inputs included.

        Raises:
            CannotRun: it was not captured.
        """
        name = str(value.name)
        if name in self.held:
            return self.held[name]
        if value.producer() is None and name in self.feeds:
            return self.feeds[name]
        if value.producer() is None and value.const_value is not None:
            return value.const_value.numpy()
        raise CannotRun(f"the value '{name}' that a norm reads could not be captured")


def capture(
    fused: runtime.LoadedModel,
    typed: ir.Model,
    groups: Sequence[Sequence[ir.Value]],
    feeds: Mapping[str, Array],
    options: Options,
) -> list[tuple[Captured, ...] | str]:
    """Run the fused model on ``feeds``, and keep what the values of each group hold.

    Args:
        fused: the model.
        typed: a typed copy of it.
        groups: values of ``typed``, each group led by one that the node in question gives.
        feeds: by input name.
        options: how to run.

    Returns:
        For each group, each time that it was looked at (never, where it did not run), or why it could not be.

    Raises:
        CannotRun: the model cannot run with its inner values as outputs. LibraryMissing: the library is wanted and
            missing.
    """
    inner = [[value for value in group if _is_inner(value, typed)] for group in groups]
    shown, places = runtime.with_values(typed, inner)
    try:
        outputs = _run(fused, shown, feeds, options)
    except CannotRun as error:
        looped = [not isinstance(place, str) and any(one.iterations for one in place) for place in places]
        if type(error) is not CannotRun or not any(looped):
            raise
        reason = f"in the body of a Loop or Scan whose values cannot be shown ({str(error).splitlines()[-1]})"
        rest = [number for number, is_looped in enumerate(looped) if not is_looped]
        again = iter(capture(fused, typed, [groups[number] for number in rest], feeds, options))
        return [reason if is_looped else next(again) for is_looped in looped]
    found: list[tuple[Captured, ...] | str] = []
    for group, place in zip(inner, places, strict=True):
        if isinstance(place, str):
            found.append(place)
            continue
        # The first iteration may also be the last.
        times: dict[tuple[int, ...], Captured] = {}
        for one in place:
            if outputs[one.names[str(group[0].name)]].size:
                iterations = tuple(int(outputs[name]) for name in one.iterations)
                held = {str(value.name): _typed(value, outputs[one.names[str(value.name)]]) for value in group}
                times.setdefault(iterations, Captured(held, feeds, iterations))
        found.append(tuple(times[iterations] for iterations in sorted(times)))
    return found


def _is_inner(value: ir.Value, model: ir.Model) -> bool:
    """Whether it is neither a constant nor an input of the model."""
    return value.producer() is not None or (value.const_value is None and value not in model.graph.inputs)


def _typed(value: ir.Value, array: Array) -> Array:
    """``array`` in the type of ``value``; bfloat16 may come as float32."""
    return array if value.dtype is None else array.astype(value.dtype.numpy(), copy=False)


def _run(
    fused: runtime.LoadedModel, shown: ir.Model, feeds: Mapping[str, Array], options: Options
) -> Mapping[str, Array]:
    return runtime.run_side(
        runtime.LoadedModel(shown, None, fused.name, fused.sha256),
        feeds,
        library=options.library,
        threads=options.threads,
        optimization=options.optimization,
        reference=not options.library,
    ).outputs
