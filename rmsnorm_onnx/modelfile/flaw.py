"""What is wrong with a model, and where."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import onnx

#: A message and those it is part of, the innermost first.
Place: TypeAlias = "tuple[Any, Place | None]"

_NOUNS: Final[dict[type, str]] = {
    onnx.AttributeProto: "attribute",
    onnx.FunctionProto: "function",
    onnx.GraphProto: "graph",
    onnx.NodeProto: "node",
    onnx.TensorProto: "tensor",
    onnx.ValueInfoProto: "value",
}
#: Longer names are cut in messages.
_SHOWN: Final = 80


class Flaw(ValueError):
    """Why a model is not valid, in one sentence that names the place."""


def flaw(place: Place | None, text: str) -> Flaw:
    """A Flaw at a place: "initializer 'w' of graph 'g': what is wrong"."""
    words = []
    while place is not None:
        message, outer = place
        if type(message) in _NOUNS:
            noun = "initializer" if _is_initializer(message, outer) else _NOUNS[type(message)]
            words.append(f"{noun} {shown(message.name or getattr(message, 'op_type', ''))}")
        place = outer
    return Flaw(f"{' of '.join(words)}: {text}" if words else text)


def shown(name: object) -> str:
    """A name from a file in quotes, on one line, without what a terminal would act on, and not too long."""
    text = repr(name.decode(errors="backslashreplace") if isinstance(name, bytes) else name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...{text[0]}"


def _is_initializer(message: Any, outer: Place | None) -> bool:
    return isinstance(message, onnx.TensorProto) and outer is not None and isinstance(outer[0], onnx.GraphProto)
