"""The thread of a device's work: it rests after work, once for each time, and leaves no timer behind."""

from __future__ import annotations

import asyncio
import threading

from laconic.edge_sdk.worker import Worker


class _Rests:
    """Counts rests, and on which thread they were."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.had_one = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self.had_one.set)


async def _work(worker: Worker) -> None:
    await asyncio.get_running_loop().run_in_executor(worker, lambda: None)


def test_work_is_followed_by_one_rest_on_its_own_thread() -> None:
    async def run() -> list[str]:
        rests = _Rests()
        worker = Worker(rests, rest_s=0.01)
        for _ in range(2):
            await _work(worker)
            async with asyncio.timeout(10):
                await rests.had_one.wait()
            # Long enough for a second one, if there were any.
            await asyncio.sleep(0.05)
            rests.had_one.clear()
        worker.shutdown()
        return rests.threads

    threads = asyncio.run(run())
    assert len(threads) == 2
    assert all(name.startswith("compute") for name in threads)


def test_who_has_not_worked_does_not_rest_and_work_puts_rest_off() -> None:
    async def run() -> list[str]:
        rests = _Rests()
        worker = Worker(rests, rest_s=0.01)
        await asyncio.sleep(0.05)
        release = threading.Event()
        working = asyncio.get_running_loop().run_in_executor(worker, release.wait, 10)
        await asyncio.sleep(0.05)
        assert rests.threads == []
        release.set()
        await working
        async with asyncio.timeout(10):
            await rests.had_one.wait()
        worker.shutdown()
        return rests.threads

    assert len(asyncio.run(run())) == 1


def test_a_worker_that_is_shut_down_leaves_no_timer() -> None:
    async def run() -> list[str]:
        rests = _Rests()
        worker = Worker(rests, rest_s=0.02)
        await _work(worker)
        # From another thread, as a device does that must not hold up its loop.
        ending = threading.Thread(target=worker.shutdown)
        ending.start()
        while ending.is_alive():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.06)
        assert worker._due is None
        return rests.threads

    assert asyncio.run(run()) == []
