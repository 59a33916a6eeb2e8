"""Runs the fuzzers for a while and prints what became of the inputs; or repeats single ones."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .isolate import Finding, Judge, Record, run

#: Inputs per seed: each seed has numbers of its own.
_SPAN = 10_000_000
_LISTED = 3


def _judge_model(number: int, stage: Callable[[str], None]) -> tuple[tuple[str, ...], Finding | None]:
    from .models import judge

    return judge(number, stage)


def _judge_kernels(number: int, stage: Callable[[str], None]) -> tuple[tuple[str, ...], Finding | None]:
    from .kernels import judge

    return judge(number, stage)


FUZZERS: dict[str, Judge] = {"models": _judge_model, "kernels": _judge_kernels}


@dataclass
class Summary:
    """What a fuzzer saw."""

    name: str
    folder: Path
    seconds: float = 0
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[Finding, list[int]] = field(default_factory=dict)
    slowest: Record | None = None
    largest: Record | None = None
    first_peak: int = 0

    def add(self, record: Record) -> None:
        """Count one input; a finding is shown when it is new."""
        self.inputs += 1
        self.outcomes.update(record.outcomes)
        if self.slowest is None or record.seconds > self.slowest.seconds:
            self.slowest = record
        self.first_peak = self.first_peak or record.peak
        if self.largest is None or record.peak > self.largest.peak:
            self.largest = record
        if record.finding is not None:
            numbers = self.findings.setdefault(record.finding, [])
            numbers.append(record.number)
            if len(numbers) == 1:
                print(
                    f"\nFINDING {record.finding.key}\n{record.finding.text}\nrepeat it: {self.command(record.number)}"
                )
                sys.stdout.flush()
                self._keep(record.number)

    def _keep(self, number: int) -> None:
        if self.name == "models":
            from .models import draw

            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{number}.onnx").write_bytes(draw(number).data)

    def command(self, number: int) -> str:
        """What repeats one input."""
        return f"PYTHONPATH=tests:. python -m fuzz {self.name} {number}"

    def lines(self) -> Iterator[str]:
        """The table."""
        pace = self.inputs / max(self.seconds, 1)
        yield f"{self.name}: {self.inputs} inputs in {self.seconds:.0f} s ({pace:.0f} per second)"
        yield from (f"  {count:9} {what}" for what, count in sorted(self.outcomes.items()))
        if self.slowest is not None and self.largest is not None:
            yield f"  slowest: {self.slowest.seconds:.2f} s ({self.command(self.slowest.number)})"
            peaks = (
                f"{self.first_peak / 2**20:.0f} MiB after the first input, {self.largest.peak / 2**20:.0f} MiB at most"
            )
            yield f"  memory: {peaks} ({self.command(self.largest.number)})"
        yield f"  findings: {len(self.findings)}"
        for finding, numbers in self.findings.items():
            yield f"    {len(numbers):6} {finding.key}: {', '.join(map(str, numbers[:_LISTED]))}"


def fuzz(name: str, numbers: Iterator[int], seconds: float, folder: Path) -> Summary:
    """Run one fuzzer."""
    summary = Summary(name, folder)
    started = time.monotonic()
    for record in run(FUZZERS[name], numbers, started + seconds):
        summary.add(record)
        summary.seconds = time.monotonic() - started
    return summary


def repeat(name: str, numbers: list[int], shrinks: bool) -> int:
    """Show single inputs; how many have a finding."""
    found = 0
    for number in numbers:
        record = next(run(FUZZERS[name], iter([number]), time.monotonic() + 60))
        print(f"{name} {number}: {', '.join(record.outcomes)} in {record.seconds:.2f} s")
        if name == "models":
            _show_model(number, record.finding if shrinks else None)
        if record.finding is not None:
            print(f"FINDING {record.finding.key}\n{record.finding.text}")
            found += 1
    return found


def _show_model(number: int, finding: Finding | None) -> None:
    from .models import draw
    from .shrink import shrink

    given = draw(number)
    print("\n".join(given.story))
    if not given.damaged and finding is not None:
        print(_text(shrink(given, finding).model()))


def _text(model: Any) -> str:
    """The model with its long tensors shortened."""
    import re

    import onnx

    return re.sub(r"\{((?:[^{},]*,){8})[^{}]*\}", r"{\1 ...}", onnx.printer.to_text(model))


def main() -> None:
    """Parse the command line; exit code 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("fuzzer", nargs="?", choices=list(FUZZERS), help="both where none is given")
    parser.add_argument("numbers", nargs="*", type=int, help="repeat these inputs")
    parser.add_argument("--shrink", action="store_true", help="show the smallest model with the same finding")
    parser.add_argument("--seconds", type=float, default=60, help="for each fuzzer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, help="stop after so many of each fuzzer")
    parser.add_argument(
        "--findings", type=Path, default=Path("build/fuzz"), help="folder for models that found something"
    )
    given = parser.parse_args()
    if given.numbers:
        sys.exit(repeat(given.fuzzer, given.numbers, given.shrink) > 0)
    first = given.seed * _SPAN
    summaries = []
    for name in [given.fuzzer] if given.fuzzer else list(FUZZERS):
        numbers = itertools.islice(itertools.count(first), given.inputs)
        summaries.append(fuzz(name, numbers, given.seconds, given.findings))
        print("\n".join(summaries[-1].lines()), flush=True)
    sys.exit(any(summary.findings for summary in summaries))


if __name__ == "__main__":
    main()
