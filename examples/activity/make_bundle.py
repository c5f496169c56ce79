"""Makes what the fleet begins with: `activity.bundle`, and `held-out.npz` where there are recordings.

`python make_bundle.py [--data FOLDER]`, once, on a machine with the extra `training`. Held out are the people
of the data set's own test set: no device of the example may replay one of them.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import model
import numpy as np
import recordings

from laconic.training import prepare

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--data", type=Path, default=os.environ.get("LACONIC_DATA"), help="recordings")
options.add_argument("--seed", type=int, default=0, help="of the first weights")
given = options.parse_args()

bundle = prepare(model.build(given.seed), loss="cross_entropy", frozen=["scale", "shift"])
Path("activity.bundle").write_bytes(bundle)
print(f"activity.bundle: {len(bundle):,} bytes")
if given.data is not None:
    windows, labels = recordings.of_people(Path(given.data), recordings.HELD_OUT)
    np.savez("held-out.npz", x=windows, y=labels)
    print(f"held-out.npz: {len(labels):,} windows of people {', '.join(map(str, recordings.HELD_OUT))}")
