"""Sessions made, run, refused and dropped, then LeakSanitizer asked what nothing points to any more.

Run by tests/sanitizers.py. Python and onnxruntime leak a little at their own ends, so only blocks count that the
library asked for: those with a function of it among the callers.
"""

from __future__ import annotations

import ctypes
import gc
import itertools

import kernels_abi as abi
from mixed_work import ALL, KINDS, digest, options_of, session
from norm_models import feeds_of, one_norm, values
from norm_models import session as session_of

from rmsnorm_onnx import library, spec


def work() -> None:
    """Every operator and type, every way to register, and what is refused at creation and at a call."""
    for override in (False, True, "all"):
        options = options_of(arena=False)
        library.register(options, override=override)
        sessions = {kind: session(kind, options) for kind in KINDS}
        for each in ALL:
            digest(sessions[each.kind], each)
    library.info()
    for op, wrong in itertools.product(spec.OPS, ({"epsilon": -1.0}, {"axes": []})):
        refused(lambda op=op, wrong=wrong: session_of(one_norm(op, **wrong)))
    for op in spec.OPS:
        made = session_of(one_norm(op, axes=[2]))
        refused(lambda made=made, op=op: made.run(None, feeds_of(op, values((2, 3)), values(3))))


def refused(body) -> None:
    try:
        body()
    except Exception:
        return
    raise AssertionError("expected a refusal")


def main() -> None:
    library.get_library_path = abi.library_path
    for _ in range(3):
        work()
    gc.collect()
    ctypes.CDLL(None).__lsan_do_recoverable_leak_check()


if __name__ == "__main__":
    main()
