"""What the pass is known not to do as it must: each with one graph that shows it, until it is mended.

A test fails once a gap's graph is as it must be: then its entry here is to be deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.spelling import Spelling

from rmsnorm_onnx import spec
from rmsnorm_onnx.spec import Why

from .judge import Failure
from .scopes import CLOSED
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


def _lost(failure: Failure, *reasons: Why) -> bool:
    return failure.kind == "recall" and (not failure.reasons or bool(failure.reasons & set(reasons)))


def _spellings(sentence: Sentence) -> tuple[Spelling, Spelling]:
    return sentence.spelling, sentence.second


def _old(sentence: Sentence) -> bool:
    return sentence.spelling.opset < spec.MINIMUM_OPSET


def _single_at(s: Spelling, place: str) -> bool:
    return s.scale_at == place and all(n == 1 for n in s.aligned_scale_shape)


def _counts_by_reciprocal(sentence: Sentence) -> bool:
    return "recip" in sentence.habits and any(s.mean == "sum/Shape" for s in _spellings(sentence))


def _signless(sentence: Sentence) -> bool:
    """Abs or Neg makes x, or only what is squared while its own Shape gives n."""
    return sentence.surrounding == "before" or sentence.twist in ("x-abs", "x-neg", "squared-abs", "squared-neg")


def _vague(sentence: Sentence) -> bool:
    """Whether onnx's shape inference loses the shape of a statistic or scale, or of what is made from it."""
    inside = sentence.surrounding in ("in_branch", "in_loop", "branch_finishes", *CLOSED)
    fed = sentence.twist == "axes-input"
    return inside or fed or any(s.axes_kind == "computed" for s in _spellings(sentence))


def _unshaped(sentence: Sentence, failure: Failure) -> bool:
    lost = _lost(failure, Why.KEEPDIMS, Why.NOT_A_MEAN) or (sentence.near and failure.kind in ("recall", "silent"))
    moved = failure.kind == "recall" and any(s.scale_at != "normalized" for s in _spellings(sentence))
    return _vague(sentence) and (lost or moved)


_BARE = Spelling(scale=None, quotient="reciprocal")

GAPS: tuple[Gap, ...] = (
    Gap(
        "a root rounded to float16 in a float32 norm is read as if it were not",
        512,
        lambda s, f: f.kind == "rounding" and s.twist == "root-rounded",
    ),
    Gap(
        "an Unsqueeze and a Squeeze of the statistic are not taken together",
        195,
        lambda s, f: _lost(f, Why.KEEPDIMS) and (s.twist or "").endswith("there-and-back"),
    ),
    Gap(
        "the shape of a statistic is asked of shape inference although axes and x say it",
        168,
        _unshaped,
    ),
)
