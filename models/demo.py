"""The main job on one committed export, as a user would do it: fuse, inspect, verify, time.

Run by ``make demo``; needs the installed package with the extra ``cpu``.
"""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rmsnorm_onnx.runtime import Feeds, load, make_feeds, make_session

EXPORT = Path(__file__).parent / "llama-dynamo18-f32" / "model.onnx"
ROUNDS = 200


def run(*arguments: str) -> None:
    """Show a command of the package and run it."""
    print(f"\n$ rmsnorm-onnx {shlex.join(arguments)}", flush=True)
    # Not python -m: in a checkout that would find the sources, which hold no compiled library.
    subprocess.run([Path(sys.executable).with_name("rmsnorm-onnx"), *arguments], check=True)


def medians(feeds: Feeds, sessions: dict[str, object]) -> dict[str, float]:
    """Median microseconds of each session, timed in turns so that noise hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, feeds.arrays)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


def main() -> None:
    """Everything the README promises, on a Llama that torch exported."""
    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder) / "fused.onnx"
        run("info")
        run("inspect", str(EXPORT))
        run("optimize", str(EXPORT), str(fused), "--require", "5")
        run("verify", str(EXPORT), str(fused))
        run("verify", str(EXPORT), str(fused), "--no-library")

        feeds = make_feeds(load(EXPORT).model)
        sessions = {
            "original, onnxruntime": make_session(
                EXPORT, library=False, threads=1, optimization="all"
            ),
            "fused, without the library": make_session(
                fused, library=False, threads=1, optimization="all"
            ),
            "fused, with the library": make_session(
                fused, library=True, threads=1, optimization="all"
            ),
        }
        print(f"\nMedian of {ROUNDS} runs, one thread, of a model too small to tell much:")
        result = medians(feeds, sessions)
        for name, microseconds in result.items():
            share = microseconds / result["original, onnxruntime"]
            print(f"  {name:30} {microseconds:7.0f} us  {share:.2f} of the original")


if __name__ == "__main__":
    main()
