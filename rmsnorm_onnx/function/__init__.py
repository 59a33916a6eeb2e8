"""The operators' meaning as onnxscript functions, and their bodies at any opset from 13 on."""

from rmsnorm_onnx.function.lower import OPTIONAL_STEPS, RESULT_TYPE, Form, function_proto

__all__ = ["OPTIONAL_STEPS", "RESULT_TYPE", "Form", "function_proto"]
