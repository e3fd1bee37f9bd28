"""A store as an earlier process left it: killed between two writes of a block, or of another version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from common.errors import KeyStoreError
from tests.stores import add_block, open_store


def test_pads_without_a_block_are_deleted_when_the_store_opens(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 7, 100)
        for number in (6, 7, 8):
            store.put_setting(f"pads/{number}", b"pads")
    with open_store(tmp_path, "alice") as store:
        assert [store.get_setting(f"pads/{number}") for number in (6, 7, 8)] == [None, b"pads", None]


def test_a_store_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    open_store(tmp_path, "alice").close()
    with sqlite3.connect(tmp_path / "alice.sqlite") as database:
        database.execute("PRAGMA user_version = 1")
    database.close()
    with pytest.raises(KeyStoreError, match="has version 1") as refusal:
        open_store(tmp_path, "alice")
    assert "new link secret" in refusal.value.remedy
