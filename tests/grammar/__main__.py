"""Replays single graphs by seed, or runs many and sorts their failures."""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import onnx

from . import draw, judge, known, shrink


def outcome(seed: int) -> tuple[int, str, str]:
    """Seed, what kind of failure (or an empty string), and how it looks."""
    sentence = draw(seed)
    try:
        failure = judge(sentence)
    except Exception as error:
        return seed, "judge", f"{type(error).__name__}: {error}\n    {sentence.describe()}"
    if failure is None:
        return seed, "", ""
    gap = known(sentence, failure)
    kind = f"known: {gap.what}" if gap else failure.kind
    return seed, kind, f"{failure.detail}\n    {sentence.describe()}"


def replay(seed: int, shrinks: bool) -> None:
    """Show one graph and its failure."""
    sentence = draw(seed)
    sentence = shrink(sentence) if shrinks else sentence
    model, norms = sentence.write()
    print(sentence.describe(), f"\n{norms} norms, near: {sentence.near}")
    print(onnx.printer.to_text(model))
    print(judge(sentence) or "as it must be")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m grammar", description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, help="replay these graphs")
    parser.add_argument("--shrink", action="store_true", help="show the simplest graph that fails alike")
    parser.add_argument("--graphs", type=int, default=0, help="run so many")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    for seed in given.seeds:
        replay(seed, given.shrink)
    if given.graphs:
        kinds: Counter[str] = Counter()
        with ProcessPoolExecutor(given.workers) as pool:
            for seed, kind, text in pool.map(outcome, range(given.first, given.first + given.graphs), chunksize=50):
                kinds[kind or "as it must be"] += 1
                if kind and not kind.startswith("known"):
                    print(f"{kind} {seed}: {text}")
        for kind, count in kinds.most_common():
            print(f"{count:6} {kind}")


if __name__ == "__main__":
    main()
