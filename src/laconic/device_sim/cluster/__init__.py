"""A simulated fleet's computing on a Ray cluster, with the results of one machine (extra `ray`).

The world and all engines stay in the driver's process. What travels are a job's numbers: trainings, stacks of
them, and the coding of updates.
"""

from laconic.device_sim.cluster.cluster import Cluster
from laconic.device_sim.cluster.workshop import Engine, workshop_of

__all__ = ["Cluster", "Engine", "workshop_of"]
