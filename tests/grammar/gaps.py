"""What the pass is known not to do as it must: each with one graph that shows it, until it is mended.

A test fails once a gap's graph is as it must be: then its entry here is to be deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .judge import Failure
from .sentence import Sentence


@dataclass(frozen=True, slots=True)
class Gap:
    """A known failure: ``covers`` tells whether a failure is this one, ``example`` (a seed or a sentence) is one."""

    what: str
    example: int | Sentence
    covers: Callable[[Sentence, Failure], bool]


def known(sentence: Sentence, failure: Failure) -> Gap | None:
    """The gap that explains this failure, or None: then it is news."""
    return next((gap for gap in GAPS if gap.covers(sentence, failure)), None)


GAPS: tuple[Gap, ...] = (
    Gap(
        "a root rounded to float16 in a float32 norm is read as if it were not",
        512,
        lambda s, f: f.kind == "rounding" and s.twist == "root-rounded",
    ),
    Gap(
        "after a norm whose axes are fed and dropped, the rank of what follows is not known",
        50330,
        lambda s, f: f.kind == "recall" and s.twist == "axes-input" and s.surrounding == "chain",
    ),
    Gap(
        "a fed number times an x of one number: either may be the scale",
        111799,
        lambda s, f: f.kind == "recall" and "input" in str(s.spelling.scale) and set(s.spelling.shape) == {1},
    ),
)
