"""The transport on ZeroMQ: one DEALER at each end, CURVE outside. The only file that imports zmq for the channel.

CURVE keeps strangers and junk out and hides the traffic; it carries no part of the information-theoretic claim.
Packets may be lost when a connection breaks: the stream above repairs that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import zmq
import zmq.asyncio
import zmq.utils.z85
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils.monitor import parse_monitor_message

from common.errors import ConfigurationError, PeerUnreachable

log = logging.getLogger("qkd.channel")
_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_REMEDY = (
    "the CURVE keys do not fit: compare peer_curve_public_file with the other end's curve key (`qkd init` makes both)"
)


class _OnlyThePeer:
    """Credentials provider: exactly one client key is let in."""

    def __init__(self, peer_public: bytes, refused: Callable[[str], None]) -> None:
        self._peer_public = peer_public
        self._refused = refused

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether this client key (Z85) is the peer's."""
        if key == self._peer_public:
            return True
        self._refused(f"a client with an unknown CURVE key was turned away; if it is your peer, {_REMEDY}")
        return False


class ZmqTransport:
    """Packets to and from the peer.

    Parameters
    ----------
    endpoint : ZeroMQ endpoint, `tcp://host:port` or `ipc://path`.
    bind : Alice binds, Bob connects.
    secret, peer_public : Z85 CURVE keys (40 characters): own secret, the peer's public.
    refused : told, in words, when a CURVE handshake fails.

    Raises
    ------
    ConfigurationError
        Malformed key or endpoint.
    PeerUnreachable
        The endpoint is taken.
    """

    def __init__(
        self, endpoint: str, *, bind: bool, secret: bytes, peer_public: bytes, refused: Callable[[str], None]
    ) -> None:
        self._refused = refused
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        # The same socket without futures: an asynchronous send would keep a packet that cannot go now. ZeroMQ's file
        # descriptor tells of news once; whatever call comes next takes it, so a send must wake the receiver as well.
        self._plain: zmq.Socket[bytes] = zmq.Socket.shadow(self._socket.underlying)
        self._news = asyncio.Event()
        self._auth: AsyncioAuthenticator | None = None
        try:
            self._socket.curve_secretkey = secret
            self._socket.curve_publickey = zmq.curve_public(secret)
            if not bind:
                self._socket.curve_serverkey = peer_public
        except (zmq.ZMQError, ValueError):
            raise ConfigurationError("a CURVE key file does not hold 40 Z85 characters") from None
        self._socket.linger = 200
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 1_000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5_000)
        self._monitor = self._socket.get_monitor_socket(_FAILURES)
        self._endpoint, self._bind, self._peer_public = endpoint, bind, peer_public

    def start(self) -> None:
        """Bind or connect; needs the running event loop."""
        if self._bind:
            self._auth = AsyncioAuthenticator(self._context)
            self._auth.start()
            self._auth.configure_curve_callback("*", _OnlyThePeer(self._peer_public, self._refused))
            self._socket.curve_server = True
        asyncio.get_running_loop().add_reader(self._plain.FD, self._on_news)
        try:
            (self._socket.bind if self._bind else self._socket.connect)(self._endpoint)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise PeerUnreachable(
                    f"{self._endpoint} is in use", remedy="Stop the other program or choose another channel.endpoint."
                ) from None
            raise ConfigurationError(f"channel.endpoint {self._endpoint!r}: {error.strerror}") from None

    def send(self, packet: bytes) -> None:
        """Send without waiting; without a connection the packet is lost (the stream repeats it)."""
        try:
            self._plain.send(packet, zmq.NOBLOCK)  # copying 1 MB is cheaper than telling Python of its release
        except zmq.Again:
            log.debug("no connection: packet dropped")
        self._news.set()

    async def receive(self) -> bytes:
        """The next packet."""
        while True:
            try:
                return self._plain.recv(zmq.NOBLOCK)
            except zmq.Again:
                self._news.clear()
            await self._news.wait()

    def _on_news(self) -> None:
        self._news.set()

    async def watch(self) -> None:
        """Report failed CURVE handshakes, for ever."""
        while True:
            event = parse_monitor_message(await self._monitor.recv_multipart())
            value: Any = event["value"]
            self._refused(f"CURVE handshake failed (event {int(event['event'])}, {int(value)}): {_REMEDY}")

    def close(self) -> None:
        """Release the sockets; on the event loop that :meth:`start` ran on."""
        asyncio.get_running_loop().remove_reader(self._plain.FD)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        if self._auth is not None:
            self._auth.stop()
        self._socket.close()
        self._context.term()


def is_curve_key(raw: bytes) -> bool:
    """Whether this is a CURVE key: 40 Z85 characters."""
    try:
        return len(raw) == 40 and len(zmq.utils.z85.decode(raw)) == 32
    except (ValueError, KeyError):
        return False
