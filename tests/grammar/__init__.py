"""Random norm-like graphs, true ones and near ones, and the judgement whether the pass treats each as it must.

`draw(seed)` makes a `Sentence`, a value that names everything in one graph; ``sentence.write()`` makes the graph;
`judge(sentence)` runs the pass and compares by evaluation in float64. `shrink` reduces a failing sentence.
Replay one graph: ``PYTHONPATH=tests python -m grammar 1234``. Run many in parallel:
``PYTHONPATH=tests python -m grammar --graphs 5000 --workers 2``.
"""

from .draw import draw
from .gaps import GAPS, known
from .judge import Failure, judge
from .sentence import Sentence
from .shrink import shrink

__all__ = ["GAPS", "Failure", "Sentence", "draw", "judge", "known", "shrink"]
