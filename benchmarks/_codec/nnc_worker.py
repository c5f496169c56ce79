"""Codes an update with the MPEG NNC coder; runs in the environment of `_codec.nnc`, which has no Laconic.

`python nnc_worker.py UPDATE.npz SETTINGS.json` prints one line of JSON: a list, an object for each setting.
It takes the steps of `nncodec.nnc.compress` and `decompress` (2.1.3; the same bitstreams), which cannot
be imported without PyTorch, scikit-learn and OpenCV, and use none of them for a plain dictionary of arrays.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from nncodec import nnc_core
from nncodec.nnc_core import approximator, coder, nnr_model

# nncodec's own defaults.
QP_DENSITY = 2
UNARY = 10
# The names of tensors mean something to the coder (a trailing _G or _H is a factor), so they get plain ones.
NAME = "t{:04d}".format


def main() -> None:
    """Every setting in turn."""
    path, settings = sys.argv[1:]
    with np.load(path) as file:
        arrays = [np.ascontiguousarray(file[name], np.float32) for name in file.files]
    update = {NAME(i): a.reshape(a.shape or (1,)) for i, a in enumerate(arrays) if a.size}
    encode(update, qp=-20, nonweight_qp=-20, dq=True)  # the first call pays for the imports
    print(json.dumps([measure(update, **setting) for setting in json.loads(settings)]))


def measure(update: dict[str, np.ndarray], **setting: Any) -> dict[str, Any]:
    """Bytes, relative L2 error, and processor seconds of both ways."""
    began = time.process_time()
    bitstream = encode(update, **setting)
    encoded = time.process_time()
    decoded = decode(bitstream)
    ended = time.process_time()
    wrong = sum(
        float(np.square(u - decoded[n].reshape(u.shape), dtype=np.float64).sum()) for n, u in update.items()
    )
    whole = sum(float(np.square(u, dtype=np.float64).sum()) for u in update.values())
    return {
        **setting,
        "bytes": len(bitstream),
        "relative_error": float(np.sqrt(wrong / whole)) if whole else 0.0,
        "encode_s": encoded - began,
        "decode_s": ended - encoded,
    }


def encode(update: dict[str, np.ndarray], *, qp: int, nonweight_qp: int, dq: bool) -> bytearray:
    """An update to NNC units: uniform or trellis-coded (`dq`) quantisation, DeepCABAC with row skipping.

    A step is `(4 + qp % 4) * 2 ** (qp // 4 - 2)`; `nonweight_qp` is for tensors of one dimension.
    """
    model = nnr_model.NNRModel(dict(update))
    data = approximator.init_approx_data(dict(update), model.model_info, qp_density=QP_DENSITY, scan_order=0)
    info = approximator.ApproxInfo(
        data, model.model_info, "uniform", 0, qp, False, not dq, UNARY, 0, nonweight_qp=nonweight_qp
    ).approx_info
    how = {
        "cabac_unary_length_minus1": UNARY,
        "param_opt_flag": True,
        "partial_data_counter": 0,
        "general_profile_idc": 1,
        "node_id_present_flag": 1,
        "device_id": 0,
        "mps_parent_signalling_enabled_flag": 0,
        "parent_node_id_present_flag": 0,
        "temporal_context_modeling_flag": 0,
        "row_skip_enabled_flag": 1,
        "pre_signalling": 0,
    }
    quantised = approximator.approx(info, model.model_info, data, how)
    bitstream, _ = coder.encode(enc_info=how, model_info=model.model_info, approx_data=quantised)
    return bitstream


def decode(bitstream: bytearray) -> dict[str, np.ndarray]:
    """The inverse of `encode`, up to quantisation."""
    tables = ("parameter_type", "parameter_dimensions", "parameter_index", "block_identifier")
    flags = ("mps_sparsification", "lps_sparsification", "mps_pruning", "lps_pruning", "mps_unification")
    flags += ("lps_unification", "mps_decomposition_performance_map", "lps_decomposition_performance_map")
    info: dict[str, Any] = {name: {} for name in tables}
    info |= {"topology_storage_format": None, "topology_compression_format": None}
    info["performance_maps"] = {"mps": {}, "lps": {}}
    info["performance_map_flags"] = {f"{name}_flag": {} for name in flags}
    data = coder.decode(bitstream, info, hls_stats={}, oob_dict={})
    nnc_core.approximator.rec(data)
    parameters: dict[str, np.ndarray] = approximator.recompose_params(info, data)["parameters"]
    return parameters


if __name__ == "__main__":
    main()
