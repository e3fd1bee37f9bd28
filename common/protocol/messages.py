"""The messages of the protocol and their bytes: one type byte, fixed little-endian fields, then the payload.

`classical_channel/PROTOCOL.md` is the description for people; the golden tests hold the bytes of
every message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, dataclass_transform

from common.errors import RemoteProtocolError

PROTOCOL_VERSION = 2
NONCE_BYTES = 16
"""Random bytes in a message that nobody can foresee, so that what answers it came after it."""
M = TypeVar("M", bound="Message")
_REGISTRY: dict[int, type[Message]] = {}


@dataclass(frozen=True, slots=True)
class Message:
    """Base: ``TYPE`` and ``LAYOUT`` (struct of the fixed fields in dataclass order; ``payload`` comes last)."""

    TYPE: ClassVar[int] = 0
    LAYOUT: ClassVar[str] = ""
    FIELDS: ClassVar[tuple[str, ...]] = ()
    SEALED: ClassVar[bool] = False
    """Sent sealed, and refused when it arrives without a seal."""
    HELD: ClassVar[bool] = False
    """Its seal may wait a little and cover others like it."""

    def encode(self) -> bytes:
        """Write the bytes of the message."""
        values: list[Any] = [getattr(self, name) for name in self.FIELDS]
        payload = values.pop() if _has_payload(type(self)) else b""
        return bytes([self.TYPE]) + struct.pack("<" + self.LAYOUT, *values) + payload

    @property
    def name(self) -> str:
        """The message's name in the protocol's description."""
        return type(self).__name__.upper()


def _has_payload(kind: type[Message]) -> bool:
    return "payload" in kind.FIELDS


def decode(raw: bytes) -> Message:
    """Parse one message.

    Raises
    ------
    RemoteProtocolError
        Unknown type, or a length that does not fit the type.
    """
    kind = _REGISTRY.get(raw[0]) if raw else None
    if kind is None:
        raise RemoteProtocolError(f"unknown message type {raw[0] if raw else 'none'}")
    size = struct.calcsize("<" + kind.LAYOUT)
    with_payload = _has_payload(kind)
    if len(raw) < 1 + size or (not with_payload and len(raw) != 1 + size):
        raise RemoteProtocolError(f"{kind.__name__.upper()} of {len(raw)} bytes; its fixed part has {1 + size}")
    values: list[Any] = [*struct.unpack_from("<" + kind.LAYOUT, raw, 1)]
    make: Callable[..., Message] = kind
    return make(*values, raw[1 + size :]) if with_payload else make(*values)


@dataclass_transform(frozen_default=True)
def _message(number: int, layout: str, *, sealed: bool = False, held: bool = False) -> Callable[[type[M]], type[M]]:
    def register(cls: type[M]) -> type[M]:
        made = dataclass(frozen=True, slots=True, repr=False)(cls)
        made.TYPE, made.LAYOUT, made.SEALED, made.HELD = number, layout, sealed, held
        made.FIELDS = tuple(field.name for field in fields(made))
        _REGISTRY[number] = made
        return made

    return register


class BlockMessage(Message):
    """A message that belongs to one block."""

    __slots__ = ()
    block_id: int

    def __repr__(self) -> str:
        return f"{self.name}(block {self.block_id})"


@_message(1, "", sealed=True)
class Hello(Message):
    """Both: who I am, what must be equal, which blocks are unresolved (JSON)."""

    payload: bytes


@_message(2, "QIqq16s")
class Announce(BlockMessage):
    """Bob: a chunk of detections: slots, bases, X outcomes, slots in which both bases clicked (see `sifting`)."""

    block_id: int
    chunk: int
    from_slot: int
    to_slot: int
    nonce: bytes
    payload: bytes


@_message(3, "QI")
class Sift(BlockMessage):
    """Alice: for the Z detections a mask of what to keep, for the X detections her symbols."""

    block_id: int
    chunk: int
    payload: bytes


@_message(4, "QIq")
class BlockEnd(BlockMessage):
    """Bob: the block is full: number of chunks and the slot after its last."""

    block_id: int
    chunks: int
    to_slot: int


@_message(5, "QIBHIII")
class Syndrome(BlockMessage):
    """Reference side: round (from 1), the frame's code and sizes, and the round's payload."""

    block_id: int
    frame: int
    round: int
    code_id: int
    n_bits: int
    first_units: int
    second_units: int
    payload: bytes


@_message(6, "QIBBH")
class FrameResult(BlockMessage):
    """Correcting side: status after a round (0 more, 1 decoded, 2 failed) and the frame's QBER in steps of 2^-16."""

    block_id: int
    frame: int
    round: int
    status: int
    qber_steps: int


@_message(7, "QII16s16s")
class Verify(BlockMessage):
    """Alice: fresh public hash key r and her hash of all kept frames; frames kept and failed, to compare."""

    block_id: int
    frames_kept: int
    frames_failed: int
    hash_key: bytes
    tag: bytes


@_message(8, "QBH16s")
class Verified(BlockMessage):
    """Bob: 1 when his hash is the same, and the share of V among his sifted bits in steps of 2^-16."""

    block_id: int
    equal: int
    z_ones_steps: int
    nonce: bytes


@_message(9, "QQI")
class Propose(BlockMessage):
    """Alice: secret key length in bytes, the part that refills the authentication pool, and her tallies (JSON)."""

    block_id: int
    secret_bytes: int
    refill_bytes: int
    payload: bytes


@_message(10, "QII")
class Seed(BlockMessage):
    """Alice: part ``index`` of ``parts`` of the amplification seed."""

    block_id: int
    index: int
    parts: int
    payload: bytes


@_message(11, "Q32s32s", sealed=True)
class Prepared(BlockMessage):
    """Bob: I hold the key durably and will keep it until you decide. Seals my transcript; see :class:`Fixed`."""

    block_id: int
    alice_to_bob: bytes
    bob_to_alice: bytes


@_message(12, "Q32s32s", sealed=True)
class Commit(BlockMessage):
    """Alice: decided; the key is good; see :class:`Fixed`. Repeated in every session until acknowledged."""

    block_id: int
    alice_to_bob: bytes
    bob_to_alice: bytes


@_message(13, "Q", sealed=True)
class Committed(BlockMessage):
    """Bob: committed; stop repeating."""

    block_id: int


@_message(14, "Q")
class Refuse(BlockMessage):
    """Either, while nothing is promised: this block yields no key; the reason in words."""

    block_id: int
    payload: bytes

    @property
    def reason(self) -> str:
        """The words, whatever bytes came."""
        return self.payload.decode(errors="replace")


@_message(15, "I", sealed=True, held=True)
class Request(Message):
    """Either: a reservation of key for two applications (see `keys.inventory`)."""

    request_id: int
    payload: bytes


@_message(16, "I", sealed=True, held=True)
class Reply(Message):
    """Either: the answer to a request."""

    request_id: int
    payload: bytes


@_message(17, "", sealed=True)
class Bye(Message):
    """Either: I stop in good order."""


@_message(18, "Q32s32s", sealed=True)
class Fixed(BlockMessage):
    """Alice: nothing of this block follows before you promise. Seals my transcript.

    Like PREPARED and COMMIT it names the SHA-256 of what each direction said of the block, as the sender has it.
    """

    block_id: int
    alice_to_bob: bytes
    bob_to_alice: bytes


@_message(19, "Q", sealed=True)
class Withdraw(BlockMessage):
    """Alice: what Bob may have promised is not decided. Bob: what Alice has decided is not held here. The reason."""

    block_id: int
    payload: bytes

    @property
    def reason(self) -> str:
        """The words, whatever bytes came."""
        return self.payload.decode(errors="replace")


Ending = Refuse | Withdraw
"""Messages that end a block without key."""
Fixing = Fixed | Prepared | Commit
"""Messages that name both transcripts of their block."""


def message_types() -> dict[int, type[Message]]:
    """Every message type by its number."""
    return dict(_REGISTRY)
