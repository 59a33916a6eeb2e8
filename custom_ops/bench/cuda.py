"""Speed of the CUDA kernels beside copies, other implementations and the goals: python custom_ops/bench/cuda.py FOLDER.

Compiles the kernels for the GPU that is there, checks and measures every cell of bench/gpu/cells.py, prints tables and
writes cuda.json and cuda.md into the folder. Ends with 3 where there is no GPU, 1 where a goal is missed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    # Not this folder: for NVIDIA's packages, `cuda` is another module than this file.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    sys.path += [str(here.parents[1]), str(here.parents[1] / "tests")]
    from custom_ops.bench.gpu.main import main

    sys.exit(main())
