"""The twin's own random numbers: kernels equal their slow twins, counts within five standard deviations of the law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.twin import draws, reference
from hardware.twin.clicks import put_on_clock, record
from hardware.twin.physics import Sampler, channel_table

SIGMAS = 5.0
N_WORDS = 1 << 14
NO_PLANES = np.zeros((0, N_WORDS), np.uint64)


def close(found: float, mean: float, n: float) -> None:
    sigma = math.sqrt(mean * (1.0 - mean / n))
    assert abs(found - mean) <= SIGMAS * sigma + 1.0, f"{found} instead of {mean:.1f} +- {sigma:.1f}"


def normals(seed: int, n: int) -> np.ndarray:
    """``n`` deviates as the sampler makes them: the time of one certain photon a slot, with slots of no length."""
    zeros = np.zeros((n + 63) // 64, np.uint64)
    sampler = Sampler(np.array([[1.0, 0.0, 0.0]]), np.eye(4), 0.0, 1.0, np.random.SeedSequence(seed))
    times, _ = sampler.sample(zeros, zeros, np.zeros((0, zeros.size), np.uint64))
    return times[:n]


def test_splitmix64_gives_its_published_words() -> None:
    """The generator's first words for seed 1234567 (Vigna's splitmix64.c, as printed by many implementations)."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    counters = [(1234567 + (i + 1) * int(draws.GOLDEN)) & (1 << 64) - 1 for i in range(3)]
    assert [int(draws.mix(np.uint64(counter))) for counter in counters] == published
    assert [reference.mix(counter) for counter in counters] == published


@pytest.mark.parametrize("probability", [1e-4, 0.0043, 0.12, 0.5, 0.97, 1.0])
def test_gap_tables_are_the_geometric_distribution(probability: float) -> None:
    cut, step = draws.gap_tables(probability)
    chances = [0.0] * 256
    for row in range(256):
        share = int(cut[row]) / 2.0**56
        chances[row] += share / 256
        chances[row + int(step[row])] += (1.0 - share) / 256
    for gap in range(255):
        assert chances[gap] == pytest.approx(probability * (1.0 - probability) ** gap, rel=1e-9, abs=1e-15)
    assert chances[255] == pytest.approx((1.0 - probability) ** 255, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("probability", [0.0, 0.0043, 0.12, 1.0])
def test_candidates_come_with_their_probability_and_without_memory(probability: float) -> None:
    sampler = Sampler(np.array([[probability, 0.0, 0.0]]), np.eye(4), 1.0, 0.0, np.random.SeedSequence(7))
    times, channels = sampler.sample(np.zeros(N_WORDS, np.uint64), np.zeros(N_WORDS, np.uint64), NO_PLANES)
    hit = np.zeros(64 * N_WORDS, bool)
    hit[times.astype(np.int64)] = True
    n = float(hit.size)
    assert np.all(channels == 0)
    close(np.count_nonzero(hit), n * probability, n)
    for distance in (1, 2, 255, 256):
        both = np.count_nonzero(hit[distance:] & hit[:-distance])
        # neighbouring pairs share slots: the variance of their number is at most three times the binomial one
        assert abs(both - n * probability**2) <= SIGMAS * math.sqrt(3.0 * n * probability**2) + distance


def test_the_ziggurat_closes() -> None:
    """256 layers of equal area end at height 1; the tail's start is the number in the module."""
    _, step, height = draws.normal_tables()
    edges = step * 2.0**55
    area = edges[255] * (1.0 - height[255])
    assert edges[1] == draws.TAIL
    for layer in range(1, 256):
        assert edges[layer] * (height[layer + 1] - height[layer]) == pytest.approx(area, rel=1e-10)


def test_normal_numbers_have_normal_counts() -> None:
    found = np.concatenate([normals(seed, 1 << 21) for seed in range(2)])
    n = float(found.size)
    for edge in (-4.5, -draws.TAIL, -3.0, -1.7, -0.6, 0.0, 0.21, 1.0, 2.4, draws.TAIL, 4.2):
        close(np.count_nonzero(found < edge), n * 0.5 * math.erfc(-edge / math.sqrt(2.0)), n)
    assert abs(found.mean()) <= SIGMAS / math.sqrt(n)
    assert abs(found.var() - 1.0) <= SIGMAS * math.sqrt(2.0 / n)


def test_normal_numbers_equal_the_slow_twin() -> None:
    sure, step, height = draws.normal_tables()
    found, seed = normals(3, 1 << 14), np.random.SeedSequence(3)
    counter = int(seed.generate_state(1, np.uint64)[0])
    golden = int(draws.GOLDEN)
    tables = sure.tolist(), step.tolist(), height.tolist()
    for i in range(found.size):  # of each slot: a gap, the photons, the detector, the time
        word = reference.mix(counter + (4 * i + 4) * golden)
        assert found[i] == pytest.approx(reference.normal(word, *tables, draws.TAIL), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 1e6), st.integers(0, 3)), max_size=60),
    st.lists(st.floats(0.0, 1e6), max_size=5),
    st.lists(st.integers(-5000, 3000), max_size=5),
    st.sampled_from([1.0, 42.0, 4.1666, 13.7]),
    st.integers(0, 50_000),
)
def test_clock_and_recorder_equal_their_slow_twins(
    photons: list[tuple[float, int]], darks: list[float], held: list[int], resolution_ps: float, recovery_ps: int
) -> None:
    darks, held = sorted(darks), sorted(held)
    times, channels = np.array([t for t, _ in photons]), np.array([c for _, c in photons], np.uint8)
    n = len(photons) + len(darks) + len(held)
    ticks, where = np.empty(n, np.int64), np.zeros(n, np.uint8)
    ticks[: len(held)], where[: len(held)] = held, 1
    dark = np.array(darks, np.float64)
    put_on_clock(times, channels, dark, np.full(dark.size, 3, np.uint8), 0.3, 1.00001, 77, len(held), ticks, where)
    expected = reference.put_on_clock([*photons, *[(t, 3) for t in darks]], [(t, 1) for t in held], 0.3, 1.00001, 77)
    assert ticks.tolist() == [time for time, _ in expected]
    assert sorted(zip(ticks.tolist(), where.tolist(), strict=True)) == sorted(expected)
    clicks = list(zip(ticks.tolist(), where.tolist(), strict=True))
    last, slow_last = np.full(4, -(1 << 62), np.int64), [-(1 << 62)] * 4
    out, out_channels = np.empty(n, np.int64), np.empty(n, np.uint8)
    kept = record(ticks, where, recovery_ps, last, -9000, resolution_ps, out, out_channels)
    recorded = list(zip(out[:kept].tolist(), out_channels[:kept].tolist(), strict=True))
    assert recorded == reference.record(clicks, recovery_ps, slow_last, -9000, resolution_ps)
    assert last.tolist() == slow_last


def test_detectors_are_chosen_with_their_probabilities() -> None:
    table = channel_table(0.1, 0.3)
    np.testing.assert_allclose(table.sum(axis=1), 1.0)
    np.testing.assert_allclose(table[0], [0.63, 0.07, 0.15, 0.15])
    np.testing.assert_allclose(table[3], [0.35, 0.35, 0.03, 0.27])
    sampler = Sampler(np.array([[1.0, 0.0, 0.0]]), table, 1.0, 0.0, np.random.SeedSequence(9))
    ones = np.full(N_WORDS, ~np.uint64(0))
    _, channels = sampler.sample(ones, ones, NO_PLANES)
    for channel, count in enumerate(np.bincount(channels, minlength=4)):
        close(count, 64 * N_WORDS * table[3, channel], 64.0 * N_WORDS)
