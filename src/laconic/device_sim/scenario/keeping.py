"""The models that a run has trained, as files beside its results."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from laconic.config import read_file
from laconic.device_sim.scenario.running import Models
from laconic.device_sim.scenario.storing import put
from laconic.errors import ConfigError, DataError, WireError
from laconic.runtime import Bundle
from laconic.runtime.bundle import pack
from laconic.schema import Vector

BUNDLE: Final = "model.bundle"
MODELS: Final = "models.npz"
FEDERATED: Final = "federated"
POOLED: Final = "pooled"


@dataclass(frozen=True)
class Kept:
    """Weights that travel, flat, float32, by name: `federated`, and of `[baselines]` `pooled` and
    `alone/DEVICE`. `Trainer(bundle).predict(weights[name], x)` is what a model says."""

    bundle: Bundle
    weights: dict[str, Vector]

    @classmethod
    def of(cls, models: Models) -> Kept:
        """What is kept of a run's models: not the layers that stay on their devices."""
        weights = {FEDERATED: models.federated}
        weights |= {f"alone/{name}": model.weights for name, model in models.alone.items()}
        if models.pooled is not None:
            weights[POOLED] = models.pooled.weights
        return cls(models.bundle, weights)


def there(folder: Path) -> bool:
    """Whether both files are in a folder; not, whether they are whole."""
    return (folder / BUNDLE).is_file() and (folder / MODELS).is_file()


def write(models: Kept, folder: Path) -> None:
    """Write `model.bundle` and `models.npz`; the same models give the same bytes.

    Raises `ConfigError` for a folder that cannot be written.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(models.weights):
            array = io.BytesIO()
            np.lib.format.write_array(array, models.weights[name], allow_pickle=False)
            # The date is fixed: it would be all that tells two runs apart.
            archive.writestr(zipfile.ZipInfo(name + ".npy"), array.getvalue())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        put(folder / BUNDLE, pack(models.bundle.manifest, models.bundle.parts))
        put(folder / MODELS, content.getvalue())
    except OSError as e:
        raise ConfigError(f"cannot write to {folder} ({e.strerror})", remedy="choose --output") from e


def read(folder: Path) -> Kept:
    """The models in a run's folder.

    Raises `ConfigError` if there are none, `DataError` for what cannot be read or is of another bundle.
    """
    remedy = "run the scenario with models = true in [record]"
    try:
        bundle = Bundle.read(read_file(folder / BUNDLE, "bundle of a run"))
        content = io.BytesIO(read_file(folder / MODELS, "models of a run"))
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except ConfigError as e:
        raise ConfigError(e.thing, value=e.value, limit=e.limit, remedy=remedy) from e
    except (WireError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(f"models in {folder} cannot be read ({e})", remedy=remedy) from e
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.shape != (bundle.schema.size,) or not np.isfinite(array).all():
            raise DataError(
                f"weights {name} in {folder / MODELS}",
                value=(array.shape, array.dtype.str),
                limit=f"{bundle.schema.size} finite float32",
            )
    if FEDERATED not in arrays:
        raise DataError(f"models in {folder / MODELS}", value=sorted(arrays), limit=f"{FEDERATED} among them")
    return Kept(bundle, arrays)
