"""The transport on real ZeroMQ: nothing that arrived waits, and nothing on the wire ends the node or the link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from classical_channel import zmq_transport
from classical_channel.pipe import MAX_PACKET_BYTES
from classical_channel.zmq_transport import ZmqTransport, is_curve_key
from common.cli.demo import free_ports
from common.errors import ConfigurationError, PeerUnreachable
from common.node.credentials import curve_keys
from tests.integration.wire import Vandal, closed, idle_connections

pytestmark = pytest.mark.timeout(120)


class Ends:
    """Keys and ports of a link; Bob may be led through another port."""

    def __init__(self) -> None:
        self.port, self.other_port = free_ports(2)
        (self.alice_public, self.alice_secret), (self.bob_public, self.bob_secret) = curve_keys(), curve_keys()

    def alice(self) -> ZmqTransport:
        return ZmqTransport(
            f"tcp://127.0.0.1:{self.port}", bind=True, secret=self.alice_secret, peer_public=self.bob_public
        )

    def bob(self, port: int | None = None, secret: bytes | None = None) -> ZmqTransport:
        endpoint = f"tcp://127.0.0.1:{port or self.port}"
        return ZmqTransport(
            endpoint, bind=False, secret=secret or self.bob_secret, peer_public=self.alice_public
        )


@contextlib.asynccontextmanager
async def running(*transports: ZmqTransport) -> AsyncIterator[None]:
    """Start, watch, and close whatever happens."""
    for transport in transports:
        transport.start()
    watching = [asyncio.ensure_future(transport.watch()) for transport in transports]
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        for transport in transports:
            transport.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another process brings it about
        await asyncio.sleep(0.02)


async def carry(sender: ZmqTransport, receiver: ZmqTransport, packet: bytes) -> None:
    """Repeat a packet, as the stream does, until it has arrived."""
    while True:
        sender.send(packet)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                while await receiver.receive() != packet:
                    pass
                return


def process_of(transport: ZmqTransport) -> int:
    assert transport._process is not None
    return transport._process.pid


def echo_pings(make: Callable[[], ZmqTransport], stop: threading.Event) -> None:
    """The peer in a thread with a loop of its own: answers every ping, and nothing else."""

    async def serve() -> None:
        transport = make()
        transport.start()
        while not stop.is_set():
            packet = await transport.receive()
            if packet == b"ping":
                transport.send(b"pong")
        transport.close()

    asyncio.run(serve())


async def test_a_send_does_not_hide_what_arrived() -> None:
    ends = Ends()
    alice, stop = ends.alice(), threading.Event()
    alice.start()
    thread = threading.Thread(target=echo_pings, args=(ends.bob, stop))
    thread.start()
    try:
        async with asyncio.timeout(20):
            answer = asyncio.ensure_future(alice.receive())
            while not answer.done():  # until the connection is up
                alice.send(b"ping")
                await asyncio.sleep(0.02)
        for _ in range(5):
            arrived = asyncio.ensure_future(alice.receive())
            await asyncio.sleep(0.05)
            if arrived.done():  # a pong of the connecting phase
                continue
            alice.send(b"ping")
            time.sleep(0.05)  # noqa: ASYNC251 - the answer arrives while the loop is busy
            alice.send(b"quiet")
            async with asyncio.timeout(5):
                assert await arrived == b"pong"
    finally:
        stop.set()
        alice.send(b"end")
        await asyncio.to_thread(thread.join, 5)
        alice.close()
    assert not thread.is_alive()


async def test_altered_bytes_cost_their_connection_and_nothing_else() -> None:
    """Each way in turn, on a dozen connections: packets flow again over the next one, from the same processes."""
    ends = Ends()
    alice, bob, vandal = ends.alice(), ends.bob(ends.other_port), Vandal(ends.port, 12)
    async with vandal.serve(ends.other_port), running(alice, bob):
        while vandal.altered < 12:
            await carry(bob, alice, b"here")
            await carry(alice, bob, b"there")
        await carry(bob, alice, b"after all")
        await carry(alice, bob, b"after all, back")
        assert (alice.wire.socket_restarts, bob.wire.socket_restarts) == (0, 0)
        await until(lambda: bob.wire.handshakes > 12)


@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
async def test_the_process_of_the_sockets_is_replaced(victim: str, number: signal.Signals) -> None:
    """As after an assertion within libzmq: counted, and packets flow again."""
    ends = Ends()
    alice, bob = ends.alice(), ends.bob()
    hit = alice if victim == "alice" else bob
    async with running(alice, bob):
        await carry(bob, alice, b"before")
        first = process_of(hit)
        os.kill(first, number)
        await until(lambda: hit.wire.socket_restarts == 1 and hit.fault(silent=False) is None)
        await carry(bob, alice, b"after")
        await carry(alice, bob, b"after, back")
        assert process_of(hit) != first


async def test_what_had_arrived_is_taken_while_the_process_is_dead() -> None:
    """Packets in the node's queue outlive the process that brought them, and taking them revives nothing."""
    ends = Ends()
    alice, bob = ends.alice(), ends.bob()
    async with running(alice, bob):
        await carry(bob, alice, b"first")
        for _ in range(3):
            bob.send(b"more")
        await until(lambda: len(alice._inbox) >= 3)
        alice._lose()
        while alice._inbox:
            await alice.receive()
        await carry(bob, alice, b"after")
        assert alice.wire.socket_restarts == 1


async def test_a_process_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_transport, "TICK_S", 0.05)
    monkeypatch.setattr(zmq_transport, "QUIET_TICKS", 40)
    ends = Ends()
    alice, bob = ends.alice(), ends.bob()
    async with running(alice, bob):
        await carry(bob, alice, b"before")
        os.kill(process_of(bob), signal.SIGSTOP)
        await until(lambda: bob.wire.socket_restarts == 1)
        await carry(bob, alice, b"after")


async def test_one_that_dies_again_and_again_is_an_alarm() -> None:
    ends = Ends()
    alice = ends.alice()
    async with running(alice):
        for death in range(1, zmq_transport.OFTEN + 1):
            os.kill(process_of(alice), signal.SIGABRT)
            await until(lambda death=death: alice.wire.socket_restarts == death and not alice._dead.is_set())
        assert "signal 6" in str(alice.fault(silent=False))


async def test_signals_to_the_whole_group_leave_the_sockets_to_say_goodbye() -> None:
    ends = Ends()
    alice, bob = ends.alice(), ends.bob()
    async with running(alice, bob):
        await carry(bob, alice, b"before")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(process_of(bob), number)
        await carry(bob, alice, b"after")
        assert bob.wire.socket_restarts == 0
        assert os.getsid(process_of(bob)) != os.getsid(0)


def test_the_process_ends_with_the_node_however_it_ends(tmp_path: Path) -> None:
    """Also by kill -9; and it shows no key in its arguments or environment."""
    secret = tmp_path / "secret"
    program = (
        "import asyncio, sys, pathlib\n"
        "from classical_channel.zmq_transport import ZmqTransport\n"
        "async def main():\n"
        "    secret, public = pathlib.Path(sys.argv[1]).read_bytes().split()\n"
        "    one = ZmqTransport('ipc://' + sys.argv[1] + '.s', bind=True, secret=secret, peer_public=public)\n"
        "    one.start()\n"
        "    print(one._process.pid, flush=True)\n"
        "    await one.watch()\n"
        "asyncio.run(main())\n"
    )
    public, private = curve_keys()
    secret.write_bytes(private + b" " + public)
    with subprocess.Popen([sys.executable, "-c", program, str(secret)], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        child = int(node.stdout.readline())
        shown = [Path(f"/proc/{child}/{name}").read_bytes() for name in ("cmdline", "environ")]
        node.kill()
    assert not any(key in text for key in (private, public) for text in shown)
    end = time.monotonic() + 10
    while time.monotonic() < end and Path(f"/proc/{child}/cmdline").exists():
        pass
    assert not Path(f"/proc/{child}/cmdline").exists()


async def test_packets_of_full_size_arrive_whole_and_the_receiver_holds_the_sender_back() -> None:
    """More than the queues may hold: the sender drops, the receiver's memory stays bounded, the stream would repeat."""
    ends = Ends()
    alice, bob = ends.alice(), ends.bob()
    packet = os.urandom(MAX_PACKET_BYTES)
    async with running(alice, bob):
        await carry(bob, alice, b"before")
        for _ in range(20):
            bob.send(packet)
            assert bob._pipe is not None
            assert bob._pipe.waiting_bytes <= zmq_transport.OUT_BYTES + len(packet) + 16
            assert alice._inbox_bytes <= zmq_transport.IN_BYTES + len(packet)
            await asyncio.sleep(0.01)
        assert await alice.receive() == packet
        await carry(bob, alice, b"after")


async def test_strangers_are_counted_and_cannot_crowd_out_the_peer() -> None:
    """Hundreds of connections that say nothing: the oldest are closed, Bob gets in, nobody is alarmed."""
    ends = Ends()
    alice, bob = ends.alice(), ends.bob()
    async with running(alice):
        with idle_connections(ends.port, 400) as strangers:
            async with running(bob):
                await carry(bob, alice, b"here")
                await until(lambda: alice.wire.handshakes_failed >= 200)
                await until(lambda: sum(map(closed, strangers)) >= 200)
                await carry(bob, alice, b"still")
                assert alice.fault(silent=True) is None
                assert alice.wire.unknown_keys == 0


async def test_junk_is_counted_and_asks_for_no_memory() -> None:
    """A greeting and a frame of 2^62 bytes; a port scanner's request; half a greeting."""
    ends = Ends()
    alice, bob = ends.alice(), ends.bob()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + bytes(32)
    junk = [greeting + b"\x02" + (1 << 62).to_bytes(8, "big") + bytes(100), b"GET / HTTP/1.1\r\n\r\n", greeting[:20]]
    async with running(alice, bob):
        await carry(bob, alice, b"here")
        for piece in junk:
            with socket.create_connection(("127.0.0.1", ends.port), timeout=10) as stranger:
                stranger.sendall(piece)
        await until(lambda: alice.wire.handshakes_failed >= len(junk))
        await carry(bob, alice, b"still")
        assert alice.wire.socket_restarts == 0


async def test_a_wrong_key_is_told_only_while_the_peer_is_not_heard() -> None:
    """Both ends say why; what a stranger with Alice's public key does beside a good connection is a number."""
    ends = Ends()
    alice, bob, stranger = ends.alice(), ends.bob(), ends.bob(secret=curve_keys()[1])
    async with running(alice, stranger):
        await until(lambda: alice.wire.unknown_keys > 0 and stranger.wire.handshakes_failed > 0)
        assert "another CURVE key" in str(alice.fault(silent=True))
        assert "CURVE keys do not fit" in str(stranger.fault(silent=True))
        assert alice.fault(silent=False) is None
        async with running(bob):
            await carry(bob, alice, b"here")
            await until(lambda: alice._heard.unknown_keys > 0)
    async with running(bob := ends.bob()):
        await until(lambda: bob.fault(silent=True) is None)


def test_keys_and_endpoints_are_judged_at_the_start() -> None:
    ends = Ends()
    with pytest.raises(ConfigurationError, match="40 Z85"):
        ends.bob(secret=b"short")

    async def start(transport: ZmqTransport) -> None:
        transport.start()
        transport.close()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ends.port))
        taken.listen()
        with pytest.raises(PeerUnreachable, match=r"channel.endpoint .*already in use"):
            asyncio.run(start(ends.alice()))
    keys = {"secret": ends.alice_secret, "peer_public": ends.bob_public}
    with pytest.raises(ConfigurationError, match=r"channel\.endpoint 'tcp://nowhere'"):
        asyncio.run(start(ZmqTransport("tcp://nowhere", bind=True, **keys)))


def test_what_a_curve_key_is() -> None:
    assert all(map(is_curve_key, curve_keys()))
    for bad in (b"", b"0" * 39, b"0" * 41, b"~" * 40, b"#" * 40, b"0" * 39 + b"\n"):
        assert not is_curve_key(bad)
