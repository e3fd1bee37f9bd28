"""Two real daemons whose key store's disk fills up, or whose store something else removes, cuts or overwrites."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.cli.demo import Daemon, running
from common.cli.keys import command as keys
from common.cli.status import read_status
from common.config_file import load_config
from common.errors import KeyStoreError
from tests.disks import fill, small_file_system
from tests.integration.nodes import (
    blocks_in_store,
    first_failure,
    good_blocks,
    pair,
    replace_in,
    undelivered_bytes,
    wait_until,
)
from tests.integration.test_idle_link import Application

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB: a node wants 16 to start."""
    with small_file_system(tmp_path / "disk", "24m") as place:
        yield place


def alarm_of(daemon: Daemon, name: str) -> str:
    """Its text, or nothing."""
    return next((text for text in daemon.status().get("alarms", []) if text.startswith(f"{name}: ")), "")


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_a_full_disk_holds_the_link_until_there_is_room(tmp_path: Path, small_disk: Path, role: str) -> None:
    alice, bob = pair(tmp_path / "link")
    full = {"alice": alice, "bob": bob}[role]
    replace_in(alice, "seed = 1\n", "")
    replace_in(full, f'database = "{role}/keys.sqlite"', f'database = "{small_disk / "keys.sqlite"}"')
    with running(bob, alice):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        filler = small_disk / "filler"
        fill(filler)
        wait_until(lambda: "full" in alarm_of(full, "disk"), alice, bob)
        assert "no block produces key" in alarm_of(full, "disk")
        application = Application(bob if full is alice else alice)
        asking = threading.Thread(target=application.ask, args=(3,))
        asking.start()
        wait_until(lambda: application.answers[503] > 0, alice, bob)
        filler.unlink()
        wait_until(lambda: alarm_of(full, "disk") == "", alice, bob)
        asking.join()
        assert application.answers.keys() == {200, 503}
        made = len(alice.good), len(bob.good)
        wait_until(lambda: len(alice.good) >= made[0] + 2 and len(bob.good) >= made[1] + 2, alice, bob)
        for daemon in (bob, alice):
            daemon.stop()
            assert daemon.process is not None
            assert daemon.process.returncode == 0, daemon.log.read_text()[-1500:]
    assert set(blocks_in_store(alice)) == set(blocks_in_store(bob))
    rest = undelivered_bytes(alice)
    assert rest == undelivered_bytes(bob)
    assert len(set(rest.values())) == len(rest) >= 3


def unlink(store: Path) -> None:
    store.unlink()


def cut_short(store: Path) -> None:
    os.truncate(store, 4096)


def overwrite(store: Path) -> None:
    with store.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(8192))


@pytest.mark.parametrize(
    ("name", "touch", "word"),
    [("keys.sqlite", unlink, "removed"), ("keys.sqlite-wal", cut_short, "cut"), ("keys.sqlite", overwrite, "written")],
)
def test_a_store_that_something_else_touches_ends_the_node(
    tmp_path: Path, name: str, touch: Callable[[Path], None], word: str
) -> None:
    alice, bob = pair(tmp_path / "link")
    store = bob.directory / "bob" / name
    with running(bob, alice):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        touch(store)
        code, text = first_failure(bob, meanwhile=lambda: word == "written" and touch(store))
        assert code == 3, text
        assert f"was {word}" in text
        assert "Traceback" not in text
    config = load_config(bob.config)
    status = read_status(config)
    assert (status["state"], status["running"], status["exit_code"]) == ("stopped", False, 3)
    assert f"was {word}" in status["reason"]
    assert "qkd init" in status["remedy"]
    looked = CliRunner().invoke(keys, ["--config", str(bob.config)], standalone_mode=False)
    assert looked.exception is None or isinstance(looked.exception, KeyStoreError)
    if word == "removed":  # of the others, what was damaged may stand in the log, which has been taken in
        with running(bob):
            code, text = first_failure(bob)
        assert code == 3, text
        assert "Traceback" not in text
        assert "set back" in text
        assert "set back" in json.loads((bob.directory / "bob" / "status.json").read_text())["reason"]
