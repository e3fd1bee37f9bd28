"""A key store that was set back is refused by the counter beside it; a crash never looks like that."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from common.errors import KeyStoreError
from common.node.counter import Counter
from common.node.keystore import KeyStore
from tests.stores import open_store


def copy_of(directory: Path) -> Path:
    """As a backup takes it: the database of a node that does not run."""
    backup = directory / "backup"
    shutil.copy(directory / "alice.sqlite", backup)
    return backup


def restore(directory: Path, backup: Path) -> None:
    shutil.copy(backup, directory / "alice.sqlite")
    for name in ("alice.sqlite-wal", "alice.sqlite-shm"):
        (directory / name).unlink(missing_ok=True)


def advance(directory: Path, *values: bytes) -> None:
    with open_store(directory, "alice") as store:
        for value in values:
            store.advance({"position": value})


def test_an_old_copy_of_the_store_is_refused(tmp_path: Path) -> None:
    advance(tmp_path, b"1")
    backup = copy_of(tmp_path)
    advance(tmp_path, b"2")
    newest = tmp_path / "newest"
    shutil.copy(tmp_path / "alice.sqlite", newest)
    restore(tmp_path, backup)
    for _ in range(2):
        with pytest.raises(KeyStoreError, match="was set back") as refusal:
            open_store(tmp_path, "alice")
        assert "qkd init" in refusal.value.remedy
    restore(tmp_path, newest)
    with open_store(tmp_path, "alice") as store:
        assert store.get_setting("position") == b"2"


def test_a_store_that_is_deleted_is_a_store_that_was_set_back(tmp_path: Path) -> None:
    """A new one would begin with the link secret's first pads."""
    advance(tmp_path, b"1")
    (tmp_path / "alice.sqlite").unlink()
    with pytest.raises(KeyStoreError, match="was set back"):
        open_store(tmp_path, "alice")


def test_the_newest_copy_is_accepted(tmp_path: Path) -> None:
    advance(tmp_path, b"1", b"2")
    restore(tmp_path, copy_of(tmp_path))
    advance(tmp_path, b"3")


def test_a_crash_between_store_and_file_is_no_rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance(tmp_path, b"1")

    def power_cut(self: Counter, count: int) -> None:
        raise OSError("the power is cut")

    with monkeypatch.context() as patch:
        patch.setattr(Counter, "write", power_cut)
        with pytest.raises(OSError, match="power"):
            advance(tmp_path, b"2")
    with open_store(tmp_path, "alice") as store:
        assert store.get_setting("position") == b"2"
    advance(tmp_path, b"3")


def test_the_file_may_be_missing_and_is_made_again(tmp_path: Path) -> None:
    """As after a move of the database alone: nothing is known against it."""
    advance(tmp_path, b"1")
    path = Counter(tmp_path / "alice.sqlite").path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    advance(tmp_path, b"2")
    assert path.read_text() == "2\n"
    assert [one.name for one in tmp_path.glob("*.tmp")] == []


@pytest.mark.parametrize("content", [b"", b"x", b"1.5", b"\xff"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    advance(tmp_path, b"1")
    Counter(tmp_path / "alice.sqlite").path.write_bytes(content)
    with pytest.raises(KeyStoreError, match="cannot be read"):
        open_store(tmp_path, "alice")


def test_looking_beside_a_daemon_neither_checks_nor_writes(tmp_path: Path) -> None:
    advance(tmp_path, b"1")
    path = Counter(tmp_path / "alice.sqlite").path
    path.write_text("9\n")
    with KeyStore.open(tmp_path / "alice.sqlite", tmp_path / "alice.key", read_only=True):
        assert path.read_text() == "9\n"
