"""Sifting: both ends count the same, keep the same positions, and refuse everything that is not a chunk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.datatypes import Detections
from common.errors import LocalProtocolError, RemoteProtocolError
from common.keybits import KeyBits
from common.postprocessing.sifting import (
    BitAccumulator,
    alice_sift,
    bob_sift,
    decode_announcement,
    encode_announcement,
)
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS


def made(rng: np.random.Generator, n: int, p_x: float = 0.2) -> Detections:
    gaps = rng.integers(1, 1 << int(rng.integers(1, 30)), n)
    slots = np.cumsum(gaps)
    slots = slots + (slots // (EPOCH_SLOTS - PREAMBLE_SLOTS) + 1) * PREAMBLE_SLOTS
    bases = (rng.random(n) < p_x).astype(np.uint8)
    return Detections(slots, bases, rng.integers(0, 2, n, dtype=np.uint8), 0, int(slots[-1]) + 1 if n else 0)


def unpack(bits: KeyBits) -> np.ndarray:
    return np.unpackbits(bits.view(), count=bits.n_bits, bitorder="little")


@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.booleans())
def test_both_ends_agree_on_everything_public_and_differ_only_by_errors(seed: int, n: int, decoy: bool) -> None:
    rng = np.random.default_rng(seed)
    detections = made(rng, n)
    slots, bases, x_bits = decode_announcement(encode_announcement(detections))
    assert np.array_equal(slots, detections.slots)
    assert np.array_equal(bases, detections.bases)
    symbols = rng.integers(0, 4, n, dtype=np.uint8)
    levels = rng.integers(0, 3, n, dtype=np.uint8) if decoy else None
    reply, alice = alice_sift(bases, x_bits, symbols >> 1, symbols & 1, levels)
    bob = bob_sift(detections, reply)
    assert np.array_equal(alice.n_z, bob.n_z)
    assert np.array_equal(alice.x_counts, bob.x_counts)
    kept = (detections.bases == 0) & (symbols < 2)
    assert np.array_equal(unpack(alice.bits), symbols[kept])
    assert np.array_equal(unpack(bob.bits), detections.bits[kept])
    expected = np.zeros_like(alice.x_counts)
    for symbol, basis, bit, level in zip(
        symbols, detections.bases, detections.bits, np.zeros(n, int) if levels is None else levels, strict=True
    ):
        expected[level, symbol, bit] += basis
    assert np.array_equal(alice.x_counts, expected)
    assert alice.n_z.sum() == kept.sum()
    if levels is not None:
        assert np.array_equal(alice.n_z, np.bincount(levels[kept], minlength=4))


@given(st.integers(0, 2**32 - 1), st.data())
def test_mutated_messages_are_refused_or_mean_something_valid(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    detections = made(rng, 40)
    raw = bytearray(encode_announcement(detections))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        slots, bases, x_bits = decode_announcement(raw)
    except RemoteProtocolError:
        return
    assert np.all(np.diff(slots) > 0)
    again = Detections(slots, bases, np.zeros(slots.size, np.uint8), 0, 1)
    again.bits[bases == 1] = x_bits
    assert encode_announcement(again) == bytes(raw)  # one encoding for one meaning


def announcement(count: int, deltas: bytes, rest: bytes = b"") -> bytes:
    return count.to_bytes(4, "little") + deltas + rest


START = bytes([0x81, 0x80, 0x08])  # slot 2^17, the first one after a preamble


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\x01\x00", "shorter than its count"),
        (announcement(1 << 21, b""), "more than"),
        (announcement(1 << 20, b"\x01"), "end early"),
        (announcement(1, b"\xff"), "end early"),
        (announcement(1, b"\x81\x80\x88\x00", b"\x00"), "longer than its value"),
        (announcement(1, b"\xff" * 10, b"\x00"), "longer than its value"),
        (announcement(2, START + b"\x00", b"\x00"), "not ascending"),
        (announcement(1, b"\xff" * 8 + b"\x7f", b"\x00"), "or more"),
        (announcement(1, b"\x05", b"\x00"), "in a preamble"),
        (announcement(1, START), "within bases"),
        (announcement(1, START, b"\x02"), "padding of bases"),
        (announcement(1, START, b"\x01"), "within X outcomes"),
        (announcement(1, START, b"\x01\x03"), "padding of X outcomes"),
        (announcement(1, START, b"\x00\x00"), "1 bytes too many"),
    ],
)
def test_each_malformed_announcement_is_named(raw: bytes, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        decode_announcement(raw)


def test_a_chunk_that_is_not_ascending_is_our_own_fault(rng: np.random.Generator) -> None:
    detections = made(rng, 5)
    detections.slots[3] = detections.slots[2]
    with pytest.raises(LocalProtocolError, match="not ascending"):
        encode_announcement(detections)


def test_each_malformed_reply_is_named(rng: np.random.Generator) -> None:
    detections = made(rng, 60)
    symbols = rng.integers(0, 4, 60, dtype=np.uint8)
    x_bits = detections.bits[detections.bases == 1]
    reply, _ = alice_sift(detections.bases, x_bits, symbols >> 1, symbols & 1)
    for bad, fault in [
        (reply[:5], "shorter"),
        (b"\x01" + reply[1:], "1 intensity planes"),
        (reply[:1] + b"\x00" + reply[2:], "its counts"),
        (reply[:-1], "ends within symbols of X"),
        (reply + b"\x00", "1 bytes too many"),
    ]:
        with pytest.raises(RemoteProtocolError, match=fault):
            bob_sift(detections, bad)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 700)), max_size=30), st.integers(0, 2**32 - 1))
def test_the_accumulator_is_a_queue_of_bits(steps: list[tuple[bool, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    accumulator = BitAccumulator()
    accumulator._bytes = np.zeros(64, dtype=np.uint8)  # small, so that it grows and moves
    held: list[int] = []
    for give, n in steps:
        if give:
            bits = rng.integers(0, 2, n, dtype=np.uint8)
            held.extend(bits.tolist())
            accumulator.append(KeyBits(np.packbits(bits, bitorder="little"), n))
        else:
            n = min(n, len(held))
            assert unpack(accumulator.take(n)).tolist() == held[:n]
            held = held[n:]
        assert len(accumulator) == len(held)
    with pytest.raises(LocalProtocolError, match="were asked"):
        accumulator.take(len(held) + 1)
    storage = accumulator._bytes
    accumulator.wipe()
    assert not storage.any()


def test_given_bits_leave_no_copy_behind(rng: np.random.Generator) -> None:
    accumulator = BitAccumulator()
    packed = np.full(100, 255, dtype=np.uint8)
    accumulator.append(KeyBits(packed, 800))
    assert not packed.any()
    accumulator.take(800)
    assert not accumulator._bytes.any()
