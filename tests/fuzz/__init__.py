"""Fuzzers: mutated models through the package's verbs, and random nodes through the compiled kernels.

``PYTHONPATH=tests:. python -m fuzz --seconds 60`` runs both. Every input has a number, and the number makes the input:
``python -m fuzz models 1234`` repeats one, ``--shrink`` drops what the finding does not need. Each runs in a process
of its own kind: bounded in time and memory, watched by another one (``isolate.py``).
"""
