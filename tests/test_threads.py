"""Threads: one session for many, many sessions at once, sessions made and dropped while others run.

Outputs have the bits that one thread alone gets. ``make load`` does this for ten minutes, ``make sanitizers`` does it
in libraries that watch every access.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import kernels_abi as abi
import onnxruntime as ort
import pytest
from mixed_work import ALL, KINDS, alone, digest, options_of, session

from rmsnorm_onnx import library
from rmsnorm_onnx.parity import runs

THREADS = 8
OVERRIDES = (False, True, "all")


@pytest.fixture(autouse=True)
def _ready(monkeypatch):
    """Sessions use the library built from this tree; what one thread alone gets is known before others run."""
    monkeypatch.setattr(library, "get_library_path", abi.library_path)
    alone()


@pytest.fixture
def _impatient():
    """Python's threads take turns as often as they can, which shows what depends on the order."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(body):
    """What body(index) returns in each of the threads, which begin together."""
    start = threading.Barrier(THREADS)

    def run(index):
        start.wait()
        return body(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def wrong(made, works):
    """Those whose bits are others than those of one thread alone; ``made`` gives the session of a kind."""
    return [work for work in works if digest(made(work.kind), work) != alone()[work]]


def some(seed, count=24):
    return random.Random(seed).sample(ALL, count)


@pytest.mark.parametrize("arena", [True, False], ids=["arena", "no arena"])
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_sessions(threads, arena):
    """Every thread runs half of everything, in an order of its own."""
    options = options_of(threads=threads, arena=arena)
    library.register(options)
    sessions = {kind: session(kind, options) for kind in KINDS}
    assert at_once(lambda index: wrong(sessions.get, some(index))) == [[]] * THREADS


def test_many_sessions_of_one_process():
    """All of them alive, some of one thread and some of two, and every thread runs all."""
    several = []
    for i in range(6):
        options = options_of(threads=1 + i % 2)
        library.register(options, override=OVERRIDES[i % 3])
        several.append({kind: session(kind, options) for kind in KINDS})
    found = at_once(lambda index: [wrong(sessions.get, some(8 * i + index, 6)) for i, sessions in enumerate(several)])
    assert found == [[[]] * len(several)] * THREADS


def test_sessions_come_and_go_while_others_run():
    """Half of the threads run sessions that live throughout, half make one for every run."""
    options = options_of(threads=2)
    library.register(options)
    sessions = {kind: session(kind, options) for kind in KINDS}
    found = at_once(lambda index: wrong(session if index % 2 else sessions.get, some(index)))
    assert found == [[]] * THREADS


def test_sessions_one_at_a_time_leave_nothing_behind():
    """The library goes with the last session; coming back, it must not begin anew."""
    code = """if True:
        import sys
        from pathlib import Path
        from mixed_work import KINDS, options_of, session
        from rmsnorm_onnx import library
        library.get_library_path = lambda: sys.argv[1]
        for i in range(250):
            options = options_of()
            library.register(options, override="all")
            made = session(KINDS[i % len(KINDS)], options)
            del options, made
            if i == 50:
                before = int(Path("/proc/self/statm").read_text().split()[1])
        print(int(Path("/proc/self/statm").read_text().split()[1]) - before)
    """
    folders = os.pathsep.join(str(abi.ROOT / name) for name in (".", "tests"))
    done = subprocess.run(
        [sys.executable, "-c", code, abi.library_path()],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=True,
    )
    grown = int(done.stdout) * resource.getpagesize()
    assert grown < 2**20, f"200 sessions left {grown} bytes"


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("override", OVERRIDES)
def test_threads_register_at_once(override, monkeypatch, tmp_path):
    """The first registrations of a library that this process has not loaded before."""
    path = shutil.copy(abi.library_path(), tmp_path / "copied.so")
    monkeypatch.setattr(library, "get_library_path", lambda: str(path))

    def body(index):
        options = options_of()
        library.register(options, override=override)
        return wrong(lambda kind: session(kind, options), some(index, 2))

    assert at_once(body) == [[]] * THREADS


def test_threads_register_on_the_same_options(monkeypatch):
    """Whoever comes first, every operator is there once: onnxruntime would refuse the session else."""
    add = ort.SessionOptions.register_custom_ops_library

    def add_slowly(*given):
        add(*given)
        time.sleep(0.002)  # long enough for the others to add theirs before anybody writes down that it is there

    monkeypatch.setattr(ort.SessionOptions, "register_custom_ops_library", add_slowly)
    for first in range(3):
        options = options_of()

        def body(index, options=options, first=first):
            library.register(options, override=OVERRIDES[(first + index) % 3])

        at_once(body)
        assert wrong(lambda kind, options=options: session(kind, options), some(first, 1)) == []


@pytest.mark.usefixtures("_impatient")
def test_threads_register_by_path_alone():
    """Each its own options; the same options twice are refused, however they came to it."""

    def own(index):
        options = options_of()
        options.register_custom_ops_library(abi.library_path())
        return wrong(lambda kind: session(kind, options), some(index, 2))

    assert at_once(own) == [[]] * THREADS
    shared = options_of()
    at_once(lambda index: shared.register_custom_ops_library(abi.library_path()))
    with pytest.raises(Exception, match=r"[Cc]onflicting|already"):
        session(KINDS[0], shared)


def test_threads_verify_at_once(monkeypatch):
    """Runs are kept for the next call, and every thread gets those of its own models."""

    class Slow(dict):
        def __setitem__(self, *item):
            super().__setitem__(*item)
            time.sleep(0.002)  # long enough for the others to keep theirs

    monkeypatch.setattr(runs, "_LAST", Slow())

    def body(index):
        model = SimpleNamespace(sha256=str(index), model=SimpleNamespace(graph=SimpleNamespace(outputs=())))
        return runs._once("kept", model, {}, (), lambda: index)

    assert at_once(body) == list(range(THREADS))
