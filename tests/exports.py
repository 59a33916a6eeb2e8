"""The models that real exporters wrote, with what their source frameworks say about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx

import rmsnorm_onnx

MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True)
class Export:
    """One committed export, with what the source framework says about it."""

    name: str
    path: Path
    data: Path
    facts: dict[str, Any]


def exports() -> list[Export]:
    """All of models/, by name."""
    found = []
    for file in sorted(MODELS.glob("*/facts.json")):
        facts = json.loads(file.read_text())
        found.append(Export(facts["name"], file.parent / "model.onnx", file.parent / "test_data_set_0", facts))
    return found


@cache
def fused(path: Path) -> onnx.ModelProto:
    """An export after ``optimize``; several tests look at it, and none may change it."""
    model: onnx.ModelProto = rmsnorm_onnx.optimize(str(path)).model
    return model
