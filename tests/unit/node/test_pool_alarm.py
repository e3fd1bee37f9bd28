"""The authentication pool is watched: an alarm at half of what is wanted, a floor that is not for applications."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from classical_channel.keypool import FLOOR_PADS, KeyPool
from common.config_file import parse_config
from common.node.node import Node, Options
from tests.pair import LINK_SECRET

TARGET_BITS = 1 << 16


@pytest.fixture(autouse=True)
def signals_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.node.node.stop_event", asyncio.Event)


def spend(pool: KeyPool, until: int, *, sending: bool) -> None:
    """Use pads of one direction until so many are left in it."""
    receiver = KeyPool(LINK_SECRET, alice=False)
    while pool.least_bits > 128 * until:
        if sending:
            if (pointers := pool.reservation()) is not None:
                pool.confirm(pointers)
            pool.next_pad()
        else:
            if (pointers := receiver.reservation()) is not None:
                receiver.confirm(pointers)
            pool.burn(receiver.next_pad())


@pytest.mark.parametrize("sending", [True, False])
async def test_the_alarm_comes_at_half_and_the_floor_later(tmp_path: Path, sending: bool) -> None:
    config = parse_config(f'role = "alice"\n[keys]\nauth_pool_target_bits = {TARGET_BITS}\n', tmp_path)
    node: Any = Node(config, Options(), SimpleNamespace(look=bool))  # type: ignore[arg-type]
    pool = node._pool = KeyPool(LINK_SECRET, alice=True, target_bits=TARGET_BITS)
    spend(pool, TARGET_BITS // 256, sending=sending)
    assert node._pool_fault() is None
    spend(pool, TARGET_BITS // 256 - 1, sending=sending)
    assert "255 tags are left in one direction and 512 are wanted:" in node._pool_fault()
    spend(pool, FLOOR_PADS, sending=sending)
    assert not node._pool_is_spent()
    spend(pool, FLOOR_PADS - 1, sending=sending)
    assert node._pool_is_spent()
    assert "applications get no keys" in node._pool_fault()
    pool.add_segment(1 << 32, bytes(1 << 14))
    assert node._pool_fault() is None
    assert not node._pool_is_spent()
    node.lanes.close()


def test_a_small_pool_has_a_small_floor() -> None:
    """What is wanted must leave something for applications."""
    pool = KeyPool(LINK_SECRET, alice=True, target_bits=1 << 13)
    spend(pool, 16, sending=True)
    assert not pool.at_floor
    spend(pool, 15, sending=True)
    assert pool.at_floor
