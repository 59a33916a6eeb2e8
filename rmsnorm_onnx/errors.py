"""Every error this package raises on purpose; each class carries the exit code of the command line.

0 means yes, 1 means that the tool ran and the answer is no, 2 bad usage or input, 3 could not run.
"""

from __future__ import annotations


class RmsNormError(Exception):
    """Base of all; the message says what was expected, what came, and what to do."""

    exit_code = 3


class InvalidInput(RmsNormError):
    """A file, model, array or option that cannot be used as given."""

    exit_code = 2


class AnswerIsNo(RmsNormError):
    """The tool ran and the answer is no: a mismatch, or fewer fusions than required."""

    exit_code = 1


class CannotRun(RmsNormError):
    """Something outside the input is missing: the runtime, the library, a kernel."""

    exit_code = 3


class LibraryMissing(CannotRun):
    """The compiled custom-op library is not where the installed package should hold it."""
