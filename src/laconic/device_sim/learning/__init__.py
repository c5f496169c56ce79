"""Real training of virtual devices, fast: in threads over one session, or many tiny models in one graph.

`Workshop` is the way in. Which way it goes is a rule of size, or what was measured and written down. Stacks
need onnx (the extra `training`).
"""

from laconic.device_sim.learning.choice import Way, way_by_measuring, way_by_size
from laconic.device_sim.learning.job import Job, Outcome
from laconic.device_sim.learning.workshop import Workshop

__all__ = ["Job", "Outcome", "Way", "Workshop", "way_by_measuring", "way_by_size"]
