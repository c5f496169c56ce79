"""A Ray cluster as calls: one of this machine's own processes, or one that is there already."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Final, Self

from laconic.device_sim.cluster.likeness import PROCESSOR, Likeness, check, likeness
from laconic.device_sim.cluster.packing import Kept, packed, unpacked
from laconic.device_sim.cluster.worker import Gave, Given, Refused, do
from laconic.errors import ClusterError, ConfigError
from laconic.runtime import Bundle

_LOG: Final = logging.getLogger("laconic.sim")
_KEPT_SHARE: Final = 0.25
"""Of the object store, for what is kept in it."""
_RETRIES: Final = 3
"""How often a call is done again whose worker has died: it gives the same, however often it is done."""
_REACH_S: Final = 10.0
_CHECK_S: Final = 120.0
"""Until when every machine of a cluster must have answered: its first worker starts meanwhile."""


class Cluster:
    """Workers for calls that depend on nothing but their arguments.

    It starts when it is first needed. What it has started it ends; to be closed, or used as a context.
    """

    def __init__(self, *, workers: int | None = None, address: str | None = None) -> None:
        """`workers`: calls at once; by default one for each core of this process, or of the cluster.
        `address`: of a cluster that is there, as `ray.init` takes it; None: what RAY_ADDRESS names, else
        processes of this machine. Raises `ConfigError`."""
        if workers is not None and workers < 1:
            raise ConfigError("workers", value=workers, limit="1 or more")
        self._wanted, self._address = workers, address or os.environ.get("RAY_ADDRESS") or None
        if self._address is not None and "://" in self._address:
            # Over a client connection arrays would go through one process, and twice.
            raise ConfigError("address of the Ray cluster", value=self._address, limit="HOST:PORT, or auto")
        self._ray: Any = None
        self._started = False
        self._folder: str | None = None
        self.workers = 0
        """How many calls go on at once, since it has started."""
        self.failure: ClusterError | None = None
        """Why calls are not done any more: nothing that was asked since can be relied on."""

    def start(self) -> None:
        """Start it, or connect to it, also when it has been closed.

        Raises `ConfigError` if Ray is not installed, the cluster is not there, or one of its machines has
        another laconic, numpy, onnxruntime, zstandard or architecture: its results would be others.
        """
        if self._ray is not None:
            return
        self.failure = None
        try:
            import ray
        except ModuleNotFoundError as e:
            raise ConfigError(f"{e.name} is not installed", remedy="pip install 'laconic[ray]'") from e
        try:
            self._connect(ray)
            self._ray = ray
            self._check(ray)
        except BaseException:
            self._ray = ray
            self.close()
            raise
        self._do = ray.remote(num_cpus=1, max_retries=_RETRIES)(do)
        size = ray.cluster_resources().get("object_store_memory", 0.0)
        self._kept = Kept(ray.put, _KEPT_SHARE * size)

    def _connect(self, ray: Any) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not ray.is_initialized():
            self._started = True
            try:
                if self._address is not None:
                    _reach(self._address)
                    ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR)
                else:
                    # Not TMPDIR: the paths of Ray's sockets must stay short.
                    self._folder = tempfile.mkdtemp(prefix="laconic-ray-", dir="/tmp")
                    ray.init(
                        "local",
                        num_cpus=self._wanted or _cores(),
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        _node_ip_address="127.0.0.1",
                        _temp_dir=self._folder,
                    )
            except (ConnectionError, RuntimeError, ValueError, OSError) as e:
                raise ConfigError(
                    "Ray cannot be started" if self._address is None else "Ray cluster",
                    value=self._address,
                    limit=str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__,
                    remedy="start it with `ray start`, or leave --address and RAY_ADDRESS away",
                ) from e
        there = int(ray.cluster_resources().get("CPU", 1)) or 1
        self.workers = min(self._wanted or there, there)
        # Of a cluster that others use too no more is taken than was asked for.
        own = self._folder is not None or self._wanted is None
        self._room = nullcontext() if own else threading.BoundedSemaphore(self.workers)

    def _check(self, ray: Any) -> None:
        """Ask every machine of the cluster."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        tell = likeness()
        self._likeness: Likeness = tell()
        remote = ray.remote(num_cpus=0)(tell)
        nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0)]
        asked = [
            remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(n["NodeID"], soft=False)
            ).remote()
            for n in nodes
        ]
        try:
            answers = ray.get(asked, timeout=_CHECK_S)
        except ray.exceptions.RayError as e:
            raise ClusterError("a machine of the Ray cluster does not answer", value=_first_line(e)) from e
        for node, there in zip(nodes, answers, strict=True):
            where = str(node["NodeManagerHostname"])
            check(self._likeness, there, where)
            if there.get(PROCESSOR) != self._likeness[PROCESSOR]:
                _LOG.warning(
                    "%s has another processor (%s) than this machine (%s): last bits of results may differ",
                    where,
                    there.get(PROCESSOR),
                    self._likeness[PROCESSOR],
                )

    def given(self, bundle: Bundle, *, stacked: bool) -> Given:
        """A bundle for calls that need its sessions."""
        self.start()
        return Given(bundle.hash, stacked, [self._ray.put(bundle)])

    def call(self, function: Callable[..., Any], *arguments: object, given: Given | None = None) -> Any:
        """What `function` gives for `arguments`, after the bench of `given`; waits for it, in any thread.

        Raises what the function raises; `ClusterError`, then and for every call thereafter, when it could not
        be done: its workers died, the cluster is gone, or a worker is not like this machine.
        """
        self.start()
        if self.failure is not None:
            raise self.failure
        ray = self._ray
        head, buffers = packed((function, arguments))
        try:
            with self._room:
                sent = [self._kept.sent(b) for b in buffers]
                head, buffers = ray.get(self._do.remote(self._likeness, given, head, *sent))
        except (ray.exceptions.RayError, ConnectionError) as e:
            self.failure = ClusterError("a call on the Ray cluster was lost", value=_first_line(e))
            raise self.failure from e
        # Copied: they lie in the object store, and whoever gets them may keep them, or write to them.
        done = unpacked(head, [b.copy() for b in buffers])
        if isinstance(done, Refused):
            self.failure = ClusterError(f"a worker of the Ray cluster: {done.why}")
            raise self.failure
        if isinstance(done, Gave):
            return done.value
        raise done.error

    def close(self) -> None:
        """End or leave the cluster; what it has left on this machine's disk is removed."""
        if self._ray is not None and self._started:
            self._ray.shutdown()
        self._ray, self._started = None, False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reach(address: str) -> None:
    """Raises `OSError` for a cluster that is not there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=_REACH_S):
            pass


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first_line(e: BaseException) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
