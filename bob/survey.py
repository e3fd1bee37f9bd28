"""What a recording of clicks tells about a receiver: its comb, delays, darks and detectors. Pure arithmetic.

Used by `qkd doctor --hardware`, where nothing may be taken for granted: every detector is looked at alone, because
skewed detectors hide each other's comb, and swapped ones hide the preamble.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from bob.alignment import Alignment, SlotSearch
from bob.gating import Gate
from bob.synchronisation import (
    FIRST_WINDOW_PS,
    LONGEST_WINDOW_PS,
    PEAK_POWER,
    SEARCH_PPM,
    ClockTracker,
    CombLine,
    find_comb,
)
from common.datatypes import Bytes8, TimeTags
from common.kernels.coincidences import count_coincidences
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS, preamble
from common.units import PS_PER_S

N_DETECTORS = 4
ELSEWHERE_PPM = 5000.0
"""How far from the configured rate a line is looked for, to say what the rate is."""
BRIGHT_CPS = 20_000.0
BRIGHT_STEP_PS, DIM_STEP_PS = 20_000_000_000, 100_000_000_000
FAR_SLOTS = 0.4
"""Clicks at least so far from the light are darks and background."""
MEMORY_REACH = 1 << 14
"""Slots over which clicks are compared; the last half of them must be regular."""
MEMORY_PAIRS = 1e8
MEMORY_SIGMA = 6.0
MEMORY_SHARE = 0.02
"""What a detector may click more or less often than by chance: what afterpulses of no importance do."""
FEWEST_PAIRS = 30.0
LIT_CLICKS, LIT_BINS = 100, 100
MAX_LAG = 8
LAG_SIGMA = 4.5


@dataclass(frozen=True, slots=True)
class Folded:
    """Clicks on the light's own clock.

    Parameters
    ----------
    slots : *(n,) int64*, from an arbitrary start. offsets : *(n,) float64*, -0.5 .. 0.5 of a slot from the guiding
        detector's light. channels : *(n,) uint8*. seconds : length. rate_hz : of the light at the end.
    """

    slots: NDArray[np.int64]
    offsets: NDArray[np.float64]
    channels: Bytes8
    seconds: float
    rate_hz: float

    def shifted(self, by_slots: NDArray[np.float64]) -> Folded:
        """With *(4,) float64* delays taken off each detector; clicks stay in their order."""
        moved = self.offsets - by_slots[self.channels]
        whole = np.floor(moved + 0.5)
        return Folded(self.slots + whole.astype(np.int64), moved - whole, self.channels, self.seconds, self.rate_hz)

    def counts(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """*(4,) int64* clicks of each detector among the chosen."""
        return np.bincount(self.channels[chosen], minlength=N_DETECTORS)

    def darks_cps(self) -> NDArray[np.float64]:
        """*(4,) float64* darks and background, from the part of the slot that is far from the light."""
        return self.counts(np.abs(self.offsets) >= FAR_SLOTS) / (1.0 - 2.0 * FAR_SLOTS) / self.seconds


@dataclass(frozen=True, slots=True)
class Delay:
    """A detector's light, later than the guide's by ``slots`` (-0.5 .. 0.5); how far its comb stands out."""

    slots: float
    sigma_slots: float
    power: float

    @property
    def known(self) -> bool:
        """Whether there is a comb at all."""
        return self.power >= PEAK_POWER


@dataclass(frozen=True, slots=True)
class Memory:
    """For how long a detector remembers its last click, by recovery or by afterpulses.

    Parameters
    ----------
    gap_slots : the first gap from which on it clicks as if it had not; 1: it recovers within a slot; None: too few
        clicks to tell, or it remembers for longer than is looked at.
    """

    gap_slots: int | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a detector's clicks go with the preamble: +1 it is H, -1 it is V, 0 it is of the other basis.

    ``lag``: its clicks are late by this many whole slots.
    """

    contrast: float
    lag: int
    clicks: int

    @property
    def known(self) -> bool:
        """Whether it stands out of chance, the best of all lags."""
        return abs(self.contrast) * math.sqrt(self.clicks) > LAG_SIGMA


def strongest_line(tags: TimeTags, nominal_hz: float) -> tuple[CombLine, int] | None:
    """The line of the detector in which it stands out most, and that detector; None: in none."""
    start_ps = int(tags.times_ps[0])
    window_ps = FIRST_WINDOW_PS
    while True:
        lines = []
        for channel in range(N_DETECTORS):
            times = tags.times_ps[tags.channels == channel]
            inside = times[: np.searchsorted(times, start_ps + window_ps)]
            line = find_comb(inside, start_ps, window_ps, nominal_hz)
            if line is not None:
                lines.append((line.power, channel, line))
        if lines:
            _, guide, line = max(lines, key=lambda one: one[0])
            return line, guide
        if window_ps >= LONGEST_WINDOW_PS or start_ps + window_ps > tags.until_ps:
            return None
        window_ps *= 2


def rate_elsewhere(tags: TimeTags, nominal_hz: float) -> float | None:
    """The rate of the strongest line further away (also near half and twice the rate), in Hz, or None."""
    step = 1.6e-6 * SEARCH_PPM
    shifts = np.arange(-ELSEWHERE_PPM * 1e-6, ELSEWHERE_PPM * 1e-6, step)
    found = [strongest_line(tags, nominal_hz * factor) for factor in (0.5, 2.0)]
    short = TimeTags(tags.times_ps, tags.channels, int(tags.times_ps[0]) + FIRST_WINDOW_PS - 1)
    found += [strongest_line(short, nominal_hz * (1.0 + shift)) for shift in shifts]
    lines = [one[0] for one in found if one is not None]
    return max(lines, key=lambda line: line.power).rate_hz if lines else None


def weaker_parity(folded: Folded, guide: int, half_gate: float) -> tuple[float, float]:
    """(share of the light in the weaker one of even and odd slots, its standard deviation), by one detector.

    A comb at half the rate is no proof of dark slots: pulses of alternating height make one, too.
    """
    mine = folded.channels == guide
    inside = mine & (np.abs(folded.offsets) <= half_gate)
    dark = 0.5 * float(folded.darks_cps()[guide]) * 2.0 * half_gate * folded.seconds
    odd = int(np.count_nonzero(folded.slots[inside] & 1))
    clicks = int(np.count_nonzero(inside))
    light = max(clicks - 2.0 * dark, 1.0)
    return max(min(odd, clicks - odd) - dark, 0.0) / light, 0.5 * math.sqrt(clicks) / light


def lit_share(tags: TimeTags) -> float:
    """Part of the recording in which there is light: in which it clicks at least a quarter as often as at its best."""
    bins = min(len(tags) // LIT_CLICKS, LIT_BINS)
    if bins < 2:
        return 1.0
    start_ps = int(tags.times_ps[0])
    counts, _ = np.histogram(tags.times_ps, bins=bins, range=(start_ps, max(tags.until_ps, start_ps + 1)))
    return float(np.mean(counts > 0.25 * np.quantile(counts, 0.95)))


def follow(tags: TimeTags, line: CombLine, guide: int, half_gate: float) -> Folded:
    """Put all clicks on the clock that follows the light of one detector; ends early where that light jumps."""
    times, channels = tags.times_ps, tags.channels
    clock = ClockTracker(line)
    gate = Gate(half_gate, 0, lambda n: np.zeros(n, np.uint8), "discard")
    bright = np.count_nonzero(channels == guide) * PS_PER_S > BRIGHT_CPS * (tags.until_ps - int(times[0]))
    step_ps = BRIGHT_STEP_PS if bright else DIM_STEP_PS
    slots, offsets, done = np.empty(times.size, np.int64), np.empty(times.size), 0
    end_ps = line.at_ps
    while done < times.size:
        stop = int(np.searchsorted(times, end_ps))
        part = times[done:stop]
        x = clock.phase + (part - clock.origin_ps) * clock.slots_per_ps
        whole = np.floor(x + 0.5)
        slots[done:stop], offsets[done:stop] = clock.origin_slot + whole.astype(np.int64), x - whole
        if end_ps > line.at_ps:
            mine = channels[done:stop] == guide
            gate.sort(part[mine], channels[done:stop][mine], clock)
            if clock.measure(gate.moments, gate.outside, half_gate, end_ps) == "jump":
                break
            gate.forget_moments()
        done, end_ps = stop, end_ps + step_ps
    seconds = (min(end_ps, tags.until_ps) - int(times[0])) / PS_PER_S
    return Folded(slots[:done], offsets[:done], channels[:done], seconds, clock.rate_hz)


def delays(folded: Folded) -> list[Delay]:
    """Each detector's delay, from the mean direction of its clicks around the slot."""
    made = []
    for channel in range(N_DETECTORS):
        mine = folded.offsets[folded.channels == channel]
        total = complex(np.exp(2j * np.pi * mine).sum())
        power = abs(total) ** 2 / max(mine.size, 1)
        sigma = 1.0 / (2.0 * math.pi * math.sqrt(2.0 * max(power, 1.0)))
        made.append(Delay(float(np.angle(total)) / (2.0 * math.pi), sigma, power))
    return made


def memories(folded: Folded, half_gate: float) -> list[Memory]:
    """Each detector's memory, from the intervals between its own clicks beside those to the others' clicks.

    Light that blinks or fades brings clicks together in all detectors alike; a detector that recovers, or that clicks
    by itself, only in one.

    Parameters
    ----------
    folded : with the delays taken off.
    """
    inside = np.abs(folded.offsets) <= half_gate
    slots, channels = folded.slots[inside], folded.channels[inside]
    if not slots.size:
        return [Memory(None)] * N_DETECTORS
    per_click = max(2.0 * MEMORY_REACH * slots.size / (int(slots[-1]) - int(slots[0]) + 1), 1.0)
    slots, channels = slots[: int(MEMORY_PAIRS / per_click)], channels[: int(MEMORY_PAIRS / per_click)]
    growing = 32.0 * 2.0 ** (np.arange(1, 33) / 4.0)
    edges = np.array([*range(1, 33), *growing.astype(np.int64)])
    own = [channels == channel for channel in range(N_DETECTORS)]
    return [_memory(np.unique(slots[mine]), np.unique(slots[~mine]), edges) for mine in own]


def _memory(mine: NDArray[np.int64], others: NDArray[np.int64], edges: NDArray[np.int64]) -> Memory:
    same, cross = np.zeros((2, 2 * MEMORY_REACH + 1), np.int64)
    count_coincidences(mine, mine, same)
    count_coincidences(mine, others, cross)
    later = slice(MEMORY_REACH, None)
    n_same, n_cross = (np.add.reduceat(counts[later], edges).astype(float) for counts in (same, cross))
    far_same, far_cross = (float(counts[later][MEMORY_REACH // 2 :].sum()) for counts in (same, cross))
    if min(far_same, far_cross) < FEWEST_PAIRS:
        return Memory(None)
    by_others = n_cross * far_same / far_cross
    by_far = np.diff([*edges, MEMORY_REACH + 1]) * far_same / (MEMORY_REACH - MEMORY_REACH // 2 + 1)
    if max(by_others[0], n_same[0]) < FEWEST_PAIRS:
        return Memory(None)
    # Both references must be missed on the same side: others' clicks lack gaps where a detector is late by whole slots,
    # and distant clicks are rarer where the light blinks or fades.
    by_others_spread = by_others**2 * (1.0 / np.maximum(n_cross, 1.0) + 1.0 / far_cross)
    misses = []
    for expected, spread in ((by_others, by_others_spread), (by_far, 0.0)):
        sigma = np.sqrt(np.maximum(expected, 1.0) + spread + expected**2 / far_same)
        limit = np.maximum(MEMORY_SIGMA * sigma, MEMORY_SHARE * expected)
        misses.append(np.where(np.maximum(expected, n_same) >= FEWEST_PAIRS, (n_same - expected) / limit, 0.0))
    beyond = np.flatnonzero((np.minimum(*misses) > 1.0) | (np.maximum(*misses) < -1.0))
    if not beyond.size:
        return Memory(1)
    last = int(beyond[-1])
    return Memory(int(edges[last + 1]) if last + 1 < edges.size else None)


def find_preamble(folded: Folded, half_gate: float) -> list[Agreement] | None:
    """Each detector's agreement with the preamble, whichever two detectors show it; None: no two do.

    Parameters
    ----------
    folded : with the delays taken off.
    """
    inside = np.abs(folded.offsets) <= half_gate
    slots, channels = folded.slots[inside], folded.channels[inside]
    order = np.argsort(slots, kind="stable")
    slots, channels = slots[order], channels[order]
    for zero, one in permutations(range(N_DETECTORS), 2):
        pair = (channels == zero) | (channels == one)
        if not pair.any():
            continue
        bits = (channels[pair] == one).astype(np.uint8)
        found = SlotSearch(int(slots[0])).add(slots[pair], bits, int(slots[-1]))
        if found is not None:
            return _agreements(slots, channels, found)
    return None


def _agreements(slots: NDArray[np.int64], channels: Bytes8, found: Alignment) -> list[Agreement]:
    theirs = slots + found.offset
    positions = theirs & (EPOCH_SLOTS - 1)
    near = (theirs >= 0) & (positions >= MAX_LAG) & (positions < PREAMBLE_SLOTS - MAX_LAG)
    theirs, positions, channels = theirs[near], positions[near], channels[near]
    epochs = theirs // EPOCH_SLOTS
    sums = np.zeros((N_DETECTORS, 2 * MAX_LAG + 1))
    for epoch in np.unique(epochs):
        signs = 1.0 - 2.0 * np.unpackbits(preamble(int(epoch)).view(np.uint8), bitorder="little")
        for channel in range(N_DETECTORS):
            at = positions[(epochs == epoch) & (channels == channel)]
            sums[channel] += [signs[at - lag].sum() for lag in range(-MAX_LAG, MAX_LAG + 1)]
    clicks = np.bincount(channels, minlength=N_DETECTORS)
    best = np.argmax(np.abs(sums), axis=1)
    return [
        Agreement(float(sums[c, best[c]]) / max(int(clicks[c]), 1), int(best[c]) - MAX_LAG, int(clicks[c]))
        for c in range(N_DETECTORS)
    ]
