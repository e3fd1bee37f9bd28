"""A Hanbury Brown-Twiss measurement from time tags: comb, gates, coincidences, background, and the bound of g2(0)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from common.kernels.coincidences import count_coincidences
from common.security.source import Bounded, HbtCounts, g2_bounds
from common.units import PS_PER_S

REACH_SLOTS = 20
MIN_TAGS = 200
FIRST_WINDOW_PS = 1e8
"""Windows of 0.1 ms: 30 ppm of 76 MHz turn the comb's phase by a quarter turn at most."""
CLICKS_FOR_PHASE = 400.0
COMB_SIGMAS = 4.0
DIP_SIGMAS = 5.0

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HbtMeasurement:
    """What the tags say.

    Parameters
    ----------
    corrected, raw : g2 with and without the background taken off. counts : behind ``corrected``.
    coincidences : *(2 K + 1,) int64* by distance in slots, -K .. K.
    frequency_offset_ppm : of the comb, as the tagger's clock sees it. background_cps : of each detector.
    """

    corrected: Bounded
    raw: Bounded
    counts: HbtCounts
    coincidences: Int64s
    frequency_offset_ppm: float
    background_cps: tuple[float, float]

    @property
    def side_peaks(self) -> float:
        """Mean neighbouring peak over what independent clicks would give: above 1 for a source that blinks."""
        k = self.coincidences.size // 2
        expected = self.counts.clicks[0] * self.counts.clicks[1] / self.counts.slots
        return float(np.delete(self.coincidences, k).mean() / expected)

    @property
    def dip_slots(self) -> int:
        """Distance at which far fewer coincidences than at 0 were seen, or 0."""
        k = self.coincidences.size // 2
        at = int(np.argmin(self.coincidences))
        least, zero = int(self.coincidences[at]), int(self.coincidences[k])
        return at - k if zero - least > DIP_SIGMAS * math.sqrt(zero + least) else 0


def measure_g2(
    times_ps: Int64s,
    channels: NDArray[np.uint8],
    clock_rate_hz: float,
    gate_ps: float,
    eps: float,
    detectors: tuple[int, int] | None = None,
    delay_ps: int = 0,
) -> HbtMeasurement:
    """g2(0) of a pulsed source behind a beam splitter with two detectors.

    Parameters
    ----------
    times_ps, channels : *(n,)* tags, ascending in time.
    clock_rate_hz : nominal pulse rate; the comb may be 30 ppm off. gate_ps : full width of the gate around the pulses.
    eps : of the upper bound. detectors : their channels; None: the two that there are.
    delay_ps : how much later the second detector reports; whole slots matter, the rest is found.

    Raises
    ------
    InputError
        Not two detectors, too few tags, no comb, or a gate that leaves no room for the background.
    """
    slot_ps = PS_PER_S / clock_rate_hz if clock_rate_hz > 0.0 else math.nan
    if not (math.isfinite(slot_ps) and 0.0 < gate_ps < 0.9 * slot_ps):
        raise InputError(
            f"a gate of {gate_ps} ps at {clock_rate_hz} Hz leaves nothing between the pulses",
            remedy="Correct --gate-ps (less than 0.9 slots) or --clock-rate-hz.",
        )
    pair = [times_ps[channels == one] for one in _detectors(channels, detectors)]
    pair[1] = pair[1] - delay_ps
    if min(one.size for one in pair) < MIN_TAGS:
        raise InputError(f"fewer than {MIN_TAGS} clicks of a detector", remedy="Measure longer.")
    start = int(min(one[0] for one in pair))
    pair = [one - start for one in pair]
    # The comb of one detector serves both: of two whose cables differ by half a slot, the joint comb has no phase.
    comb = _find_comb(max(pair, key=len), slot_ps)
    turns = [comb.turns(one) for one in pair]
    gate, window = gate_ps / slot_ps, 0.5 * (1.0 - gate_ps / slot_ps)
    gated = [_sort(part, gate, window) for part in turns]
    first, last = (edge(one[at] for one in turns) for edge, at in ((min, 0), (max, -1)))
    span, lasted_ps = float(last - first), max(one[-1] for one in pair) - min(one[0] for one in pair)
    slots, offset_ppm = int(span) + 1, (span * slot_ps / float(lasted_ps) - 1.0) * 1e6
    coincidences = np.zeros(2 * REACH_SLOTS + 1, np.int64)
    count_coincidences(gated[0][0], gated[1][0], coincidences)
    clicks = (gated[0][0].size, gated[1][0].size)
    background = (gated[0][1], gated[1][1])
    zero = int(coincidences[REACH_SLOTS])
    counts = HbtCounts(slots, clicks, zero, background, gate / window)
    try:
        corrected, raw = g2_bounds(counts, eps), g2_bounds(HbtCounts(slots, clicks, zero), eps)
    except ValueError as error:
        raise InputError(str(error), remedy="Measure longer, or correct --gate-ps and --clock-rate-hz.") from None
    watched_s = slots * window * slot_ps / PS_PER_S
    rates = (background[0] / watched_s, background[1] / watched_s)
    return HbtMeasurement(corrected, raw, counts, coincidences, offset_ppm, rates)


def _detectors(channels: NDArray[np.uint8], given: tuple[int, int] | None) -> tuple[int, int]:
    present = [int(channel) for channel in np.unique(channels)]
    if given is None and len(present) == 2:
        return present[0], present[1]
    if given is None or given[0] == given[1] or not set(given) <= set(present):
        raise InputError(
            f"the file has channels {present}; two detectors are needed", remedy="Name them with --channels A,B."
        )
    return given


@dataclass(frozen=True, slots=True)
class _Comb:
    """The pulses in a detector's time: their period, and the phase (in slots) at some times between which it drifts."""

    period_ps: float
    times_ps: Floats
    drift: Floats

    def turns(self, times: Int64s) -> Floats:
        """*(n,) float64* position of tags on the comb in slots, ascending as the times are."""
        return times / self.period_ps - np.interp(times, self.times_ps, self.drift)


def _find_comb(times: Int64s, slot_ps: float) -> _Comb:
    """The comb of one detector; a free-running clock's phase is followed.

    The period comes from the phase steps between windows that grow as it gets known; then the phase of every window is
    unwrapped. The tags are gone through once: a window of fourfold length is the sum of four, each turned to the period
    that is known by then.
    """
    period, window_ps, length = slot_ps, FIRST_WINDOW_PS, float(times[-1]) + 1.0
    tracking_ps = min(max(CLICKS_FOR_PHASE * length / times.size, FIRST_WINDOW_PS), length / 2.0)
    sums, clicks = _phasors(times, period, window_ps, length)
    while True:
        step = float(np.angle(np.sum(sums[1:] * np.conj(sums[:-1])))) if sums.size > 1 else 0.0
        better = period / (1.0 - step / (2.0 * math.pi) * period / window_ps)
        centres = (np.arange(sums.size) + 0.5) * window_ps
        sums = sums * np.exp(2j * math.pi * np.mod(centres / better - centres / period, 1.0))
        period = better
        if window_ps >= tracking_ps:
            break
        window_ps *= 4.0
        starts = np.arange(0, sums.size, 4)
        sums, clicks = np.add.reduceat(sums, starts), np.add.reduceat(clicks, starts)
    lit = np.flatnonzero(clicks >= min(CLICKS_FOR_PHASE / 4.0, float(clicks.max())))
    strength = float(np.sum(np.abs(sums[lit])) / np.sum(clicks[lit]))
    if strength < COMB_SIGMAS / math.sqrt(float(np.mean(clicks[lit]))):
        raise InputError("the tags show no comb at this rate", remedy="Correct --clock-rate-hz (within 30 ppm).")
    drift = np.unwrap(np.angle(sums[lit])) / (2.0 * math.pi)
    return _Comb(period, np.asarray((lit + 0.5) * window_ps, np.float64), np.asarray(drift, np.float64))


def _phasors(times: Int64s, period: float, window_ps: float, length: float) -> tuple[NDArray[np.complex128], Int64s]:
    """Sum of unit phasors and number of clicks in each window."""
    count = max(int(length / window_ps), 1)
    number = np.minimum((times / window_ps).astype(np.int64), count - 1)
    phase = 2.0 * math.pi * np.mod(times / period, 1.0)
    sums = np.bincount(number, np.cos(phase), count) + 1j * np.bincount(number, np.sin(phase), count)
    return sums, np.bincount(number, minlength=count)


def _sort(position: Floats, gate_slots: float, window_slots: float) -> tuple[Int64s, int]:
    """(slots with a click in the gate, number of slots with a click in the window half a slot away)."""
    angle = 2.0 * math.pi * np.mod(position, 1.0)
    centre = math.atan2(float(np.sin(angle).sum()), float(np.cos(angle).sum())) / (2.0 * math.pi)
    shifted = position - centre
    slots = np.floor(shifted + 0.5).astype(np.int64)
    away = np.abs(shifted - slots)
    valley = np.floor(shifted[away > 0.5 * (1.0 - window_slots)]).astype(np.int64)
    return _distinct(slots[away <= 0.5 * gate_slots]), _distinct(valley).size


def _distinct(ascending: Int64s) -> Int64s:
    """Take each value only once."""
    return ascending[np.flatnonzero(np.diff(ascending, prepend=-1 << 62))]
