"""Sifting, chunk by chunk: Bob announces slots, bases and X outcomes; Alice answers what to keep and to count.

Announcement (Bob to Alice), little-endian::

    u32 n | u32 n_cross | u32 double clicks | n varints: slot differences, the first from -1
    | ceil(n/8) bytes: basis bits (1 = X) | ceil(n_x/8) bytes: X outcomes
    | n_cross varints: differences of the slots in which detectors of both bases clicked, the first from -1

Reply (Alice to Bob)::

    u8 intensity planes p (0 or 2) | u32 n_z | u32 n_x
    | ceil(n_z/8) bytes: 1 = Alice prepared Z | p x ceil(n_kept/8): intensity of the kept ones
    | 2 x ceil(n_x/8): symbol of X detections, low plane first | p x ceil(n_x/8): their intensity

Bits are packed least first; padding is zero. Only slot numbers are announced, never a time (a time would tell Eve which
detector clicked). Cross-basis slots are announced whatever becomes of them: their number bounds how many pulses of
several photons passed for one (`common/security/README.md`). Both sides compute the tallies from the same public bytes.
Source: ours, decisions 62 and 132.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.datatypes import Bytes8, Detections, Words
from common.errors import LocalProtocolError, RemoteProtocolError
from common.kernels import sift, varint
from common.kernels.click_rule import CrossBasis, keeps_cross
from common.keybits import KeyBits
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS

MAX_CHUNK_DETECTIONS = 1 << 20
SLOT_LIMIT = 1 << 62
MAX_INTENSITY_PLANES = 2
SYMBOLS = 4

_COUNTS = struct.Struct("<III")
_REPLY = struct.Struct("<BII")
_FAULTS = {
    varint.TRUNCATED: "the slot differences end early",
    varint.OVERLONG: "a slot difference is longer than its value needs",
    varint.NOT_ASCENDING: "the slots are not ascending",
    varint.TOO_LARGE: f"a slot number is {SLOT_LIMIT} or more",
}


@dataclass(frozen=True, slots=True)
class SiftedChunk:
    """One side's share of a sifted chunk.

    Parameters
    ----------
    bits : this side's sifted Z bits.
    n_z : *(intensities,) int64*, kept Z detections per intensity (one entry for single-photon protocols).
    x_counts : *(intensities, 4, 2) int64*, X detections by Alice's symbol (H, V, R, L) and Bob's outcome (R, L).

    Security
    --------
    ``bits`` are secret; the counts are public and equal at both ends by construction.
    """

    bits: KeyBits
    n_z: NDArray[np.int64]
    x_counts: NDArray[np.int64]

    def ones(self) -> int:
        """How many of this side's sifted bits are 1; secret until it is rounded and paid for."""
        return int(np.bitwise_count(self.bits.view()).sum())


@dataclass(frozen=True, slots=True)
class Announcement:
    """What Alice reads of a chunk.

    Parameters
    ----------
    slots : *(n,) int64*, of the detections. bases : *(n,) uint8*. x_bits : *(n_x,) uint8*, one bit per byte.
    cross_slots : *(c,) int64*: detectors of both bases clicked.
    double_clicks : detections that are a coin's, since both detectors of one basis clicked.
    """

    slots: NDArray[np.int64]
    bases: Bytes8
    x_bits: Bytes8
    cross_slots: NDArray[np.int64]
    double_clicks: int


def encode_announcement(detections: Detections) -> bytes:
    """Bob: the announcement of one chunk (up to ``MAX_CHUNK_DETECTIONS`` detections, and as many cross-basis slots).

    Security
    --------
    Publishes slots, bases and the outcomes of X detections, in which slots both bases clicked, and how many detections
    are a coin's since both detectors of a basis clicked; Z outcomes stay.
    """
    n, crossed = len(detections), detections.cross_slots
    if max(n, crossed.size) > MAX_CHUNK_DETECTIONS:
        raise LocalProtocolError(f"a chunk of {n} detections is longer than {MAX_CHUNK_DETECTIONS}")
    deltas, more = (np.empty(varint.VARINT_MAX_BYTES * size, dtype=np.uint8) for size in (n, crossed.size))
    bases, x_bits = np.zeros((2, n // 64 + 1), np.uint64)
    used, n_x = varint.announce(detections.slots, detections.bases, detections.bits, deltas, bases, x_bits)
    used_more = varint.encode_deltas(crossed, more)
    if min(used, used_more) < 0:
        raise LocalProtocolError("the slots of a chunk are not ascending")
    counts = _COUNTS.pack(n, crossed.size, detections.double_slots.size)
    parts = (deltas[:used].data, _bytes(bases, n).data, _bytes(x_bits, n_x).data, more[:used_more].data)
    return b"".join((counts, *parts))


def decode_announcement(
    raw: bytes | bytearray | memoryview, from_slot: int, to_slot: int, cross_basis: CrossBasis
) -> Announcement:
    """Alice: read an announcement strictly.

    Parameters
    ----------
    from_slot, to_slot : the half-open range of slots of the chunk.
    cross_basis : the receiver's policy.

    Raises
    ------
    RemoteProtocolError
        Names the fault; nothing of a malformed announcement is used.
    """
    data = np.frombuffer(raw, dtype=np.uint8)
    if data.size < _COUNTS.size:
        raise RemoteProtocolError("announcement: shorter than its counts")
    n, n_crossed, n_doubles = _COUNTS.unpack_from(raw)
    if max(n, n_crossed) > MAX_CHUNK_DETECTIONS:
        raise RemoteProtocolError(f"announcement: {max(n, n_crossed)} slots, more than {MAX_CHUNK_DETECTIONS}")
    if n_doubles > n:
        raise RemoteProtocolError(f"announcement: {n_doubles} double clicks among {n} detections")
    reader = _Reader(data, _COUNTS.size, "announcement")
    slots = reader.slots(n, from_slot, to_slot)
    bases = reader.bits(n, "bases")
    x_bits = reader.bits(int(np.count_nonzero(bases)), "X outcomes")
    cross_slots = reader.slots(n_crossed, from_slot, to_slot)
    reader.end()
    found = Detections(slots, bases, bases, from_slot, to_slot, cross_slots=cross_slots)
    wanted = 0 if keeps_cross(cross_basis) else n_crossed
    if found.discarded_slots.size != wanted:
        raise RemoteProtocolError(f"announcement: cross-basis slots do not follow the policy {cross_basis!r}")
    return Announcement(slots, bases, x_bits, cross_slots, n_doubles)


def alice_sift(
    bases: Bytes8,
    x_bits: Bytes8,
    alice_bases: Bytes8,
    alice_bits: Bytes8,
    alice_intensities: Bytes8 | None = None,
) -> tuple[bytes, SiftedChunk]:
    """Alice: her reply to a decoded announcement, and her share.

    Parameters
    ----------
    bases, x_bits : of an :class:`Announcement`.
    alice_bases, alice_bits : *(n,) uint8*, what she prepared in the announced slots.
    alice_intensities : *(n,) uint8*, intensity indices 0..3 (decoy protocols only).

    Security
    --------
    The reply publishes her bases, the symbols of X detections and the intensities of detected pulses; no key bit.
    """
    if not bases.size == alice_bases.size == alice_bits.size:
        raise LocalProtocolError("Alice's symbols do not match the announced slots in number")
    mask, key, x_symbols = _room(bases.size)
    measured, kept = sift.split_alice(bases, alice_bases, alice_bits, mask, key, x_symbols)
    n_x = bases.size - measured
    x_symbols = x_symbols[:n_x]
    planes, z_levels, x_levels = 0, None, _zeros(n_x)
    if alice_intensities is not None:
        measured_x = bases == 1
        planes, x_levels = MAX_INTENSITY_PLANES, alice_intensities[measured_x]
        z_levels = alice_intensities[~measured_x & (alice_bases == 0)]
    parts = [_bytes(mask, measured), *_planes(x_symbols, 2), *_planes(x_levels, planes)]
    if z_levels is not None:
        parts[1:1] = _planes(z_levels, planes)
    reply = _REPLY.pack(planes, measured, n_x) + b"".join(part.tobytes() for part in parts)
    return reply, _share(key, kept, planes, z_levels, x_symbols, x_bits, x_levels)


def bob_sift(
    detections: Detections, reply: bytes | bytearray | memoryview, *, intensities: bool | None = None
) -> SiftedChunk:
    """Bob: his share of the chunk that he announced, from Alice's reply.

    Parameters
    ----------
    intensities : whether the protocol has decoy intensities; None takes whatever the reply holds.

    Raises
    ------
    RemoteProtocolError
        The reply does not fit the announced chunk.
    """
    data = np.frombuffer(reply, dtype=np.uint8)
    if data.size < _REPLY.size:
        raise RemoteProtocolError("sifting reply: shorter than its header")
    planes, n_z, n_x = _REPLY.unpack_from(reply)
    ours_x = int(np.count_nonzero(detections.bases))
    if planes not in (0, MAX_INTENSITY_PLANES) or intensities not in (None, planes > 0):
        raise RemoteProtocolError(f"sifting reply: {planes} intensity planes")
    if (n_z, n_x) != (len(detections) - ours_x, ours_x):
        raise RemoteProtocolError("sifting reply: its counts are not those of the announced chunk")
    reader = _Reader(data, _REPLY.size, "sifting reply")
    mask = reader.packed(n_z, "mask")
    padded = np.append(mask, np.uint8(0))
    _, key, x_bits = _room(len(detections))
    kept = int(sift.split_bob(detections.bases, detections.bits, padded, key, x_bits))
    z_levels = reader.number(kept, planes, "intensities of Z") if planes else None
    x_symbols = reader.number(n_x, 2, "symbols of X")
    x_levels = reader.number(n_x, planes, "intensities of X")
    reader.end()
    return _share(key, kept, planes, z_levels, x_symbols, x_bits[:n_x], x_levels)


class BitAccumulator:
    """Collects packed secret bits and hands them out in frames of any length, in order.

    Security
    --------
    Memory that is given back is overwritten first; :meth:`wipe` overwrites everything.
    """

    def __init__(self) -> None:
        self._bytes = np.zeros(1 << 16, dtype=np.uint8)
        self._start = 0
        self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def __repr__(self) -> str:
        return f"BitAccumulator({len(self)} bits)"

    def append(self, bits: KeyBits) -> None:
        """Take over the bits (the key object is empty afterwards)."""
        n_bits = bits.n_bits
        self._make_room(n_bits)
        packed = bits.take()
        sift.copy_bits(packed, 0, n_bits, self._bytes, self._stop)
        if packed.flags.writeable:
            packed.fill(0)
        self._stop += n_bits

    def take(self, n_bits: int) -> KeyBits:
        """The oldest ``n_bits`` bits (at most ``len(self)``)."""
        if not 0 <= n_bits <= len(self):
            raise LocalProtocolError(f"{n_bits} bits were asked of an accumulator that holds {len(self)}")
        frame = np.zeros((n_bits + 7) // 8, dtype=np.uint8)
        sift.copy_bits(self._bytes, self._start, n_bits, frame, 0)
        first, self._start = self._start, self._start + n_bits
        self._bytes[first >> 3 : self._start >> 3] = 0
        return KeyBits(frame, n_bits)

    def wipe(self) -> None:
        """Overwrite and forget everything."""
        self._bytes.fill(0)
        self._start = self._stop = 0

    def _make_room(self, n_bits: int) -> None:
        if self._stop + n_bits <= 8 * self._bytes.size:
            return
        first, held = self._start >> 3, ((self._stop + 7) >> 3) - (self._start >> 3)
        needed = held + (n_bits >> 3) + 2
        old = self._bytes
        self._bytes = np.zeros(max(old.size, 1 << (needed - 1).bit_length()), dtype=np.uint8)
        self._bytes[:held] = old[first : first + held]
        old.fill(0)
        self._start, self._stop = self._start - 8 * first, self._stop - 8 * first


class _Reader:
    """Cuts packed bit arrays off a message and refuses what does not fit."""

    def __init__(self, data: Bytes8, at: int, name: str) -> None:
        self._data, self._at, self._name = data, at, name

    def packed(self, n_bits: int, what: str) -> Bytes8:
        size = (n_bits + 7) // 8
        part = self._data[self._at : self._at + size]
        if part.size < size:
            raise RemoteProtocolError(f"{self._name}: ends within {what}")
        if n_bits & 7 and part[-1] >> (n_bits & 7):
            raise RemoteProtocolError(f"{self._name}: padding of {what} is not zero")
        self._at += size
        return part

    def bits(self, n_bits: int, what: str) -> Bytes8:
        return np.unpackbits(self.packed(n_bits, what), count=n_bits, bitorder="little")

    def number(self, n: int, planes: int, what: str) -> Bytes8:
        value = _zeros(n)
        for plane in range(planes):
            value |= self.bits(n, what) << np.uint8(plane)
        return value

    def slots(self, n: int, from_slot: int, to_slot: int) -> NDArray[np.int64]:
        """Ascending key slots of a range."""
        if n > self._data.size - self._at:  # a slot needs at least one byte: allocate nothing for a lie
            raise RemoteProtocolError(f"{self._name}: " + _FAULTS[varint.TRUNCATED])
        slots = np.empty(n, dtype=np.int64)
        used, status = varint.decode_deltas(self._data[self._at :], -1, SLOT_LIMIT, slots)
        if status != varint.DECODED:
            raise RemoteProtocolError(f"{self._name}: {_FAULTS[status]}")
        if np.any(slots & (EPOCH_SLOTS - 1) < PREAMBLE_SLOTS):
            raise RemoteProtocolError(f"{self._name}: a slot lies in a preamble")
        if n and not (from_slot <= slots[0] and slots[-1] < to_slot):
            raise RemoteProtocolError(f"{self._name}: a slot lies outside {from_slot}..{to_slot}")
        self._at += used
        return slots

    def end(self) -> None:
        if self._at != self._data.size:
            raise RemoteProtocolError(f"{self._name}: {self._data.size - self._at} bytes too many")


def _share(
    key: Words,
    kept: int,
    planes: int,
    z_levels: Bytes8 | None,
    x_symbols: Bytes8,
    x_bits: Bytes8,
    x_levels: Bytes8,
) -> SiftedChunk:
    x_counts = np.zeros((1 << planes, SYMBOLS, 2), dtype=np.int64)
    sift.count_x(x_symbols, x_bits, x_levels, x_counts)
    n_z = np.array([kept]) if z_levels is None else np.bincount(z_levels, minlength=1 << planes)
    bits = _bytes(key, kept).copy()
    key.fill(0)
    return SiftedChunk(KeyBits(bits, kept), n_z.astype(np.int64), x_counts)


def _room(n: int) -> tuple[Words, Words, Bytes8]:
    """Two packed strings of up to ``n`` bits and up to ``n`` symbols, with the kernels' one more of each."""
    return np.zeros(n // 64 + 1, np.uint64), np.zeros(n // 64 + 1, np.uint64), np.empty(n + 1, np.uint8)


def _bytes(words: Words, n_bits: int) -> Bytes8:
    return words.astype("<u8", copy=False).view(np.uint8)[: (n_bits + 7) // 8]


def _pack(bits: Bytes8) -> Bytes8:
    return np.packbits(bits, bitorder="little")


def _planes(values: Bytes8, planes: int) -> list[Bytes8]:
    return [_pack((values >> np.uint8(plane)) & np.uint8(1)) for plane in range(planes)]


def _zeros(n: int) -> Bytes8:
    return np.zeros(n, dtype=np.uint8)
