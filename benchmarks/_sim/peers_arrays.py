"""A scenario's examples as arrays in files: what the peers learn from, divided in the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from laconic.device_sim import Scenario
from laconic.device_sim.scenario.examples import examples_of
from laconic.device_sim.scenario.settings import counts


def write_arrays(file: Path, *, flat: bool = False) -> int:
    """Write `x.npy`, `y.npy`, device by device, and `held_out_x.npy`, `held_out_y.npy` beside the scenario.

    `flat`: an example is a vector. Returns how many examples each device has; raises `ValueError` if they
    have not all as many.
    """
    scenario = Scenario.read(file)
    s, folder = scenario.settings, scenario.folder
    examples = examples_of(s.data, sum(counts(s)), s.seed, folder)
    sizes = {len(part.y) for part in examples.devices}
    if len(sizes) != 1:
        raise ValueError(f"devices have {sorted(sizes)} examples: the comparison wants them alike")
    for name, x in (
        ("x", np.concatenate([part.x for part in examples.devices])),
        ("held_out_x", examples.held_out.x),
    ):
        np.save(folder / f"{name}.npy", x.reshape(len(x), -1) if flat else x)
    np.save(folder / "y.npy", np.concatenate([part.y for part in examples.devices]))
    np.save(folder / "held_out_y.npy", examples.held_out.y)
    return sizes.pop()
