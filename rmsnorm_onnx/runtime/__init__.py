"""Sessions, feeds, the float64 reading of a graph, and its rounding noise."""

from rmsnorm_onnx.runtime.capture import with_values
from rmsnorm_onnx.runtime.dimensions import parse_dims
from rmsnorm_onnx.runtime.emulate import emulate_bfloat16
from rmsnorm_onnx.runtime.exact import ExactRun, ExactRunner, run_exact
from rmsnorm_onnx.runtime.extract import between
from rmsnorm_onnx.runtime.feeds import Feeds, make_feed_sets, make_feeds
from rmsnorm_onnx.runtime.model import LoadedModel, Model, load
from rmsnorm_onnx.runtime.perturbed import NoiseRunner, SlackRunner, noise_runs
from rmsnorm_onnx.runtime.placement import Placement, placement
from rmsnorm_onnx.runtime.ranges import Range
from rmsnorm_onnx.runtime.session import CPU, Optimization, make_session, session_options, why_not_loaded
from rmsnorm_onnx.runtime.sides import SideRun, SideRunner, run_side
from rmsnorm_onnx.runtime.steps import Step, common_steps, cut, with_results
from rmsnorm_onnx.runtime.types import FLOATS, nodes_of, typed_copy, values_of
from rmsnorm_onnx.runtime.widen import widen_to_float64

__all__ = [
    "CPU",
    "FLOATS",
    "ExactRun",
    "ExactRunner",
    "Feeds",
    "LoadedModel",
    "Model",
    "NoiseRunner",
    "Optimization",
    "Placement",
    "Range",
    "SideRun",
    "SideRunner",
    "SlackRunner",
    "Step",
    "between",
    "common_steps",
    "cut",
    "emulate_bfloat16",
    "load",
    "make_feed_sets",
    "make_feeds",
    "make_session",
    "nodes_of",
    "noise_runs",
    "parse_dims",
    "placement",
    "run_exact",
    "run_side",
    "session_options",
    "typed_copy",
    "values_of",
    "why_not_loaded",
    "widen_to_float64",
    "with_results",
    "with_values",
]
