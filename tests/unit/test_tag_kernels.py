"""Kernels of ingest and synchronisation against their slow twins, on random shapes, empty ones included."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Detectors
from common.kernels import correlation, reference_tags, sift, tags, varint
from common.kernels.click_rule import COIN, CROSS, DOUBLE, DROP, KINDS, RULES, CrossBasis, keeps_cross, shares
from common.security.tallies import CROSS_BASIS

SEEDS = st.integers(0, 2**32 - 1)


def fresh_gate() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    state = np.zeros(tags.STATE_SIZE, dtype=np.int64)
    state[tags.LAST_CLICK_PS] = state[tags.LAST_SLOT] = -(1 << 62)
    return state, np.zeros(tags.MOMENTS_SIZE), np.zeros(tags.OUTSIDE_BINS, dtype=np.int64)


def run_gate(times: np.ndarray, channels: np.ndarray, model: tuple, cuts: int = 1) -> tuple:
    state, moments, outside = fresh_gate()
    slots, masks, multiple = [], [], 0
    for part in np.array_split(np.arange(times.size), cuts):
        out_slots, out_masks = np.empty(part.size, np.int64), np.empty(part.size, np.uint8)
        n, several = tags.gate(times[part], channels[part], *model, state, moments, outside, out_slots, out_masks)
        slots.append(out_slots[:n])
        masks.append(out_masks[:n])
        multiple += several
    return np.concatenate(slots), np.concatenate(masks), multiple, state, moments, outside


@given(SEEDS, st.integers(0, 200), st.sampled_from([0, 500, 20_000, 60_000]), st.sampled_from(list(RULES)))
def test_gate_and_rule_are_their_slow_twins(seed: int, n: int, dead_time_ps: int, policy: CrossBasis) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(10**18, 10**18 + 13_000 * max(n // 2, 1), n))
    channels = rng.integers(0, 4, n, dtype=np.uint8)
    model = (10**18 - 5, 1000, 0.3, 1 / 13_135.4, 0.3, dead_time_ps)
    slots, masks, multiple, state, moments, outside = run_gate(times, channels, model)
    entries, n_outside, n_blanked = reference_tags.gate(times.tolist(), channels.tolist(), *model)
    assert slots.tolist() == [slot for slot, _ in entries]
    assert [{c for c in range(4) if mask >> c & 1} for mask in masks] == [detectors for _, detectors in entries]
    assert (state[tags.OUTSIDE_GATE], state[tags.BLANKED]) == (n_outside, n_blanked)
    assert outside.sum() == n_outside
    assert moments[tags.IN_GATE] == n - n_outside
    seen = np.zeros((tags.INTERVAL_ROWS, tags.GAP_BINS))
    for most in (slots.size, 7):
        before = seen.copy()
        tags.intervals(slots, masks, most, seen)
        expected_rows = np.array(reference_tags.intervals(entries[-most:] if most else [], tags.GAP_BINS), float).T
        np.testing.assert_allclose(seen - before, expected_rows, atol=1e-9)
    coins = rng.integers(0, 2, 2 * multiple, dtype=np.uint8)
    bases, bits = np.empty(slots.size, np.uint8), np.empty(slots.size, np.uint8)
    doubles, crossed = np.empty(multiple, np.int64), np.empty(multiple, np.int64)
    kept, n_doubles, n_crossed = tags.resolve(slots, masks, coins, RULES[policy], slots, bases, bits, doubles, crossed)
    expected = reference_tags.resolve(entries, coins.tolist(), policy)
    assert list(zip(slots[:kept], bases[:kept], bits[:kept], strict=True)) == expected[0]
    assert doubles[:n_doubles].tolist() == expected[1]
    assert crossed[:n_crossed].tolist() == expected[2]


def test_gate_measures_offset_and_position() -> None:
    times = np.array([1_000, 14_000, 27_500, 46_000])
    _, _, _, _, moments, outside = run_gate(times, np.zeros(4, np.uint8), (0, 0, 0.0, 1e-4, 0.3, 0))
    positions = np.array([0.1, 1.4, 2.75, 4.6])
    offsets = np.array([0.1, -0.25])  # 1.4 and 4.6 lie outside
    assert moments[tags.SUM_OFFSET] == pytest.approx(offsets.sum())
    assert moments[tags.SUM_OFFSET_SQUARED] == pytest.approx((offsets**2).sum())
    assert moments[tags.SUM_POSITION] == pytest.approx(positions[[0, 2]].sum())
    assert np.flatnonzero(outside).tolist() == [3, 28]  # -0.4 and +0.4 of -0.5 .. 0.5 in 32 bins


def test_a_blanked_click_blanks_again() -> None:
    """Otherwise the second detector would be blind alone after the first one recovered."""
    times = np.array([0, 20_000, 40_000, 90_000])
    slots, *_ = run_gate(times, np.array([0, 1, 2, 0], np.uint8), (0, 0, 0.0, 1e-4, 0.3, 30_000))
    assert slots.tolist() == [0, 9]


def test_gate_carries_dead_time_and_slot_across_batches(rng: np.random.Generator) -> None:
    times = np.sort(rng.integers(0, 3_000_000, 300))
    channels = rng.integers(0, 4, 300, dtype=np.uint8)
    model = (0, 0, 0.0, 1 / 13_135.4, 0.5, 25_000)
    whole, *_ = run_gate(times, channels, model)
    pieces, *_ = run_gate(times, channels, model, cuts=300)
    assert np.array_equal(whole, pieces)


@given(SEEDS, st.integers(0, 60))
def test_skew_is_its_slow_twin(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    times, channels = np.sort(rng.integers(0, 5_000, n)), rng.integers(0, 4, n, dtype=np.uint8)
    skew = rng.integers(-900, 900, 4)
    out_times, out_channels = np.empty_like(times), np.empty_like(channels)
    tags.correct_skew(times, channels, skew, out_times, out_channels)
    expected = reference_tags.correct_skew(times.tolist(), channels.tolist(), skew.tolist())
    assert list(zip(out_times, out_channels, strict=True)) == expected


@given(st.lists(st.integers(1, 2**50), max_size=50), st.integers(-1, 2**60))
def test_varints_of_the_slow_twin_come_back(deltas: list[int], start: int) -> None:
    slots = start + np.cumsum(np.array(deltas, dtype=np.int64))
    written = np.frombuffer(reference_tags.encode_deltas(slots.tolist(), start), np.uint8)
    back = np.empty_like(slots)
    assert varint.decode_deltas(written, start, 1 << 62, back) == (written.size, varint.DECODED)
    assert np.array_equal(back, slots)
    out = np.empty(9 * slots.size, np.uint8)
    used = varint.encode_deltas(slots, out)
    assert out[:used].tobytes() == reference_tags.encode_deltas(slots.tolist(), -1)


@given(SEEDS, st.sampled_from([0, 1, 63, 64, 65, 129, 500]), st.sampled_from([0.0, 0.1, 1.0]))
def test_an_announcement_in_one_pass_is_its_parts(seed: int, n: int, p_x: float) -> None:
    rng = np.random.default_rng(seed)
    slots = np.cumsum(rng.integers(1, 1 << rng.integers(1, 50, n), n)) - 1
    bases, bits = (rng.random(n) < p_x).astype(np.uint8), rng.integers(0, 2, n, dtype=np.uint8)
    out = np.empty(9 * n, np.uint8)
    packed, outcomes = np.zeros((2, n // 64 + 1), np.uint64)
    used, n_x = varint.announce(slots, bases, bits, out, packed, outcomes)
    assert out[:used].tobytes() == reference_tags.encode_deltas(slots.tolist(), -1)
    for words, expected in ((packed, bases), (outcomes, bits[bases == 1])):
        found = np.unpackbits(words.view(np.uint8), bitorder="little")
        assert found[: expected.size].tolist() == expected.tolist()
        assert not found[expected.size :].any()
    assert n_x == bases.sum()


@pytest.mark.parametrize("slots", [[-1], [0, 0], [5, 4], [3, 9, 9]])
def test_slots_that_do_not_ascend_are_not_announced(slots: list[int]) -> None:
    n, columns = len(slots), np.zeros(len(slots), np.uint8)
    words = np.zeros((2, 1), np.uint64)
    assert varint.announce(np.array(slots), columns, columns, np.empty(9 * n, np.uint8), *words)[0] == -1
    assert varint.encode_deltas(np.array(slots), np.empty(9 * n, np.uint8)) == -1


def test_the_rule_in_words() -> None:
    """Said again without the table: one detector gives its basis and bit, both of one basis its basis and a coin; with
    both bases the policy decides. A coin is asked for where several clicked and nowhere else."""
    for policy, rule in RULES.items():
        for pattern, (basis, bit) in enumerate(rule.tolist()):
            clicked = {channel for channel in range(4) if pattern >> channel & 1}
            bases = {channel // 2 for channel in clicked}
            if len(clicked) == 1:
                assert [(basis, bit)] == [(channel // 2, channel % 2) for channel in clicked]
            elif len(bases) == 1:
                assert (basis, bit, KINDS[pattern]) == (*bases, COIN, DOUBLE)
            elif bases:
                assert ((basis, bit) == DROP) == (policy == "discard")
                assert keeps_cross(policy) is (policy == "random")
                assert KINDS[pattern] == CROSS
            else:
                assert (basis, bit) == DROP
            total = sum(shares(policy)[pattern])
            assert total == (0.0 if (basis, bit) == DROP else 1.0)


def test_every_rule_has_its_proof_and_its_choice() -> None:
    assert set(RULES) == set(CROSS_BASIS) == set(get_args(Detectors.model_fields["cross_basis"].annotation))


def test_masks_of_single_detectors_are_read_as_the_rule_reads_them() -> None:
    masks = np.array([1, 2, 4, 8, 8, 1], np.uint8)
    bases, bits = np.empty(6, np.uint8), np.empty(6, np.uint8)
    tags.read_masks(masks, bases, bits)
    detectors = [(i, {int(mask).bit_length() - 1}) for i, mask in enumerate(masks)]
    assert list(zip(range(6), bases, bits, strict=True)) == reference_tags.resolve(detectors, [], "discard")[0]


@given(SEEDS, st.integers(0, 200), st.integers(0, 30), st.integers(0, 30))
def test_bits_are_copied_at_any_alignment(seed: int, n: int, source_start: int, target_start: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, 32, dtype=np.uint8)
    target = np.zeros(32, np.uint8)
    before = (1 << target_start) - 1  # what was there already
    target[:4] = np.frombuffer(before.to_bytes(4, "little"), np.uint8)
    sift.copy_bits(source, source_start, n, target, target_start)
    bits = np.unpackbits(target, bitorder="little")
    assert bits[target_start : target_start + n].tolist() == reference_tags.copy_bits(source.tolist(), source_start, n)
    assert bits[:target_start].all()
    assert not bits[target_start + n :].any()


@given(SEEDS, st.integers(0, 80))
def test_down_mixing_is_its_slow_twin(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    times = 10**18 + np.sort(rng.integers(0, 50 * 10**9, n))
    re, im = np.zeros(400), np.zeros(400)
    correlation.down_mix(times, 10**18, 76.13e6 / 1e12, 1e8, re, im)
    expected = reference_tags.down_mix(times.tolist(), 10**18, 76_130_000, 10**8, 400)
    assert np.allclose(re + 1j * im, expected, atol=1e-6)


@given(SEEDS, st.integers(0, 80))
def test_scores_are_their_slow_twin(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**63, (6, 4), dtype=np.uint64)
    patterns = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    positions, bits = rng.integers(0, 256, n), rng.integers(0, 2, n, dtype=np.uint8)
    sums, counts = np.zeros(5, np.int64), np.zeros(5, np.int64)
    correlation.score_starts(positions, bits, words[0], 32, 200, 7, sums, counts)
    for j in range(5):
        expected = reference_tags.score((positions - 7 * j).tolist(), bits.tolist(), patterns[0].tolist(), 32, 200)
        assert (sums[j], counts[j]) == expected
    ages = rng.integers(0, 3, n)
    sums = np.zeros(4, np.int64)
    correlation.score_epochs(positions, ages, bits, words, 2, sums)
    for j in range(4):
        parts = [
            reference_tags.score(positions[ages == a].tolist(), bits[ages == a].tolist(), patterns[j + 2 - a], 0, 256)
            for a in range(3)
        ]
        assert sums[j] == sum(part[0] for part in parts)


@given(SEEDS, st.integers(0, 300))
def test_folding_counts_every_click_once(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    slots, bits = rng.integers(0, 2**20, n), rng.integers(0, 2, n, dtype=np.uint8)
    grid, counts = np.zeros((8, 16), np.int32), np.zeros(8, np.int64)
    correlation.fold(slots, bits, 5, grid, counts)
    expected = np.zeros((8, 16), np.int64)
    for slot, bit in zip(slots.tolist(), bits.tolist(), strict=True):
        expected[slot // 32 % 8, slot % 16] += 1 - 2 * bit
    assert np.array_equal(grid, expected)
    assert counts.sum() == n
