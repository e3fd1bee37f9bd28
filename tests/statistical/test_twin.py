"""The twin obeys its physics: counts within five standard deviations of closed forms, with fixed seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from common.planning.presets import PRESETS, LinkParameters
from common.units import PS_PER_S
from hardware.twin.physics import (
    CLOCK_WALK_PER_SQRT_S,
    CLOCK_WHITE_SQRT_S,
    HOLD_BACK_PS,
    Receiver,
    TaggerClock,
    poisson_table,
    single_photon_table,
)

N_WORDS = 1 << 14
N_SLOTS = 64 * N_WORDS
EMPTY = np.zeros((0, N_WORDS), np.uint64)
SIGMAS = 5.0


def clock(offset: float = 0.0, start_ps: int = 0) -> TaggerClock:
    return TaggerClock(start_ps, offset, 0.0, 0.0, np.random.default_rng(1))


def receiver(link: LinkParameters, seed: int = 1, intensities: tuple[float, ...] = ()) -> Receiver:
    return Receiver(link, intensities, clock(), np.random.SeedSequence(seed))


def planes(basis: int, bit: int) -> tuple[np.ndarray, np.ndarray]:
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    return np.full(N_WORDS, full * np.uint64(basis)), np.full(N_WORDS, full * np.uint64(bit))


def close(found: float, mean: float, n: float | None = None) -> None:
    """A Poissonian (or, with ``n``, binomial) count."""
    sigma = math.sqrt(mean if n is None else mean * (1.0 - mean / n))
    assert abs(found - mean) <= SIGMAS * sigma + 1.0, f"{found} instead of {mean:.1f} +- {sigma:.1f}"


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_gain_and_error_rates(preset: str) -> None:
    link = replace(PRESETS[preset], dark_rate_cps=0.0, dead_time_ps=0)
    basis, bit = planes(0, 1)
    _, channels, _ = receiver(link).light(basis, bit, EMPTY)
    counts = np.bincount(channels, minlength=4)
    close(counts.sum(), N_SLOTS * link.mean_photon_number * link.transmittance)
    in_z = counts[0] + counts[1]
    close(in_z, counts.sum() * link.p_z_bob, counts.sum())
    close(counts[0], in_z * link.misalignment, in_z)
    close(counts[2], (counts[2] + counts[3]) / 2.0, counts[2] + counts[3])


def test_check_basis_is_prepared_and_measured() -> None:
    link = replace(PRESETS["lab-0.17dB"], dark_rate_cps=0.0)
    for bit in (0, 1):
        _, channels, _ = receiver(link).light(*planes(1, bit), EMPTY)
        counts = np.bincount(channels, minlength=4)
        close(counts[3 - bit], (counts[2] + counts[3]) * link.misalignment, counts[2] + counts[3])
        close(counts[0], (counts[0] + counts[1]) / 2.0, counts[0] + counts[1])


def test_two_photon_pulses_are_as_rare_as_g2_says() -> None:
    link = replace(
        PRESETS["lab-0.17dB"], g2=0.2, dark_rate_cps=0.0, dead_time_ps=0, loss_db=0.0, receiver_efficiency=1.0
    )
    times, _, _ = receiver(link).light(*planes(0, 0), EMPTY)
    slots = np.round(times / (PS_PER_S / link.clock_rate_hz)).astype(np.int64)
    pairs = np.count_nonzero(np.bincount(slots) == 2)
    close(pairs, N_SLOTS * 0.5 * link.g2 * link.mean_photon_number**2 * link.transmittance**2)


def test_weak_coherent_pulses_are_poissonian_in_each_intensity() -> None:
    link = replace(PRESETS["lab-5.11dB"], dark_rate_cps=0.0, dead_time_ps=0)
    means = (0.6, 0.15, 0.0)
    intensity = np.zeros((2, N_WORDS), np.uint64)
    intensity[0, N_WORDS // 4 : N_WORDS // 2] = ~np.uint64(0)
    intensity[1, N_WORDS // 2 :] = ~np.uint64(0)
    times, _, _ = receiver(link, intensities=means).light(*planes(0, 0), intensity)
    slots = np.round(times / (PS_PER_S / link.clock_rate_hz))
    for index, (start, end) in enumerate(((0.0, 0.25), (0.25, 0.5), (0.5, 1.0))):
        found = np.count_nonzero((slots >= start * N_SLOTS) & (slots < end * N_SLOTS))
        close(found, (end - start) * N_SLOTS * means[index] * link.transmittance)


def test_darks_are_uniform_in_time_and_over_detectors() -> None:
    link = replace(PRESETS["field-14.6dB"], dark_rate_cps=40_000.0, dead_time_ps=0)
    times, channels, until_ps = receiver(link).darkness(PS_PER_S)
    assert until_ps == pytest.approx(PS_PER_S - HOLD_BACK_PS, abs=42)
    close(times.size, 40_000)
    close(np.count_nonzero(times < PS_PER_S // 4), times.size / 4, times.size)
    for channel in range(4):
        close(np.count_nonzero(channels == channel), times.size / 4, times.size)


def test_jitter_and_bins() -> None:
    link = replace(PRESETS["lab-0.17dB"], dark_rate_cps=0.0)
    times, _, _ = receiver(link).light(*planes(0, 0), EMPTY)
    assert np.all(times % 42 == 0)
    period = PS_PER_S / link.clock_rate_hz
    residual = (times + 21) - np.round(times / period) * period
    sigma = math.sqrt((75.8 / 2.3548) ** 2 + 40.0**2 + 42.0**2 / 12)
    assert residual.std() == pytest.approx(sigma, rel=SIGMAS / math.sqrt(2 * times.size))
    assert abs(residual.mean()) < SIGMAS * sigma / math.sqrt(times.size)


def test_a_detector_is_blind_while_it_recovers() -> None:
    link = replace(PRESETS["lab-0.17dB"], loss_db=0.0, receiver_efficiency=1.0, dead_time_ps=40_000, dark_rate_cps=0.0)
    times, channels, _ = receiver(link).light(*planes(0, 0), EMPTY)
    for channel in range(4):
        gaps = np.diff(times[channels == channel])
        assert gaps.min() >= 40_000 - 42
    free, free_channels, _ = receiver(replace(link, dead_time_ps=0)).light(*planes(0, 0), EMPTY)
    assert np.diff(free[free_channels == 0]).min() < 40_000 - 42


def test_clock_offset_and_start() -> None:
    link = replace(PRESETS["lab-0.17dB"], dark_rate_cps=0.0)
    made = Receiver(link, (), clock(15e-6, 10**12), np.random.SeedSequence(1))
    plain = receiver(link)
    times, _, until_ps = made.light(*planes(0, 0), EMPTY)
    expected, _, _ = plain.light(*planes(0, 0), EMPTY)
    n = min(times.size, expected.size)
    assert n > 1000
    assert np.abs(times[:n] - 10**12 - expected[:n] * (1 + 15e-6)).max() <= 84
    assert until_ps > 10**12


def test_frequency_walks_as_its_allan_deviation_says() -> None:
    walker = TaggerClock(0, 0.0, 0.0, 1e-9, np.random.default_rng(3))
    steps = []
    for _ in range(4000):
        before = walker.offset
        walker.advance(0.01 * PS_PER_S)
        steps.append(walker.offset - before)
    assert np.std(steps) == pytest.approx(1e-10, rel=SIGMAS / math.sqrt(2 * 4000))


@pytest.mark.parametrize(("tau_s", "measured"), [(0.1, 4e-10), (10.0, 2.4e-9)])
def test_the_clock_wanders_as_a_free_running_laser(tau_s: float, measured: float) -> None:
    """Allan deviation (non-overlapping) at both measured points; its relative error is about 1 / sqrt(2 (n - 1))."""
    n, parts = 1500, 10
    made = TaggerClock(0, 0.0, 0.0, CLOCK_WALK_PER_SQRT_S, np.random.default_rng(4), CLOCK_WHITE_SQRT_S)
    phases = []
    for _ in range(n):
        phases.append(made.whole_ps + made.now_ps)
        for _ in range(parts):
            made.advance(tau_s / parts * PS_PER_S)
    second = np.diff(np.array(phases) - np.arange(n) * tau_s * PS_PER_S, 2) / PS_PER_S
    deviation = math.sqrt(np.mean(second**2) / 2.0) / tau_s
    assert deviation == pytest.approx(measured, rel=SIGMAS * math.sqrt(1.5) / math.sqrt(2.0 * (n - 3)))


@pytest.mark.parametrize("preset", ["lab-0.17dB", "field-14.6dB"])
def test_the_same_seed_gives_the_same_clicks_in_any_batches(preset: str) -> None:
    link = replace(PRESETS[preset], dark_rate_cps=20_000.0)
    rng = np.random.default_rng(5)
    basis, bit = rng.integers(0, 1 << 63, (2, N_WORDS), dtype=np.uint64)
    whole = receiver(link).light(basis, bit, EMPTY)
    parts, pieces = receiver(link), []
    for at in range(0, N_WORDS, 1024):
        pieces.append(parts.light(basis[at : at + 1024], bit[at : at + 1024], EMPTY[:, at : at + 1024]))
    times = np.concatenate([piece[0] for piece in pieces])
    channels = np.concatenate([piece[1] for piece in pieces])
    assert whole[2] - 42 <= pieces[-1][2] <= whole[2] + 42
    n = min(times.size, whole[0].size)
    assert n > 1000
    np.testing.assert_array_equal(channels[:n], whole[1][:n])
    assert np.abs(times[:n] - whole[0][:n]).max() <= 42


def test_photon_number_tables() -> None:
    table = single_photon_table(0.3, 0.01, 0.5)[0]
    p2 = 0.5 * 0.01 * 0.09
    assert table[0] == pytest.approx((0.3 - 2 * p2) * 0.5 + p2 * 0.75)
    assert table[1] == pytest.approx(p2 * 0.25)
    row = poisson_table((2.0,), 0.5)[0]
    assert row == pytest.approx([1 - math.exp(-1), 1 - 2 * math.exp(-1), 1 - 2.5 * math.exp(-1)])
