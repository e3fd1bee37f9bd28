"""After a failed authentication: what is destroyed and when, and that nothing starts until a person has looked."""

from __future__ import annotations

import asyncio
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from common.cli import alarm as commands
from common.cli.main import exit_code
from common.cli.status import read_status
from common.config_file import load_config
from common.errors import AuthenticationError, KeyStoreError, LinkLocked
from common.node import alarms
from common.node.check import NODE, judged
from common.node.keystore import KeyStore
from common.node.node import Node, Options
from common.node.runtime import Lanes, Shell
from common.protocol.effects import Run, Send
from common.protocol.messages import Bye
from tests.pair import DictStore
from tests.stores import add_block

FAULT = AuthenticationError("an authentication tag did not verify")


class Deaf:
    """A channel that nothing may be sent to any more."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} after the link has failed")


async def test_what_was_under_way_is_destroyed_and_nothing_follows() -> None:
    """A key whose storing was begun before the tag failed goes too; a job's end starts no other."""
    lanes, store, channel = Lanes(1), DictStore(), Deaf()
    nobody: Any = None
    shell = Shell(nobody, channel, nobody, nobody, store, lanes, lambda _: None, lambda: None)

    def keep() -> None:
        store.blocks[7] = ("pending", b"key")
        store.put_setting("pads/7", b"pads")

    shell.carry([Run("store", keep, lambda _: [Send(Bye())])])
    shell.fail(FAULT)
    while shell.jobs_running:
        await asyncio.wrap_future(lanes["store"].submit(bool))
    lanes.close()
    assert store.blocks == {}
    assert set(store.settings) == {"alarm/authentication"}
    assert shell._failed.exception() is FAULT


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A configuration whose key store holds one key that was never authenticated."""
    (tmp_path / "store.key").write_bytes(bytes(range(32)))
    (tmp_path / "store.key").chmod(0o600)
    path = tmp_path / "bob.toml"
    path.write_text('role = "bob"\nstatus_file = "status.json"\n[keys]\ndatabase = "k.sqlite"\nkey_file = "store.key"')
    with KeyStore.open(tmp_path / "k.sqlite", tmp_path / "store.key") as store:
        add_block(store, 7, 100, commit=False)
        alarms.lock(store, FAULT)
        assert store.blocks() == []
    return path


async def test_a_locked_node_does_not_start_and_says_why(node: Path) -> None:
    config = load_config(node)
    with pytest.raises(LinkLocked, match="tag did not verify") as refused:
        async with Node.open(config, Options()):
            pass
    assert exit_code(refused.value) == 4
    assert "qkd alarm clear" in refused.value.remedy
    (row,) = [row for row in judged(NODE, config) if row.name == "alarm"]
    assert isinstance(row.fault, LinkLocked)
    assert "tag did not verify" in row.text
    assert read_status(config)["alarms"] == [f"authentication: {FAULT}"]


def test_a_person_clears_the_alarm(node: Path) -> None:
    def answer(command: Any) -> Any:
        result = CliRunner().invoke(command, ["--config", str(node), "--json"], standalone_mode=False)
        assert result.exception is None
        return json.loads(result.stdout)

    (standing,) = answer(commands.list_command)["alarms"]
    assert standing["reason"] == str(FAULT)
    assert answer(commands.clear_command)["cleared"] == [standing]
    assert answer(commands.list_command)["alarms"] == answer(commands.clear_command)["cleared"] == []
    config = load_config(node)
    assert not [row for row in judged(NODE, config) if row.name == "alarm"]
    assert read_status(config)["alarms"] == []
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file)) as store:
        alarms.refuse_if_latched(store, "bob")


def test_the_alarm_of_a_status_file_is_the_store_s(node: Path) -> None:
    """The file was written when the node ended; the alarm has been cleared since, another has not."""
    written = {"state": "stopped", "alarms": [f"authentication: {FAULT}", "peer: silent"], "process_id": 1}
    (node.parent / "status.json").write_text(json.dumps(written))
    config = load_config(node)
    assert read_status(config)["alarms"] == ["peer: silent", f"authentication: {FAULT}"]
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file)) as store:
        alarms.clear(store)
    assert read_status(config)["alarms"] == ["peer: silent"]


def test_the_status_of_a_node_that_runs_does_not_touch_its_store(node: Path) -> None:
    """The store's disk may hang."""
    written = {"state": "running", "alarms": ["disk: hangs"], "process_id": os.getpid()}
    (node.parent / "status.json").write_text(json.dumps(written))
    assert read_status(load_config(node))["alarms"] == ["disk: hangs"], "and not that of the store"


@pytest.mark.parametrize("what", ["latch", "clear"])
def test_an_alarm_is_not_undone_by_an_older_copy_of_the_store(node: Path, what: str) -> None:
    config = load_config(node)
    database, key_file = config.path(config.keys.database), config.path(config.keys.key_file)
    if what == "latch":
        with KeyStore.open(database, key_file) as store:
            alarms.clear(store)
    copy = database.read_bytes()
    with KeyStore.open(database, key_file) as store:
        {"latch": partial(alarms.lock, store, FAULT), "clear": partial(alarms.clear, store)}[what]()
    database.write_bytes(copy)
    with pytest.raises(KeyStoreError, match="was set back"):
        KeyStore.open(database, key_file)
