"""What a start and an end cost of the authentication key: nothing, unless a tag is sent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from classical_channel.keypool import KeyPool
from classical_channel.link import POINTERS, read_pointers
from common.node.runtime import Lanes, Shell
from tests.pair import LINK_SECRET, DictStore
from tests.property.test_protocol import make_pair


def test_a_start_that_hears_nobody_reserves_nothing() -> None:
    """Nor does one that hears a claim which cannot be followed: no tag is sent, so no pad is needed."""
    pair, _ = make_pair()
    pair.to_alice.fault = lambda number, raw: []
    for _ in range(40):
        pair.crash(pair.alice)
        pair.settle(200_000_000)
    assert pair.alice.store.get_setting(POINTERS) is None


async def test_pads_that_were_reserved_and_not_used_are_the_next_process_s() -> None:
    store, lanes = DictStore(), Lanes(1)
    unused: Any = None
    channel: Any = SimpleNamespace(tags_sent=0, tags_verified=0, eps_auth_spent=0.0, placed=False)
    named = []
    for _ in range(3):
        pool = KeyPool(LINK_SECRET, alice=True, pointers=read_pointers(store.get_setting(POINTERS)))
        shell = Shell(unused, channel, unused, pool, store, lanes, lambda _: None, lambda: None)
        shell._reserve_pads()
        assert not shell.jobs_running
        channel.placed = True
        shell._reserve_pads()
        while shell.jobs_running:
            await asyncio.wrap_future(lanes["store"].submit(bool))
        named.append(pool.next_pad().offset)
        shell.give_back_pads()
        assert not any(pool._at_hand())
        shell._reserve_pads()
        await asyncio.wrap_future(lanes["store"].submit(bool))
        assert not any(pool._at_hand())
        channel.placed = False
    lanes.close()
    assert named == [16, 32, 48]
