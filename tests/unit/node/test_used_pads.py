"""Authentication key that is used up leaves the disk and the memory; the pointer that guards it goes last."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from classical_channel.keypool import KeyPool
from common.node.runtime import POINTERS, Lanes, Shell
from common.protocol.session import pads_name
from tests.pair import LINK_SECRET, DictStore

BLOCK = 7
PADS = bytes(64)


def with_used_segment() -> KeyPool:
    """Every pad of the block's segment has been sent or received."""
    pool = KeyPool(LINK_SECRET, alice=True, pointers={BLOCK: len(PADS) // 2})
    pool.add_segment(BLOCK, PADS)
    assert pool.exhausted_segments == []
    pool.pad_for(BLOCK, len(PADS) // 2 - 16)
    assert pool.exhausted_segments == [BLOCK]
    return pool


async def test_used_pads_are_deleted() -> None:
    store, pool, lanes = DictStore(), with_used_segment(), Lanes(1)
    store.put_setting(pads_name(BLOCK), PADS)
    gone = asyncio.Event()
    pool.forget = lambda number: (KeyPool.forget(pool, number), gone.set())[0]  # type: ignore[method-assign]
    unused: Any = None
    shell = Shell(unused, unused, unused, pool, store, lanes, lambda _: None, lambda: None)
    try:
        shell._reserve_pads()
        await asyncio.wait_for(gone.wait(), 10)
    finally:
        lanes.close()
    assert store.get_setting(pads_name(BLOCK)) is None
    assert str(BLOCK) in json.loads(store.settings[POINTERS]), "the pointer guards the bytes until they are gone"
    assert pool.exhausted_segments == []
    while (pointers := pool.reservation()) is None:
        pool.next_pad()
    assert BLOCK not in pointers
