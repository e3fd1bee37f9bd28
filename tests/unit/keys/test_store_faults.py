"""A disk that is full, read-only or failing; files that something else removed, cut or wrote; damage at the start."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import KeyStoreError, StoreUnavailable
from common.keybits import KeyBits
from common.keys.inventory import Owners, Slice
from common.node.keystore import KeyStore
from common.node.patience import patient
from tests.disks import fill, small_file_system
from tests.stores import add_block, inventory, open_store

OWNERS = Owners("sae-a", "sae-b")


@contextmanager
def limited_files(n_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    with small_file_system(tmp_path / "disk", "1m") as place:
        yield place


def contents(store: KeyStore) -> list[Any]:
    return [
        store.unresolved(),
        store.blocks(),
        store.waiting_keys(),
        store.available_bits(),
        store.get_setting("position"),
        store.life(),
    ]


def test_a_full_disk_changes_nothing_and_room_is_noticed(small_disk: Path) -> None:
    with open_store(small_disk, "alice") as store:
        add_block(store, 1, 1000)
        store.advance({"position": b"1"})
        filler = small_disk / "filler"
        fill(filler)
        before = contents(store)
        key = KeyBits.from_bytes(bytes(range(256)) * 1000)
        with pytest.raises(StoreUnavailable, match="full") as refused:
            store.store_pending(2, key, "{}", False, authenticated=True)
        assert "room" in refused.value.remedy
        assert "full" in str(store.unavailable)
        assert key.alive, "the key is still there for another try"
        store.look()
        assert store.unavailable is not None
        assert contents(store) == before
        filler.unlink()
        store.look()
        assert store.unavailable is None
    with open_store(small_disk, "alice") as store:
        assert contents(store) == before
        store.store_pending(2, key, "{}", False, authenticated=True)
        assert not key.alive
        store.commit(2)


def test_a_store_that_cannot_be_made_says_why(small_disk: Path) -> None:
    (small_disk / "alice.key").write_bytes(bytes(32))
    fill(small_disk / "filler")
    with pytest.raises(KeyStoreError, match=r"full|No space"):
        open_store(small_disk, "alice")


def test_a_disk_that_became_read_only(tmp_path: Path) -> None:
    """A busy file system cannot be mounted anew, so SQLite itself is told to refuse with the same error."""
    with open_store(tmp_path, "alice") as store:
        raw = add_block(store, 1, 1000)
        before = contents(store)
        store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreUnavailable, match="readonly"):
            store.commit(1)
        assert contents(store) == before
        store.look()
        assert store.unavailable is not None
        store._db.execute("PRAGMA query_only = OFF")
        store.look()
        assert store.cut([Slice("a", 1, 0, 8)], OWNERS, from_front=True, ours=True, simulated=False)
        assert store.release(["a"]) == {"a": raw[:8]}


@pytest.mark.parametrize("name", ["alice.sqlite", "alice.sqlite-wal"])
@pytest.mark.parametrize(
    ("touch", "word"),
    [
        (Path.unlink, "removed"),
        (lambda path: os.truncate(path, 0), "cut"),
        (lambda path: shutil.move(shutil.copy(path, path.with_suffix(".copy")), path), "replaced"),
    ],
)
def test_files_that_change_while_a_transaction_runs_are_noticed(
    tmp_path: Path, name: str, touch: Callable[[Path], object], word: str
) -> None:
    """What it wrote may have gone nowhere; remembering what it left would call that good order."""
    store = open_store(tmp_path, "alice")
    add_block(store, 1, 1000)
    with pytest.raises(KeyStoreError, match=f"was {word}"), store._transaction():
        touch(tmp_path / name)
    with pytest.raises(KeyStoreError, match=f"was {word}"):
        store.look()
    store.close()


STEPS: list[Callable[[KeyStore, int], object]] = [
    lambda store, n: store.store_pending(n, KeyBits.from_bytes(bytes([n]) * 40_000), "{}", False, authenticated=False),
    lambda store, n: store.decide(n),
    lambda store, n: store.commit(n),
    lambda store, n: store.advance({"position": b"%d" % n}),
    lambda store, n: store.cut([Slice(f"k{n}", n, 0, 32)], OWNERS, from_front=True, ours=False, simulated=False),
    lambda store, n: store.release([f"k{n}"]),
]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=12))
def test_whatever_is_refused_at_any_size_is_done_once_when_there_is_room(
    tmp_path_factory: pytest.TempPathFactory, room_kib: list[int]
) -> None:
    """The same steps with and without a limit that strikes anywhere give the same store, and nothing between."""
    ends = []
    for limits in ([], room_kib):
        store = open_store(tmp_path_factory.mktemp("store"), "alice")
        log = store._files.log
        left = list(limits)
        results = []
        with store:
            for number in range(1, 4):
                for step in STEPS:
                    before = contents(store)
                    if left:
                        size = log.stat().st_size if log.exists() else 0
                        with limited_files(size // 2 + 1024 * left.pop()):
                            try:
                                results.append(step(store, number))
                                continue
                            except StoreUnavailable:
                                now = contents(store)
                                # `advance` may have stored its value before its counter was refused; it is repeated
                                assert now[:4] == before[:4]
                    results.append(step(store, number))
            ends.append((results, contents(store)))
    assert ends[0] == ends[1]


def test_a_patient_caller_waits_until_there_is_room(tmp_path: Path) -> None:
    given_up = threading.Event()
    with open_store(tmp_path, "alice") as store:
        tries: list[int] = []

        class Refusing:
            def commit(self, number: int) -> str:
                tries.append(number)
                if len(tries) < 3:
                    raise StoreUnavailable("full")
                return "done"

        waiting = patient(Refusing(), given_up, retry_s=0.0)
        assert waiting.commit(7) == "done"  # type: ignore[func-returns-value]
        assert tries == [7, 7, 7]
        tries.clear()
        given_up.set()
        with pytest.raises(StoreUnavailable):
            waiting.commit(7)
        assert patient(store, given_up).available_bits() == 0


def test_a_question_of_the_peer_waits_for_room_and_no_byte_is_lost(tmp_path: Path) -> None:
    """The peer has cut already: a refusal would destroy its bytes for a fault that passes."""
    with open_store(tmp_path, "alice") as alice, open_store(tmp_path, "bob") as bob:
        for store in (alice, bob):
            add_block(store, 1, 200_000)
        a, given_up = inventory(alice, "alice"), threading.Event()
        told, slices = a.reserve(OWNERS, 1, 32)
        answers: list[bytes] = []
        b = inventory(patient(bob, given_up, retry_s=0.01), "bob")
        answering = threading.Thread(target=lambda: answers.append(b.accept_from_peer(told)))
        with limited_files(1024):
            answering.start()
            answering.join(0.1)
            assert not answers
        answering.join()
        ids = [one.key_id for one in slices]
        assert a.refusal(slices, answers[0]) is None
        assert a.hand_out(ids) == b.fetch("sae-b", "sae-a", ids)
        assert alice.available_bits() == bob.available_bits() == 8 * (200_000 - 32)


# -- something else had its hands on the files ------------------------------------------------------------------------


def unlink(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xaa" * 4096)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))  # whatever the clock of files resolves


def replace(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy2(path, copy)
    copy.replace(path)


@pytest.mark.parametrize(
    ("touch", "word"), [(unlink, "removed"), (cut_short, "cut"), (overwrite, "written"), (replace, "replaced")]
)
@pytest.mark.parametrize("name", ["alice.sqlite", "alice.sqlite-wal"])
def test_a_file_that_is_not_as_it_was_left_ends_everything(
    tmp_path: Path, touch: Callable[[Path], None], word: str, name: str
) -> None:
    store = open_store(tmp_path, "alice")
    add_block(store, 1, 1000)
    assert store.cut([Slice("a", 1, 0, 8)], OWNERS, from_front=True, ours=True, simulated=False)
    store.look()
    touch(tmp_path / name)
    for use in (store.look, lambda: store.release(["a"]), lambda: store.commit(1)):
        with pytest.raises(KeyStoreError, match=f"{name} was {word}") as refused:
            use()
        assert not isinstance(refused.value, StoreUnavailable)
        assert refused.value.remedy
    store._db.close()
    store._files.release()


@pytest.mark.parametrize("at", [0, 20, 100, 5000, 12_000, 30_000])
@pytest.mark.parametrize("n_bytes", [1, 64, 4096])
def test_a_damaged_store_is_refused_in_words(tmp_path: Path, at: int, n_bytes: int) -> None:
    """Or is not damaged where anything lies: then all of it can be read."""
    with open_store(tmp_path, "alice") as store:
        for number in range(1, 9):
            add_block(store, number, 3000)
    with (tmp_path / "alice.sqlite").open("r+b") as file:
        file.seek(at)
        old = file.read(n_bytes)
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in old))
    try:
        with open_store(tmp_path, "alice") as store:
            assert len(store.blocks()) == 8
            for number in range(1, 9):
                one = Slice(str(number), number, 0, 3000)
                assert store.cut([one], OWNERS, from_front=True, ours=True, simulated=False)
                raw = np.random.default_rng(number).integers(0, 256, 3000, dtype=np.uint8).tobytes()
                assert store.release([str(number)]) == {str(number): raw}
    except KeyStoreError as error:
        told = f"{error} {error.remedy}"
        assert "damaged" in told or "copy" in told or "version" in told or "key file" in told, told


def test_a_database_that_was_cut_is_damaged(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 1, 100_000)
    cut_short(tmp_path / "alice.sqlite")
    with pytest.raises(KeyStoreError, match="damaged") as refused:
        open_store(tmp_path, "alice")
    assert "qkd init" in refused.value.remedy


def test_a_record_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    open_store(tmp_path, "alice").close()
    with open_store(tmp_path, "alice") as store:
        add_block(store, 7, 100)
    with sqlite3.connect(tmp_path / "alice.sqlite") as database:
        database.execute("UPDATE blocks SET record = '{\"ledger\": '")
    database.close()
    with pytest.raises(KeyStoreError, match="record of block 7"):
        open_store(tmp_path, "alice")


# -- the write-ahead log ----------------------------------------------------------------------------------------------


def killed(directory: Path) -> None:
    """A process that ends without closing: what is beside the database stays."""
    for path in directory.glob("alice.*"):
        shutil.copy2(path, directory / "after")


@pytest.mark.parametrize("lose", [unlink, lambda path: os.truncate(path, 0)])
def test_a_deleted_log_is_told_as_that(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    after = tmp_path / "after"
    after.mkdir()
    with open_store(tmp_path, "alice") as store:
        store.advance({"position": b"1"})
        killed(tmp_path)
    with open_store(after, "alice") as store:  # with its log, it goes on
        assert store.get_setting("position") == b"1"
        again = tmp_path / "again"
        again.mkdir()
        for path in after.glob("alice.*"):
            shutil.copy2(path, again)
    lose(again / "alice.sqlite-wal")
    with pytest.raises(KeyStoreError, match=r"write-ahead log .* was deleted") as refused:
        open_store(again, "alice")
    assert "set back" not in str(refused.value)
    assert "alice.sqlite.lock" in refused.value.remedy


def test_a_store_that_was_closed_needs_no_log(tmp_path: Path) -> None:
    open_store(tmp_path, "alice").close()
    assert not (tmp_path / "alice.sqlite-wal").exists()
    open_store(tmp_path, "alice").close()
