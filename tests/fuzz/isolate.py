"""Runs numbered inputs in processes that may die: of a signal, of a time limit, of a memory limit.

Whatever happens to such a process is attributed to the input it was at, and to the stage that input was in.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: Seconds that one input may take.
TIME_LIMIT = 10
#: Bytes of address space that one input may take, over what the process has before its first.
MEMORY_LIMIT = 4 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """What must not happen. Two findings are one if their ``key`` is the same."""

    key: str
    text: str = field(compare=False, default="")


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one input."""

    number: int
    outcomes: tuple[str, ...]
    finding: Finding | None
    seconds: float
    peak: int  # bytes resident, at most so far


#: Judges one input; calls the function it is given with the name of each stage as it comes to it.
Judge = Callable[[int, Callable[[str], None]], tuple[tuple[str, ...], Finding | None]]

#: Stages whose death says nothing of the package: others' code on the input as it is.
FOREIGN = "alone: "


def run(judge: Judge, numbers: Iterator[int], deadline: float) -> Iterator[Record]:
    """Judge inputs until ``deadline`` (of time.monotonic), each by a process that the next ones share if it lives."""
    while time.monotonic() < deadline:
        worker = _Worker(judge)
        try:
            yield from worker.records(numbers, deadline)
        finally:
            worker.stop()
        if not worker.died:
            return


class _Worker:
    def __init__(self, judge: Judge):
        self.died = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(judge, theirs, self._log.fileno()), daemon=True)
        self._process.start()
        theirs.close()

    def records(self, numbers: Iterator[int], deadline: float) -> Iterator[Record]:
        while not self.died and time.monotonic() < deadline:
            number = next(numbers, None)
            if number is None:
                return
            yield self._record(number)

    def stop(self) -> None:
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._log.close()

    def _record(self, number: int) -> Record:
        started, stage = time.monotonic(), "start"
        self._pipe.send(number)
        while True:
            # The process ends itself first, with a traceback; unless it is stopped or its memory is in ruins.
            if not self._pipe.poll(TIME_LIMIT + 20):
                self._process.kill()
            try:
                said = self._pipe.recv()
            except (EOFError, ConnectionError):
                return self._obituary(number, stage, time.monotonic() - started)
            if isinstance(said, Record):
                return said
            stage = said

    def _obituary(self, number: int, stage: str, seconds: float) -> Record:
        self.died = True
        self._process.join()
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        code = self._process.exitcode or 0
        how = "time limit" if seconds >= TIME_LIMIT else signal.Signals(-code).name if code < 0 else f"exit {code}"
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        if stage.startswith(FOREIGN):
            return Record(number, (f"{stage}{how}",), None, seconds, peak)
        # The 100 calls that faulthandler prints, the last one first.
        return Record(number, ("died",), Finding(f"{how} in {stage}", text[-20_000:]), seconds, peak)


def _serve(judge: Judge, pipe: Any, log: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(log)
    judge(-1, lambda stage: None)  # imports everything
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_LIMIT, resource.RLIM_INFINITY))
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        os.ftruncate(log, 0)
        os.lseek(log, 0, os.SEEK_SET)
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True, file=log)
        started = time.monotonic()
        outcomes, finding = judge(number, pipe.send)
        seconds = time.monotonic() - started
        faulthandler.cancel_dump_traceback_later()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send(Record(number, outcomes, finding, seconds, peak))
