"""Takes out what an exporter writes about the machine that it ran on."""

from __future__ import annotations

import re
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import Message

_TRACES = ("doc_string", "metadata_props")
_SCRIPT = re.compile(rb"\.pyc?\b")
_REVEALING = (
    "site-packages",
    tempfile.gettempdir(),
    str(Path.home()),
    str(Path(__file__).parent.parent),
    sysconfig.get_path("purelib"),
)


def strip(model: onnx.ModelProto) -> None:
    """Clear every doc_string and metadata_props: stack traces, scopes, class hierarchies.

    They name source files by path, and take two thirds of the space.
    """
    for message in _messages(model):
        for name in _TRACES:
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)


def revealing(data: bytes) -> list[str]:
    """The path fragments that are in these bytes."""
    scripts = [match.decode() for match in _SCRIPT.findall(data)]
    return scripts + [fragment for fragment in _REVEALING if fragment.encode() in data]


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if field.is_repeated else (value,):
            yield from _messages(child)
