"""Characters that node names may hold and no report may."""

from __future__ import annotations

import re
from typing import Final

#: Control characters but tab and newline (a terminal obeys them, XML 1.0 forbids them), surrogates and noncharacters
#: (no UTF-8), and the marks that turn the direction of writing (a name could look like another).
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """The text with a replacement character for each that must not be shown."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
