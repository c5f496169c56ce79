"""Reads an ONNX inference model and brings it into the one shape that the rest of the package works on.

`load` is the way in. `opening` makes one graph of a file, `weights` lifts the weights out of it, `reading`
goes through its nodes with their types known (`known`, `inference`, `output_shapes`), translating
(`translation`, `upgrade`, `average_pool`, `normal_form`, `expansion`, `branches`, `classical`, `microsoft`,
`sequences`), folding (`evaluation`, `shape_values`, `sizes`) and freeing the batch axis as it goes; `heads`
finds what a loss belongs on.
"""

from laconic.training.source.loading import Source, SourceParameter, check_interface, load

__all__ = ["Source", "SourceParameter", "check_interface", "load"]
