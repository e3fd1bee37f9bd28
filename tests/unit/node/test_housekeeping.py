"""The key store stays bounded: spent blocks leave it, keys that nobody fetches make room, and nothing else changes."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from common.cli.keys import certificate
from common.cli.keys import command as keys
from common.config import Config
from common.config_file import parse_config
from common.errors import InputError, KeyStoreError, StoreUnavailable
from common.keybits import KeyBits
from common.keys.inventory import Owners, Slice
from common.node.archive import Archive
from common.node.housekeeping import Housekeeping
from common.node.keystore import KeyStore, open_store

BATCH, KEPT, KEY_BYTES = 4, 64, 32
OWNERS = Owners("sae-a", "sae-b")
SETTINGS = 'role = "alice"\n[keys]\ndatabase = "k.sqlite"\nkey_file = "k.key"\nblocks_kept = 64\n'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr("common.node.archive.BATCH", BATCH)
    (tmp_path / "k.key").write_bytes(bytes(32))
    (tmp_path / "alice.toml").write_text(SETTINGS)
    return parse_config(SETTINGS, tmp_path)


@pytest.fixture
def store(config: Config) -> Iterator[KeyStore]:
    with open_store(config) as made:
        made._db.execute("PRAGMA synchronous = OFF")
        yield made


def record(block_id: int) -> str:
    return json.dumps({"block_id": block_id, "ledger": {"eps_spent": 1e-14}})


def add(store: KeyStore, block_id: int, n_bytes: int = 40, *, state: str = "committed") -> None:
    key = KeyBits.from_bytes(np.random.default_rng(block_id).bytes(n_bytes))
    store.store_pending(block_id, key, record(block_id), False, authenticated=True)
    if state != "pending":
        store.decide(block_id)
    if state == "committed":
        store.commit(block_id)


def cut(store: KeyStore, block_id: int, n_bytes: int, *, ours: bool = True, at: int = 0) -> str:
    key_id = str(uuid.uuid4())
    one = Slice(key_id, block_id, at, n_bytes)
    assert store.cut([one], OWNERS, from_front=True, ours=ours, simulated=False)
    return key_id


def numbers(store: KeyStore) -> set[int]:
    return {int(str(block["block_id"])) for block in store.blocks()}


def test_spent_blocks_leave_the_store_and_their_certificates_stay(config: Config, store: KeyStore) -> None:
    n = KEPT + 3 * BATCH + 8
    for number in range(1, n + 1):
        add(store, number, state={3: "pending", 5: "decided"}.get(number, "committed"))
        if number not in (3, 5, 7):
            cut(store, number, KEY_BYTES)
    store.put_setting("pads/9", b"in use")
    before = store.life(), store.newest_block(), store.available_bits(), store.unresolved()
    assert Housekeeping(config, store).look() == {"unfetched keys": None, "certificates": None}
    left = set(range(1, n - KEPT + 1)) & numbers(store)
    spent = [number for number in range(1, n - KEPT + 1) if number not in (3, 5, 7, 9)]
    gone = spent[: len(spent) // BATCH * BATCH]
    assert left == set(range(1, n - KEPT + 1)) - set(gone)
    assert {3, 5, 7, 9} <= left, "undecided, with room, and with pads that are in use"
    assert set(range(n - KEPT + 1, n + 1)) <= numbers(store), "the newest stay in any case"
    ends = 8 * len(gone) * (40 - KEY_BYTES)
    assert (store.life(), store.newest_block(), store.available_bits(), store.unresolved()) == (
        *before[:2], before[2] - ends, before[3])  # fmt: skip
    for number in (gone[0], gone[-1], n):
        result = CliRunner().invoke(certificate, [str(number), "--config", str(config.base_dir / "alice.toml")])
        assert result.output.strip() == record(number), result.exception
    assert Archive(config.path(config.keys.database), 1).find(n + 1) is None
    store.close()
    with open_store(config) as again:
        assert (again.life(), again.newest_block()) == before[:2]
        assert again.get_setting("pads/9") == b"in use"


def test_a_power_cut_between_file_and_store_loses_and_doubles_nothing(
    config: Config, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(Exception):
        pass

    for number in range(1, KEPT + BATCH + 1):
        add(store, number, KEY_BYTES)
        cut(store, number, KEY_BYTES)
    archive = Archive(config.path(config.keys.database), 100)

    def cut_off(numbers: list[int]) -> None:
        raise PowerCut

    with monkeypatch.context() as power:
        power.setattr(store, "drop_blocks", cut_off)
        with pytest.raises(PowerCut):
            archive.take(store, KEPT, KEY_BYTES)
    assert len(numbers(store)) == KEPT + BATCH
    (file,) = archive.directory.iterdir()
    written = file.read_bytes()
    assert archive.take(store, KEPT, KEY_BYTES) == BATCH
    assert [one.read_bytes() for one in archive.directory.iterdir()] == [written]
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("most", [0, 2 * BATCH])
def test_the_archive_is_bounded(config: Config, store: KeyStore, most: int) -> None:
    for number in range(1, KEPT + 4 * BATCH + 1):
        add(store, number, KEY_BYTES)
        cut(store, number, KEY_BYTES)
    archive = Archive(config.path(config.keys.database), most)
    while archive.take(store, KEPT, KEY_BYTES):
        pass
    assert len(numbers(store)) == KEPT
    found = [number for number in range(1, 4 * BATCH + 1) if archive.find(number) is not None]
    assert found == list(range(4 * BATCH + 1 - most, 4 * BATCH + 1))


def test_where_the_archive_cannot_be_written_blocks_stay_and_an_alarm_says_so(
    config: Config, store: KeyStore
) -> None:
    for number in range(1, KEPT + BATCH + 1):
        add(store, number, KEY_BYTES)
        cut(store, number, KEY_BYTES)
    archive = Archive(config.path(config.keys.database), 1)
    archive.directory.write_text("in the way")
    keeper = Housekeeping(config, store)
    assert "spent blocks stay" in str(keeper.look()["certificates"])
    assert len(numbers(store)) == KEPT + BATCH
    with pytest.raises(InputError):
        archive.take(store, KEPT, KEY_BYTES)
    archive.directory.unlink()
    keeper._looks = 0
    assert keeper.look()["certificates"] is None
    assert len(numbers(store)) == KEPT


def test_keys_that_nobody_fetches_make_room(
    config: Config, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Housekeeping(config, store)
    monkeypatch.setattr("common.node.keystore._ROOM_ROWS", 2)
    keeper._most_waiting_bytes = 10 * KEY_BYTES
    add(store, 1, 20 * KEY_BYTES)
    made = [cut(store, 1, KEY_BYTES, ours=False, at=n * KEY_BYTES) for n in range(9)]
    assert keeper.look()["unfetched keys"] is None
    made += [cut(store, 1, KEY_BYTES, ours=False, at=n * KEY_BYTES) for n in range(9, 14)]
    assert "oldest are destroyed (4 so far)" in str(keeper.look()["unfetched keys"])
    left = store.owners_of(made)
    assert len(left) == 10
    assert list(left) == made[-len(left) :], "the oldest were destroyed"
    assert store.waiting_bytes == len(left) * KEY_BYTES
    store.release(list(left))
    assert keeper.look()["unfetched keys"] is None


def test_finding_the_oldest_key_reads_an_index(store: KeyStore) -> None:
    plans = [
        [row[-1] for row in store._db.execute(f"EXPLAIN QUERY PLAN {query} FROM keys WHERE NOT ours {order}")]
        for query, order in (("SELECT key_id", "ORDER BY age LIMIT 1"), ("SELECT coalesce(max(age), 0) + 1", ""))
    ]
    assert all("INDEX waiting" in step for plan in plans for step in plan), plans


def test_a_store_of_the_version_before_is_taken_over(config: Config, store: KeyStore) -> None:
    add(store, 1, 1000)
    made = cut(store, 1, 10, ours=False)
    for statement in ("DROP INDEX waiting", "ALTER TABLE keys DROP COLUMN age", "PRAGMA user_version = 2"):
        store._db.execute(statement)
    store.close()
    with open_store(config) as again:
        later = [cut(again, 1, 10, ours=False, at=10 * n) for n in range(1, 3)]
        assert again.drop_oldest_waiting(29) == 3, "a batch"
        assert again.owners_of([made, *later]) == {}
    with open_store(config) as again:
        assert again.waiting_bytes == 0


def test_what_waits_for_applications_is_counted_whatever_became_of_it(config: Config, store: KeyStore) -> None:
    add(store, 1, 1000)
    theirs = [cut(store, 1, 10 + n, ours=False, at=30 * n) for n in range(5)]
    ours = [cut(store, 1, 10, at=200 + 30 * n) for n in range(5)]
    assert store.waiting_bytes == sum(10 + n for n in range(5))
    assert store.stored_bits() == store.available_bits() + 8 * store.waiting_bytes
    store.release([theirs[0], ours[0]])
    store.discard([theirs[1], ours[1], str(uuid.uuid4())])
    with pytest.raises(KeyError):
        store.release([theirs[2], "unknown"])
    late = [Slice(str(uuid.uuid4()), 1, 900, 10), Slice(str(uuid.uuid4()), 1, 0, 1)]
    assert not store.cut(late, OWNERS, from_front=True, ours=False, simulated=False)
    assert store.waiting_bytes == 12 + 13 + 14
    store.close()
    with open_store(config) as again:
        assert (again.waiting_bytes, again.waiting_keys()) == (12 + 13 + 14, 3)


def test_ends_that_are_too_short_are_counted_as_no_key(config: Config, store: KeyStore) -> None:
    for number, n_bytes in enumerate((33, 31, 64, 7), 1):
        add(store, number, n_bytes)
    assert store.count_keys(32, simulated=False) == 3
    assert store.least_bytes == config.etsi014.min_key_size_bits // 8 == 8
    assert store.available_bits() == 8 * (33 + 31 + 64)
    cut(store, 1, 32)
    assert store.count_keys(32, simulated=False) == 2
    assert store.available_bits() == 8 * (31 + 64)


def test_qkd_keys_shows_the_newest_and_tells_all_to_programs(config: Config, store: KeyStore) -> None:
    for number in range(1, 31):
        add(store, number)
    arguments = ["--config", str(config.base_dir / "alice.toml")]
    shown = CliRunner().invoke(keys, arguments, standalone_mode=False).output
    assert "newest 20 of 30 blocks" in shown
    assert [line.split()[0] for line in shown.splitlines() if "committed" in line] == [f"0.{n}" for n in range(11, 31)]
    told = json.loads(CliRunner().invoke(keys, [*arguments, "--json"], standalone_mode=False).stdout)
    assert [block["certificate"] for block in told["blocks"]] == [json.loads(record(n)) for n in range(1, 31)]
    assert told["available_bits"] == 30 * 8 * 40


def test_a_page_that_rots_under_a_running_node_is_found_and_told(config: Config, store: KeyStore) -> None:
    for block_id in range(1, 9):
        add(store, block_id, 100_000)
    keeper = Housekeeping(config, store)
    look_round(keeper)
    store._db.execute("UPDATE pages SET sealed = zeroblob(length(sealed)) WHERE block_id = 7 AND number = 2")
    store._files.leave()  # as a medium does it: without a trace in the file's times
    with pytest.raises(KeyStoreError, match="damaged: page 2 of block 7 is not what was written"):
        look_round(keeper)


def look_round(keeper: Housekeeping) -> None:
    """At every page of eight blocks of seven."""
    for _ in range(8 * 7):
        keeper.look()


def test_a_page_that_cannot_be_read_is_a_matter_of_the_disk(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    monkeypatch.setattr(store._pages, "reread", refuse)
    with pytest.raises(StoreUnavailable):
        store.scrub()
    assert "disk I/O error" in str(store.unavailable)
