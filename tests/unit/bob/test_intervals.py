"""Detectors that remember are noticed, however little of it shows; detectors that do not are left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bob.intervals import FEWEST, SIGMAS, WINDOW_SLOTS, Finding, IntervalWatch
from bob.receiver import Receiver
from common.datatypes import TimeTags
from common.kernels import tags
from common.preamble import EPOCH_SLOTS
from hardware.twin.clicks import record
from tests.clicks import RATE_HZ, Link, batches, make

STRETCH = 1 << 19


def light(rng: np.random.Generator, p_click: float, shares: list[float], start: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots and masks of one stretch; about a hundredth of the entries has two detectors."""
    slots = start + np.flatnonzero(rng.random(STRETCH) < p_click)
    masks = (1 << rng.choice(4, slots.size, p=shares)).astype(np.uint8)
    masks |= ((1 << rng.choice(4, slots.size)) * (rng.random(slots.size) < 0.01)).astype(np.uint8)
    return slots.astype(np.int64), masks


def blind(slots: np.ndarray, masks: np.ndarray, recovery: int, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Which entries are left where each detector misses a part of what comes within so many slots of its last click."""
    last = {1: -(10**9), 2: -(10**9), 4: -(10**9), 8: -(10**9)}
    kept = np.ones(slots.size, bool)
    miss = rng.random(slots.size) < depth
    for i, (slot, mask) in enumerate(zip(slots.tolist(), masks.tolist(), strict=True)):
        if mask in last:
            kept[i] = not (slot - last[mask] <= recovery and miss[i])
            if kept[i]:
                last[mask] = slot
    return kept


def watch(stretches: Any) -> list[Finding]:
    made, found = IntervalWatch(), []
    for start, slots, masks in stretches:
        finding = made.add(slots, masks, start, start + STRETCH)
        found += [finding] if finding is not None else []
    return found


@pytest.mark.parametrize("p_click", [0.12, 0.004])
@pytest.mark.parametrize("shares", [[0.45, 0.45, 0.06, 0.04], [0.6, 0.3, 0.05, 0.05], [0.25] * 4, [1.0, 0, 0, 0]])
def test_detectors_without_memory_are_left_alone(p_click: float, shares: list[float], rng: np.random.Generator) -> None:
    starts = range(0, 80 * STRETCH, STRETCH)
    assert watch((start, *light(rng, p_click, shares, start)) for start in starts) == []


def test_light_that_fades_under_background_is_left_alone(rng: np.random.Generator) -> None:
    """Short gaps are then of light, nine in ten in Z; long ones of background, half in X: no detector remembers."""

    def fading() -> Any:
        for start in range(0, 80 * STRETCH, STRETCH):
            bright, dim = light(rng, 0.1, [0.46, 0.44, 0.05, 0.05], start), light(rng, 0.005, [0.25] * 4, start)
            turn = (np.concatenate([bright[0], dim[0]]) >> 12) % 2
            of_bright = np.arange(turn.size) < bright[0].size
            chosen = of_bright == (turn == 1)
            slots, masks = (np.concatenate(column)[chosen] for column in zip(bright, dim, strict=True))
            order = np.argsort(slots, kind="stable")
            yield start, slots[order], masks[order]

    assert watch(fading()) == []


@pytest.mark.parametrize(
    ("recovery", "depth", "p_click"),
    [(3, 1.0, 0.12), (3, 1.0, 0.004), (40, 0.3, 0.12), (1, 0.3, 0.02), (3000, 1.0, 0.02)],
)
def test_a_detector_that_recovers_too_slowly_is_found(
    recovery: int, depth: float, p_click: float, rng: np.random.Generator
) -> None:
    def stretches() -> Any:
        for start in range(0, 400 * STRETCH, STRETCH):
            slots, masks = light(rng, p_click, [0.45, 0.45, 0.05, 0.05], start)
            kept = blind(slots, masks, recovery, depth, rng)
            yield start, slots[kept], masks[kept]

    made = IntervalWatch()
    found = next(f for s, slots, masks in stretches() if (f := made.add(slots, masks, s, s + STRETCH)) is not None)
    assert (found.verdict, found.from_slot) == ("recovery", 0)
    assert found.gap_slots <= max(recovery, 1)


def test_afterpulses_are_found(rng: np.random.Generator) -> None:
    """One click in a hundred clicks again in its own detector two slots later."""

    def stretches() -> Any:
        for start in range(0, 400 * STRETCH, STRETCH):
            slots, masks = light(rng, 0.02, [0.45, 0.45, 0.05, 0.05], start)
            again = rng.random(slots.size) < 0.01
            slots, first = np.unique(np.concatenate([slots, slots[again] + 2]), return_index=True)
            yield start, slots, np.concatenate([masks, masks[again]])[first]

    made = IntervalWatch()
    found = next(f for s, slots, masks in stretches() if (f := made.add(slots, masks, s, s + STRETCH)) is not None)
    assert (found.verdict, found.gap_slots) == ("afterpulses", 2)


def test_a_finding_voids_what_follows_and_is_taken_back_after_a_regular_window() -> None:
    made = IntervalWatch()
    rng = np.random.default_rng(1)
    slots, masks = light(rng, 0.03, [0.5, 0.5, 0.0, 0.0], 0)
    masks = np.where(np.arange(slots.size) % 2 == 0, 1, 2).astype(np.uint8)  # never the same twice
    found = made.add(slots, masks, 0, STRETCH)
    assert found == Finding("recovery", 0, STRETCH + WINDOW_SLOTS, 1)
    assert made.add(slots + STRETCH, masks, STRETCH, 2 * STRETCH) is None, "these are void already"
    late = STRETCH + WINDOW_SLOTS // 2
    again = made.add(slots + late, masks, late, late + STRETCH)
    assert again == Finding("recovery", 2 * STRETCH, late + STRETCH + WINDOW_SLOTS, 1), "said again before they end"
    nothing = slots[:0], masks[:0]
    end = late + STRETCH + WINDOW_SLOTS
    assert made.add(*nothing, late + STRETCH, end) == Finding("regular", late + STRETCH, end)
    assert made.add(*nothing, end, end + 2 * WINDOW_SLOTS) is None
    assert made.add(slots, masks, end, end + STRETCH) is not None
    made.restart()
    assert made.add(slots, masks, 0, STRETCH) == found, "other slot numbers: nothing of them is void yet"


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_limit_is_eight_standard_deviations(sign: float) -> None:
    for variance, sigma in ((100.0, 10.0), (1.0, FEWEST**0.5)):
        for excess, found in ((SIGMAS * sigma - 1.0, -1), (SIGMAS * sigma + 1.0, 3)):
            sums = np.zeros((tags.INTERVAL_ROWS, tags.GAP_BINS))
            sums[tags.VARIANCE, 3], sums[tags.EXCESS, 3] = variance, sign * excess
            assert tags.irregular(sums, SIGMAS, FEWEST) == found


def tagged(rng: np.random.Generator, recovery_ps: int) -> TimeTags:
    made, _ = make(rng, Link(4e6, first_slot=40 * EPOCH_SLOTS - 20_000_000), 1.4)
    kept, channels = np.empty(len(made), np.int64), np.empty(len(made), np.uint8)
    last = np.full(4, -(10**12))
    n = record(made.times_ps, made.channels, recovery_ps, last, 0, 1.0, kept, channels)
    return replace(made, times_ps=kept[:n], channels=channels[:n])


@pytest.mark.parametrize(("dead_time_ps", "kinds"), [(0, ["locked", "recovery"]), (40_000, ["locked"])])
def test_the_receiver_tells_of_a_dead_time_that_is_too_short(
    rng: np.random.Generator, dead_time_ps: int, kinds: list[str]
) -> None:
    """Recovery of 40 ns, three slots: with a common dead time of as much nothing of it is left."""
    bob = Receiver(RATE_HZ, lambda n: rng.integers(0, 2, n, dtype=np.uint8), dead_time_ps=dead_time_ps)
    events, emitted = [], []
    for batch in batches(tagged(rng, 40_000), 0.05):
        emitted += bob.feed(batch)
        events += bob.take_events()
    assert [event.kind for event in events] == kinds
    if len(events) > 1:
        assert events[1].from_slot <= emitted[0].slots[0]
        assert events[1].to_slot > emitted[-1].to_slot
        assert events[1].gap_slots in (1, 2)
