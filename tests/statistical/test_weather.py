"""The weather obeys its numbers: five standard deviations of closed forms, with fixed seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from common.planning.presets import PRESETS
from common.units import PS_PER_S
from hardware.twin.physics import WEATHER_SLOTS, Receiver, TaggerClock, channel_table
from hardware.twin.weather import Climate, Weather, controller_rotation, random_rotation, rotation

SIGMAS = 5.0
SLOT_S = 1.0 / PRESETS["field-14.6dB"].clock_rate_hz


def weather(seed: int = 1, **climate: object) -> Weather:
    return Weather(Climate(**climate), np.random.default_rng(seed))  # type: ignore[arg-type]


def test_fading_has_its_spread_and_its_correlation_time() -> None:
    made, n = weather(fading_db=1.1, fading_time_s=2.0), 20_000
    values = []
    for _ in range(n):
        made.advance(1.0)
        values.append(made.excess_db)
    kept = math.exp(-0.5)
    effective = n * (1.0 - kept) / (1.0 + kept)
    assert np.mean(values) == pytest.approx(0.0, abs=SIGMAS * 1.1 / math.sqrt(effective))
    assert np.std(values) == pytest.approx(1.1, rel=SIGMAS / math.sqrt(2.0 * effective * 0.8))
    lag = np.corrcoef(values[:-1], values[1:])[0, 1]
    assert lag == pytest.approx(kept, abs=SIGMAS * math.sqrt((1.0 - kept**2) / n))


def test_polarisation_walks_as_far_as_it_says() -> None:
    angles = []
    for seed in range(400):
        made = weather(seed, polarisation_drift=0.05)
        for _ in range(10):
            made.advance(0.1)
        angles.append(math.acos(min(1.0, (np.trace(made.fibre) - 1.0) / 2.0)))
    mean_square = np.mean(np.square(angles))
    assert mean_square == pytest.approx(0.05**2, rel=SIGMAS * math.sqrt(2.0 / 3.0 / 400))


def test_rotations_are_rotations() -> None:
    rng = np.random.default_rng(2)
    for made in (*[random_rotation(rng) for _ in range(50)], controller_rotation(rng.random(4))):
        np.testing.assert_allclose(made @ made.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(made) == pytest.approx(1.0)
    corners = np.array([random_rotation(rng)[2, 2] for _ in range(4000)])
    assert corners.mean() == pytest.approx(0.0, abs=SIGMAS / math.sqrt(3 * 4000)), "uniform: cos is flat in -1 .. 1"
    assert corners.var() == pytest.approx(1.0 / 3.0, rel=0.1)


def test_a_turn_about_y_makes_its_error() -> None:
    angle, error = 0.3, 0.02
    table = channel_table(error, 0.1, rotation((0.0, 1.0, 0.0), angle))
    np.testing.assert_allclose(table.sum(axis=1), 1.0)
    expected = 0.5 * (1.0 - (1.0 - 2.0 * error) * math.cos(angle))
    assert table[0, 1] / (table[0, 0] + table[0, 1]) == pytest.approx(expected)
    assert table[2, 3] / (table[2, 2] + table[2, 3]) == pytest.approx(expected)
    np.testing.assert_allclose(channel_table(error, 0.1), channel_table(error, 0.1, np.eye(3)))


def clicks_of(made: Weather, batches: int = 4) -> np.ndarray:
    link = replace(PRESETS["field-14.6dB"], dark_rate_cps=0.0)
    clock = TaggerClock(0, 0.0, 0.0, 0.0, np.random.default_rng(1))
    receiver = Receiver(link, (), clock, np.random.SeedSequence(1), made)
    zeros = np.zeros(WEATHER_SLOTS // 64, np.uint64)
    return np.array(
        [receiver.light(zeros, zeros, np.zeros((0, zeros.size), np.uint64))[0].size for _ in range(batches)]
    )


def test_an_interruption_is_dark_and_ends() -> None:
    step = WEATHER_SLOTS * SLOT_S
    counts = clicks_of(weather(outages_s=((1.5 * step, 1.5 * step),)))
    mean = WEATHER_SLOTS * PRESETS["field-14.6dB"].detection_probability
    assert counts[1] <= 1, "of the batch before, held back"
    assert all(abs(counts[i] - mean) < SIGMAS * math.sqrt(mean) for i in (0, 2, 3))


def test_background_comes_with_the_day() -> None:
    step = WEATHER_SLOTS * SLOT_S
    made = weather(background_cps=200_000.0, background_period_s=4.0 * step)
    extra = clicks_of(made) - WEATHER_SLOTS * PRESETS["field-14.6dB"].detection_probability
    for found, share in zip(extra, (0.5, 1.0, 0.5, 0.0), strict=True):
        mean = 200_000.0 * share * step
        assert abs(found - mean) < SIGMAS * math.sqrt(mean + 15_000.0) + 0.02 * mean


def test_batches_do_not_matter() -> None:
    link = PRESETS["field-14.6dB"]
    words = WEATHER_SLOTS // 64

    def run(parts: int) -> tuple[np.ndarray, np.ndarray]:
        made = weather(fading_db=1.1, polarisation_drift=0.1, random_polarisation=True)
        clock = TaggerClock(0, 0.0, 0.0, 0.0, np.random.default_rng(1))
        receiver = Receiver(link, (), clock, np.random.SeedSequence(1), made)
        rng = np.random.default_rng(2)
        basis, bit = rng.integers(0, 1 << 63, (2, 2 * words), dtype=np.uint64)
        empty = np.zeros((0, 2 * words // parts), np.uint64)
        found = [
            receiver.light(*planes, empty) for planes in zip(np.split(basis, parts), np.split(bit, parts), strict=True)
        ]
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    times, channels = run(1)
    other_times, other_channels = run(16)
    assert times.size > 10_000
    np.testing.assert_array_equal(channels, other_channels)
    assert np.abs(times - other_times).max() <= 42


def test_a_perfect_day_is_calm() -> None:
    assert Climate().calm
    assert Climate(fading_time_s=5.0).calm
    assert not Climate(fading_db=0.1).calm
    assert PS_PER_S == 10**12
