"""Strangers at the ports of two running daemons: keys go on, applications are served, nobody is alarmed."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from classical_channel.zmq_transport import ZmqTransport
from common.cli.demo import Daemon, running
from common.cli.demo_keys import fetch_and_compare
from common.config_file import load_config
from common.node.credentials import curve_keys
from tests.integration.nodes import good_blocks, pair, replace_in, stopped, wait_until
from tests.integration.wire import closed, idle_connections

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
IDLE = 1_100
"""More than a process may open in the shell of most systems; each daemon is held to that here."""
LIMITED = ("sh", "-c", 'ulimit -n 1024; exec "$@"', "sh")


@pytest.fixture
def many_files() -> Iterator[None]:
    """This test itself holds that many connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 2 * IDLE:
        pytest.skip("this system lets nobody open so many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * IDLE), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def ports(daemon: Daemon) -> dict[str, int]:
    config = load_config(daemon.config)
    return {"channel": int(config.channel.endpoint.split(":")[-1]), "keys": int(config.etsi014.listen.split(":")[-1])}


@pytest.mark.parametrize("port", ["keys", "channel"])
def test_a_thousand_idle_connections(port: str, tmp_path: Path, many_files: None) -> None:
    alice, bob = pair(tmp_path)
    alice.launcher = bob.launcher = LIMITED
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        with idle_connections(ports(alice)[port], IDLE) as strangers:
            made, written = good_blocks(alice, bob), alice.status()["load"]["clock_s"]
            assert fetch_and_compare(tmp_path) == (8, True)
            wait_until(lambda: good_blocks(alice, bob) >= made + 1, alice, bob)
            wait_until(lambda: alice.status()["load"]["clock_s"] > written, alice, bob)
            wait_until(lambda: sum(map(closed, strangers)) > IDLE // 2, alice, bob)
            assert alice.status()["alarms"] == []
        assert fetch_and_compare(tmp_path) == (8, True)
        counted = ("applications", "turned_away") if port == "keys" else ("channel", "handshakes_failed")
        wait_until(lambda: alice.status()[counted[0]][counted[1]] > IDLE // 2, alice, bob)
        for daemon in (bob, alice):
            daemon.stop()
            assert daemon.process is not None
            assert daemon.process.returncode == 0
            assert "Traceback" not in daemon.log.read_text()


def test_alarms_of_the_channel_end_with_their_cause(tmp_path: Path) -> None:
    """A frozen peer is an alarm that clears; a stranger who knows Alice's public key is a number beside a good link."""
    alice, bob = pair(tmp_path)
    for daemon in (alice, bob):
        replace_in(daemon, "[channel]\n", "[channel]\npeer_timeout_s = 1.0\n")
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        assert alice.process is not None
        with stopped(alice.process.pid):
            wait_until(lambda: bob.status()["alarms"] != [], bob)
        wait_until(lambda: bob.status()["alarms"] == alice.status()["alarms"] == [], alice, bob)
        before = good_blocks(alice, bob)
        with knocking(alice, bob):
            wait_until(lambda: alice.status()["channel"]["unknown_keys"] >= 2, alice, bob)
            wait_until(lambda: good_blocks(alice, bob) > before, alice, bob)
            assert alice.status()["alarms"] == []
        bob.stop()
        alice.stop()


@contextlib.contextmanager
def knocking(alice: Daemon, bob: Daemon) -> Iterator[None]:
    """A stranger with Alice's public key and a key of his own connects again and again."""
    config = load_config(bob.config)
    public = config.path(config.channel.peer_curve_public_file).read_bytes().strip()
    stop = threading.Event()

    async def knock() -> None:
        while not stop.is_set():
            one = ZmqTransport(config.channel.endpoint, bind=False, secret=curve_keys()[1], peer_public=public)
            one.start()
            await asyncio.to_thread(stop.wait, 0.5)
            one.close()

    thread = threading.Thread(target=asyncio.run, args=(knock(),))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_what_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """The status file's folder is missing for a while and standard output is a full disk: alarms, and keys go on."""
    alice, bob = pair(tmp_path)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    alice.config.write_text(f'status_file = "{folder / "status.json"}"\n' + _without_status(alice.config))
    alice.launcher = ("sh", "-c", 'exec "$@" > /dev/full', "sh")
    with running(alice, bob):
        wait_until(lambda: len(bob.good) >= 1, alice, bob)
        wait_until(lambda: (folder / "status.json").exists(), alice, bob)
        wait_until(lambda: "No space left" in (folder / "status.json").read_text(), alice, bob)
        made = len(bob.good)
        shutil.rmtree(folder, ignore_errors=True)
        wait_until(lambda: "status file:" in " ".join(alice.log.read_text().split()), alice, bob)
        wait_until(lambda: len(bob.good) > made, alice, bob)
        folder.mkdir()
        wait_until(lambda: (folder / "status.json").exists(), alice, bob)
        bob.stop()
        alice.stop()
        assert alice.process is not None
        assert alice.process.returncode == 0
    told = " ".join(alice.log.read_text().split())
    assert "status file:" in told
    assert "output: blocks cannot be printed" in told
    assert "Traceback" not in told


def _without_status(path: Path) -> str:
    return "".join(line for line in path.read_text().splitlines(True) if not line.startswith("status_file"))
