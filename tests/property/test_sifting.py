"""Sifting: both ends count the same, keep the same positions, and refuse everything that is not a chunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.datatypes import Detections
from common.errors import LocalProtocolError, RemoteProtocolError
from common.keybits import KeyBits
from common.postprocessing.sifting import (
    Announcement,
    BitAccumulator,
    alice_sift,
    bob_sift,
    decode_announcement,
    encode_announcement,
)
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS

POLICIES = st.sampled_from(["discard", "random"])


def made(
    rng: np.random.Generator, n: int, p_x: float = 0.2, policy: str = "discard", p_several: float = 0.1
) -> Detections:
    gaps = rng.integers(1, 1 << int(rng.integers(1, 30)), n)
    slots = np.cumsum(gaps)
    slots = slots + (slots // (EPOCH_SLOTS - PREAMBLE_SLOTS) + 1) * PREAMBLE_SLOTS
    crossed = rng.random(n) < p_several
    held = slots[~crossed] if policy == "discard" else slots
    bases = (rng.random(held.size) < p_x).astype(np.uint8)
    bits = rng.integers(0, 2, held.size, dtype=np.uint8)
    doubles = held[(rng.random(held.size) < p_several) & ~np.isin(held, slots[crossed])]
    return Detections(held, bases, bits, 0, int(slots[-1]) + 1 if n else 0, doubles, slots[crossed])


def unpack(bits: KeyBits) -> np.ndarray:
    return np.unpackbits(bits.view(), count=bits.n_bits, bitorder="little")


def read(raw: bytes | bytearray, policy: str = "discard", to_slot: int = 1 << 60) -> Announcement:
    return decode_announcement(raw, 0, to_slot, policy)


@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.booleans(), POLICIES)
def test_both_ends_agree_on_everything_public_and_differ_only_by_errors(
    seed: int, n: int, decoy: bool, policy: str
) -> None:
    rng = np.random.default_rng(seed)
    detections = made(rng, n, policy=policy)
    heard = read(encode_announcement(detections), policy, detections.to_slot)
    assert np.array_equal(heard.slots, detections.slots)
    assert np.array_equal(heard.bases, detections.bases)
    assert np.array_equal(heard.cross_slots, detections.cross_slots)
    assert heard.double_clicks == detections.double_slots.size
    n = len(detections)
    symbols = rng.integers(0, 4, n, dtype=np.uint8)
    levels = rng.integers(0, 3, n, dtype=np.uint8) if decoy else None
    reply, alice = alice_sift(heard.bases, heard.x_bits, symbols >> 1, symbols & 1, levels)
    bob = bob_sift(detections, reply)
    assert np.array_equal(alice.n_z, bob.n_z)
    assert np.array_equal(alice.x_counts, bob.x_counts)
    kept = (detections.bases == 0) & (symbols < 2)
    assert np.array_equal(unpack(alice.bits), symbols[kept])
    assert np.array_equal(unpack(bob.bits), detections.bits[kept])
    assert bob.ones() == detections.bits[kept].sum()
    expected = np.zeros_like(alice.x_counts)
    for symbol, basis, bit, level in zip(
        symbols, detections.bases, detections.bits, np.zeros(n, int) if levels is None else levels, strict=True
    ):
        expected[level, symbol, bit] += basis
    assert np.array_equal(alice.x_counts, expected)
    assert alice.n_z.sum() == kept.sum()
    if levels is not None:
        assert np.array_equal(alice.n_z, np.bincount(levels[kept], minlength=4))


@given(st.integers(0, 2**32 - 1), POLICIES, st.data())
def test_mutated_messages_are_refused_or_mean_something_valid(seed: int, policy: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    detections = made(rng, 40, policy=policy)
    raw = bytearray(encode_announcement(detections))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        heard = read(raw, policy)
    except RemoteProtocolError:
        return
    for slots in (heard.slots, heard.cross_slots):
        assert np.all(np.diff(slots) > 0)
        assert np.all(slots % EPOCH_SLOTS >= PREAMBLE_SLOTS)
    assert np.isin(heard.cross_slots, heard.slots).sum() == (heard.cross_slots.size if policy == "random" else 0)
    assert heard.double_clicks <= heard.slots.size
    bits = np.zeros(heard.slots.size, np.uint8)
    bits[heard.bases == 1] = heard.x_bits
    again = Detections(heard.slots, heard.bases, bits, 0, 1, heard.slots[: heard.double_clicks], heard.cross_slots)
    assert encode_announcement(again) == bytes(raw)  # one encoding for one meaning


def announcement(count: int, deltas: bytes, rest: bytes = b"", crossed: int = 0, doubles: int = 0) -> bytes:
    return b"".join(n.to_bytes(4, "little") for n in (count, crossed, doubles)) + deltas + rest


START = bytes([0x81, 0x80, 0x08])  # slot 2^17, the first one after a preamble
NEXT = bytes([0x82, 0x80, 0x08])


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\x01" * 11, "shorter than its counts"),
        (announcement((1 << 20) + 1, b""), "more than"),
        (announcement(0, b"", crossed=(1 << 20) + 1), "more than"),
        (announcement(1, START, b"\x00", doubles=2), "2 double clicks among 1 detections"),
        (announcement(1 << 20, b"\x01"), "end early"),
        (announcement(0, b"", crossed=1 << 20), "end early"),
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
        (announcement(0, b"", NEXT + b"\x00", crossed=2), "not ascending"),
        (announcement(0, b"", b"\x05", crossed=1), "in a preamble"),
        (announcement(0, b"", b"\xff\xff\x7f", crossed=1), "outside 131072..131080"),
        (announcement(1, b"\xff\xff\x7f", b"\x00"), "outside 131072..131080"),
        (announcement(1, START, b"\x00" + START, crossed=1), "policy 'discard'"),
    ],
)
def test_each_malformed_announcement_is_named(raw: bytes, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        decode_announcement(raw, PREAMBLE_SLOTS, PREAMBLE_SLOTS + 8, "discard")


def test_cross_basis_slots_are_outside_or_inside_the_detections_as_the_policy_says() -> None:
    apart, among = announcement(1, START, b"\x00" + NEXT, crossed=1), announcement(1, START, b"\x00" + START, crossed=1)
    read(apart, "discard"), read(among, "random")
    for raw, policy in ((apart, "random"), (among, "discard")):
        with pytest.raises(RemoteProtocolError, match=f"policy '{policy}'"):
            read(raw, policy)


def test_a_chunk_that_is_not_ascending_is_our_own_fault(rng: np.random.Generator) -> None:
    detections = made(rng, 5, p_several=0.0)
    detections.slots[3] = detections.slots[2]
    with pytest.raises(LocalProtocolError, match="not ascending"):
        encode_announcement(detections)
    twice = np.array([7, 7]) + PREAMBLE_SLOTS
    with pytest.raises(LocalProtocolError, match="not ascending"):
        encode_announcement(replace(made(rng, 5), cross_slots=twice))


def test_each_malformed_reply_is_named(rng: np.random.Generator) -> None:
    detections = made(rng, 60, p_several=0.0)
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
