"""The 1,797 grey images of 8 x 8 that come with scikit-learn (Alpaydin and Kaynak, UCI, 1998)."""

from __future__ import annotations

import numpy as np

from laconic.device_sim.datasets.labelled import Dataset, Labelled
from laconic.errors import ConfigError


def load() -> Dataset:
    """`x`: float32 `(1797, 1, 8, 8)` from 0 to 1, `y`: int64 0 to 9.

    Raises `ConfigError` where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as e:
        raise ConfigError("scikit-learn is not installed", remedy="pip install 'laconic[sim]'") from e
    digits = load_digits()
    return Dataset(Labelled((digits.images / 16).astype(np.float32)[:, None], digits.target.astype(np.int64)))
