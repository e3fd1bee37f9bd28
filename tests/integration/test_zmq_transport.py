"""The transport on real ZeroMQ: nothing that arrived waits for something else to arrive."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from classical_channel.zmq_transport import ZmqTransport
from common.cli.demo import free_ports
from common.node.credentials import curve_keys


def transports() -> tuple[Callable[[], ZmqTransport], Callable[[], ZmqTransport]]:
    (port,) = free_ports(1)
    (public_a, secret_a), (public_b, secret_b) = curve_keys(), curve_keys()

    def make(bind: bool, secret: bytes, peer: bytes) -> ZmqTransport:
        return ZmqTransport(f"tcp://127.0.0.1:{port}", bind=bind, secret=secret, peer_public=peer, refused=print)

    return (lambda: make(True, secret_a, public_b)), (lambda: make(False, secret_b, public_a))


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
    make_alice, make_bob = transports()
    alice, stop = make_alice(), threading.Event()
    alice.start()
    thread = threading.Thread(target=echo_pings, args=(make_bob, stop))
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
