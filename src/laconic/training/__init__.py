"""Turns an ONNX inference model into a training bundle, at build time; needs onnx.

`prepare` is the way in. The training step it writes is itself an ONNX graph: the gradient rules in
`laconic.training.rules` are applied to the model node by node, in reverse.
"""

from laconic.training.build import prepare

__all__ = ["prepare"]
