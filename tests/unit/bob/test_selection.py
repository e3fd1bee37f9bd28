"""Segments that produce no key are dropped, whole and uncounted; everything else passes as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bob.gating import Gate
from bob.selection import NO_CLICKS, FarClicks, Selection, SelectionCounts, gives_key
from bob.synchronisation import ClockTracker, CombLine
from common.datatypes import Detections
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS
from common.units import PS_PER_S

SEGMENT = 1000
START = PREAMBLE_SLOTS // SEGMENT * SEGMENT + SEGMENT


def batch(from_slot: int, to_slot: int, n: int, doubles: int = 0) -> Detections:
    slots = np.linspace(from_slot, to_slot, n, endpoint=False).astype(np.int64)
    bases, bits = (slots % 10 == 0).astype(np.uint8), (slots % 2).astype(np.uint8)
    return Detections(slots, bases, bits, from_slot, to_slot, slots[:doubles])


def far(from_slot: int, to_slot: int, n: int) -> FarClicks:
    """Background as the splitter divides it."""
    slots = np.linspace(from_slot, to_slot, n, endpoint=False).astype(np.int64)
    return slots, (np.arange(n) % 10 == 9).astype(np.uint8)


def selection(window: int = 10 * SEGMENT, light_qber: float = 0.0) -> Selection:
    return Selection(SEGMENT, window, 1.0, 0.9, light_qber)


def with_background(per_segment: int = 100, **options: float) -> Selection:
    """One that has seen ten bright segments, with so many clicks of background each."""
    made = selection(**options)  # type: ignore[arg-type]
    end = START + 10 * SEGMENT
    assert sum(map(len, made.take(batch(START, end, 9000), far(START, end, 10 * per_segment)))) == 9000
    return made


def least(background: tuple[float, float], p_z: float, light_qber: float = 0.0) -> float:
    """The number of detections from which on there is key, by bisection."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if gives_key(middle, background, p_z, light_qber) else (middle, high)
    return high


def test_background_that_is_split_as_the_light_may_cause_11_percent_of_errors() -> None:
    """Shor and Preskill, PRL 85, 441: 1 - 2 h(0.110) = 0; half of the background is wrong."""
    detections = least((90.0, 10.0), 0.9)
    assert 50.0 / detections == pytest.approx(0.1100, abs=1e-4)
    errors_of_light = 0.03 * (least((90.0, 10.0), 0.9, 0.03) - 100.0)
    assert (50.0 + errors_of_light) / least((90.0, 10.0), 0.9, 0.03) == pytest.approx(0.1100, abs=1e-4)


def test_background_in_the_rare_basis_counts_by_what_is_inferred_from_it() -> None:
    """Equal in all four detectors, 9 Z for each X: phase errors are nine times the bit errors, h(e) + h(9 e) = 1."""
    detections = least((50.0, 50.0), 0.9)
    z = 0.9 * (detections - 100.0) + 50.0
    assert 25.0 / z == pytest.approx(0.02806, abs=1e-5)


@pytest.mark.parametrize("detections", [0, 1, 10**9])
def test_without_background_everything_is_kept(detections: int) -> None:
    assert gives_key(detections, (0.0, 0.0), 0.9, 0.0)
    assert gives_key(detections, (0.0, 0.0), 0.9, 0.1)


@pytest.mark.parametrize("background", [(1.0, 0.0), (0.0, 1.0), (10.0, 10.0)])
def test_background_alone_gives_no_key(background: tuple[float, float]) -> None:
    assert not gives_key(0.0, background, 0.9, 0.0)
    assert not gives_key(sum(background), background, 0.9, 0.0)


def test_a_drowned_segment_is_dropped_and_its_slots_stay() -> None:
    bob = with_background()
    at = START + 10 * SEGMENT
    poor, good = batch(at, at + SEGMENT, 300, 3), batch(at + SEGMENT, at + 2 * SEGMENT, 950, 4)
    (made,) = [*bob.take(poor, far(at, at + SEGMENT, 100)), *bob.take(good, NO_CLICKS)][-1:]
    assert (made.from_slot, made.to_slot) == (at + SEGMENT, at + 2 * SEGMENT)
    np.testing.assert_array_equal(made.slots, good.slots)
    assert bob.counts == SelectionCounts(12, 1, 300)


def test_what_is_kept_is_what_came() -> None:
    bob = with_background()
    at = START + 10 * SEGMENT
    parts = [batch(at + i * SEGMENT, at + (i + 1) * SEGMENT, n) for i, n in enumerate((950, 300, 940))]
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("slots", "bases", "bits"))
    doubles = np.concatenate([part.slots[:7] for part in parts])
    crossed = doubles[4:18] + 1
    (made,) = bob.take(Detections(*columns, at, at + 3 * SEGMENT, doubles, crossed), NO_CLICKS)
    assert (made.from_slot, made.to_slot) == (at, at + 3 * SEGMENT)
    np.testing.assert_array_equal(made.double_slots, np.delete(doubles, slice(7, 14)))
    np.testing.assert_array_equal(made.cross_slots, [*crossed[:3], *crossed[10:]])
    for name in ("slots", "bases", "bits"):
        expected = np.concatenate([getattr(parts[0], name), getattr(parts[2], name)])
        np.testing.assert_array_equal(getattr(made, name), expected)


def test_cross_basis_slots_are_light_like_any_other() -> None:
    """Whether a pulse clicks in Z alone or in both bases must not decide whether its segment is kept."""
    at = START + 10 * SEGMENT
    for crossed, kept in ((0, 0), (700, 250)):
        light = batch(at, at + SEGMENT, 250)
        free = np.setdiff1d(np.arange(at, at + SEGMENT), light.slots)[:crossed]
        (made,) = with_background().take(replace(light, cross_slots=free), NO_CLICKS)
        assert (len(made), made.cross_slots.size) == (kept, crossed if kept else 0)


def test_a_segment_waits_until_it_is_whole() -> None:
    bob = with_background()
    at = START + 10 * SEGMENT
    assert bob.take(batch(at, at + 999, 290, 1), NO_CLICKS) == []
    (made,) = bob.take(batch(at + 999, at + 1500, 400, 1), NO_CLICKS)
    assert (made.from_slot, made.to_slot, len(made), made.double_slots.size) == (at, at + 1000, 0, 0)
    assert made.slots.size == made.bases.size == made.bits.size == 0


def test_the_end_of_the_light_judges_the_part_by_its_own_length() -> None:
    at = START + 10 * SEGMENT
    for n, kept in ((250, 0), (300, 0), (450, 225)):
        bob = with_background()
        assert bob.take(batch(at, at + 500, n // 2), NO_CLICKS) == []
        (made,) = bob.flush()
        assert (made.from_slot, made.to_slot, len(made)) == (at, at + 500, kept)
        assert bob.flush() == []


def test_a_gap_ends_a_segment() -> None:
    bob = with_background()
    at = START + 10 * SEGMENT
    bob.take(batch(at, at + 300, 290), NO_CLICKS)
    made = bob.take(batch(at + 600, at + 1200, 590), NO_CLICKS)
    assert [(d.from_slot, d.to_slot) for d in made] == [(at, at + 300), (at + 600, at + 1000)]


def test_slot_numbers_that_go_back_are_no_fault() -> None:
    bob = with_background()
    bob.take(batch(START + 10 * SEGMENT, START + 10 * SEGMENT + 300, 290), NO_CLICKS)
    made = bob.take(batch(START, START + SEGMENT, 950), NO_CLICKS)
    assert [d.from_slot for d in made] == [START + 10 * SEGMENT, START]


def test_nothing_is_dropped_before_the_background_is_known() -> None:
    bob = selection()
    (made,) = bob.take(batch(START, START + SEGMENT, 3), far(START, START + SEGMENT, 500))
    assert len(made) == 3
    (made,) = bob.take(batch(START + SEGMENT, START + 2 * SEGMENT, 3), NO_CLICKS)
    assert len(made) == 0


def test_the_background_is_that_of_the_window_before() -> None:
    bob = with_background(window=3 * SEGMENT)
    at, found = START + 10 * SEGMENT, []
    for i in range(5):  # of clicks that were background a moment ago, but now there is none
        found += bob.take(batch(at + i * SEGMENT, at + (i + 1) * SEGMENT, 150), NO_CLICKS)
    assert [len(made) for made in found] == [0, 0, 150, 150, 150], "100, 67, 33 and none of background, less deviations"


def test_a_preamble_holds_neither_light_nor_background() -> None:
    """A segment that lies half in a preamble is judged by the half that can hold detections."""
    epoch = 3 * EPOCH_SLOTS
    bob = Selection(1 << 18, 1 << 18, 1.0, 0.9)
    ahead = epoch - (1 << 18)
    bob.take(batch(ahead, epoch, 1 << 17), far(ahead, epoch, 1 << 15))
    half = batch(epoch + PREAMBLE_SLOTS, epoch + 2 * PREAMBLE_SLOTS, 90_000)
    (made,) = bob.take(Detections(half.slots, half.bases, half.bits, epoch, half.to_slot), NO_CLICKS)
    assert len(made) == 90_000, "more than 4.5 times 2^14, less than 4.5 times 2^15"


def test_statistics_are_on_the_side_of_keeping() -> None:
    at = START + 10 * SEGMENT
    limit = least((90.0 - 2.0 * math.sqrt(900) / 10, 10.0 - 2.0 * math.sqrt(100) / 10), 0.9)
    for sigmas, kept in ((-2.2, False), (-1.8, True)):
        (made,) = with_background().take(batch(at, at + SEGMENT, round(limit + sigmas * math.sqrt(limit))), NO_CLICKS)
        assert bool(len(made)) is kept


def perfect_clock() -> ClockTracker:
    """Slots of 10 ns from time 0."""
    return ClockTracker(CombLine(0, 0.0, 1e8, 0.0, 0.0, 0.0), 100)


@pytest.mark.parametrize("half_gate", [0.13, 0.3, 0.42])
def test_far_clicks_tell_the_background_in_the_gate(half_gate: float, rng: np.random.Generator) -> None:
    n = 200_000
    times = np.sort(rng.integers(0, PS_PER_S // 1000, n))
    channels = rng.choice(4, n, p=[0.3, 0.3, 0.3, 0.1]).astype(np.uint8)
    gate = Gate(half_gate, 0, lambda k: np.zeros(k, np.uint8), "discard")
    clock = perfect_clock()
    slots, bases = gate.far(times, channels, clock)
    gate.sort(times, channels, clock)
    assert slots.size * gate.per_far == pytest.approx(gate.counts.in_gate, rel=5.0 / math.sqrt(slots.size))
    assert bases.mean() == pytest.approx(0.4, abs=5.0 * math.sqrt(0.24 / slots.size))
    assert all(a <= b for a, b in pairwise(slots.tolist()))
    assert slots.min() >= 100
    assert slots.max() <= 100 + 100_000


def test_light_and_its_tail_are_not_far() -> None:
    gate = Gate(0.13, 0, lambda k: np.zeros(k, np.uint8), "discard")
    times = np.array([0, 1200, 1400, 3700, 3800, 5000, 6200, 6300, 9000], np.int64)
    slots, bases = gate.far(times, np.full(9, 3, np.uint8), perfect_clock())
    assert slots.tolist() == [100, 101, 101]
    assert bases.tolist() == [1, 1, 1]


def test_while_a_detector_may_be_blind_no_far_click_counts(rng: np.random.Generator) -> None:
    """After any click, near or far, of this call or the last, for the dead time: as in the gate."""
    times = np.array([0, 4000, 14_000, 24_500, 104_000, 124_000, 154_000], np.int64)
    channels = np.zeros(7, np.uint8)
    gate, clock = Gate(0.13, 15_000, lambda k: np.zeros(k, np.uint8), "discard"), perfect_clock()
    found = []
    for cut in (slice(0, 2), slice(2, 7)):
        found.append(gate.far(times[cut], channels[cut], clock)[0].tolist())
        gate.sort(times[cut], channels[cut], clock)
    assert found == [[], [110, 112, 115]]
    n = 200_000
    busy = np.sort(rng.integers(200_000, 200_000 + PS_PER_S // 100, n))
    channels = rng.integers(0, 4, n, dtype=np.uint8)
    counted = gate.far(busy, channels, clock)[0].size * gate.per_far
    entries = gate.sort(busy, channels, clock).slots.size
    assert counted == pytest.approx(entries, rel=5.0 / math.sqrt(entries))
