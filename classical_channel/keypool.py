"""The pool of one-time pads: segments of secret bytes, each used front to back, each pad once.

A segment is the pre-shared link secret (segment 0) or the part of a produced block that refills the pool (segment =
block number). Both ends hold the same segments; half of each serves one direction. Tags name segment and offset, so
the order in which the two ends add segments does not matter.

The pointer into a segment is made durable *before* a pad is used: the owner asks for a reservation, writes it, confirms
it. After a crash the node starts at the reserved mark; the pads in between are lost, never used twice.

A produced key costs Bob two tags and Alice one, while a segment serves both alike: the direction that has less rules
the refilling, and the one that gathers more than it can ever use burns pads, so that old segments leave memory and
disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from classical_channel.authentication import HASH_KEY_BYTES, PAD_BYTES
from common.errors import AuthenticationError, AuthenticationPoolEmpty, ConfigurationError

RESERVE_PADS = 16
MIN_LINK_SECRET_BYTES = 2 * HASH_KEY_BYTES + 64 * PAD_BYTES
Pointers = dict[int, int]


@dataclass(slots=True)
class _Segment:
    """Pads of both directions with their pointers (bytes)."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    sendable: bool
    next_send: int = 0
    reserved: int = 0
    next_receive: int = 0


class KeyPool:
    """Authentication key of one end.

    Parameters
    ----------
    link_secret : the pre-shared secret; r of both directions, then pads.
    alice : True at Alice (she sends in the first direction).
    pointers : what was last made durable, segment -> reserved offset.
    target_bits : each direction is to have so many.

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
        self._durable = dict(pointers or {})
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
        start = min(self._durable.get(segment_id, 0), half)
        self._segments[segment_id] = _Segment(ours, theirs, sendable, start, start)

    def reservation(self) -> Pointers | None:
        """The pointers to make durable now, or None when enough pads are reserved (or none are left)."""
        unused = sum(s.reserved - s.next_send for s in self._segments.values() if s.sendable)
        if unused >= RESERVE_PADS * PAD_BYTES // 2:
            return None
        for number, segment in self._segments.items():
            if segment.sendable and segment.reserved < len(segment.send):
                wanted = min(segment.reserved + RESERVE_PADS * PAD_BYTES, len(segment.send))
                return {**self._durable, number: wanted}
        return None

    def confirm(self, pointers: Pointers) -> None:
        """These pointers are on disk: pads below them may be used."""
        self._durable = dict(pointers)
        for number, segment in self._segments.items():
            segment.reserved = max(segment.reserved, min(pointers.get(number, 0), len(segment.send)))

    def can_send(self) -> bool:
        """Whether a reserved pad is at hand; raises when the pool is empty for good."""
        if any(s.sendable and s.next_send < s.reserved for s in self._segments.values()):
            return True
        if not any(s.sendable and s.reserved < len(s.send) for s in self._segments.values()):
            raise AuthenticationPoolEmpty("the authentication pool of this direction is empty")
        return False

    def next_pad(self) -> tuple[int, int, bytes]:
        """(segment, offset, pad) of the next tag to send."""
        for number, segment in self._segments.items():
            if segment.sendable and segment.next_send < segment.reserved:
                if self.bits_left > self._plenty_bits:
                    segment.next_send = segment.reserved - PAD_BYTES  # those before it are burnt, here and there
                offset = segment.next_send
                segment.next_send += PAD_BYTES
                return number, offset, segment.send[offset : offset + PAD_BYTES]
        raise AuthenticationPoolEmpty("no reserved authentication key is at hand")

    def pad_for(self, segment_id: int, offset: int) -> bytes:
        """The pad of a received tag; it and everything before it is burnt, whatever the verdict.

        Raises
        ------
        AuthenticationError
            Unknown segment, misaligned or already used offset.
        """
        segment = self._segments.get(segment_id)
        if segment is None or offset % PAD_BYTES or not segment.next_receive <= offset < len(segment.receive):
            raise AuthenticationError(f"a tag names authentication key that is not usable (segment {segment_id})")
        segment.next_receive = offset + PAD_BYTES
        return segment.receive[offset : offset + PAD_BYTES]

    @property
    def bits_left(self) -> int:
        """Bits of pad left for sending (reserved or not)."""
        return 8 * sum(len(s.send) - s.next_send for s in self._segments.values() if s.sendable)

    @property
    def missing_bits(self) -> int:
        """Bits that a direction has too few, sending or receiving: the larger number."""
        to_receive = 8 * sum(len(s.receive) - s.next_receive for s in self._segments.values())
        return max(self._target_bits - min(self.bits_left, to_receive), 0)

    @property
    def exhausted_segments(self) -> list[int]:
        """Segments with no pad left in either direction; their bytes may be deleted."""
        return [
            number
            for number, s in self._segments.items()
            if number and s.next_send >= len(s.send) and s.next_receive >= len(s.receive)
        ]

    def forget(self, segment_id: int) -> None:
        """Drop a segment and its pointer, once its bytes are gone from the disk: not before, or pads came again."""
        self._segments.pop(segment_id, None)
        self._durable.pop(segment_id, None)

    def __repr__(self) -> str:
        return f"KeyPool({self.bits_left} bits left to send)"
