"""The models that real exporters wrote, with what their source frameworks say about them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
