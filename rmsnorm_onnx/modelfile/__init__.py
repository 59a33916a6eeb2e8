"""Model files in and out: what is broken is named, weights stay where they are, nothing is lost on failure."""

from rmsnorm_onnx.modelfile.read import collector_paused, list_all_outputs, load, to_model
from rmsnorm_onnx.modelfile.weights import external_tensors, relocate
from rmsnorm_onnx.modelfile.write import save

__all__ = ["collector_paused", "external_tensors", "list_all_outputs", "load", "relocate", "save", "to_model"]
