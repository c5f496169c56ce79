"""MNIST is read as it was published, or not at all."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from laconic.device_sim.datasets import mnist
from laconic.errors import ConfigError


def test_a_file_with_another_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no train-images-idx3-ubyte\.gz in .*https://"):
        mnist.load(tmp_path)
    for file in mnist.FILES:
        (tmp_path / file.name).write_bytes(gzip.compress(bytes(16)))
    with pytest.raises(ConfigError, match="SHA-256"):
        mnist.load(tmp_path)


@pytest.mark.data
def test_the_real_images(shared_data: Path) -> None:
    found = mnist.load(shared_data / "mnist")
    assert found.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    some = np.array([3, 59_999, 0, 3])
    part = found.train.gathered(some)
    assert part.x.dtype == np.float32
    np.testing.assert_array_equal(part.x, found.train.x[some].astype(np.float32) / np.float32(255))
    assert part.x.max() == 1.0
    assert found.held_out is not None
    assert found.held_out.x.shape == (10_000, 1, 28, 28)
    assert [(f.size_bytes, (shared_data / "mnist" / f.name).stat().st_size) for f in mnist.FILES] == [
        (f.size_bytes, f.size_bytes) for f in mnist.FILES
    ]
