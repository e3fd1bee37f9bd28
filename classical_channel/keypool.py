"""The pool of authentication key: segments of secret bytes, each used front to back, each pad once.

A segment is the pre-shared link secret or the part of a produced block that refills the pool (segment = block number).
Both ends hold the same segments; half of each serves one direction. Tags name segment and offset, so the order in which
the two ends add segments does not matter.

A direction's half of a segment is made of *rows* of 65 units of 16 bytes: a hash key r, then 64 pads. A pad's row says
which r goes with it, so that r is renewed with the pads and each r serves 64 tags at most.

A direction goes through its segments by number and never back, so that one position, a segment and an offset, tells
which of its pads are left: those at it and after it. An end keeps three. The *reserved* one is made durable *before*
pads below it are used: the owner asks for pointers, writes them, confirms them. After a crash the node sends from the
reserved position on; the pads in between are lost, never used twice. Below it is the pad to send next. The *receiving*
one follows the tags of the peer, each of which burns all pads before its own; it is written along with the reserved
one, at the latest when it has moved on by as much as is reserved at a time, or into another segment. After a crash it
lags by what came since, until the peer's first tag; it is never ahead of what the peer has named.

The peer tells its receiving position in every packet (its *claim*). An end that lags behind it has lost its record, and
skips what is burnt there before its first tag. A claim is not authentic: it never takes the last `FLOOR_PADS`.

A produced key costs two tags at either end, and whatever else is sealed may come from one end alone, while a segment
serves both alike: the direction that has less rules the refilling, and the one that gathers more than it can ever use
burns pads, so that old segments leave memory and disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from classical_channel.authentication import HASH_KEY_BYTES, PAD_BYTES
from classical_channel.framing import Position
from common.errors import AuthenticationError, AuthenticationPoolEmpty, ConfigurationError

PADS_PER_HASH_KEY = 64
"""An r that became known would let Eve forge until its row ends: about 30 blocks; it costs a 64th more key."""
ROW_BYTES = HASH_KEY_BYTES + PADS_PER_HASH_KEY * PAD_BYTES
RESERVE_BYTES = 16 * PAD_BYTES
FIRST_BYTES = 2 * PAD_BYTES
"""What is reserved at a time: in the beginning what a start needs, then as much as the process has used."""
MIN_LINK_SECRET_BYTES = 2 * ROW_BYTES
FLOOR_PADS = 64
"""What a claim leaves, and applications: for starts and blocks, which refill the pool."""
Pointers = dict[str, Position]
"""What is durable: `send`, up to which pads may be used, and `receive`, up to which the peer's are burnt."""
NOTHING_USED: Pointers = {"send": (0, 0), "receive": (0, 0)}


@dataclass(frozen=True, slots=True)
class Pad:
    """One pad, where it stands, and the hash key of its row."""

    segment: int
    offset: int
    secret: bytes = field(repr=False)
    hash_key: bytes = field(repr=False)


@dataclass(slots=True)
class _Segment:
    """Key of both directions."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    sendable: bool


def _start(position: Position, number: int, half: bytes) -> int:
    """Offset of the first pad of segment ``number`` that a position leaves; the length of ``half`` if none is left."""
    segment, offset = position
    if number != segment:
        offset = 0 if number > segment else len(half)
    if offset % ROW_BYTES == 0:
        offset += HASH_KEY_BYTES
    return min(offset, len(half))


def _count(half: bytes, start: int) -> int:
    """Pads from ``start`` on."""
    rows_begun = -(-len(half) // ROW_BYTES) - -(-start // ROW_BYTES)
    return (len(half) - start) // PAD_BYTES - rows_begun


def _pad(number: int, half: bytes, offset: int) -> Pad:
    row = offset - offset % ROW_BYTES
    return Pad(number, offset, half[offset : offset + PAD_BYTES], half[row : row + HASH_KEY_BYTES])


class KeyPool:
    """Authentication key of one end.

    Parameters
    ----------
    link_secret : the pre-shared secret: the first segment.
    alice : True at Alice (she sends in the first direction).
    pointers : what was last made durable.
    target_bits : each direction is to have this many; equal at both ends.

    Raises
    ------
    ConfigurationError
        The link secret is too short.
    """

    def __init__(
        self, link_secret: bytes, *, alice: bool, pointers: Pointers | None = None, target_bits: int = 0
    ) -> None:
        if len(link_secret) < MIN_LINK_SECRET_BYTES:
            raise ConfigurationError(
                f"the link secret has {len(link_secret)} bytes, at least {MIN_LINK_SECRET_BYTES} are needed",
                remedy="Make a new one with `qkd init` and install it at both ends.",
            )
        self._alice = alice
        self._durable = pointers or NOTHING_USED
        self._next_send = self._reserved = self._durable["send"]
        self._next_receive = self._durable["receive"]
        self._segments: dict[int, _Segment] = {}
        self._used_bytes = 0
        self.add_segment(0, link_secret)
        self._target_bits = target_bits
        self._plenty_bits = 2 * max(target_bits, 8 * len(self._segments[0].send))

    def add_segment(self, segment_id: int, secret: bytes, *, sendable: bool = True) -> None:
        """Add key; ``sendable`` False until it is certain that the peer holds them too. Adding twice is harmless."""
        if segment_id in self._segments:
            self._segments[segment_id].sendable |= sendable
            return
        half = len(secret) // (2 * PAD_BYTES) * PAD_BYTES
        ours, theirs = secret[:half], secret[half : 2 * half]
        if not self._alice:
            ours, theirs = theirs, ours
        self._segments[segment_id] = _Segment(ours, theirs, sendable)
        self._segments = dict(sorted(self._segments.items()))

    def _at_hand(self) -> Iterator[tuple[int, bytes, int, int]]:
        """(segment, pads, start, end) of what may be used at once, in the order of use."""
        for number, segment in self._segments.items():
            if segment.sendable and self._next_send[0] <= number <= self._reserved[0]:
                start, end = (_start(position, number, segment.send) for position in (self._next_send, self._reserved))
                if start < end:
                    yield number, segment.send, start, end

    @property
    def _step_bytes(self) -> int:
        """How much is reserved at a time."""
        return max(FIRST_BYTES, min(self._used_bytes, RESERVE_BYTES))

    def _reserve(self) -> Position:
        """The reserved position after the next reservation; the present one when no pad is left."""
        for number, segment in self._segments.items():
            if segment.sendable and number >= self._reserved[0]:
                start = _start(self._reserved, number, segment.send)
                if start < len(segment.send):
                    return number, min(start + self._step_bytes, len(segment.send))
        return self._reserved

    def reservation(self) -> Pointers | None:
        """The pointers to make durable now, or None when enough pads are reserved (or none left) and few received."""
        unused = sum(end - start for _, _, start, end in self._at_hand())
        send = self._reserve() if unused < self._step_bytes // 2 else self._reserved
        (segment, offset), (written_segment, written_offset) = self._next_receive, self._durable["receive"]
        lags = segment != written_segment or offset - written_offset >= RESERVE_BYTES
        return {"send": send, "receive": self._next_receive} if lags or send != self._reserved else None

    def confirm(self, pointers: Pointers) -> None:
        """These pointers are on disk: pads below them may be used."""
        self._durable = pointers
        self._reserved = max(self._reserved, pointers["send"])

    def give_back(self) -> Pointers:
        """The pointers of an orderly end: what was reserved and not used is the next process's."""
        self._reserved = self._next_send
        return {"send": self._next_send, "receive": self._next_receive}

    def can_send(self) -> bool:
        """Whether a reserved pad is at hand; raises when the pool is empty for good."""
        if any(self._at_hand()):
            return True
        if self._reserve() == self._reserved:
            raise AuthenticationPoolEmpty("the authentication pool of this direction is empty")
        return False

    def follow(self, claim: Position) -> bool:
        """Skip what the peer says it has burnt, before the first tag of this process; False if it may not be followed.

        A claim is ahead of this end only if this end's record was set back, or if somebody lies: then pads are lost,
        and `FLOOR_PADS` stay. Where that would leave fewer no tag must be sent: the pads before the claim may be used.
        """
        if claim <= self._next_send:
            return True
        left = sum(_count(s.send, _start(claim, n, s.send)) for n, s in self._segments.items() if s.sendable)
        if claim[1] % PAD_BYTES or left < FLOOR_PADS:
            return False
        self._next_send = claim
        self._reserved = max(self._reserved, claim)
        return True

    def next_pad(self) -> Pad:
        """The pad of the next tag to send."""
        for number, half, start, end in self._at_hand():
            offset = start
            if self.bits_left > self._plenty_bits:
                # Of plenty, the last one that is reserved: those before it are burnt, here and there.
                offset = end - PAD_BYTES - (HASH_KEY_BYTES if (end - PAD_BYTES) % ROW_BYTES == 0 else 0)
            self._next_send = number, offset + PAD_BYTES
            self._used_bytes += PAD_BYTES
            return _pad(number, half, offset)
        raise AuthenticationPoolEmpty("no reserved authentication key is at hand")

    def pad_for(self, segment_id: int, offset: int) -> Pad:
        """The pad that a tag of the peer names; it stays usable until :meth:`burn`.

        Raises
        ------
        AuthenticationError
            Unknown segment, misaligned or already used offset.
        """
        segment = self._segments.get(segment_id)
        half = segment.receive if segment else b""
        pad_is_there = offset % PAD_BYTES == 0 and offset % ROW_BYTES != 0
        if not pad_is_there or not _start(self._next_receive, segment_id, half) <= offset < len(half):
            raise AuthenticationError(f"a tag names authentication key that is not usable (segment {segment_id})")
        return _pad(segment_id, half, offset)

    def burn(self, pad: Pad) -> None:
        """Neither this pad of the peer's nor any before it will be accepted again."""
        self._next_receive = pad.segment, pad.offset + PAD_BYTES

    @property
    def claim(self) -> Position:
        """What the peer is told: its pads before this position are burnt here."""
        return self._next_receive

    @property
    def bits_left(self) -> int:
        """Bits of pad left for sending (reserved or not)."""
        held = self._segments.items()
        pads = sum(_count(s.send, _start(self._next_send, number, s.send)) for number, s in held if s.sendable)
        return 8 * PAD_BYTES * pads

    @property
    def least_bits(self) -> int:
        """Bits of pad left in the direction that has fewer, sending or receiving."""
        held = self._segments.items()
        pads = sum(_count(s.receive, _start(self._next_receive, number, s.receive)) for number, s in held)
        return min(self.bits_left, 8 * PAD_BYTES * pads)

    @property
    def missing_bits(self) -> int:
        """Bits that a direction has too few: of both, the larger number."""
        return max(self._target_bits - self.least_bits, 0)

    @property
    def scarcity(self) -> float:
        """How many times more is wanted than is left; 1 where enough is."""
        return max(self._target_bits / max(self.least_bits, 8 * PAD_BYTES), 1.0)

    @property
    def low(self) -> bool:
        """Half of what is wanted is gone, and has not been replaced."""
        return self.least_bits < self._target_bits // 2

    @property
    def at_floor(self) -> bool:
        """What is left is for blocks and handshakes."""
        return self.least_bits < min(8 * PAD_BYTES * FLOOR_PADS, self._target_bits // 4)

    @property
    def exhausted_segments(self) -> list[int]:
        """Segments with no pad left in either direction; their bytes may be deleted."""
        return [
            number
            for number, s in self._segments.items()
            if number
            and _start(self._next_send, number, s.send) == len(s.send)
            and _start(self._next_receive, number, s.receive) == len(s.receive)
        ]

    def forget(self, segment_id: int) -> None:
        """Drop a segment from the store."""
        self._segments.pop(segment_id, None)

    def __repr__(self) -> str:
        return f"KeyPool({self.bits_left} bits left to send)"
