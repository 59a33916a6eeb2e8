"""Minutes of mixed work on many threads: does memory grow, does any bit differ?

    python tests/load.py [SECONDS]

Three processes work side by side. ``library`` runs every operator, element type and shape on eight threads, which
also make and drop sessions. ``bodies`` does the same with the same models, whose function bodies run on onnxruntime's
own kernels: what grows there too is not ours. ``tool`` fuses, inspects and verifies small committed models in turn.

Memory is what stays resident when malloc has given back what is free; for that the threads pause and all sessions are
dropped. The first quarter of the time is warm-up.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kernels_abi as abi
import numpy as np
import onnxruntime as ort
from mixed_work import ALL, KINDS, Work, digest, options_of, session

import rmsnorm_onnx
from rmsnorm_onnx import library

THREADS = 8
SESSIONS_PER_RUN = 1 / 20
MODELS = 24
SAMPLES = 120
WARM_UP = 0.25
#: Of the samples after warm-up: one mean is as good as independent of the next.
BLOCKS = 12
#: Growth of so many standard errors is no accident.
ERRORS = 4
MEBIBYTE = 2**20
LIBC = ctypes.CDLL(None)
PARTS = ("library", "bodies", "tool")


class Load:
    """Counts and samples of one process."""

    def __init__(self, seconds: float) -> None:
        self.runs = self.sessions = self.wrong = 0
        self.samples: list[tuple[float, int]] = []
        self.seconds = seconds
        self.pause = seconds / SAMPLES
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        """The time begins when all is prepared."""
        self.begin = time.monotonic()
        self.end = self.begin + self.seconds
        self.next_pause = self.begin + self.pause

    def count(self, *, sessions: int = 0, wrong: int = 0) -> None:
        with self._lock:
            self.runs += 1
            self.sessions += sessions
            self.wrong += wrong

    def sample(self) -> None:
        """Notes what is resident after malloc has given back what is free."""
        gc.collect()
        LIBC.malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        now = time.monotonic()
        self.samples.append((now - self.begin, pages * resource.getpagesize()))
        self.next_pause = now + self.pause


def works() -> list[Work]:
    """Every kind of shape, and many of no kind: up to 128 KiB of float32."""
    rng = random.Random(0)
    found = list(ALL)
    for kind in KINDS:
        for _ in range(12):
            columns = int(2 ** rng.uniform(0, 12))
            found.append(Work(*kind, (rng.randint(1, max(1, 32768 // columns)), columns)))
    return found


def run_sessions(load: Load, *, with_library: bool) -> None:
    """Threads share one session of each kind, which each of them now and then replaces; in a pause there is none."""

    def make(kind, rng):
        options = options_of(threads=rng.choice((1, 2)), arena=rng.random() < 0.5)
        if with_library:
            library.register(options, override=rng.choice((False, True, "all")))
        return session(kind, options)

    def begin_anew() -> None:
        shared.clear()
        load.sample()
        shared.update({kind: make(kind, random.Random(0)) for kind in KINDS})

    everything, shared = works(), {kind: make(kind, random.Random(0)) for kind in KINDS}
    wanted = {work: digest(shared[work.kind], work) for work in everything}
    load.start()
    begin_anew()
    pause = threading.Barrier(THREADS, begin_anew)

    def work_on(seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < load.end:
            while time.monotonic() < load.next_pause:
                work = rng.choice(everything)
                renews = rng.random() < SESSIONS_PER_RUN
                if renews:
                    shared[work.kind] = make(work.kind, rng)
                # onnxruntime's own kernels may add in another order with two threads.
                wrong = digest(shared[work.kind], work) != wanted[work] and with_library
                load.count(sessions=int(renews), wrong=int(wrong))
            pause.wait()

    def guarded(seed: int) -> None:
        try:
            work_on(seed)
        except threading.BrokenBarrierError:
            pass  # the others have ended
        finally:
            pause.abort()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(guarded, range(THREADS)))


def run_tool(load: Load) -> None:
    """The smallest models, in turn."""
    models = sorted((abi.ROOT / "models").glob("*/model.onnx"), key=lambda path: path.stat().st_size)[:MODELS]
    first: dict[Path, bytes] = {}
    load.sample()
    while time.monotonic() < load.end:
        path = models[load.runs % len(models)]
        fused = rmsnorm_onnx.optimize(path)
        rmsnorm_onnx.inspect(path)
        if fused.fused:
            rmsnorm_onnx.verify(path, fused.model, samples=1)
        text = fused.model.SerializeToString(deterministic=True)
        load.count(wrong=int(first.setdefault(path, text) != text))
        if time.monotonic() > load.next_pause:
            load.sample()


def run_part(part: str, seconds: float) -> None:
    """What a process says of itself, as JSON on stdout."""
    library.get_library_path = abi.library_path
    load = Load(seconds)
    if part == "tool":
        run_tool(load)
    else:
        run_sessions(load, with_library=part == "library")
    print(json.dumps({name: getattr(load, name) for name in ("runs", "sessions", "wrong", "samples")}))


def growth(samples: list[tuple[float, int]]) -> tuple[float, float, float]:
    """MiB at the end of warm-up; MiB per hour after it by least squares, and the standard error of that.

    Resident memory wanders: a sample is like the one before it. So the line goes through means of blocks.
    """
    end = samples[-1][0]
    kept = np.array([(t / 3600, size / MEBIBYTE) for t, size in samples if t >= WARM_UP * end])
    means = np.array([block.mean(axis=0) for block in np.array_split(kept, BLOCKS)])
    hours = means[:, 0] - means[:, 0].mean()
    slope = float(hours @ means[:, 1] / (hours @ hours))
    rest = means[:, 1] - means[:, 1].mean() - slope * hours
    return float(kept[0, 1]), slope, float(np.sqrt(rest @ rest / (BLOCKS - 2) / (hours @ hours)))


def measure(part: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(seconds), "--part", part]
    # Events that onnxruntime 1.29 and newer cannot send yet stay in memory.
    own = {"ORT_DISABLE_TELEMETRY": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | own)


def judge(results: dict[str, dict[str, object]]) -> int:
    """Prints the table; 1 when memory grows or bits differ."""
    print(f"{'':8} {'runs':>9} {'sessions':>9} {'MiB start':>9} {'warm':>7} {'end':>7} {'MiB/hour':>15} differ")
    slopes = {}
    for part, result in results.items():
        samples = result["samples"]
        warm, *slopes[part] = growth(samples)
        line = f"{part:8} {result['runs']:9} {result['sessions']:9} {samples[0][1] / MEBIBYTE:9.1f} {warm:7.1f}"
        line += (
            f" {samples[-1][1] / MEBIBYTE:7.1f} {slopes[part][0]:+8.1f} ± {slopes[part][1]:4.1f} {result['wrong']:6}"
        )
        print(line)
    bad = [f"{part}: {result['wrong']} outputs differ" for part, result in results.items() if result["wrong"]]
    control = slopes["bodies"]
    ours = slopes["library"][0] - max(0, control[0]), np.hypot(slopes["library"][1], control[1])
    for name, (slope, error) in {"library": ours, "tool": slopes["tool"]}.items():
        if slope > ERRORS * error:
            bad.append(f"{name}: memory grows by {slope:.1f} ± {error:.1f} MiB/hour")
    runs = results["library"]["runs"] / results["library"]["samples"][-1][0] * 3600
    made = results["library"]["sessions"] / results["library"]["samples"][-1][0] * 3600
    seen = ERRORS * ours[1] * MEBIBYTE
    print(f"A leak of {seen / runs:.1f} bytes per run or {seen / made:.0f} per session would show.")
    print("\n".join(bad) or "No growth, no differences.")
    return int(bool(bad))


def main() -> int:
    """0: neither growth nor differences; 1: some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=600)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        run_part(given.part, given.seconds)
        return 0
    abi.library_path()
    print(f"onnxruntime {ort.__version__}, {THREADS} threads, {given.seconds:g} s", flush=True)
    processes = {part: measure(part, given.seconds) for part in PARTS}
    said = {part: process.communicate()[0] for part, process in processes.items()}
    ended = [part for part, process in processes.items() if process.returncode]
    if ended:
        print(f"{', '.join(ended)}: ended with an error")
        return 1
    results = {part: json.loads(text) for part, text in said.items()}
    if min(len(result["samples"]) for result in results.values()) < 4 * BLOCKS:
        print(f"{given.seconds:g} seconds are too few for {4 * BLOCKS} samples of memory here")
        return 1
    return judge(results)


if __name__ == "__main__":
    sys.exit(main())
