"""The status document says only what is known."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.cli.keys import command as keys
from common.cli.status import read_status
from common.config import Config
from common.config_file import parse_config
from common.errors import AuthenticationError, ConfigurationError, KeyStoreError
from common.node.keystore import KeyStore
from common.node.node import Node, Options
from common.node.status import BARREN_BLOCKS, StatusBoard
from common.protocol.block import WATCHED, BlockFacts
from tests.stores import add_block

NOTHING = BlockFacts(**{field.name: "" if field.type == "str" else 0 for field in fields(BlockFacts)})  # type: ignore[arg-type]


def test_a_block_that_a_detector_spoiled_raises_an_alarm_until_one_gives_key() -> None:
    board = StatusBoard("bob", "link", 1e6)
    assert board.document()["watched"] == {}
    spoiled = replace(NOTHING, state="refused", x_share=0.1, l_share=0.01, device_fault="detector L is too weak: 1 %")
    board.block(spoiled)
    board.block(replace(NOTHING, state="refused", reason="the peer stopped"))
    assert board.document()["watched"] == {name: getattr(spoiled, name) for name in WATCHED}
    (alarm,) = board.document()["alarms"]
    assert alarm.startswith("detectors: detector L is too weak: 1 %; look at bias")
    board.block(replace(NOTHING, state="committed", x_share=0.1))
    assert board.document()["alarms"] == []


def test_blocks_without_key_are_an_alarm_whatever_the_reason_until_one_gives_key() -> None:
    board = StatusBoard("bob", "link", 1e6)
    given, refused = replace(NOTHING, state="committed"), replace(NOTHING, state="refused")
    for block in [refused] * (BARREN_BLOCKS - 1) + [given] + [refused] * (BARREN_BLOCKS - 1):
        board.block(block)
        assert board.alarms == {}
    board.block(replace(refused, reason="refused by the peer: the disk does not take it"))
    (alarm,) = board.document()["alarms"]
    assert re.fullmatch(r"no key: the last 5 blocks gave none since \S+Z: refused by the peer: the disk .*", alarm)
    board.block(replace(refused, reason="the QBER of 20 % is above"))
    assert "the last 6 blocks gave none" in board.alarms["no key"]
    assert "QBER" in board.alarms["no key"]
    board.block(given)
    assert board.alarms == {}


def test_a_receiver_without_x_is_shown() -> None:
    board = StatusBoard("bob", "link", 1e6)
    board.block(replace(NOTHING, state="refused", z_sent_share=0.9))
    assert board.document()["watched"]["x_share"] == 0


def test_before_the_handshake_nobody_knows_whether_keys_are_simulated() -> None:
    assert StatusBoard("alice", "link", 1e6).document()["simulated"] is None


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyStoreError("gone"), 3), (AuthenticationError("forged"), 4), (ConfigurationError("odd"), 2)],
)
def test_after_a_fatal_stop_the_status_keeps_the_reason(error: KeyStoreError, code: int) -> None:
    board = StatusBoard("bob", "link", 1e6)
    assert "reason" not in board.document()
    board.end(error)
    document = board.document()
    assert (document["reason"], document["remedy"], document["exit_code"]) == (str(error), error.remedy, code)


def test_a_defect_is_named_by_its_kind_alone() -> None:
    board = StatusBoard("bob", "link", 1e6)
    board.end(ValueError("what may be secret"))
    assert "ValueError" in board.document()["reason"]
    assert "may be" not in str(board.document())
    assert board.document()["exit_code"] == 1


def node_with_store(directory: Path) -> Config:
    """A node's configuration with a store that was never opened."""
    directory.chmod(0o700)
    key_file = directory / "store.key"
    key_file.write_bytes(bytes(range(32)))
    key_file.chmod(0o600)
    text = 'role = "alice"\nstatus_file = "status.json"\n[keys]\ndatabase = "k.sqlite"\nkey_file = "store.key"\n'
    (directory / "alice.toml").write_text(text)
    return parse_config(text, directory)


async def test_a_node_that_could_not_start_says_why(tmp_path: Path) -> None:
    config = node_with_store(tmp_path)
    (tmp_path / "k.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(KeyStoreError, match="damaged"):
        async with Node.open(config, Options()):
            pass
    status = read_status(config)
    assert (status["state"], status["running"], status["exit_code"]) == ("stopped", False, 3)
    assert "damaged" in status["reason"]
    assert "qkd init" in status["remedy"]


def test_a_damaged_record_is_told_in_words(tmp_path: Path) -> None:
    config = node_with_store(tmp_path)
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file)) as store:
        add_block(store, 7, 100)
    with sqlite3.connect(tmp_path / "k.sqlite") as database:
        database.execute("UPDATE blocks SET record = 'no record'")
    database.close()
    looked = CliRunner().invoke(keys, ["--config", str(tmp_path / "alice.toml")], standalone_mode=False)
    assert isinstance(looked.exception, KeyStoreError)
    assert "record of block 0.7" in str(looked.exception)
