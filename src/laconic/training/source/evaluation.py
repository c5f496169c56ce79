"""Computes one node of constants, as onnxruntime would on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, ValueInfoProto, helper
from onnx.reference import ReferenceEvaluator

from laconic.training.assemble import IR_VERSION, OPSET


def evaluated(node: NodeProto, feeds: Mapping[str, NDArray[Any]]) -> Sequence[Any] | None:
    """The node's outputs; None for what neither onnxruntime nor the reference can compute."""
    asked = [o for o in node.output if o]
    made = {}
    try:
        graph = helper.make_graph(
            [node],
            "constant",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for n, a in feeds.items()
            ],
            [ValueInfoProto(name=o) for o in asked],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        session = ort.InferenceSession(
            model.SerializeToString(), _OPTIONS, providers=["CPUExecutionProvider"]
        )
        made = dict(zip(asked, session.run(asked, dict(feeds)), strict=True))
    except Exception:  # an element type that onnxruntime has no kernel for: the reference may have one
        try:
            made = dict(zip(asked, ReferenceEvaluator(node).run(asked, dict(feeds)), strict=True))
        except Exception:
            return None
    return [made.get(o) for o in node.output]


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


_OPTIONS = _options()
