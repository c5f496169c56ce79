"""Lives that end in what may pass are begun again, later and later; what will not pass is raised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from laconic.edge_sdk.supervisor import Life, Pauses, keep_alive
from laconic.errors import BrokerRefused, DiskFull, StorageError, StoreDamaged, StoreLocked, StoreReadOnly
from laconic.node import Note

QUICK = Pauses(first_s=0.001, most_s=0.004)
End = tuple[bool, BaseException | None]
"""Whether the store was opened in a life, and how the life ended."""


def lives(*ends: End) -> tuple[list[Note], BaseException | None]:
    """What was said over lives that end so, and what was raised in the end."""
    left, said = list(ends), list[Note]()

    async def live(opened: Callable[[], None]) -> None:
        was_open, error = left.pop(0)
        if was_open:
            opened()
        if error is not None:
            raise error

    try:
        asyncio.run(keep_alive(live, observe=lambda note, now: said.append(note), pauses=QUICK))
    except Exception as e:
        return said, e
    assert not left
    return said, None


@pytest.mark.parametrize("error", [DiskFull("d"), StoreReadOnly("r"), StoreDamaged("x")])
@pytest.mark.parametrize("opened", [False, True])
def test_what_may_pass_is_waited_for(error: StorageError, opened: bool) -> None:
    said, raised = lives((opened, error), (opened, error), (True, None))
    assert raised is None
    assert [(n.kind, n.fields["error"]) for n in said] == [("storage", type(error).__name__)] * 2


@pytest.mark.parametrize("error", [StoreLocked("l"), StorageError("of a newer release")])
def test_what_will_not_pass_is_raised_unless_the_store_has_been_open(error: StorageError) -> None:
    assert lives((False, error)) == ([], error)
    said, raised = lives((True, error), (False, error), (True, None))
    assert raised is None
    assert len(said) == 2


def test_other_ends_are_raised() -> None:
    refused = BrokerRefused("b")
    assert lives((True, DiskFull("d")), (True, refused))[1] is refused


def test_pauses_grow_up_to_a_limit() -> None:
    said, _ = lives(*[(True, DiskFull("d"))] * 5, (True, None))
    assert [n.fields["again_in_s"] for n in said] == [0.001, 0.002, 0.004, 0.004, 0.004]


def endless(count: list[int]) -> Life:
    async def live(opened: Callable[[], None]) -> None:
        count.append(0)
        opened()
        await asyncio.Event().wait()

    return live


@pytest.mark.parametrize(("step_s", "begun"), [(-366 * 86_400.0, 2), (-600.0, 1), (366 * 86_400.0, 1)])
def test_a_life_ends_when_the_clock_goes_back_far(step_s: float, begun: int) -> None:
    now, count, said = [1e9], list[int](), list[Note]()

    async def main() -> None:
        life = asyncio.ensure_future(
            keep_alive(
                endless(count), observe=lambda n, at: said.append(n), clock=lambda: now[0], look_s=0.005
            )
        )
        await asyncio.sleep(0.02)
        now[0] += step_s
        await asyncio.sleep(0.05)
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)

    asyncio.run(main())
    assert (len(count), [n.kind for n in said]) == (begun, ["clock"] * (begun - 1))
