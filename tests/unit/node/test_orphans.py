"""A kill between a block's two writes leaves no authentication key behind."""

from __future__ import annotations

from pathlib import Path

from tests.stores import add_block, open_store


def test_pads_without_a_block_are_deleted_when_the_store_opens(tmp_path: Path) -> None:
    with open_store(tmp_path, "alice") as store:
        add_block(store, 7, 100)
        for number in (6, 7, 8):
            store.put_setting(f"pads/{number}", b"pads")
    with open_store(tmp_path, "alice") as store:
        assert [store.get_setting(f"pads/{number}") for number in (6, 7, 8)] == [None, b"pads", None]
