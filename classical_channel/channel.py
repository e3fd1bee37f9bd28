"""The authenticated channel: the reliable stream, with seals.

Messages flow at once; a *sealed* message carries a tag over everything its direction has sent since the last seal,
itself included. The receiver hands a sealed message on only when its tag verifies. Whatever must not rest on
unauthenticated words (handshake, key commitment, delivery) is sealed; the bulk of a block is covered by the block's
next seal, before any of its key is released. Questions and answers of delivery may be many: those that come within a
short time share a seal. They are *held*: at the sender until it is time, at the receiver until the tag verifies.

A session begins with a process of the peer that has proved what it is: by the seal of its SYN, or by that of its first
message to this process. Until then it is nobody, and the session that there is goes on.

Which r hashes a transcript: the first of a session is one sealed message, and the pad of its own seal says it; every
later one takes the r of the seal before it. So both ends know it when the transcript begins, whatever restarts.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass

from classical_channel.authentication import TAG_BYTES, TranscriptHash, eps_tag, equal_tags
from classical_channel.framing import FRAME, HELD, PLAIN, SEAL, SEALED, Frame, Kind, Packet
from classical_channel.keypool import KeyPool, Pad
from classical_channel.stream import ReliableStream
from common.errors import AuthenticationError, LocalProtocolError, RemoteProtocolError
from common.security.budget import LARGEST_TRANSCRIPT_BYTES
from common.units import NS_PER_MS, NS_PER_S

_CONTEXT = struct.Struct("<BQQQIBQ")
SEAL_BYTES = LARGEST_TRANSCRIPT_BYTES // 16
"""Behind a transcript so long the next message is sealed, whatever it is: refused blocks alone seal nothing."""
HOLD_NS, HOLD_MOST_NS = 20 * NS_PER_MS, 300 * NS_PER_MS
"""A held message is sealed at once if the last seal was so long ago; with less key left it waits longer."""
HOLD_BYTES, MOST_HELD_BYTES = 1 << 20, 1 << 24
"""This many are sealed at once; a peer that sends more without a seal is none."""
_NOTICE_NS = 10 * NS_PER_S
_HELD = (
    "the peer has seen authentication key that this end has no record of using: its key store was set back, or "
    "somebody lies; no tag is sent"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A new session with this instance of the peer has begun; everything of the one before is gone."""

    peer_instance: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message in order. ``sealed``: it and everything before it in this session is authentic."""

    message: bytes
    sealed: bool


class Channel:
    """One end of the authenticated channel. Pure: packets in, packets out, time as an argument.

    Attributes
    ----------
    tags_sent, tags_verified : seals made and seals of the peer that were good, of this process.
    eps_auth_spent : probability that any seal of this process was or is forged: every one made, every one looked at.
    ignored : packets that were malformed, or whose seal proves no new process of the peer.
    """

    def __init__(self, stream: ReliableStream, pool: KeyPool, *, alice: bool) -> None:
        self._stream = stream
        self._pool = pool
        self._directions = (0, 1) if alice else (1, 0)
        self._outbox: deque[tuple[bytes, int]] = deque()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._waiting: list[Received] = []
        self._waiting_bytes = 0
        self._sealed_ns = -HOLD_MOST_NS
        self._now_ns = 0
        self._failed = False
        self._knocked = False
        self._placed = False
        self._notice: tuple[int, str] | None = None
        self.tags_sent = 0
        self.tags_verified = 0
        self.eps_auth_spent = 0.0
        self.bytes_sent = 0
        self.ignored = 0
        self._begin()

    def _begin(self) -> None:
        self._outbox.clear()
        self._held.clear()
        self._waiting.clear()
        self._held_bytes = self._waiting_bytes = 0
        self._hash_send: TranscriptHash | None = None
        self._hash_receive: TranscriptHash | None = None
        self._peer_had = 0

    @property
    def backlog_bytes(self) -> int:
        """Bytes that wait for the window to open: the visible back-pressure."""
        return sum(len(message) for message, _ in self._outbox)

    @property
    def drained(self) -> bool:
        """Everything sent has been acknowledged."""
        return not self._outbox and not self._held and self._stream.idle

    @property
    def placed(self) -> bool:
        """Whether the peer has said how far this end's pads are burnt there: before that none is needed."""
        return self._placed

    @property
    def open(self) -> bool:
        """A session with the peer exists."""
        return self._stream.peer != 0

    @property
    def last_heard_ns(self) -> int | None:
        """When the last packet of the peer came."""
        return self._stream.last_heard_ns

    def notice(self, now_ns: int) -> str | None:
        """What an operator should know of packets that were not believed in the last 10 s."""
        if self._notice is None or now_ns - self._notice[0] > _NOTICE_NS:
            return None
        return self._notice[1]

    # -- out ----------------------------------------------------------------------------------------------------------

    def send(self, message: bytes, *, seal: bool = False, hold: bool = False) -> None:
        """Queue a message; ``seal`` authenticates it and everything before it, with ``hold`` after a while."""
        if hold:
            self._held.append(message)
            self._held_bytes += len(message)
        else:
            if seal:
                self._outbox.extend((held, HELD) for held in self._held)
                self._held.clear()
                self._held_bytes = 0
            self._outbox.append((message, SEALED if seal else PLAIN))

    def _hold_until_ns(self) -> int:
        """When the held messages are sealed: the less authentication key is left, the more of them share a tag."""
        if self._held_bytes >= HOLD_BYTES:
            return self._sealed_ns
        return self._sealed_ns + min(int(HOLD_NS * self._pool.scarcity**3), HOLD_MOST_NS)

    def packets(self, now_ns: int) -> list[bytes]:
        """Packets to put on the transport now.

        Raises
        ------
        AuthenticationPoolEmpty
            A seal is due and no key is left for it.
        """
        self._now_ns = now_ns
        self._stream.claim = self._pool.claim
        if self._held and now_ns >= self._hold_until_ns():
            self._sealed_ns = now_ns
            self.send(self._held.pop(), seal=True)
        if not self.open and not self._knocked and self._may_seal():
            self._knock()
        while self._outbox and self._stream.has_room:
            message, flag = self._outbox[0]
            if self._hash_send is not None and self._hash_send.n_bytes >= SEAL_BYTES:
                flag = SEALED
            if flag == SEALED and not self._may_seal():
                break
            self._outbox.popleft()
            self._stream.send(self._frame(message, flag))
        out = self._stream.packets(now_ns)
        self.bytes_sent += sum(map(len, out))
        return out

    def _may_seal(self) -> bool:
        """Pads are reserved, and the peer has said how far they are burnt there."""
        return self._placed and self._pool.can_send()

    def _knock(self) -> None:
        """One seal for the life of this process; whoever verifies it knows that the process is the peer's."""
        syn = Packet(Kind.SYN, self._stream.instance, 0, claim=self._stream.claim)
        pad = self._pool.next_pad()
        transcript = TranscriptHash(pad.hash_key)
        transcript.update(syn.head())
        self._stream.knock(syn.head() + self._seal(transcript, pad))
        self._knocked = True

    def _frame(self, message: bytes, flag: int) -> bytes:
        had = self._stream.received
        context = self._context(self._directions[0], self._stream.next_sequence, len(message), flag, had)
        pad = self._pool.next_pad() if flag == SEALED else None
        if self._hash_send is None:
            if pad is None:
                raise LocalProtocolError("the first message of a session is not sealed")
            self._hash_send = TranscriptHash(pad.hash_key)
        self._hash_send.update(context + message)
        body = FRAME.pack(flag, had) + message
        if pad is None:
            return body
        body += self._seal(self._hash_send, pad)
        self._hash_send = TranscriptHash(pad.hash_key)
        self._sealed_ns = self._now_ns
        return body

    def _seal(self, transcript: TranscriptHash, pad: Pad) -> bytes:
        self.eps_auth_spent += eps_tag(transcript.n_bytes)
        self.tags_sent += 1
        return SEAL.pack(pad.segment, pad.offset, transcript.finish(pad.secret))

    def _context(self, direction: int, sequence: int, length: int, flag: int, received: int) -> bytes:
        """What stands before a message in its transcript."""
        mine, peer = self._stream.instance, self._stream.peer
        sender, receiver = (mine, peer) if direction == self._directions[0] else (peer, mine)
        return _CONTEXT.pack(direction, sender, receiver, sequence, length, flag, received)

    # -- in -----------------------------------------------------------------------------------------------------------

    def receive(self, raw: bytes, now_ns: int) -> list[Opened | Received]:
        """Take one packet; returns openings and messages in order. A packet that is not the peer's changes nothing.

        Raises
        ------
        RemoteProtocolError
            The session's next message cannot be the peer's: nothing that follows could be sealed.
        AuthenticationError
            A seal does not verify: nothing since the last good seal may be believed, and nothing that follows, since
            the next seal would not cover what this one should have. Every later call raises it again.
        PeerUnreachable
            The stream has lost what the peer waits for.
        """
        if self._failed:
            raise AuthenticationError("an authentication tag did not verify earlier in this session")
        try:
            packet = Packet.decode(raw)
        except RemoteProtocolError as error:
            self._ignore(str(error), now_ns)
            return []
        out: list[Opened | Received] = []
        if packet.sender != self._stream.peer:
            if not self._is_peer(packet, now_ns):
                return []
            self._stream.begin(packet.sender)
            self._begin()
            out.append(Opened(packet.sender))
        self._place(packet, now_ns)
        for sequence, body in self._stream.receive(packet, now_ns):
            out += self._open(sequence, body)
        return out

    def _ignore(self, why: str, now_ns: int) -> None:
        self.ignored += 1
        self._notice = now_ns, why

    def _place(self, packet: Packet, now_ns: int) -> None:
        """Before the first tag of this process: skip the pads that are burnt at the peer. The last claim counts."""
        if not self._placed and packet.receiver in (0, self._stream.instance):
            self._placed = self._pool.follow(packet.claim)
            if not self._placed:
                self._notice = now_ns, _HELD

    def _is_peer(self, packet: Packet, now_ns: int) -> bool:
        """Whether a process that is not the peer so far proves by this packet that it is."""
        self._place(packet, now_ns)
        if packet.kind is Kind.SYN and packet.body:
            pad = self._proof(packet.head(), SEAL.unpack(packet.body), now_ns)
            if pad is not None:
                self._pool.burn(pad)
                self.tags_verified += 1
            return pad is not None
        if packet.kind is Kind.SYN:
            self._stream.answer(packet.sender)
        if packet.kind is not Kind.DATA or packet.receiver != self._stream.instance or packet.sequence != 1:
            return False
        frame = Frame.decode(packet.body)
        numbers = (self._directions[1], packet.sender, packet.receiver, 1, len(frame.message), frame.flag)
        context = _CONTEXT.pack(*numbers, frame.received)
        return frame.seal is not None and self._proof(context + frame.message, frame.seal, now_ns) is not None

    def _proof(self, transcript: bytes, seal: tuple[int, int, bytes], now_ns: int) -> Pad | None:
        """The pad of a seal that is good; a bad one costs its eps and nothing else."""
        segment, offset, tag = seal
        try:
            pad = self._pool.pad_for(segment, offset)
        except AuthenticationError as error:
            self._ignore(f"a packet proves no new process of the peer: {error}", now_ns)
            return None
        ours = TranscriptHash(pad.hash_key)
        ours.update(transcript)
        self.eps_auth_spent += eps_tag(ours.n_bytes)
        if equal_tags(ours.finish(pad.secret), tag):
            return pad
        why = "the link secrets differ, or somebody forges"
        self._ignore(f"a packet proves no new process of the peer: its tag did not verify ({why})", now_ns)
        return None

    def _open(self, sequence: int, body: bytes) -> list[Received]:
        frame = Frame.decode(body)
        if not self._peer_had <= frame.received < self._stream.next_sequence:
            raise RemoteProtocolError(f"the peer says it had {frame.received} messages of this end, which cannot be")
        self._peer_had = frame.received
        context = self._context(self._directions[1], sequence, len(frame.message), frame.flag, frame.received)
        if frame.seal is None:
            if self._hash_receive is None:
                raise RemoteProtocolError("the first message of a session is not sealed")
            self._hash_receive.update(context + frame.message)
            return self._keep(frame)
        segment, offset, tag = frame.seal
        self._failed = True
        pad = self._pool.pad_for(segment, offset)
        self._pool.burn(pad)
        transcript = self._hash_receive or TranscriptHash(pad.hash_key)
        transcript.update(context + frame.message)
        self.eps_auth_spent += eps_tag(transcript.n_bytes)
        if not equal_tags(transcript.finish(pad.secret), tag):
            raise AuthenticationError("an authentication tag did not verify")
        self._hash_receive = TranscriptHash(pad.hash_key)
        self._failed = False
        self.tags_verified += 1
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return [*waiting, Received(frame.message, True)]

    def _keep(self, frame: Frame) -> list[Received]:
        """A message without a seal: handed on at once, or with the next seal."""
        if frame.flag == PLAIN:
            return [Received(frame.message, False)]
        self._waiting.append(Received(frame.message, True))
        self._waiting_bytes += len(frame.message)
        if self._waiting_bytes > MOST_HELD_BYTES:
            raise RemoteProtocolError(f"more than {MOST_HELD_BYTES} bytes of held messages came without a seal")
        return []

    def next_timer_ns(self, now_ns: int) -> int:
        """When :meth:`packets` wants to be called again at the latest."""
        due = self._stream.next_timer_ns(now_ns)
        return max(min(due, self._hold_until_ns()), now_ns) if self._held else due


assert SEAL.size == 12 + TAG_BYTES
