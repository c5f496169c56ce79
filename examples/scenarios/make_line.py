"""Writes line.npz, from which linear.toml learns: y = 1.5 x - 0.5 and noise, on four stretches of x."""

from pathlib import Path

import numpy as np

NODES, EXAMPLES = 4, 20

rng = np.random.default_rng(2019)
# 20 examples a node; as many again from each stretch are nobody's (-1): they are held out.
stretch = np.repeat(np.arange(NODES), 2 * EXAMPLES)
group = np.where(np.arange(len(stretch)) % 2, -1, stretch)
x = -2 + stretch + rng.uniform(0, 1, len(stretch))
y = 1.5 * x - 0.5 + rng.normal(0, 0.4, len(stretch))
np.savez(
    Path(__file__).with_name("line.npz"),
    x=x[:, None].astype(np.float32),
    y=y.astype(np.float32),
    group=group,
)
