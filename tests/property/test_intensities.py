"""Intensities are drawn exactly from random bits, revealed by sifting, and counted alike at both ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alice.transmitter import SymbolRing, Transmitter
from common.datatypes import Detections
from common.errors import ConfigurationError, RemoteProtocolError
from common.kernels import symbols as kernels
from common.postprocessing.sifting import alice_sift, bob_sift, decode_announcement, encode_announcement
from common.preamble import PREAMBLE_SLOTS

FULL = 1 << 16


def reader(seed: int):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    return lambda n: rng.integers(0, 256, n, dtype=np.uint8)


@given(st.integers(0, FULL), st.integers(0, FULL), st.integers(0, 2**32))
def test_a_lane_s_intensity_is_where_its_uniform_number_falls(first: int, second: int, seed: int) -> None:
    signal, not_vacuum = sorted((first, second))
    words = np.random.default_rng(seed).integers(0, 1 << 64, 80, dtype=np.uint64)
    planes = np.zeros((2, 5), np.uint64)
    written, used = divmod(kernels.fill_intensities(words, 0, signal, not_vacuum, planes, 0), 1 << 32)
    at = 0
    for word in range(written):
        lanes = [(words[at : at + 16] >> np.uint64(lane)) & np.uint64(1) for lane in range(64)]
        numbers = [int("".join(map(str, lane)).ljust(16, "0"), 2) for lane in lanes]
        levels = [0 if number < signal else 1 if number < not_vacuum else 2 for number in numbers]
        found = [
            int((planes[0, word] >> np.uint64(lane)) & np.uint64(1))
            + 2 * int((planes[1, word] >> np.uint64(lane)) & np.uint64(1))
            for lane in range(64)
        ]
        assert found == levels
        alone = np.zeros((2, 1), np.uint64)
        at += kernels.fill_intensities(words, at, signal, not_vacuum, alone, 0) % (1 << 32)
    assert at == used
    assert written


def test_the_transmitter_draws_the_stated_fractions_independent_of_the_symbols(rng: np.random.Generator) -> None:
    fractions = (40_000 / FULL, 20_000 / FULL, 5_536 / FULL)
    sent = Transmitter(50_000, "decoy-bb84", 0, fractions).prepare(PREAMBLE_SLOTS, 1 << 20, reader(4))
    bits = [np.unpackbits(plane.view(np.uint8), bitorder="little") for plane in (sent.basis, sent.bit, *sent.intensity)]
    level = bits[2] + 2 * bits[3]
    for basis in (0, 1):
        for bit in (0, 1):
            chosen = level[(bits[0] == basis) & (bits[1] == bit)]
            counts = np.bincount(chosen, minlength=4)
            means = chosen.size * np.array(fractions)
            assert np.all(np.abs(counts[:3] - means) < 5 * np.sqrt(means * (1 - np.array(fractions))))
            assert counts[3] == 0


def test_preambles_shine_at_the_signal_s_intensity() -> None:
    sent = Transmitter(50_000, "decoy-bb84", 0, (0.5, 0.25, 0.25)).prepare(0, 2 * PREAMBLE_SLOTS, reader(5))
    assert not sent.intensity[:, : PREAMBLE_SLOTS // 64].any()
    assert sent.intensity[:, PREAMBLE_SLOTS // 64 :].any(axis=1).all()


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.3, 0.2), (0.5, 0.25, 0.125)])
def test_fractions_that_cannot_be_drawn_exactly_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="p_intensities"):
        Transmitter(50_000, "decoy-bb84", 0, fractions)


@given(st.integers(0, 2**32), st.integers(0, 3000))
def test_both_ends_count_every_intensity_alike(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    ring = SymbolRing(1 << 18, intensity_planes=2)
    sent = Transmitter(40_000, "decoy-bb84", 0, (0.5, 0.25, 0.25)).prepare(PREAMBLE_SLOTS, 1 << 16, reader(seed))
    ring.append(sent)
    slots = PREAMBLE_SLOTS + np.sort(rng.choice(1 << 16, n, replace=False)).astype(np.int64)
    bases, bits = rng.integers(0, 2, (2, n), dtype=np.uint8)
    detections = Detections(slots, bases, bits, PREAMBLE_SLOTS, PREAMBLE_SLOTS + (1 << 16))
    heard = decode_announcement(encode_announcement(detections), PREAMBLE_SLOTS, detections.to_slot, "discard")
    symbol_bases, symbol_bits, levels = ring.lookup(heard.slots)
    reply, mine = alice_sift(heard.bases, heard.x_bits, symbol_bases, symbol_bits, levels)
    yours = bob_sift(detections, reply, intensities=True)
    with pytest.raises(RemoteProtocolError, match="intensity planes"):
        bob_sift(detections, reply, intensities=False)
    both_z = (bases == 0) & (symbol_bases == 0)
    for share in (mine, yours):
        assert share.n_z.tolist() == np.bincount(levels[both_z], minlength=4).tolist()
        for level in range(4):
            for symbol in range(4):
                here = (levels == level) & (2 * symbol_bases + symbol_bits == symbol) & (bases == 1)
                assert share.x_counts[level, symbol].tolist() == np.bincount(bits[here], minlength=2).tolist()
