"""Health tests: what each finds, how seldom a sound source alarms, and that nothing is missed between two calls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from common.kernels import reference_health
from common.kernels.health import ANCHOR_BYTES, LONG_RUN, STATE_SIZE, WINDOW_BYTES, scan
from hardware.health import (
    FALSE_ALARM_YEARS,
    SECONDS_PER_YEAR,
    HealthTests,
    RandomAlarm,
)

RATE = 95e6


def feed(tests: HealthTests, data: bytes, step: int) -> None:
    array = np.frombuffer(data, np.uint8)
    for at in range(0, array.size, step):
        tests.check(array[at : at + step])


@pytest.mark.parametrize("rate", [1.0, 1e4, 1e6, 95e6, 1e9])
@pytest.mark.parametrize("entropy", [8.0, 5.0, 1.0])
def test_a_sound_source_alarms_at_most_once_in_a_hundred_years(rate: float, entropy: float) -> None:
    tests = HealthTests(rate, entropy)
    seconds = FALSE_ALARM_YEARS * SECONDS_PER_YEAR
    runs = rate * seconds * 2.0 ** (-entropy * (tests.repetition_cutoff - 1))
    windows = rate * seconds / WINDOW_BYTES
    proportions = windows * float(binom.sf(tests.proportion_cutoff - 2, WINDOW_BYTES - 1, 2.0**-entropy))
    assert runs + proportions <= 1.0
    assert runs > 2.0 ** -(entropy + 2), "the cutoff is higher than it need be"


def test_the_old_fixed_cutoff_would_alarm_within_hours() -> None:
    assert HealthTests(RATE).repetition_cutoff > 6
    assert 2.0**40 / RATE < 4 * 3600


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_a_run_of_equal_bytes_is_found_wherever_it_is_cut(rng: np.random.Generator, step: int) -> None:
    tests = HealthTests(RATE)
    cutoff = tests.repetition_cutoff
    feed(tests, rng.bytes(3000) + b"\x07" + b"\x05" * (cutoff - 1) + b"\x07" + rng.bytes(100), step)
    with pytest.raises(RandomAlarm, match=f"{cutoff} equal bytes"):
        feed(tests, b"\x07" + b"\x05" * cutoff + b"\x07", step)


@pytest.mark.parametrize("step", [1, 100, 5000])
def test_one_value_too_often_in_a_window_is_found_wherever_it_is_cut(rng: np.random.Generator, step: int) -> None:
    tests = HealthTests(RATE)
    window = rng.integers(1, 256, WINDOW_BYTES, dtype=np.uint8)
    window[:: WINDOW_BYTES // tests.proportion_cutoff] = 0
    assert int((window == 0).sum()) >= tests.proportion_cutoff
    with pytest.raises(RandomAlarm, match="one byte value"):
        feed(tests, rng.bytes(2 * WINDOW_BYTES) + window.tobytes(), step)


def test_a_window_with_one_less_passes(rng: np.random.Generator) -> None:
    tests = HealthTests(RATE)
    window = rng.integers(1, 256, WINDOW_BYTES, dtype=np.uint8)
    window[np.arange(tests.proportion_cutoff - 1) * 20] = 0
    tests.check(window)


@pytest.mark.parametrize("period", [1000, 30_000, 300_000])
@pytest.mark.parametrize("step", [333, 1 << 20])
@pytest.mark.parametrize("before", [0, 5000])
def test_a_source_that_begins_to_play_in_a_circle_is_found(
    rng: np.random.Generator, period: int, step: int, before: int
) -> None:
    tests = HealthTests(RATE)
    with pytest.raises(RandomAlarm, match="repeats itself"):
        feed(tests, rng.bytes(before) + rng.bytes(period) * ((1 << 22) // period + 4), step)


def test_the_anchor_is_renewed_for_ever(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardware.health.LAST_ANCHOR_LIFE_BYTES", 1 << 14)
    tests = HealthTests(RATE)
    feed(tests, rng.bytes(1 << 20), 1000)
    with pytest.raises(RandomAlarm, match="repeats itself"):
        feed(tests, rng.bytes(2000) * 25, 1000)


def test_sound_bytes_pass_and_a_restart_forgets(rng: np.random.Generator) -> None:
    tests = HealthTests(RATE)
    data = rng.bytes(1000)
    tests.check(np.frombuffer(data, np.uint8))
    tests.restart()
    tests.check(np.frombuffer(data, np.uint8))
    with pytest.raises(RandomAlarm, match="repeats"):
        tests.check(np.frombuffer(data, np.uint8))


def test_cutoffs_are_those_of_the_standard() -> None:
    tests = HealthTests(RATE)
    alpha = 0.5 / (RATE * FALSE_ALARM_YEARS * SECONDS_PER_YEAR)
    assert tests.repetition_cutoff == 1 + math.ceil(-math.log2(alpha) / 8.0)
    # SP 800-90B, 4.4.2: the first byte is counted, the other 511 are the trials
    assert tests.proportion_cutoff == 2 + int(binom.isf(WINDOW_BYTES * alpha, WINDOW_BYTES - 1, 2.0**-8))


@pytest.mark.parametrize("size", [0, 1, 3, 4, 15, 16, 17, 64, 511, 512, 513, 1300])
@pytest.mark.parametrize("values", [1, 2, 4, 256])
@pytest.mark.parametrize("short_runs", [False, True])
def test_the_fast_look_says_what_the_slow_one_says(size: int, values: int, short_runs: bool) -> None:
    rng = np.random.default_rng(size)
    for _ in range(20):
        state, before = np.zeros(STATE_SIZE, np.int64), b""
        for _ in range(5):
            data = rng.integers(0, values, size if rng.random() < 0.5 else int(rng.integers(size + 1)), dtype=np.uint8)
            anchor = rng.integers(0, values, ANCHOR_BYTES * int(rng.integers(2)), dtype=np.uint8)
            if data.size >= ANCHOR_BYTES and rng.random() < 0.5:
                at = int(rng.integers(data.size - ANCHOR_BYTES + 1))
                data[at : at + anchor.size] = anchor
            run, most, known = scan(data, anchor, state, short_runs)
            slow_run, *slow = reference_health.scan(before, data.tobytes(), anchor.tobytes(), WINDOW_BYTES)
            assert (most, known) == tuple(slow)
            assert run == slow_run if short_runs or slow_run >= LONG_RUN else run <= slow_run
            before += data.tobytes()


@pytest.mark.parametrize("at", range(20))
def test_a_long_run_and_the_anchor_are_seen_at_every_place(at: int) -> None:
    counting = np.arange(40, dtype=np.uint8) + np.uint8(100)
    for size in range(at + LONG_RUN, 40):
        data = counting[:size].copy()
        data[at : at + LONG_RUN] = 7
        assert scan(data, data[:0], np.zeros(STATE_SIZE, np.int64), False)[0] == LONG_RUN
    for size in range(at + ANCHOR_BYTES, 40):
        data = counting[:size]
        assert scan(data, data[at : at + ANCHOR_BYTES], np.zeros(STATE_SIZE, np.int64), False)[2]


def test_a_slow_source_s_short_runs_are_found(rng: np.random.Generator) -> None:
    tests = HealthTests(1.0)
    assert tests.repetition_cutoff < LONG_RUN
    for at in range(8):
        tests.restart()
        with pytest.raises(RandomAlarm, match="6 equal bytes"):
            feed(tests, rng.bytes(at) + b"\x07" + b"\x05" * 6 + rng.bytes(100), 1000)
