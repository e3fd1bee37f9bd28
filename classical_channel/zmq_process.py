"""ZeroMQ's sockets, in a process of their own: started by `zmq_transport.py`. The only file that imports zmq here.

libzmq ends its whole process when an assertion fails, and altered bytes on the wire can make one fail (4.3.5:
`!_io_error` in stream_engine_base.cpp). So nothing that must not be lost lives here: no pads, no keys but CURVE's, no
state of the stream. When this process dies, another takes its place and the stream repeats what was under way.

It ends when the pipe closes, that is with the node, however the node ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
import time
from collections import deque
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from classical_channel.framing import MAGIC, SENDER
from classical_channel.pipe import MAX_PACKET_BYTES, Kind, Pipe
from common.node.process import keep_secrets_in_memory, make_room_for_files

HANDSHAKE_MS = 5_000
"""A connection that has not shown its CURVE key by then is closed. Three round trips of a satellite link take 2 s."""
LINGER_MS = 200
RENEW_S, UNCONNECTED_S, UNHEARD_S = 0.2, 3.0, 15.0
"""Bob's end connects anew so long after a connection has ended, if none comes about, and if one brings nothing. libzmq
does not always: a connection that altered bytes have ended is never made again (session_base.cpp, `protocol_error`)."""
HIGH_WATER_PACKETS = 64
"""In libzmq's queues, each way. What waits there cannot be taken back when the connection breaks, so it is little."""
PATIENCE_S = 0.2
"""So long a packet waits for room; then it is dropped, and the stream repeats it."""
TO_NODE_BYTES = 4 << 20
"""Received and not yet taken by the node: above, nothing more is received, and TCP holds the sender back."""
TCP_TIMEOUT_MS = 10_000
"""A connection whose other end acknowledges nothing for so long is closed."""
UNPROVEN_CONNECTIONS = 128
"""Connections that have brought no packet: of more, the oldest are closed."""
OPEN_FILES = 1 << 12
PRESENT_S = 3.0
"""A process of the peer that was heard so long ago is there: three heartbeats of the stream."""
AT_ONCE_S = 1.0
"""A process that is heard so long after another one asked was not on its way out."""
BUSY_S = 2.0
"""After a second process of the peer was turned away, none is let in so long while the first is heard."""
NEWS_S = 0.2
POLL_MS, HELD_POLL_MS = 200, 50
BATCH = 64
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"qkd"
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
"""Not EVENT_HANDSHAKE_FAILED_PROTOCOL: telling of it changes errno between libzmq's finding that a message was altered
(`curve_mechanism_base_t::decode`) and its looking at the reason. It then keeps the broken connection, and the next
timer that writes to it ends the process: `Assertion failed: !_io_error`."""


class Seat:
    """There is one peer: of two processes that hold its CURVE key, the one that came first, as long as it is heard.

    The second one runs from a copy of the peer's folder, or is the peer started anew, which gets the place as soon as
    its earlier process has been silent for a while. Neither is answered before: it would use one-time pads that the
    first one uses as well. A sender's number in a packet is what nobody has authenticated, but only who holds the key
    is heard at all.

    Attributes
    ----------
    rivals : times that a second process asked while the first one was there: it was heard well after that.
    """

    def __init__(self) -> None:
        self._holder = b""
        self._heard_s = self._asked_s = -math.inf
        self._unexplained_s: float | None = None  # when a second one asked that may be the first one started anew
        self.rivals = 0

    def admits(self, packet: bytes, now_s: float) -> bool:
        """Whether this packet comes from the process that has the place, or gets it now."""
        if not packet.startswith(MAGIC):
            return True
        sender = packet[SENDER]
        if sender == self._holder or now_s - self._heard_s > PRESENT_S:
            if sender != self._holder:
                self._unexplained_s = None
            elif self._unexplained_s is not None and now_s - self._unexplained_s > AT_ONCE_S:
                self._unexplained_s = None
                self.rivals += 1
            self._holder, self._heard_s = sender, now_s
            return True
        self._asked_s = now_s
        self._unexplained_s = self._unexplained_s or now_s
        return False

    def crowded(self, now_s: float) -> bool:
        """Whether one more connection could only be that of a second process."""
        return now_s - self._asked_s < BUSY_S and now_s - self._heard_s < AT_ONCE_S


class Gate:
    """Counts the connections, and keeps the number of those that have proven nothing small.

    libzmq does not bound it. A connection is closed behind its back by shutting its TCP socket down, as a peer would.
    """

    def __init__(self) -> None:
        self._unproven: dict[int, None] = {}
        self.failed = 0

    def opened(self, descriptor: int) -> None:
        """A new connection: when there are too many, the oldest unproven one goes."""
        self._unproven.pop(descriptor, None)
        self._unproven[descriptor] = None
        if len(self._unproven) > UNPROVEN_CONNECTIONS:
            oldest = next(iter(self._unproven))
            self.shut(oldest)
            self.gone(oldest)

    def shut(self, descriptor: int) -> None:
        """End the connection of a descriptor."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def proven(self, descriptor: int) -> None:
        """A packet came from it: CURVE has seen the peer's key there."""
        self._unproven.pop(descriptor, None)

    def gone(self, descriptor: int) -> None:
        """It has ended; without a packet it has failed."""
        if descriptor in self._unproven:
            del self._unproven[descriptor]
            self.failed += 1


class Sockets:
    """The DEALER with its monitor and, where it binds, the authenticator.

    Raises
    ------
    zmq.ZMQError
        The endpoint cannot be had.
    """

    def __init__(self, endpoint: str, *, bind: bool, secret: bytes, peer_public: bytes) -> None:
        self.context = zmq.Context()
        self.dealer = self.context.socket(zmq.DEALER)
        self.monitor = self.dealer.get_monitor_socket(_EVENTS)
        self._peer_public = z85.decode(peer_public)
        self._set_options()
        self.dealer.curve_secretkey = secret
        self.dealer.curve_publickey = zmq.curve_public(secret)
        self.zap: zmq.Socket[bytes] | None = None
        self.gate, self.seat = Gate(), Seat()
        self.handshakes = self.unknown_keys = 0
        self.last_unknown = ""
        self._endpoint, self._bind = endpoint, bind
        self._renew_due_s = time.monotonic() + UNCONNECTED_S
        if bind:
            self.zap = self.context.socket(zmq.REP)
            self.zap.bind(ZAP_ENDPOINT)
            self.dealer.zap_domain = ZAP_DOMAIN
            self.dealer.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an authenticator nobody is let in
            self.dealer.curve_server = True
            self.dealer.bind(endpoint)
        else:
            self.dealer.curve_serverkey = peer_public
            self.dealer.connect(endpoint)

    def _set_options(self) -> None:
        """ZeroMQ's own heartbeats stay off.

        Their timer writes to a connection whose input has failed: this is the assertion that altered bytes make
        fail. The stream has heartbeats of its own; TCP finds dead connections.
        """
        options = {
            zmq.LINGER: LINGER_MS,
            zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
            zmq.RECONNECT_IVL: 100,
            zmq.RECONNECT_IVL_MAX: 2_000,
            zmq.SNDHWM: HIGH_WATER_PACKETS,
            zmq.RCVHWM: HIGH_WATER_PACKETS,
            zmq.IMMEDIATE: 1,  # nothing waits for a connection: the stream repeats it when there is one
            zmq.MAXMSGSIZE: MAX_PACKET_BYTES + (1 << 12),  # a stranger's header cannot ask for memory
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: 5,
            zmq.TCP_KEEPALIVE_INTVL: 2,
            zmq.TCP_KEEPALIVE_CNT: 3,
            zmq.TCP_MAXRT: TCP_TIMEOUT_MS,
        }
        for option, value in options.items():
            self.dealer.setsockopt(option, value)

    def receive(self) -> bytes | None:
        """The next packet of the peer, if one is here; a message of several parts is none, and is dropped whole."""
        while True:
            try:
                frame = self.dealer.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            whole = not frame.more
            while frame.more:
                frame = self.dealer.recv(copy=False)
            if not whole:
                continue
            now_s, descriptor, packet = time.monotonic(), int(frame.get(zmq.SRCFD)), bytes(frame.buffer)
            if self._bind and not self.seat.admits(packet, now_s):
                self.gate.shut(descriptor)
                continue
            self._renew_due_s = now_s + UNHEARD_S
            self.gate.proven(descriptor)
            return packet

    def send(self, packet: bytes) -> bool:
        """Hand one packet to libzmq; False if there is no connection, or no room."""
        try:
            self.dealer.send(packet, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def authenticate(self) -> None:
        """Answer one request of ZAP 1.0 (ZeroMQ RFC 27): is this client key the peer's?"""
        assert self.zap is not None
        parts = self.zap.recv_multipart(zmq.NOBLOCK)
        request, known = (parts[1] if len(parts) > 1 else b""), False
        if len(parts) == 7 and parts[5] == b"CURVE":
            known = parts[6] == self._peer_public
            if not known:
                self.unknown_keys += 1
                self.last_unknown = parts[3].decode("ascii", "replace")
        verdict = [b"200", b"OK"] if known else [b"400", b"unknown key"]
        if known and self.seat.crowded(time.monotonic()):
            verdict = [b"300", b"another process of the peer is heard"]  # the client is to ask again
        self.zap.send_multipart([b"1.0", request, *verdict, b"peer" if known else b"", b""])

    def watch(self) -> None:
        """Take the events of the connections."""
        while True:
            try:
                event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            match event["event"]:
                case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self.handshakes += 1
                case zmq.EVENT_DISCONNECTED:
                    self.gate.gone(int(event["value"]))
                    self._renew_due_s = time.monotonic() + RENEW_S
                case _:
                    self.gate.opened(int(event["value"]))
                    self._renew_due_s = time.monotonic() + UNHEARD_S

    def renew(self) -> None:
        """Connect anew when that is due; the listening end has nothing to do."""
        if not self._bind and time.monotonic() >= self._renew_due_s:
            self._renew_due_s = time.monotonic() + UNCONNECTED_S
            with contextlib.suppress(zmq.ZMQError):  # libzmq may have forgotten it by itself
                self.dealer.disconnect(self._endpoint)
            self.dealer.connect(self._endpoint)

    def news(self) -> dict[str, Any]:
        """What the node may know of the connections so far."""
        return {
            "handshakes": self.handshakes,
            "handshakes_failed": self.gate.failed,
            "unknown_keys": self.unknown_keys,
            "last_unknown": self.last_unknown,
            "rivals": self.seat.rivals,
        }

    def close(self) -> None:
        """Give what was sent last a moment to leave."""
        self.dealer.disable_monitor()
        self.monitor.close(linger=0)
        self.dealer.close()
        if self.zap is not None:
            self.zap.close(linger=0)
        self.context.term()


class Relay:
    """Moves packets between the pipe and the sockets until the pipe closes."""

    def __init__(self, pipe: Pipe, sockets: Sockets) -> None:
        self._pipe, self._sockets = pipe, sockets
        self._to_wire: deque[bytes] = deque()
        self._last_went_s = 0.0
        self._news_due_s = 0.0
        self._poller = zmq.Poller()
        for watched in (sockets.monitor, sockets.zap):
            if watched is not None:
                self._poller.register(watched, zmq.POLLIN)

    def run(self) -> None:
        """Until the node closes the pipe."""
        while True:
            events = self._wait()
            try:
                if events.get(self._pipe.end.fileno(), 0) & ~zmq.POLLOUT:
                    self._to_wire.extend(body for kind, body in self._pipe.take() if kind == Kind.PACKET)
                self._send()
                self._receive()
                if self._sockets.zap in events:
                    self._sockets.authenticate()
                if self._sockets.monitor in events:
                    self._sockets.watch()
                self._sockets.renew()
                self._tell()
                self._pipe.flush()
            except (EOFError, OSError):
                break
        self._send()

    def _wait(self) -> dict[Any, int]:
        held = bool(self._to_wire)
        room = self._pipe.waiting_bytes < TO_NODE_BYTES
        pipe = (0 if held else zmq.POLLIN) | (zmq.POLLOUT if self._pipe.waiting_bytes else 0)
        dealer = (zmq.POLLIN if room else 0) | (zmq.POLLOUT if held else 0)
        for watched, flags in ((self._pipe.end, pipe), (self._sockets.dealer, dealer)):
            self._poller.register(watched, flags)
        return dict(self._poller.poll(HELD_POLL_MS if held else POLL_MS))

    def _send(self) -> None:
        while self._to_wire:
            if self._sockets.send(self._to_wire[0]):
                self._last_went_s = time.monotonic()
            elif time.monotonic() - self._last_went_s < PATIENCE_S:
                return
            self._to_wire.popleft()

    def _receive(self) -> None:
        for _ in range(BATCH):
            packet = self._sockets.receive() if self._pipe.waiting_bytes < TO_NODE_BYTES else None
            if packet is None:
                return
            self._pipe.put(Kind.PACKET, packet)

    def _tell(self) -> None:
        """News go a few times a second, whatever happens outside; they also say that this process lives."""
        now = time.monotonic()
        if now >= self._news_due_s:
            self._news_due_s = now + NEWS_S
            self._pipe.put(Kind.NEWS, json.dumps(self._sockets.news()).encode())


def main() -> None:
    """Take the settings, open the sockets, say whether that went well, relay."""
    keep_secrets_in_memory()
    make_room_for_files(OPEN_FILES)
    end = socket.socket(fileno=int(sys.argv[1]))
    pipe = Pipe(end)
    end.setblocking(True)
    try:
        words = pipe.take()
        while not words:
            words = pipe.take()
    except (EOFError, OSError):
        return
    settings = json.loads(words[0][1])
    curve = {name: settings[name].encode() for name in ("secret", "peer_public")}
    try:
        sockets = Sockets(settings["endpoint"], bind=settings["bind"], **curve)
    except zmq.ZMQError as error:
        in_use = error.errno == zmq.EADDRINUSE
        pipe.put(Kind.NEWS, json.dumps({"error": str(error.strerror), "in_use": in_use}).encode())
        pipe.flush()
        return
    end.setblocking(False)
    Relay(pipe, sockets).run()
    sockets.close()


if __name__ == "__main__":
    main()
