"""What the node keeps of the authentication pool: both pointers, no pad that is used up, nothing that was forged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from classical_channel.keypool import KeyPool
from classical_channel.link import POINTERS, open_pool, read_pointers
from common.config import Config
from common.config_file import parse_config
from common.errors import AuthenticationError
from common.node.alarms import clear
from common.node.keystore import KeyStore
from common.node.runtime import Lanes, Shell
from common.protocol.session import pads_name
from tests.pair import LINK_SECRET, DictStore

BLOCK = 7
PADS = bytes(64)


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    made = Lanes(1)
    yield made
    made.close()


def shell_over(pool: KeyPool, store: Any, lanes: Lanes) -> Shell:
    unused: Any = None
    channel: Any = SimpleNamespace(tags_sent=0, tags_verified=0, eps_auth_spent=0.0, placed=True)
    return Shell(unused, channel, unused, pool, store, lanes, lambda _: None, lambda: None)


async def reserve(shell: Shell) -> None:
    """Write what is due, and wait until all that follows from it is done."""
    shell._reserve_pads()
    while shell.jobs_running:
        await asyncio.wrap_future(shell._lanes["store"].submit(bool))


def with_used_segment() -> KeyPool:
    """Every pad of the block's segment has been sent or received."""
    pool = KeyPool(LINK_SECRET, alice=True, pointers={"send": (BLOCK, len(PADS) // 2), "receive": (0, 0)})
    pool.add_segment(BLOCK, PADS)
    assert pool.exhausted_segments == []
    pool.burn(pool.pad_for(BLOCK, len(PADS) // 2 - 16))
    assert pool.exhausted_segments == [BLOCK]
    return pool


async def test_used_pads_are_deleted(lanes: Lanes) -> None:
    store, pool = DictStore(), with_used_segment()
    store.put_setting(pads_name(BLOCK), PADS)
    await reserve(shell_over(pool, store, lanes))
    assert store.get_setting(pads_name(BLOCK)) is None
    assert pool.exhausted_segments == []
    pool.add_segment(BLOCK, PADS)  # as after a kill before the bytes were gone
    assert pool.exhausted_segments == [BLOCK]
    assert not pool.bits_left


async def test_what_a_forged_tag_names_leaves_no_trace(lanes: Lanes) -> None:
    """Else one packet could burn the peer's pads for good: after a restart its tags would be refused."""
    store, pool = DictStore(), with_used_segment()
    store.put_setting(pads_name(BLOCK), PADS)
    shell = shell_over(pool, store, lanes)
    shell.fail(AuthenticationError("an authentication tag did not verify"))
    await reserve(shell)
    assert isinstance(shell._failed.exception(), AuthenticationError)
    clear(store)
    assert store.settings == {pads_name(BLOCK): PADS}


async def test_a_write_that_ends_after_a_forged_tag_deletes_nothing(lanes: Lanes) -> None:
    store, pool = DictStore(), KeyPool(LINK_SECRET, alice=True, pointers={"send": (BLOCK, 32), "receive": (0, 0)})
    pool.add_segment(BLOCK, PADS)
    pool.add_segment(BLOCK + 1, PADS)
    store.put_setting(pads_name(BLOCK), PADS)
    shell = shell_over(pool, store, lanes)
    shell._reserve_pads()
    pool.burn(pool.pad_for(BLOCK, 16))
    shell.fail(AuthenticationError("an authentication tag did not verify"))
    await reserve(shell)
    assert isinstance(shell._failed.exception(), AuthenticationError)
    assert store.get_setting(pads_name(BLOCK)) == PADS
    assert read_pointers(store.get_setting(POINTERS)) == {"send": (BLOCK + 1, 32), "receive": (0, 0)}


def end_on_disk(directory: Path) -> tuple[Config, KeyStore]:
    (directory / "link.key").write_bytes(LINK_SECRET)
    (directory / "store.key").write_bytes(bytes(32))
    config = parse_config('role = "bob"\n[channel]\nlink_secret_file = "link.key"\n', directory)
    return config, KeyStore.open(directory / "keys.sqlite", directory / "store.key")


async def test_a_restart_reads_both_pointers_from_the_key_store(tmp_path: Path, lanes: Lanes) -> None:
    config, store = end_on_disk(tmp_path)
    with store:
        pool = open_pool(config, store)
        shell = shell_over(pool, store, lanes)
        await reserve(shell)
        first = pool.next_pad()
        pool.burn(pool.pad_for(0, 63 * 16))
        await reserve(shell)
        missing = pool.missing_bits
    _, store = end_on_disk(tmp_path)
    with store:
        again = open_pool(config, store)
        assert again.missing_bits == missing > 0
        await reserve(shell_over(again, store, lanes))
        pad = again.next_pad()
        assert (pad.segment, pad.offset) == (0, 3 * 16) > (first.segment, first.offset)
        with pytest.raises(AuthenticationError, match="not usable"):
            again.pad_for(0, 63 * 16)
