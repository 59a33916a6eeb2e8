"""Dimension names that are arithmetic: "past + seq", "2*s0", "s7//2 + 1", "Max(1, s3)"."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Final

_OPERATORS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Div: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_FUNCTIONS: Final[dict[str, Callable[..., int]]] = {
    "max": max,
    "min": min,
    "floor": lambda a: a,
    "ceil": lambda a: a,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "pythonmod": lambda a, b: a % b,
}
#: Exporters' expressions are short, and parsing takes memory by length.
_LONGEST: Final = 200
#: What an expression is written with; a number that runs into a name, as in "2d", is none.
_FORM: Final = re.compile(r"(?!.*\b[0-9]+[A-Za-z_])[\w\s+*/%(),-]+", re.ASCII)


def atoms(name: str, known: Collection[str] = ()) -> tuple[str, ...] | None:
    """The names that an expression is made of, in order; None if ``name`` is a plain name.

    "seq-len" is a plain name and "s0-1" is none: without spaces, a sign or stroke is arithmetic only between ``known``
    names and numbers.
    """
    tree = _parse(name)
    if tree is None or isinstance(tree, ast.Name):
        return None
    names = tuple(
        dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not _called(node, tree))
    )
    glued = re.search(r"\S[-/]\S", name.replace("//", " // ")) is not None
    return None if glued and not all(part in known for part in names) else names


def evaluate(name: str, values: Mapping[str, int]) -> int | None:
    """What an expression gives, at least 0; None if it cannot be computed, such as a division by zero."""
    tree = _parse(name)
    try:
        return None if tree is None else max(_value(tree, values), 0)
    except (ZeroDivisionError, KeyError, TypeError, ValueError):
        return None


@cache
def _parse(name: str) -> ast.expr | None:
    if len(name) > _LONGEST or not _FORM.fullmatch(name):
        return None
    try:
        tree = ast.parse(re.sub(r"(?<=\w) x (?=\w)", " * ", name).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if _is_arithmetic(tree) else None


def _is_arithmetic(tree: ast.expr) -> bool:
    if isinstance(tree, ast.BinOp):
        return type(tree.op) in _OPERATORS and _is_arithmetic(tree.left) and _is_arithmetic(tree.right)
    if isinstance(tree, ast.UnaryOp):
        return isinstance(tree.op, ast.USub) and _is_arithmetic(tree.operand)
    if isinstance(tree, ast.Call):
        known = isinstance(tree.func, ast.Name) and tree.func.id.lower() in _FUNCTIONS
        return known and bool(tree.args) and not tree.keywords and all(_is_arithmetic(part) for part in tree.args)
    return isinstance(tree, ast.Name) or (isinstance(tree, ast.Constant) and type(tree.value) is int)


def _called(name: ast.Name, tree: ast.expr) -> bool:
    return any(isinstance(node, ast.Call) and node.func is name for node in ast.walk(tree))


def _value(tree: Any, values: Mapping[str, int]) -> int:
    if isinstance(tree, ast.BinOp):
        return _OPERATORS[type(tree.op)](_value(tree.left, values), _value(tree.right, values))
    if isinstance(tree, ast.UnaryOp):
        return -_value(tree.operand, values)
    if isinstance(tree, ast.Call):
        function: ast.Name = tree.func  # type: ignore[assignment]
        return _FUNCTIONS[function.id.lower()](*(_value(part, values) for part in tree.args))
    return values[tree.id] if isinstance(tree, ast.Name) else int(tree.value)
