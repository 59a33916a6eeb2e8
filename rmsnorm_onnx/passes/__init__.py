"""Rewrites models: the matcher has decided, this carries it out."""

from rmsnorm_onnx.passes.fuse import Fused, FuseRmsNorm, LeftAlone, Options, Outcome, fuse, plan

__all__ = ["FuseRmsNorm", "Fused", "LeftAlone", "Options", "Outcome", "fuse", "plan"]
