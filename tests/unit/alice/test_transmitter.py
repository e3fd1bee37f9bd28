"""Symbols: both samplers draw the exact distribution, the ring keeps what it was given, bounded, and wipes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numba import njit

from alice.transmitter import SymbolRing, Transmitter
from common.datatypes import Symbols
from common.errors import LocalProtocolError, RemoteProtocolError
from common.kernels import bits
from common.kernels import symbols as kernels
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS, preamble

SIGMAS = 5.0
N_SLOTS = 1 << 20
START = PREAMBLE_SLOTS


def source(seed: int) -> Callable[[int], np.ndarray]:
    rng = np.random.default_rng(seed)
    return lambda n: rng.integers(0, 256, n, dtype=np.uint8)


def ones(plane: np.ndarray) -> int:
    return int(np.bitwise_count(plane).sum())


def close(found: float, mean: float, n: float) -> None:
    assert abs(found - mean) <= SIGMAS * math.sqrt(mean * (1.0 - mean / n)) + 1.0


@pytest.mark.parametrize("scarce", [False, True])
@pytest.mark.parametrize("protocol", ["three-state", "bb84"])
@pytest.mark.parametrize("numerator", [1, 32768, 58000, 65535])
def test_bases_and_bits_have_their_probabilities(scarce: bool, protocol: str, numerator: int) -> None:
    made = Transmitter(numerator, protocol, 4, scarce=scarce).prepare(START, N_SLOTS, source(numerator))  # type: ignore[arg-type]
    p_x = 1.0 - numerator / 65536
    n_x = ones(made.basis)
    close(n_x, N_SLOTS * p_x, N_SLOTS)
    close(ones(made.bit & ~made.basis), (N_SLOTS - n_x) / 2, max(N_SLOTS - n_x, 1))
    in_x = ones(made.bit & made.basis)
    if protocol == "bb84":
        close(in_x, n_x / 2, max(n_x, 1))
    else:
        assert in_x == 0
    assert made.phase.shape == (4, N_SLOTS // 64)


def test_the_scarce_sampler_spends_little_more_than_the_entropy() -> None:
    sampler = Transmitter(58982, "three-state", 0, scarce=True)
    sampler.prepare(START, N_SLOTS, source(3))
    p = 58982 / 65536
    entropy = -p * math.log2(p) - (1 - p) * math.log2(1 - p) + p
    assert entropy < sampler.random_bits_used / N_SLOTS < 1.02 * entropy


def test_neighbouring_slots_are_independent() -> None:
    for scarce in (False, True):
        made = Transmitter(49152, "bb84", 0, scarce=scarce).prepare(START, N_SLOTS, source(5))
        for plane, p in ((made.basis, 0.25), (made.bit, 0.5)):
            bits = np.unpackbits(plane.view(np.uint8), bitorder="little").astype(bool)
            for distance in (1, 64):
                both = np.count_nonzero(bits[distance:] & bits[:-distance])
                assert abs(both - N_SLOTS * p * p) <= SIGMAS * math.sqrt(3.0 * N_SLOTS * p * p)


def test_every_epoch_opens_with_the_public_preamble() -> None:
    first = EPOCH_SLOTS - (1 << 16)
    made = Transmitter(58000, "three-state", 0).prepare(first, 1 << 18, source(1))
    at = (1 << 16) // 64
    count = PREAMBLE_SLOTS // 64
    np.testing.assert_array_equal(made.bit[at : at + count], preamble(1))
    assert not made.basis[at : at + count].any()


def symbols(rng: np.random.Generator, first_slot: int, n_words: int) -> Symbols:
    planes = rng.integers(0, 1 << 63, (4, n_words), dtype=np.uint64)
    return Symbols(first_slot, planes[0], planes[1], planes[2:], np.zeros((0, n_words), np.uint64))


def test_the_ring_gives_back_what_it_was_given_while_it_grows_and_turns(rng: np.random.Generator) -> None:
    ring = SymbolRing(64 << 10, intensity_planes=2)
    ring._planes = np.zeros((4, 4), np.uint64)  # small, so that it grows and turns
    kept: dict[int, tuple[int, int, int]] = {}
    at = 640
    for _ in range(40):
        batch = symbols(rng, at, int(rng.integers(1, 9)))
        ring.append(batch)
        rows = np.array([batch.basis, batch.bit, batch.intensity[0], batch.intensity[1]])
        bits = np.unpackbits(rows.view(np.uint8), axis=1, bitorder="little")
        kept |= {at + i: (int(b[0]), int(b[1]), int(b[2] + 2 * b[3])) for i, b in enumerate(bits.T)}
        at += batch.n_slots
        slots = np.sort(rng.choice(sorted(kept), 20, replace=False))
        assert list(zip(*(column.tolist() for column in ring.lookup(slots)), strict=True)) == [kept[s] for s in slots]
        release = int(rng.integers(ring.from_slot, at - 64))
        ring.release_before(release)
        kept = {slot: symbol for slot, symbol in kept.items() if slot >= release // 64 * 64}
        for outside in (ring.from_slot - 1, ring.to_slot):
            with pytest.raises(RemoteProtocolError, match="are not in"):
                ring.lookup(np.array([outside]))
    ring.release_before(at)
    assert not ring._planes.any()


def test_a_full_ring_refuses_and_never_forgets_by_itself(rng: np.random.Generator) -> None:
    ring = SymbolRing(64 * 16)
    ring._planes = np.zeros((4, 16), np.uint64)
    ring.append(symbols(rng, 0, 16))
    assert ring.full(64)
    with pytest.raises(LocalProtocolError, match="full"):
        ring.append(symbols(rng, 64 * 16, 1))
    with pytest.raises(LocalProtocolError, match="does not follow"):
        ring.append(symbols(rng, 64 * 99, 1))


@pytest.mark.parametrize("numerator", [1, 4096, 32768, 40961, 58982, 65535])
def test_lanes_compared_at_once_are_numbers_compared_one_by_one(rng: np.random.Generator, numerator: int) -> None:
    """The slow twin: leading bits and 16-bit number of a lane make one number, below the threshold or not."""
    n_words = 37
    words = rng.integers(0, 1 << 64, (kernels.LEADING + 1, n_words), dtype=np.uint64)
    chunks = rng.integers(0, 1 << 16, 64 * n_words + 64, dtype=np.uint16)
    below, undecided = np.empty(n_words, np.uint64), np.empty(n_words, np.uint64)
    kernels.compare_leading(words, numerator, below, undecided)
    basis, bit = below, undecided
    done, used = kernels.fill_symbols(words[-1], chunks, 3, numerator, False, basis, bit)
    planes = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    threshold, rest = numerator >> (16 - kernels.LEADING), (numerator << kernels.LEADING) & 0xFFFF
    fresh, expected = iter(chunks[3:].tolist()), []
    for lane in planes.T.tolist():
        leading = int("".join(map(str, lane[:-1])), 2)
        in_z = leading < threshold or (leading == threshold and rest > 0 and next(fresh) < rest)
        expected.append((int(not in_z), lane[-1] if in_z else 0))
    found = np.unpackbits(np.array([basis, bit]).view(np.uint8), axis=1, bitorder="little")
    assert list(zip(*found.tolist(), strict=True)) == expected
    assert done == n_words
    assert chunks.size - 3 - used == len(list(fresh))


@pytest.mark.parametrize("size", [63, 64, 65, 100, 127, 128, 190])
@pytest.mark.parametrize("start", [0, 1, 64])
def test_the_last_numbers_are_used_like_the_first(rng: np.random.Generator, size: int, start: int) -> None:
    chunks = rng.integers(0, 1 << 16, start + size, dtype=np.uint16)
    undecided = rng.integers(0, 1 << 64, 40, dtype=np.uint64) & rng.integers(0, 1 << 64, 40, dtype=np.uint64)
    basis, bit = np.zeros(40, np.uint64), undecided.copy()
    done, used = kernels.fill_symbols(np.zeros(40, np.uint64), chunks, start, 0x7800, True, basis, bit)
    at = expected = 0
    while at + 64 <= size:
        lanes = [lane for lane in range(64) if int(undecided[expected]) >> lane & 1]
        below = sum(1 << lane for k, lane in enumerate(lanes) if chunks[start + at + k] < 0x8000)
        assert int(basis[expected]) == below ^ (2**64 - 1)
        at, expected = at + len(lanes), expected + 1
    assert (done, used) == (expected, at)


@pytest.mark.parametrize("plain", [False, True])
def test_bits_are_deposited_alike_with_and_without_the_instruction(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    if plain:
        monkeypatch.setattr(bits, "compiled_for", dict)

    @njit
    def by_the_processor(word: np.uint64, places: np.uint64) -> tuple[np.uint64, np.uint64]:
        return bits.deposit(word, places), bits.ones(places)

    words = [*rng.integers(0, 1 << 64, 200, dtype=np.uint64), np.uint64(0), np.uint64(2**64 - 1), np.uint64(1 << 63)]
    for word, places in product(words[-20:], words):
        slow = bits.deposit_slowly(word, places)
        assert by_the_processor(word, places) == (slow, int(places).bit_count())
        bit = iter(range(64))
        assert slow == sum(1 << at for at in range(64) if int(places) >> at & 1 and int(word) >> next(bit) & 1)


def test_a_sampler_without_enough_numbers_stops_at_a_whole_word() -> None:
    basis, bit = np.zeros(4, np.uint64), np.full(4, 2**64 - 1, np.uint64)
    chunks = np.zeros(64 + 63, np.uint16)
    assert kernels.fill_symbols(np.zeros(4, np.uint64), chunks, 0, 58982, True, basis, bit) == (1, 64)


def test_what_has_not_left_is_not_looked_up(rng: np.random.Generator) -> None:
    """Sifting of slots whose light is still to come would tell an eavesdropper their bases beforehand."""
    unsent_from = [64 * 4]
    ring = SymbolRing(64 * 16, intensity_planes=2, unsent_from=lambda: unsent_from[0])
    ring.append(symbols(rng, 0, 8))
    ring.lookup(np.array([0, 64 * 4 - 1]))
    with pytest.raises(RemoteProtocolError, match=r"0\.\.256"):
        ring.lookup(np.array([64 * 4]))
    unsent_from[0] = 64 * 8
    ring.lookup(np.array([64 * 4]))
