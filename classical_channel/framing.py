"""Packets: what travels between the two transports, one packet a ZeroMQ message.

    offset  size  field
    0       4     magic "QKD1" (protocol family and packet version)
    4       1     kind: 1 SYN, 2 DATA, 3 ACK
    5       8     sender's instance (its start counter, grows at every start)
    13      8     receiver's instance as the sender knows it (0: not known yet)
    21      8     sequence number of this DATA packet (0 otherwise)
    29      8     acknowledgement: every DATA packet up to this number has arrived
    37      -     body (DATA only)

Integers are little-endian and unsigned.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from common.errors import RemoteProtocolError

MAGIC = b"QKD1"
HEADER = struct.Struct("<4sBQQQQ")
MAX_BODY_BYTES = 4 << 20


class Kind(IntEnum):
    """What a packet is for."""

    SYN = 1
    DATA = 2
    ACK = 3


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; see the module for the layout."""

    kind: Kind
    sender: int
    receiver: int
    sequence: int = 0
    acknowledged: int = 0
    body: bytes = b""

    def encode(self) -> bytes:
        """The packet's bytes."""
        head = HEADER.pack(MAGIC, self.kind, self.sender, self.receiver, self.sequence, self.acknowledged)
        return head + self.body

    @classmethod
    def decode(cls, raw: bytes) -> Packet:
        """Parse; anything malformed raises :class:`RemoteProtocolError` that names the fault."""
        if len(raw) < HEADER.size:
            raise RemoteProtocolError(f"packet of {len(raw)} bytes is shorter than its header ({HEADER.size})")
        magic, kind, sender, receiver, sequence, acknowledged = HEADER.unpack_from(raw)
        if magic != MAGIC:
            raise RemoteProtocolError(f"packet magic {magic!r} is not {MAGIC!r}: another program or version")
        if kind not in set(Kind):
            raise RemoteProtocolError(f"unknown packet kind {kind}")
        body = raw[HEADER.size :]
        if len(body) > MAX_BODY_BYTES:
            raise RemoteProtocolError(f"packet body of {len(body)} bytes exceeds {MAX_BODY_BYTES}")
        if (kind == Kind.DATA) != (sequence > 0) or (kind != Kind.DATA and body):
            raise RemoteProtocolError(f"{Kind(kind).name} packet with sequence {sequence} and {len(body)} body bytes")
        if sender == 0:
            raise RemoteProtocolError("packet without a sender instance")
        return cls(Kind(kind), sender, receiver, sequence, acknowledged, body)
