"""What was handed out is gone; what was committed survives; nothing is readable without the key file."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from common.errors import KeyStoreError, LocalProtocolError
from common.keybits import KeyBits
from common.keys.inventory import Owners, Slice
from common.node.keystore import KeyStore
from common.node.pages import PAGE_BYTES
from common.node.rows import _AVAILABLE
from tests.stores import add_block, open_store

OWNERS = Owners("sae-a", "sae-b")


def cut(store: KeyStore, one: Slice, *, front: bool = True, ours: bool = False) -> bool:
    return store.cut([one], OWNERS, from_front=front, ours=ours, simulated=False)


def test_the_life_of_a_block(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 7, 100, commit=False)
        assert store.unresolved() == [(7, "pending")]
        assert store.available_bits() == 0
        store.decide(7)
        assert store.state_of(7) == "decided"
        store.commit(7)
        store.commit(7)
        assert store.unresolved() == []
        assert store.available_bits() == 800
        store.destroy(7)  # only a pending key can be destroyed
        assert store.state_of(7) == "committed"


def test_counting_what_is_left_reads_an_index_and_not_the_blocks(tmp_path: Path) -> None:
    """It is done at every block: with the records of 20 000 unfetched blocks in its way it took 24 ms."""
    with open_store(tmp_path, "alice") as store:
        plan = store._db.execute(f"EXPLAIN QUERY PLAN {_AVAILABLE}", (1,)).fetchall()
    assert ["COVERING INDEX room" in row[-1] for row in plan] == [True]


def test_a_pending_key_is_destroyed(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 7, 100, commit=False)
        store.destroy(7)
        store.destroy(7)
        assert store.state_of(7) is None
        with pytest.raises(LocalProtocolError):
            store.commit(7)


def test_only_an_authenticated_key_can_be_committed(tmp_path: Path) -> None:
    """The mark stands in the database, and the database itself refuses any state but pending without it."""
    with open_store(tmp_path, "bob") as store:
        add_block(store, 7, 100, commit=False)
        assert not store.is_authenticated(7)
        with pytest.raises(LocalProtocolError, match="not authenticated"):
            store.commit(7)
        with pytest.raises(sqlite3.IntegrityError):
            store._db.execute("UPDATE blocks SET state = 'committed'")
        store.decide(7)
        assert store.is_authenticated(7)
        store.commit(7)
        store.store_pending(8, KeyBits.from_bytes(bytes(100)), "{}", False, authenticated=True)
        store.commit(8)


def test_what_is_not_authenticated_is_destroyed_with_its_pads(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        for number in (1, 2, 3, 4):
            add_block(store, number, 100, commit=number == 1)
            store.put_setting(f"pads/{number}", b"pads")
        store.decide(2)
        assert store.destroy_unauthenticated() == [3, 4]
        assert [block["block_id"] for block in store.blocks()] == [1, 2]
        assert [number for number, _, _ in store.pads()] == [1, 2]
        assert store.get_setting("pads/3") is None
        assert store._db.execute("SELECT DISTINCT block_id FROM pages").fetchall() == [(1,), (2,)]
        store.destroy(2, "decided")
        store.destroy(1, "committed")
        assert [block["block_id"] for block in store.blocks()] == [1]
        assert store.available_bits() == 800


@pytest.mark.parametrize("front", [True, False])
def test_a_key_across_pages_is_the_block_s_bytes(tmp_path: Path, front: bool) -> None:
    with open_store(tmp_path, "alice") as store:
        raw = add_block(store, 1, 3 * PAGE_BYTES + 5)
        n_bytes = PAGE_BYTES + 17
        at = 0 if front else len(raw) - n_bytes
        assert cut(store, Slice("a", 1, at, n_bytes), front=front)
        assert store.release(["a"]) == {"a": raw[at : at + n_bytes]}
        with pytest.raises(KeyError):
            store.release(["a"])


@pytest.mark.parametrize("front", [True, False])
def test_what_is_put_back_is_the_block_s_bytes_again(tmp_path: Path, front: bool) -> None:
    """Across pages, which were deleted or made zero; what more was cut behind is destroyed."""
    with open_store(tmp_path, "alice") as store:
        raw = add_block(store, 1, 3 * PAGE_BYTES + 5)
        sizes = [PAGE_BYTES + 17, 5, PAGE_BYTES, 9]
        ends = np.cumsum([0, *sizes])
        slices = [
            Slice(str(n), 1, int(at if front else len(raw) - at - n_bytes), n_bytes)
            for n, (at, n_bytes) in enumerate(zip(ends, sizes, strict=False))
        ]
        for one in slices:
            assert cut(store, one, front=front)
        store.put_back(slices[1:], from_front=front)
        assert store.available_bits() == 8 * (len(raw) - sizes[0])
        assert store.owners_of([one.key_id for one in slices]).keys() == {"0"}
        for one in slices[1:3]:
            assert cut(store, one, front=front)
        store.put_back(slices[1:2], from_front=front)
        rest = range(ends[3], len(raw)) if front else range(len(raw) - ends[3])
        assert store.room(1, from_front=True, simulated=False) == [(1, rest.start, rest.stop)], "destroyed"
        assert cut(store, Slice("rest", 1, rest.start, len(rest)))
        assert store.release(["0", "2", "rest"]) == {
            "0": raw[slices[0].offset :][: sizes[0]],
            "2": raw[slices[2].offset :][: sizes[2]],
            "rest": raw[rest.start : rest.stop],
        }
        assert store.available_bits() == 0
        store.put_back([slices[1], Slice("other", 7, 0, 1)], from_front=front)
        assert store.available_bits() == 0


def test_every_byte_of_a_block_can_be_cut(tmp_path: Path) -> None:
    """Also where what is left of a page happens to be zero."""
    raw = np.zeros(PAGE_BYTES + 3, np.uint8)
    raw[0] = 1
    with open_store(tmp_path, "alice") as store:
        store.store_pending(1, KeyBits.from_bytes(raw.tobytes()), "{}", False, authenticated=False)
        store.decide(1)
        store.commit(1)
        for number, at in enumerate((0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 2)):
            assert cut(store, Slice(str(number), 1, at, 1))
        assert store.available_bits() == 0
        assert store.release(["0", "1"]) == {"0": b"\x01", "1": b"\x00"}


def test_bytes_are_cut_once(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 1, 64)
        assert cut(store, Slice("a", 1, 0, 32))
        assert not cut(store, Slice("b", 1, 31, 1))
        assert not cut(store, Slice("b", 1, 0, 32))
        assert not cut(store, Slice("b", 1, 33, 32))
        assert not cut(store, Slice("a", 1, 32, 8)), "a key ID is used once"
        assert store.available_bits() == 8 * 32
        assert cut(store, Slice("c", 1, 48, 16), front=False)
        assert not cut(store, Slice("d", 1, 32, 17))
        assert cut(store, Slice("d", 1, 32, 16))


def test_a_batch_is_cut_whole_or_not_at_all(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 1, 64)
        batch = [Slice("a", 1, 0, 32), Slice("b", 1, 40, 32)]
        assert not store.cut(batch, OWNERS, from_front=True, ours=True, simulated=False)
        assert store.available_bits() == 8 * 64
        assert store.owners_of(["a", "b"]) == {}


def test_simulated_blocks_are_only_cut_when_allowed(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 1, 64, simulated=True)
        assert store.room(8, from_front=True, simulated=False) == []
        assert not cut(store, Slice("a", 1, 0, 8))
        assert store.cut([Slice("a", 1, 0, 8)], OWNERS, from_front=True, ours=False, simulated=True)


def test_a_restart_keeps_promises_and_burns_its_own_open_requests(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        raw = add_block(store, 1, 64)
        add_block(store, 2, 64, commit=False)
        assert cut(store, Slice("mine", 1, 0, 8), ours=True)
        assert cut(store, Slice("theirs", 1, 8, 8), ours=False)
        store.put_setting("x", b"y")
    with open_store(tmp_path, "alice") as store:
        assert store.owners_of(["mine", "theirs"]) == {"theirs": (OWNERS, False)}
        assert store.release(["theirs"]) == {"theirs": raw[8:16]}
        assert store.available_bits() == 8 * 48
        assert store.unresolved() == [(2, "pending")]
        assert store.get_setting("x") == b"y"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice"), pytest.raises(KeyStoreError, match="in use"):
        open_store(tmp_path, "alice")


def test_looking_beside_a_running_daemon(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 1, 64)
        with KeyStore.open(tmp_path / "alice.sqlite", tmp_path / "alice.key", read_only=True) as beside:
            assert beside.available_bits() == 8 * 64


def test_the_wrong_key_file_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path, "alice").close()
    (tmp_path / "alice.key").write_bytes(bytes(32))
    with pytest.raises(KeyStoreError, match="cannot be decrypted"):
        open_store(tmp_path, "alice")
    (tmp_path / "alice.key").write_bytes(bytes(31))
    with pytest.raises(KeyStoreError, match="31 bytes"):
        open_store(tmp_path, "alice")


def test_no_secret_lies_open_on_disk(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        raw = add_block(store, 1, 4096)
        store.put_setting("pads/1", raw[::-1])
        files = [path for path in tmp_path.iterdir() if path.suffix != ".key"]
        assert any(path.name.endswith("-wal") for path in files)
        for path in files:
            content = path.read_bytes()
            assert raw[:16] not in content
            assert raw[::-1][:16] not in content
    assert stat.S_IMODE(os.stat(tmp_path / "alice.sqlite").st_mode) == 0o600


def test_pads_of_blocks_that_are_there(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 3, 8)
        store.put_setting("pads/3", b"p")
        store.put_setting("pads/4", b"q")
        assert store.pads() == [(3, "committed", b"p")]


def test_looking_into_a_store_that_was_never_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "store.key").write_bytes(bytes(32))
    with pytest.raises(KeyStoreError, match="not there yet") as caught:
        KeyStore.open(tmp_path / "keys.sqlite", tmp_path / "store.key", read_only=True)
    assert "first start" in caught.value.remedy
    assert not (tmp_path / "keys.sqlite").exists()
