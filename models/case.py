"""One export: what is exported, by which exporter, and what an exporter hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx

from counting import Count


class Exporter(Enum):
    """Who writes the graph; the value is the part of the name that says so."""

    DYNAMO = "dynamo"
    DYNAMO_RAW = "dynamo-raw"
    TORCHSCRIPT = "torchscript"
    TORCHSCRIPT_FUNCTIONS = "torchscript-functions"
    KERAS_TORCH = "torch"
    KERAS_TENSORFLOW = "tf"
    KERAS_JAX = "jax"
    JAX2ONNX = "jax2onnx"
    TF2ONNX = "tf2onnx"

    @property
    def keras_backend(self) -> str | None:
        """The backend that Keras must be imported with, or None where Keras is not involved."""
        return {"torch": "torch", "tf": "tensorflow", "jax": "jax"}.get(self.value)

    @property
    def script(self) -> str:
        """The module of this folder whose `export` runs it."""
        other = {Exporter.JAX2ONNX: "jax_export", Exporter.TF2ONNX: "tf_export"}
        return "keras_export" if self.keras_backend else other.get(self, "torch_export")


@dataclass(frozen=True)
class Case:
    """A row of the table: its name follows from what it is."""

    source: str
    exporter: Exporter
    opset: int | None
    dtype: str
    dynamic: bool
    shows: str

    @property
    def name(self) -> str:
        """The folder below models/."""
        return f"{self.source}-{self.exporter.value}{self.opset or ''}-{self.dtype}"


@dataclass(frozen=True)
class Exported:
    """The written graph, and what the framework itself computes for the inputs beside it."""

    model: onnx.ModelProto
    inputs: Mapping[str, np.ndarray]
    outputs: tuple[np.ndarray, ...]
    count: Count
    label: str
    config: Mapping[str, Any]
    exporter: str
