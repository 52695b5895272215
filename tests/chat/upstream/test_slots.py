"""The slots of an upstream: none is lost, whatever is cancelled."""

import asyncio

import pytest

from chat.upstream.slots import Slots


async def hold(slots: Slots, release: asyncio.Event, positions: list[int]) -> None:
    async with slots.take(positions.append):
        await release.wait()


async def test_slots_are_given_in_the_order_of_arrival_with_their_positions() -> None:
    slots, release = Slots(1), asyncio.Event()
    positions: list[list[int]] = [[], [], []]
    tasks = [asyncio.create_task(hold(slots, release, seen)) for seen in positions]
    await asyncio.sleep(0)
    assert positions == [[], [1], [2]]
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    assert positions == [[], [1], [2, 1]]
    release.set()
    await asyncio.gather(tasks[0], tasks[2])
    assert positions[2] == [2, 1, 0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_no_slot_is_lost_when_holders_and_waiters_are_cancelled_at_once(
    order: tuple[int, ...],
) -> None:
    slots, release = Slots(1), asyncio.Event()
    tasks = [asyncio.create_task(hold(slots, release, [])) for _ in range(3)]
    await asyncio.sleep(0)
    for number in order:
        tasks[number].cancel()
    release.set()
    await asyncio.wait(tasks)
    async with asyncio.timeout(20), slots.take(lambda position: None):
        pass
