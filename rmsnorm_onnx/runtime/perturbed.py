"""Running the float64 reading perturbed: with roundings drawn anew, or with its inexact constants shifted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from rmsnorm_onnx.errors import CannotRun
from rmsnorm_onnx.runtime.evaluator import Array, Arrays, run_reference
from rmsnorm_onnx.runtime.exact import make_islands, run_session, widened_feeds, without_double_kernel
from rmsnorm_onnx.runtime.noise import SCALES, with_rounding_noise
from rmsnorm_onnx.runtime.session import session_from_ir, session_options
from rmsnorm_onnx.runtime.slack import SIGNS, with_constant_slack


class NoiseRunner:
    """Runs the float64 reading with rounding errors drawn anew in every run; see ``with_rounding_noise``."""

    def __init__(self, model: ir.Model, *, threads: int | None = None) -> None:
        """Perturb a copy of ``model``."""
        self._noisy = with_rounding_noise(model)
        self._session = _Perturbed(self._noisy.model, SCALES, threads)

    def __call__(self, feeds: Arrays, *, count: int, seed: int) -> Iterator[dict[str, Array]]:
        """``count`` runs.

        Raises:
            CannotRun: onnxruntime cannot run the perturbed graph.
        """
        generator = np.random.default_rng(seed)
        return self._session(feeds, (self._noisy.scales(generator) for _ in range(count)))


def noise_runs(
    model: ir.Model, feeds: Arrays, *, count: int, seed: int, threads: int | None = None
) -> Iterator[dict[str, Array]]:
    """``count`` runs of the float64 reading with rounding errors drawn anew; see ``NoiseRunner``."""
    return NoiseRunner(model, threads=threads)(feeds, count=count, seed=seed)


class SlackRunner:
    """Runs the float64 reading with its inexact constants shifted; see ``with_constant_slack``."""

    def __init__(self, model: ir.Model, *, threads: int | None = None) -> None:
        """Perturb a copy of ``model``."""
        self._slack = with_constant_slack(model)
        self._in_reference = bool(without_double_kernel(self._slack.model))
        # The reference evaluator gets the graph as it is; islands are made in a copy.
        perturbed = self._slack.model.clone() if self._in_reference else self._slack.model
        self._session = _Perturbed(perturbed, SIGNS, threads)

    def __call__(self, feeds: Arrays, *, count: int, seed: int) -> Iterator[tuple[int, Iterator[dict[str, Array]]]]:
        """Per kind of inexact constant (half an ulp off, or standing for a known number) how many, and shifted runs.

        Each run shifts all constants of the kind; kinds without constants are
        left out.

        Raises:
            CannotRun: onnxruntime cannot run the perturbed graph.
        """
        generator = np.random.default_rng(seed)
        known = sum(self._slack.is_known)
        if known < len(self._slack.is_known):
            rows = self._slack.rounding_signs(count, generator)
            yield len(self._slack.is_known) - known, self._runs(feeds, rows)
        if known:
            yield known, self._runs(feeds, self._slack.meaning_signs(generator))

    def _runs(self, feeds: Arrays, rows: Array) -> Iterator[dict[str, Array]]:
        if self._in_reference:
            # As in ExactRunner: effects this small drown in the roundings of a float32 island.
            given = widened_feeds(feeds)
            try:
                runs = [run_reference(self._slack.model, given | {SIGNS: row}) for row in rows]
            except CannotRun:
                self._in_reference = False
            else:
                yield from runs
                return
        yield from self._session(feeds, rows)


class _Perturbed:
    """A session of a float64 graph that takes a draw as one more input, made at the first run."""

    def __init__(self, model: ir.Model, name: str, threads: int | None) -> None:
        self._model, self._name, self._threads = model, name, threads
        self._session: Any = None

    def __call__(self, feeds: Arrays, draws: Iterable[Array]) -> Iterator[dict[str, Array]]:
        """One run for each of ``draws``."""
        names = [str(output.name) for output in self._model.graph.outputs]
        if self._session is None:
            make_islands(self._model)
            # Without optimizations: no rounding must be taken for a superfluous pair of casts.
            options = session_options(library=False, threads=self._threads, optimization="disable")
            self._session = session_from_ir(self._model, options)
        given = widened_feeds(feeds)
        for draw in draws:
            yield dict(zip(names, run_session(self._session, names, given | {self._name: draw}), strict=True))
