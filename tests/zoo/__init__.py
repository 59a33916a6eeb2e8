"""The graph zoo: small graphs with their expected outcome, from which tests, benchmark and README table are made.

`CASES` holds them all; a case builds its model, makes its inputs (`feeds`), runs it (`evaluate`) and, where it
is one or more RMS norms, says what it must compute. A new spelling of one norm is a line in ``spellings.py``
or ``refusals.py``; a graph around a norm is a function in ``structures.py``, ``gates.py``, ``scopes.py``,
``converted.py``, ``detours.py`` and ``wild.py``.
"""

from .case import TOLERANCE, Case, evaluate, feeds
from .converted import CONVERTED
from .detours import DETOURS
from .gates import GATES
from .refusals import REFUSALS
from .scopes import SCOPES
from .spelling import Spelling
from .spellings import SPELLED
from .structures import STRUCTURES
from .wild import WILD

CASES: tuple[Case, ...] = (*SPELLED, *STRUCTURES, *GATES, *SCOPES, *CONVERTED, *DETOURS, *WILD, *REFUSALS)

__all__ = ["CASES", "TOLERANCE", "Case", "Spelling", "evaluate", "feeds"]
