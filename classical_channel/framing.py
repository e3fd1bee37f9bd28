"""Packets: what travels between the two transports, one packet a ZeroMQ message.

    offset  size  field
    0       4     magic "QKD2" (protocol family and packet version)
    4       1     kind: 1 SYN, 2 DATA, 3 ACK
    5       8     sender's instance (its start counter and 32 random bits: no two processes have the same)
    13      8     receiver's instance as the sender knows it (0: not known yet)
    21      8     sequence number of this DATA packet (0 otherwise)
    29      8     acknowledgement: every DATA packet up to this number has arrived
    37      8     segment \\ the sender's claim: what the receiver has used of its authentication key, as far as
    45      4     offset  / the sender knows (pads of the receiver's direction before it are burnt)
    49      -     body

The body of a DATA packet is `flag (1) | received (8) | message`, with a seal behind it if the flag is 1; flag 0 is a
plain message, flag 2 one that waits at the receiver for the next seal. That of a SYN is a seal or nothing; an ACK has
none. A seal is `segment (8) | offset (4) | tag (16)`. `received` is how many messages
of the receiver the sender had taken when it framed this one. Integers are little-endian and unsigned.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from common.errors import RemoteProtocolError

MAGIC = b"QKD2"
HEADER = struct.Struct("<4sBQQQQQI")
SENDER = slice(5, 13)
"""Where the sender's instance stands."""
SEAL = struct.Struct("<QI16s")
FRAME = struct.Struct("<BQ")
PLAIN, SEALED, HELD = 0, 1, 2
MAX_BODY_BYTES = 4 << 20
Position = tuple[int, int]
"""(segment, offset in bytes): the pads of a direction before it are used, burnt or lost."""


class Kind(IntEnum):
    """What a packet is for."""

    SYN = 1
    DATA = 2
    ACK = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """The body of a DATA packet; ``seal`` is (segment, offset, tag) or None, ``flag`` says which of the three it is."""

    received: int
    message: bytes
    seal: tuple[int, int, bytes] | None
    flag: int

    @classmethod
    def decode(cls, body: bytes) -> Frame:
        """Parse; :class:`RemoteProtocolError` names what is wrong."""
        if len(body) < FRAME.size:
            raise RemoteProtocolError(f"a DATA body of {len(body)} bytes is shorter than its fixed part ({FRAME.size})")
        flag, received = FRAME.unpack_from(body)
        if flag in (PLAIN, HELD):
            return cls(received, body[FRAME.size :], None, flag)
        if flag != SEALED:
            raise RemoteProtocolError("a message carries none of the flags plain, sealed, held")
        if len(body) < FRAME.size + SEAL.size:
            raise RemoteProtocolError(f"a sealed message of {len(body)} bytes has no room for its tag")
        return cls(received, body[FRAME.size : -SEAL.size], SEAL.unpack(body[-SEAL.size :]), flag)


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; see the module for the layout."""

    kind: Kind
    sender: int
    receiver: int
    sequence: int = 0
    acknowledged: int = 0
    claim: Position = (0, 0)
    body: bytes = b""

    def head(self) -> bytes:
        """The bytes before the body."""
        numbers = (self.sender, self.receiver, self.sequence, self.acknowledged, *self.claim)
        return HEADER.pack(MAGIC, self.kind, *numbers)

    def encode(self) -> bytes:
        """Write the packet's bytes."""
        return self.head() + self.body

    @classmethod
    def decode(cls, raw: bytes) -> Packet:
        """Parse; anything malformed raises :class:`RemoteProtocolError` that names the fault."""
        if len(raw) < HEADER.size:
            raise RemoteProtocolError(f"packet of {len(raw)} bytes is shorter than its header ({HEADER.size})")
        magic, kind, sender, receiver, sequence, acknowledged, *claim = HEADER.unpack_from(raw)
        if magic != MAGIC:
            raise RemoteProtocolError(f"packet magic {magic!r} is not {MAGIC!r}: another program or version")
        if kind not in set(Kind):
            raise RemoteProtocolError(f"unknown packet kind {kind}")
        body = raw[HEADER.size :]
        if len(body) > MAX_BODY_BYTES:
            raise RemoteProtocolError(f"packet body of {len(body)} bytes exceeds {MAX_BODY_BYTES}")
        sizes = {Kind.SYN: len(body) in (0, SEAL.size), Kind.DATA: True, Kind.ACK: not body}
        if (kind == Kind.DATA) != (sequence > 0) or not sizes[kind]:
            raise RemoteProtocolError(f"{Kind(kind).name} packet with sequence {sequence} and {len(body)} body bytes")
        if sender == 0:
            raise RemoteProtocolError("packet without a sender instance")
        if kind == Kind.DATA:
            Frame.decode(body)
        return cls(Kind(kind), sender, receiver, sequence, acknowledged, (claim[0], claim[1]), body)
