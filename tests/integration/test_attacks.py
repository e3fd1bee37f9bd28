"""Two real daemons: an altered bit on the way, kills within the two-phase commit, secrets where they do not belong."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from classical_channel.framing import FRAME, Frame, Kind, Packet
from classical_channel.zmq_transport import ZmqTransport
from common.cli import demo_keys
from common.cli.alarm import clear_command, list_command
from common.cli.demo import Daemon, free_ports, running
from common.config_file import load_config
from common.protocol.messages import Commit, Message, Seed, decode
from tests.integration.nodes import (
    blocks_in_store,
    first_failure,
    good_blocks,
    kill,
    pair,
    replace_in,
    undelivered_bytes,
    wait_until,
)
from tests.integration.wire import Vandal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LARGE_BYTES = 2000
"""Only announcements and their answers are so large: the handshake goes through unharmed."""


Act = Callable[[bool, bytes], list[bytes]]
"""(towards Bob?, packet) -> the packets that go on in its place; in the proxy's thread."""


@contextmanager
def man_in_the_middle(alice: Daemon, bob: Daemon, act: Act) -> Iterator[None]:
    """Holds the CURVE keys of both ends and does with each packet what it likes."""
    ours, theirs = load_config(alice.config), load_config(bob.config)
    (port,) = free_ports(1)
    replace_in(bob, ours.channel.endpoint, f"tcp://127.0.0.1:{port}")
    stop = threading.Event()

    def as_peer_of(config: Any, endpoint: str, *, bind: bool, disguise: Any) -> ZmqTransport:
        secret = disguise.path(disguise.channel.curve_secret_file).read_bytes().strip()
        public = disguise.path(disguise.channel.peer_curve_public_file).read_bytes().strip()
        return ZmqTransport(endpoint, bind=bind, secret=secret, peer_public=public)

    async def forward(source: ZmqTransport, target: ZmqTransport, *, towards_bob: bool) -> None:
        while True:
            for raw in act(towards_bob, await source.receive()):
                target.send(raw)

    async def serve() -> None:
        to_alice = as_peer_of(ours, ours.channel.endpoint, bind=False, disguise=theirs)
        to_bob = as_peer_of(theirs, f"tcp://127.0.0.1:{port}", bind=True, disguise=ours)
        async with asyncio.TaskGroup() as tasks:
            to_alice.start()
            to_bob.start()
            jobs = [
                tasks.create_task(forward(to_bob, to_alice, towards_bob=False)),
                tasks.create_task(forward(to_alice, to_bob, towards_bob=True)),
                tasks.create_task(to_alice.watch()),
                tasks.create_task(to_bob.watch()),
            ]
            await asyncio.to_thread(stop.wait)
            for job in jobs:
                job.cancel()
        to_alice.close()
        to_bob.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def is_message(raw: bytes, kind: type[Message]) -> bool:
    """Whether a packet carries a message of this kind."""
    packet = Packet.decode(raw)
    return packet.kind is Kind.DATA and isinstance(decode(Frame.decode(packet.body).message), kind)


@pytest.mark.parametrize("towards_bob", [False, True])
def test_one_altered_bit_ends_the_link(tmp_path: Path, towards_bob: bool) -> None:
    """Bob verifies first: his tag fails, or what Alice has received is not what he sent. Neither end has a key."""
    alice, bob = pair(tmp_path)
    altered: list[bytes] = []

    def act(to_bob: bool, raw: bytes) -> list[bytes]:
        if to_bob is towards_bob and not altered and Packet.decode(raw).kind is Kind.DATA and len(raw) > LARGE_BYTES:
            altered.append(raw)
            return [raw[:-1] + bytes([raw[-1] ^ 1])]
        return [raw]

    with man_in_the_middle(alice, bob, act), running(alice, bob):
        code, text = first_failure(bob)
        assert len(altered) == 1
        assert code == 4, text
        assert ("authentication tag did not verify" if towards_bob else "do not have the same messages") in text
        assert "the channel is under attack" in text
        assert alice.process is not None
        alice.stop()
        assert alice.process.returncode == 0, alice.log.read_text()[-1500:]
    assert blocks_in_store(alice) == blocks_in_store(bob) == {}


def sockets_of(daemon: Daemon) -> int:
    """The process that holds the daemon's ZeroMQ sockets."""
    assert daemon.process is not None
    ours = psutil.Process(daemon.process.pid).children()
    children = [child for child in ours if "zmq_process" in str(child.cmdline())]
    assert len(children) == 1
    return int(children[0].pid)


def test_aborts_of_the_sockets_and_altered_bytes_end_nothing(tmp_path: Path) -> None:
    """Somebody on the wire without keys: the session goes on, no block is lost to it, no process of ours ends."""
    alice, bob = pair(tmp_path)
    (port,) = free_ports(1)
    replace_in(bob, load_config(alice.config).channel.endpoint, f"tcp://127.0.0.1:{port}")
    vandal = Vandal(int(load_config(alice.config).channel.endpoint.rpartition(":")[2]), 8, at_frame=30)
    stop = threading.Event()

    async def serve() -> None:
        async with vandal.serve(port):
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        with running(alice, bob):
            wait_until(lambda: good_blocks(alice, bob) >= 1 and vandal.altered == 8, alice, bob)
            for victim in (alice, bob):
                made = good_blocks(alice, bob)
                os.kill(sockets_of(victim), signal.SIGABRT)
                wait_until(lambda made=made: good_blocks(alice, bob) >= made + 1, alice, bob)
                wait_until(lambda victim=victim: victim.status()["channel"]["socket_restarts"] == 1, alice, bob)
                wait_until(lambda victim=victim: victim.status()["alarms"] == [], alice, bob)
            bob.stop()
            alice.stop()
    finally:
        stop.set()
        thread.join()
    for daemon in (alice, bob):
        log = daemon.log.read_text()
        assert daemon.process is not None
        assert daemon.process.returncode == 0, log[-1500:]
        assert log.count("session with peer instance") == 1, "the session did not survive"
        assert "Traceback" not in log
    assert set(blocks_in_store(alice)) == set(blocks_in_store(bob))


def alarm(daemon: Daemon, command: Any) -> list[str]:
    """`qkd alarm list` or `clear`: the reasons that it names."""
    result = CliRunner().invoke(command, ["--config", str(daemon.config), "--json"], standalone_mode=False)
    assert result.exception is None
    document = json.loads(result.stdout)
    return [found["reason"] for found in document.get("alarms", document.get("cleared"))]


def test_a_seed_of_eve_s_is_in_no_key_whoever_restarts(tmp_path: Path) -> None:
    """Bob ends with an exit code of its own and stays down until a person clears the alarm; then new keys are equal."""
    alice, bob = pair(tmp_path, 100_000)
    seeds: list[int] = []
    acting = threading.Event()
    acting.set()

    def act(to_bob: bool, raw: bytes) -> list[bytes]:
        if not (to_bob and acting.is_set() and is_message(raw, Seed)):
            return [raw]
        packet = Packet.decode(raw)
        seed = decode(Frame.decode(packet.body).message)
        assert isinstance(seed, Seed)
        seeds.append(seed.block_id)
        zeros = replace(seed, payload=bytes(len(seed.payload)))
        return [replace(packet, body=packet.body[: FRAME.size] + zeros.encode()).encode()]

    with man_in_the_middle(alice, bob, act), running(alice, bob):
        code, text = first_failure(bob)
        assert code == 4, text
        acting.clear()
        for _ in range(2):
            bob.start()
            code, text = first_failure(bob)
            assert code == 4, text
            assert "the link is locked" in text
            assert "qkd alarm clear" in text
        reasons = alarm(bob, list_command)
        assert reasons == ["an authentication tag did not verify"]
        assert bob.status()["alarms"] == [f"authentication: {reasons[0]}"]
        alice.stop()
        alice.start()
        assert alarm(bob, clear_command) == reasons
        assert alarm(bob, list_command) == []
        bob.start()
        before = good_blocks(alice, bob)
        wait_until(lambda: good_blocks(alice, bob) >= before + 1, alice, bob)
        bob.stop()
        alice.stop()
    assert seeds
    ours, theirs = undelivered_bytes(alice), undelivered_bytes(bob)
    assert not set(seeds) & (set(ours) | set(theirs))
    shared = set(ours) & set(theirs)
    assert shared
    assert {number: ours[number] for number in shared} == {number: theirs[number] for number in shared}


def test_a_commit_that_eve_loses_is_repeated_after_a_restart(tmp_path: Path) -> None:
    alice, bob = pair(tmp_path, 100_000)
    losing = threading.Event()
    losing.set()

    def act(to_bob: bool, raw: bytes) -> list[bytes]:
        return [] if to_bob and losing.is_set() and is_message(raw, Commit) else [raw]

    with man_in_the_middle(alice, bob, act), running(alice, bob):
        kill_while(alice, "decided", alice, bob)
        promised = set(undecided_numbers(alice))
        assert blocks_in_store(bob) == {}
        losing.clear()
        alice.start()
        wait_until(lambda: promised <= set(blocks_in_store(alice)) & set(blocks_in_store(bob)), alice, bob)
        bob.stop()
        alice.stop()
    ours, theirs = undelivered_bytes(alice), undelivered_bytes(bob)
    assert promised
    assert {number: ours[number] for number in promised} == {number: theirs[number] for number in promised}


def undecided_numbers(daemon: Daemon) -> list[int]:
    """Blocks that a stopped end's store has not settled."""
    return [number for number, state in _unsettled(daemon) if state == "decided"]


def undecided(daemon: Daemon) -> list[str]:
    """States of the blocks that this end's store has not settled, as the disk shows them."""
    return [state for _, state in _unsettled(daemon)]


def _unsettled(daemon: Daemon) -> list[tuple[int, str]]:
    config = load_config(daemon.config)
    path = config.path(config.keys.database)
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.5)) as store:
            return store.execute("SELECT block_id, state FROM blocks WHERE state != 'committed'").fetchall()
    except sqlite3.OperationalError:  # it is being made, or is busy
        return []


def kill_while(victim: Daemon, state: str, *daemons: Daemon) -> None:
    """kill -9 as soon as the victim's store holds a block in this state."""
    spins = 0
    while state not in undecided(victim):
        spins += 1
        if spins % 200 == 0:
            for daemon in daemons:
                daemon.poll()
    kill(victim)


def test_killed_within_the_two_phase_commit(tmp_path: Path) -> None:
    """Between promise and commit, at either end, again and again: both ends hold the same bytes of the same blocks."""
    alice, bob = pair(tmp_path, 100_000)
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        for victim, state in ((bob, "pending"), (alice, "pending"), (alice, "decided"), (bob, "pending")):
            made = set(blocks_in_store(alice)) & set(blocks_in_store(bob))
            kill_while(victim, state, alice, bob)
            victim.start()
            wait_until(lambda made=made: len(blocks_in_store(alice)) > len(made), alice, bob)
            assert made <= set(blocks_in_store(alice)) & set(blocks_in_store(bob))
        alice.stop()
        bob.stop()
    assert set(undecided(bob)) <= {"pending"}
    ours, theirs = undelivered_bytes(alice), undelivered_bytes(bob)
    shared = set(ours) & set(theirs)
    assert len(shared) >= 4
    assert {number: ours[number] for number in shared} == {number: theirs[number] for number in shared}
    assert len(set(ours.values())) == len(ours), "one key under two names"


def forms(secret: bytes) -> list[bytes]:
    """A secret as it might be written: raw, in hexadecimal, in base64; its first 24 bytes give it away."""
    start = secret[:24]
    return [
        start,
        start.hex().encode(),
        start.hex().upper().encode(),
        base64.b64encode(start),
        repr(start)[2:-1].encode(),
    ]


def test_secrets_stand_in_no_log_status_or_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Link secret, store key, CURVE secret, private keys, delivered keys: in their own files and nowhere else."""
    alice, bob = pair(tmp_path)
    delivered: list[bytes] = []
    call = demo_keys._call

    def listen(*args: Any) -> dict[str, Any]:
        answer = call(*args)
        delivered.extend(base64.b64decode(key["key"]) for key in answer["keys"])
        return answer

    monkeypatch.setattr(demo_keys, "_call", listen)
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        assert demo_keys.fetch_and_compare(tmp_path) == (8, True)
        assert alice.process is not None
        assert bob.process is not None
        lines = [
            Path(f"/proc/{d.process.pid}/{file}").read_bytes()
            for d in (alice, bob)
            if d.process
            for file in ("cmdline", "environ")
        ]
    assert len(delivered) == 16
    guarded = [path for path in tmp_path.rglob("secrets/*") if path.suffix in (".key", ".secret")]
    contents = [path.read_bytes() for path in guarded]
    assert {path.name for path in guarded} >= {"link.key", "curve.key"}
    needles = [form for secret in [*delivered, *contents] if not secret.startswith(b"-----") for form in forms(secret)]
    needles += [secret.splitlines()[2] for secret in contents if secret.startswith(b"-----")]
    others = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path not in guarded}
    assert any(path.name == "log" for path in others)
    assert any(path.name == "status.json" for path in others)
    assert any(path.suffix == ".sqlite" or "sqlite" in path.name for path in others)
    for needle in needles:
        assert not any(needle in line for line in lines)
        found = [path.name for path, content in others.items() if needle in content]
        assert not found, f"a secret stands in {found}"
    assert json.loads((tmp_path / "alice" / "status.json").read_text())["blocks_committed"] >= 1
