"""Makes a failing sentence simpler while it still fails in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from zoo.spelling import Spelling

from .judge import Failure, judge
from .sentence import Sentence, reset


def shrink(sentence: Sentence) -> Sentence:
    """The simplest sentence found with a failure of the same kind."""
    failure = judge(sentence)
    if failure is None:
        return sentence
    while True:
        for simpler in _simpler(sentence):
            if _fails(simpler, failure):
                sentence = simpler
                break
        else:
            return sentence


def _fails(sentence: Sentence, wanted: Failure) -> bool:
    """Whether it fails as ``wanted`` does; of a lost norm, for the same reasons."""
    try:
        failure = judge(sentence)
    except Exception:  # not every combination of fields can be written
        return False
    return failure is not None and (failure.kind, failure.reasons) == (wanted.kind, wanted.reasons)


def _simpler(sentence: Sentence) -> Iterator[Sentence]:
    if sentence.surrounding != "alone":
        yield replace(sentence, surrounding="alone")
    if sentence.twist is not None:
        yield replace(sentence, twist=None)
    for habit in sentence.habits:
        yield replace(sentence, habits=tuple(h for h in sentence.habits if h != habit))
    if sentence.second != Spelling() and sentence.second != sentence.spelling:
        yield replace(sentence, second=sentence.spelling)
    for field in fields(Spelling):
        if field.name == "shape":  # what else was drawn depends on it
            continue
        spelling, second = reset(sentence.spelling, field.name), reset(sentence.second, field.name)
        if spelling != sentence.spelling or second != sentence.second:
            yield replace(sentence, spelling=spelling, second=second)
        if spelling != sentence.spelling:
            yield replace(sentence, spelling=spelling)
