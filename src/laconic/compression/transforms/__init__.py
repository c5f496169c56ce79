"""The transforms: which values of a tensor are sent."""

from __future__ import annotations

from laconic.compression.stages import Registry, Transform
from laconic.compression.transforms.dense import DENSE
from laconic.compression.transforms.grid import GRID
from laconic.compression.transforms.low_rank import LOW_RANK
from laconic.compression.transforms.multiples import MULTIPLES
from laconic.compression.transforms.random_k import RANDOM_K
from laconic.compression.transforms.sparse import SPARSE
from laconic.compression.transforms.zero import ZERO

TRANSFORMS: Registry[Transform] = Registry(
    "transform", range(0x01, 0x10), (ZERO, DENSE, SPARSE, GRID, LOW_RANK, RANDOM_K, MULTIPLES)
)
