"""The pool of one-time pads: segments of secret bytes, each used front to back, each pad once.

A segment is the pre-shared link secret (segment 0) or the part of a produced block that refills the pool (segment =
block number). Both ends hold the same segments; half of each serves one direction. Tags name segment and offset, so
the order in which the two ends add segments does not matter.

A direction goes through its segments by number and never back, so that one position, a segment and an offset, tells
which of its pads are left: those at it and after it. An end keeps three. The *reserved* one is made durable *before*
pads below it are used: the owner asks for pointers, writes them, confirms them. After a crash the node sends from the
reserved position on; the pads in between are lost, never used twice. Below it is the pad to send next. The *receiving*
one follows the tags of the peer, each of which burns all pads before its own; it is written along with the reserved
one, at the latest when it has moved on by as much as is reserved at a time, or into another segment. After a crash it
lags by what came since, until the peer's first tag; it is never ahead of what the peer has named.

A produced key costs two tags at either end, and whatever else is sealed may come from one end alone, while a segment
serves both alike: the direction that has less rules the refilling, and the one that gathers more than it can ever use
burns pads, so that old segments leave memory and disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from classical_channel.authentication import HASH_KEY_BYTES, PAD_BYTES
from common.errors import AuthenticationError, AuthenticationPoolEmpty, ConfigurationError

RESERVE_BYTES = 16 * PAD_BYTES
MIN_LINK_SECRET_BYTES = 2 * HASH_KEY_BYTES + 64 * PAD_BYTES
Position = tuple[int, int]
"""(segment, offset in bytes): the pads of a direction before it are used, burnt or lost."""
Pointers = dict[str, Position]
"""What is durable: `send`, up to which pads may be used, and `receive`, up to which the peer's are burnt."""
NOTHING_USED: Pointers = {"send": (0, 0), "receive": (0, 0)}


@dataclass(slots=True)
class _Segment:
    """Pads of both directions."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    sendable: bool


def _start(position: Position, number: int, pads: bytes) -> int:
    """Offset of the first pad of segment ``number`` that a position leaves; the length of ``pads`` if it is past it."""
    segment, offset = position
    if number == segment:
        return min(offset, len(pads))
    return 0 if number > segment else len(pads)


class KeyPool:
    """Authentication key of one end.

    Parameters
    ----------
    link_secret : the pre-shared secret; r of both directions, then pads.
    alice : True at Alice (she sends in the first direction).
    pointers : what was last made durable.
    target_bits : each direction is to have so many; equal at both ends.

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
        first, second = link_secret[:HASH_KEY_BYTES], link_secret[HASH_KEY_BYTES : 2 * HASH_KEY_BYTES]
        self.hash_key_send, self.hash_key_receive = (first, second) if alice else (second, first)
        self._alice = alice
        self._durable = pointers or NOTHING_USED
        self._next_send = self._reserved = self._durable["send"]
        self._next_receive = self._durable["receive"]
        self._segments: dict[int, _Segment] = {}
        self.add_segment(0, link_secret[2 * HASH_KEY_BYTES :])
        self._target_bits = target_bits
        self._plenty_bits = 2 * max(target_bits, 8 * len(self._segments[0].send))

    def add_segment(self, segment_id: int, secret: bytes, *, sendable: bool = True) -> None:
        """Add pads; ``sendable`` False until it is certain that the peer holds them too. Adding twice is harmless."""
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

    def _reserve(self) -> Position:
        """The reserved position after the next reservation; the present one when no pad is left."""
        for number, segment in self._segments.items():
            if segment.sendable and number >= self._reserved[0]:
                start = _start(self._reserved, number, segment.send)
                if start < len(segment.send):
                    return number, min(start + RESERVE_BYTES, len(segment.send))
        return self._reserved

    def reservation(self) -> Pointers | None:
        """The pointers to make durable now, or None when enough pads are reserved (or none left) and few received."""
        unused = sum(end - start for _, _, start, end in self._at_hand())
        send = self._reserve() if unused < RESERVE_BYTES // 2 else self._reserved
        (segment, offset), (written_segment, written_offset) = self._next_receive, self._durable["receive"]
        lags = segment != written_segment or offset - written_offset >= RESERVE_BYTES
        return {"send": send, "receive": self._next_receive} if lags or send != self._reserved else None

    def confirm(self, pointers: Pointers) -> None:
        """These pointers are on disk: pads below them may be used."""
        self._durable = pointers
        self._reserved = max(self._reserved, pointers["send"])

    def can_send(self) -> bool:
        """Whether a reserved pad is at hand; raises when the pool is empty for good."""
        if any(self._at_hand()):
            return True
        if self._reserve() == self._reserved:
            raise AuthenticationPoolEmpty("the authentication pool of this direction is empty")
        return False

    def next_pad(self) -> tuple[int, int, bytes]:
        """(segment, offset, pad) of the next tag to send."""
        for number, pads, start, end in self._at_hand():
            # Of plenty, the last one that is reserved: those before it are burnt, here and there.
            offset = end - PAD_BYTES if self.bits_left > self._plenty_bits else start
            self._next_send = number, offset + PAD_BYTES
            return number, offset, pads[offset : offset + PAD_BYTES]
        raise AuthenticationPoolEmpty("no reserved authentication key is at hand")

    def pad_for(self, segment_id: int, offset: int) -> bytes:
        """The pad of a received tag; it and every pad before it is burnt, whatever the verdict.

        Raises
        ------
        AuthenticationError
            Unknown segment, misaligned or already used offset.
        """
        segment = self._segments.get(segment_id)
        pads = segment.receive if segment else b""
        if offset % PAD_BYTES or not _start(self._next_receive, segment_id, pads) <= offset < len(pads):
            raise AuthenticationError(f"a tag names authentication key that is not usable (segment {segment_id})")
        self._next_receive = segment_id, offset + PAD_BYTES
        return pads[offset : offset + PAD_BYTES]

    @property
    def bits_left(self) -> int:
        """Bits of pad left for sending (reserved or not)."""
        held = self._segments.items()
        return 8 * sum(len(s.send) - _start(self._next_send, number, s.send) for number, s in held if s.sendable)

    @property
    def missing_bits(self) -> int:
        """Bits that a direction has too few, sending or receiving: the larger number."""
        held = self._segments.items()
        to_receive = 8 * sum(len(s.receive) - _start(self._next_receive, number, s.receive) for number, s in held)
        return max(self._target_bits - min(self.bits_left, to_receive), 0)

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
        """Drop a segment."""
        self._segments.pop(segment_id, None)

    def __repr__(self) -> str:
        return f"KeyPool({self.bits_left} bits left to send)"
