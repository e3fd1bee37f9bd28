"""The authenticated channel: the reliable stream, with seals.

Messages flow at once; a *sealed* message carries a tag over everything its direction has sent since the last seal,
itself included. The receiver hands a sealed message on only when its tag verifies. Whatever must not rest on
unauthenticated words (handshake, key commitment, delivery) is sealed; the bulk of a block is covered by the block's
next seal, before any of its key is released.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass

from classical_channel.authentication import TAG_BYTES, TranscriptHash, eps_tag, equal_tags
from classical_channel.keypool import KeyPool
from classical_channel.stream import Opened, ReliableStream
from common.errors import AuthenticationError, RemoteProtocolError

_SEAL = struct.Struct("<QI16s")
_CONTEXT = struct.Struct("<BQQQI")
PLAIN, SEALED = b"\x00", b"\x01"


@dataclass(frozen=True, slots=True)
class Received:
    """A message in order. ``sealed``: it and everything before it in this session is authentic."""

    message: bytes
    sealed: bool


class Channel:
    """One end of the authenticated channel. Pure: packets in, packets out, time as an argument."""

    def __init__(self, stream: ReliableStream, pool: KeyPool, *, alice: bool) -> None:
        self._stream = stream
        self._pool = pool
        self._directions = (0, 1) if alice else (1, 0)
        self._outbox: deque[tuple[bytes, bool]] = deque()
        self._hash_send = TranscriptHash(pool.hash_key_send)
        self._hash_receive = TranscriptHash(pool.hash_key_receive)
        self._failed = False
        self.tags_sent = 0
        self.tags_verified = 0
        self.eps_auth_spent = 0.0
        self.bytes_sent = 0
        self.bytes_received = 0

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait for the window to open: the visible back-pressure."""
        return sum(len(message) for message, _ in self._outbox)

    @property
    def drained(self) -> bool:
        """Everything sent has been acknowledged."""
        return not self._outbox and self._stream.idle

    @property
    def open(self) -> bool:
        """A session with the peer exists."""
        return self._stream.peer != 0

    @property
    def last_heard_ns(self) -> int | None:
        """When the last packet of the peer came."""
        return self._stream.last_heard_ns

    def send(self, message: bytes, *, seal: bool = False) -> None:
        """Queue a message; ``seal`` authenticates it and everything before it."""
        self._outbox.append((message, seal))

    def packets(self, now_ns: int) -> list[bytes]:
        """Packets to put on the transport now.

        Raises
        ------
        AuthenticationPoolEmpty
            A seal is due and no key is left for it.
        """
        while self._outbox and self._stream.has_room:
            message, seal = self._outbox[0]
            if seal and not self._pool.can_send():
                break
            self._outbox.popleft()
            self._stream.send(self._frame(message, seal))
        out = self._stream.packets(now_ns)
        self.bytes_sent += sum(map(len, out))
        return out

    def _frame(self, message: bytes, seal: bool) -> bytes:
        flag = SEALED if seal else PLAIN
        self._hash_send.update(self._context(self._directions[0], self._stream.next_sequence, len(message)))
        self._hash_send.update(flag + message)
        if not seal:
            return flag + message
        segment, offset, pad = self._pool.next_pad()
        self.eps_auth_spent += eps_tag(self._hash_send.n_bytes)
        self.tags_sent += 1
        return flag + message + _SEAL.pack(segment, offset, self._hash_send.finish(pad))

    def _context(self, direction: int, sequence: int, length: int) -> bytes:
        mine, peer = self._stream.instance, self._stream.peer
        sender, receiver = (mine, peer) if direction == self._directions[0] else (peer, mine)
        return _CONTEXT.pack(direction, sender, receiver, sequence, length)

    def receive(self, raw: bytes, now_ns: int) -> list[Opened | Received]:
        """Take one packet; returns openings and messages in order.

        Raises
        ------
        RemoteProtocolError
            Malformed packet.
        AuthenticationError
            A seal does not verify: nothing since the last good seal may be believed, and nothing that follows, since
            the next seal would not cover what this one should have. Every later call raises it again.
        """
        if self._failed:
            raise AuthenticationError("an authentication tag did not verify earlier in this session")
        self.bytes_received += len(raw)
        out: list[Opened | Received] = []
        for event in self._stream.receive(raw, now_ns):
            if isinstance(event, Opened):
                self._outbox.clear()
                self._hash_send.restart()
                self._hash_receive.restart()
                out.append(event)
            else:
                out.append(self._open(*event))
        return out

    def _open(self, sequence: int, body: bytes) -> Received:
        sealed = body[:1] == SEALED
        if not sealed and body[:1] != PLAIN:
            raise RemoteProtocolError("a message carries neither the plain nor the sealed flag")
        if sealed and len(body) < 1 + _SEAL.size:
            raise RemoteProtocolError(f"a sealed message of {len(body)} bytes has no room for its tag")
        message = body[1 : len(body) - (_SEAL.size if sealed else 0)]
        self._hash_receive.update(self._context(self._directions[1], sequence, len(message)))
        self._hash_receive.update(body[:1] + message)
        if sealed:
            segment, offset, tag = _SEAL.unpack(body[-_SEAL.size :])
            self._failed = True
            pad = self._pool.pad_for(segment, offset)
            if not equal_tags(self._hash_receive.finish(pad), tag):
                raise AuthenticationError("an authentication tag did not verify")
            self._failed = False
            self.tags_verified += 1
        return Received(message, sealed)

    def next_timer_ns(self, now_ns: int) -> int:
        """When :meth:`packets` wants to be called again at the latest."""
        return self._stream.next_timer_ns(now_ns)


assert _SEAL.size == 12 + TAG_BYTES
