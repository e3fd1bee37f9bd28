"""The clock: found where it may be, tracked like a random walk, honest about what it does not know."""

from __future__ import annotations

import numpy as np
import pytest

from bob.synchronisation import ClockTracker, CombLine, FrequencySearch, find_comb, light_power
from common.kernels import tags
from tests.clicks import RATE_HZ, Link, make

WINDOW_PS = 50_000_000_000


def line_of(link: Link, rng: np.random.Generator, window_ps: int = WINDOW_PS) -> CombLine | None:
    made, _ = make(rng, link, 0.5)
    times = made.times_ps[: np.searchsorted(made.times_ps, window_ps)]
    return find_comb(times, 0, window_ps, RATE_HZ)


@pytest.mark.parametrize("offset_ppm", [-29.0, -3.3, 0.0, 20.0])
@pytest.mark.parametrize("signal_cps", [2e3, 3e5])
def test_the_rate_is_found_within_its_stated_error(
    rng: np.random.Generator, offset_ppm: float, signal_cps: float
) -> None:
    line = line_of(Link(signal_cps, 1e3, offset_ppm=offset_ppm), rng)
    assert line is not None
    true_hz = RATE_HZ / (1 + offset_ppm * 1e-6)
    assert abs(line.rate_hz - true_hz) < 6 * line.sigma_rate_hz
    position = (line.at_ps - 10_000 * (1 + 0 * true_hz)) / 1e12 * true_hz  # clicks lie at 10 ns + whole slots
    assert abs((line.phase - position + 0.5) % 1.0 - 0.5) < 6 * line.sigma_phase + 0.01


def test_one_kilocount_under_one_kilocount_of_darks_is_found_nearly_always(rng: np.random.Generator) -> None:
    found = [line_of(Link(1e3, 1e3, offset_ppm=float(rng.uniform(-20, 20))), rng, 4 * WINDOW_PS) for _ in range(20)]
    assert sum(line is not None for line in found) >= 19


def test_a_stronger_line_outside_the_range_is_not_taken(rng: np.random.Generator) -> None:
    light = line_of(Link(3e5, 1e3, offset_ppm=5.0), rng)
    made, _ = make(rng, Link(3e5, 1e3, offset_ppm=5.0), 0.05)
    other, _ = make(rng, Link(1.5e6, 0.0, offset_ppm=45.0), 0.05)
    times = np.sort(np.concatenate([made.times_ps, other.times_ps]))
    mixed = find_comb(times, 0, WINDOW_PS, RATE_HZ)
    assert light is not None
    assert mixed is not None
    assert abs(mixed.rate_hz - light.rate_hz) < 10.0


def test_darks_alone_show_no_line(rng: np.random.Generator) -> None:
    assert all(line_of(Link(0.0, 1e5), rng) is None for _ in range(10))
    assert find_comb(np.zeros(0, np.int64), 0, WINDOW_PS, RATE_HZ) is None


def test_the_search_doubles_its_window_then_starts_again() -> None:
    search = FrequencySearch(RATE_HZ, 0)
    ends = []
    for _ in range(5):
        ends.append(search.window_end_ps)
        assert search.conclude() is None
    assert [end // 10**9 for end in ends] == [50, 100, 200, 400, 450]


def tracker(rate_hz: float = RATE_HZ) -> ClockTracker:
    return ClockTracker(CombLine(0, 0.0, rate_hz, 0.01, 1.0, 100.0))


def observe(rng: np.random.Generator, clock: ClockTracker, true_hz: float, shift: float, n: int, to_ps: int) -> str:
    """Clicks of a comb ``x = t * true_hz + shift`` between the origin and ``to_ps``, gated by the clock."""
    first, last = (np.ceil(t * true_hz / 1e12 + shift) for t in (clock.origin_ps, to_ps))
    slots = np.sort(rng.integers(int(first), int(last), n))
    times = np.floor((slots - shift) / true_hz * 1e12 + rng.normal(0, 80, n)).astype(np.int64)
    state = np.zeros(tags.STATE_SIZE, np.int64)
    moments, outside = np.zeros(tags.MOMENTS_SIZE), np.zeros(tags.OUTSIDE_BINS, np.int64)
    model = (clock.origin_ps, clock.origin_slot, clock.phase, clock.slots_per_ps, 0.13, 0)
    tags.gate(
        times, np.zeros(n, np.uint8), *model, state, moments, outside, np.empty(n, np.int64), np.empty(n, np.uint8)
    )
    return clock.measure(moments, outside, 0.13, to_ps)


def test_tracking_pulls_phase_and_rate_in(rng: np.random.Generator) -> None:
    clock = tracker()
    for step in range(1, 50):
        assert observe(rng, clock, RATE_HZ + 1.5, 0.02, 2_000, step * 20_000_000_000) == "light"
    assert clock.rate_hz == pytest.approx(RATE_HZ + 1.5, abs=0.1)
    assert abs(clock.last_offset) < 0.005
    assert clock.sigma_slots < 0.005


def test_another_comb_is_a_jump(rng: np.random.Generator) -> None:
    for shift in (0.1, 0.2, 0.3, 0.5):
        clock = tracker()
        for step in range(1, 20):
            observe(rng, clock, RATE_HZ, 0.0, 2_000, step * 20_000_000_000)
        assert observe(rng, clock, RATE_HZ, shift, 2_000, 400_000_000_000) == "jump"


def test_darkness_makes_the_clock_uncertain_within_a_second() -> None:
    clock = tracker()
    clock._p00, clock._p11 = 1e-6, 1e-4
    nothing = np.zeros(tags.MOMENTS_SIZE), np.zeros(tags.OUTSIDE_BINS, np.int64)
    held_ps = 0
    while clock.holding:
        assert clock.measure(*nothing, 0.13, clock.origin_ps + 50_000_000_000) == "dark"
        held_ps = clock.origin_ps
    assert 0.3e12 < held_ps < 1.5e12


def test_uniform_clicks_have_no_light_power(rng: np.random.Generator) -> None:
    offsets = rng.uniform(-0.5, 0.5, 200_000)
    inside = offsets[np.abs(offsets) <= 0.13]
    moments = np.array([inside.size, inside.sum(), (inside**2).sum(), 0.0])
    outside = np.histogram(offsets[np.abs(offsets) > 0.13], tags.OUTSIDE_BINS, (-0.5, 0.5))[0]
    assert light_power(moments, outside) < 12.0


def test_slots_and_times_are_inverse() -> None:
    clock = tracker()
    clock.advance(123_456_789_012_345)
    for slot in range(clock.origin_slot - 1000, clock.origin_slot + 10**6, 99_991):
        start = clock.start_ps(slot)
        assert clock.slot_at(start) == slot
        assert clock.slot_at(start - 2) == slot - 1
    clock.shift(1000)
    assert clock.slot_at(start) == slot + 1000
