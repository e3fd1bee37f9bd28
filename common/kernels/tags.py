"""Time-tag kernels: skew, gate, dead time, double clicks. Channels: 0 = H, 1 = V (Z basis), 2 = R, 3 = L (X basis).

Source: ours, decisions 60 and 61. The slow twins are in ``reference_tags.py``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.kernels.click_rule import COIN, DOUBLE, DROP, KINDS, ONE, RULES

Int64s = NDArray[np.int64]
Bytes8 = NDArray[np.uint8]
Floats = NDArray[np.float64]

# Where the gate keeps its running state and counts: one int64 array handed from batch to batch.
LAST_CLICK_PS = 0
LAST_SLOT = 1
OUTSIDE_GATE = 2
BLANKED = 3
REPEATED = 4
STATE_SIZE = 5

# What the gate measures for the clock: one float64 array.
IN_GATE = 0
SUM_OFFSET = 1
SUM_OFFSET_SQUARED = 2
SUM_POSITION = 3
MOMENTS_SIZE = 4

OUTSIDE_BINS = 32
"""Clicks outside the gate are binned over the slot so that a lost phase can be found again."""

DETECTOR_MASKS = (np.uint8(1) << np.arange(4, dtype=np.uint8)).astype(np.uint8)
MULTIPLE = KINDS > ONE
BASIS_OF_MASK, BIT_OF_MASK = (np.ascontiguousarray(column) for column in RULES["discard"].T)
"""Basis and bit of a mask with one detector (with several, the rule decides)."""

DROPPED = DROP[0]

GAP_BINS = 16
"""Of intervals between detections, by powers of two: bin b holds 2^b .. 2^(b+1) - 1 slots, the last all longer ones."""
_BIN_OF_HALF_GAP = np.array([half.bit_length() for half in range(1 << (GAP_BINS - 1))], np.uint8)
_SEVERAL = 4
_DETECTOR_OF_MASK = np.array([_SEVERAL if m.bit_count() != 1 else m.bit_length() - 1 for m in range(16)], np.uint8)
_NO_PAIR, _PAIR_KINDS = 0, 5
_KIND_OF_PAIR = np.array(
    [
        _NO_PAIR if _SEVERAL in (one, two) or one // 2 != two // 2 else 1 + one // 2 * 2 + (one == two)
        for one in range(5)
        for two in range(5)
    ],
    np.uint8,
)
"""By 5 times the first detector plus the second: Z and different, Z and the same, X and different, X and the same."""
PAIRS = 0
EXCESS = 1
VARIANCE = 2
INTERVAL_ROWS = 3


@njit(cache=True, nogil=True)
def correct_skew(
    times_ps: Int64s, channels: Bytes8, skew_ps: Int64s, out_times_ps: Int64s, out_channels: Bytes8
) -> None:
    """Subtract each channel's skew and restore the order in time (insertion sort: the input is nearly sorted).

    Parameters
    ----------
    times_ps : *(n,) int64*; channels : *(n,) uint8*; skew_ps : *(n_channels,) int64*.
    out_times_ps, out_channels : as the inputs.
    """
    for i in range(times_ps.size):
        time = times_ps[i] - skew_ps[channels[i]]
        channel = channels[i]
        at = i
        while at > 0 and out_times_ps[at - 1] > time:
            out_times_ps[at] = out_times_ps[at - 1]
            out_channels[at] = out_channels[at - 1]
            at -= 1
        out_times_ps[at] = time
        out_channels[at] = channel


@njit(cache=True, nogil=True)
def gate(
    times_ps: Int64s,
    channels: Bytes8,
    origin_ps: int,
    origin_slot: int,
    origin_phase: float,
    slots_per_ps: float,
    half_gate: float,
    dead_time_ps: int,
    state: Int64s,
    moments: Floats,
    outside: Int64s,
    out_slots: Int64s,
    out_masks: Bytes8,
) -> tuple[np.int64, int]:
    """Assign clicks to slots: clock model, gate, common dead time, one entry a slot with the mask of its detectors.

    The position of a click is ``x = origin_phase + (t - origin_ps) * slots_per_ps``; its slot is
    ``origin_slot + floor(x + 1/2)``, its offset ``d = x - floor(x + 1/2)`` in slots. Any click, in the gate or not and
    even while blanked, blanks all four detectors for ``dead_time_ps`` (so that never one of them is blind alone);
    further clicks in the slot of an accepted click are coincidences, not blanked.

    Parameters
    ----------
    times_ps : *(n,) int64*, ascending; channels : *(n,) uint8*.
    half_gate : half the gate's width in slots.
    state : *(STATE_SIZE,) int64*, carried from call to call; the counts in it grow.
    moments : *(MOMENTS_SIZE,) float64*, grows by the clicks in the gate: number, sum d, sum d^2, sum x.
    outside : *(OUTSIDE_BINS,) int64*, grows by the clicks outside the gate, binned over d in -1/2 .. 1/2.
    out_slots : *(>= n,) int64*; out_masks : *(>= n,) uint8*, bit c = detector c clicked.

    Returns
    -------
    (int, int) : entries written; how many of them have more than one detector in the mask (at most that many random
        bits are needed by :func:`resolve`; an entry is counted once per further detector).
    """
    one = np.uint64(1)
    count = np.uint64(0)
    multiple = 0
    last_ps = state[LAST_CLICK_PS]
    last_slot = state[LAST_SLOT]
    n_outside = 0
    blanked = 0
    repeated = 0
    n_gate = 0
    sum_d = 0.0
    sum_d2 = 0.0
    sum_x = 0.0
    for i in range(times_ps.size):
        time_ps = times_ps[i]
        x = origin_phase + np.float64(time_ps - origin_ps) * slots_per_ps
        nearest = np.floor(x + 0.5)
        d = x - nearest
        dead = time_ps - last_ps < dead_time_ps
        last_ps = time_ps
        if abs(d) > half_gate:
            n_outside += 1
            outside[np.int64((d + 0.5) * OUTSIDE_BINS) & (OUTSIDE_BINS - 1)] += 1
            continue
        n_gate += 1
        sum_d += d
        sum_d2 += d * d
        sum_x += x
        slot = origin_slot + np.int64(nearest)
        mask = DETECTOR_MASKS[channels[i]]
        if slot <= last_slot:
            if count > np.uint64(0) and slot == last_slot:
                more = out_masks[count - one] | mask
                multiple += more != out_masks[count - one]
                out_masks[count - one] = more
            else:
                repeated += 1
            continue
        if dead:
            blanked += 1
            continue
        last_slot = slot
        out_slots[count] = slot
        out_masks[count] = mask
        count += one
    state[LAST_CLICK_PS] = last_ps
    state[LAST_SLOT] = last_slot
    state[OUTSIDE_GATE] += n_outside
    state[BLANKED] += blanked
    state[REPEATED] += repeated
    moments[IN_GATE] += n_gate
    moments[SUM_OFFSET] += sum_d
    moments[SUM_OFFSET_SQUARED] += sum_d2
    moments[SUM_POSITION] += sum_x
    return np.int64(count), multiple


@njit(cache=True, nogil=True)
def intervals(slots: Int64s, masks: Bytes8, most: int, out: Floats) -> None:  # pragma: no cover - compiled
    """How much more often than by chance a detector clicks again, by the number of slots since it clicked.

    Model: detectors that have recovered do not remember. Of two consecutive detections in one basis, the second is then
    in the same detector as the first with probability s = p^2 + (1 - p)^2, whatever the gap; c (c - 1) / (n (n - 1)),
    summed over the two detectors with c of n detections, has just this mean. Both detectors of a pair are compared,
    never two bases: their ratio may follow the light's brightness, and the basis is public anyway.

    Parameters
    ----------
    slots : *(n,) int64*; masks : *(n,) uint8*, from :func:`gate`; the last ``most`` are looked at.
    out : *(INTERVAL_ROWS, GAP_BINS) float64*, grows: pairs, same detector less its mean, its variance (at most).
    """
    # One increment a detection and no branch: what a pair is, and its bin, cannot be foreseen.
    tally = np.zeros((_PAIR_KINDS, GAP_BINS), np.int64)
    seen = np.zeros(_SEVERAL + 1, np.int64)
    longest = np.int64(_BIN_OF_HALF_GAP.size - 1)
    begin = max(slots.size - most, 0)
    last, last_slot = np.uint8(_SEVERAL), slots[begin] if begin < slots.size else np.int64(0)
    for i in range(begin, slots.size):
        detector, slot = _DETECTOR_OF_MASK[masks[i]], slots[i]
        seen[detector] += 1
        bin_ = _BIN_OF_HALF_GAP[min((slot - last_slot) >> 1, longest)]
        tally[_KIND_OF_PAIR[5 * last + detector], bin_] += 1
        last, last_slot = detector, slot
    for basis in range(2):
        zero, one = seen[2 * basis], seen[2 * basis + 1]
        n = zero + one
        if n < 2:
            continue
        chance = np.float64(zero * (zero - 1) + one * (one - 1)) / np.float64(n * (n - 1))
        p = np.float64(zero) / np.float64(n)
        again = p * p + (1.0 - p) * (1.0 - p)
        spread = again * (1.0 - again) + 2.0 * (p * p * p + (1.0 - p) * (1.0 - p) * (1.0 - p) - again * again)
        for bin_ in range(GAP_BINS):
            same = tally[2 + 2 * basis, bin_]
            pairs = same + tally[1 + 2 * basis, bin_]
            out[PAIRS, bin_] += pairs
            out[EXCESS, bin_] += same - pairs * chance
            out[VARIANCE, bin_] += pairs * spread


@njit(cache=True, nogil=True)
def irregular(sums: Floats, sigmas: float, fewest: float) -> int:
    """The first bin of :func:`intervals` that is further from chance than this many standard deviations; -1: none is.

    Parameters
    ----------
    sums : *(INTERVAL_ROWS, GAP_BINS) float64*. fewest : a smaller variance counts as this.
    """
    for bin_ in range(GAP_BINS):
        excess, variance = sums[EXCESS, bin_], max(sums[VARIANCE, bin_], fewest)
        if excess * excess > sigmas * sigmas * variance:
            return bin_
    return -1


@njit(cache=True, nogil=True)
def read_masks(masks: Bytes8, out_bases: Bytes8, out_bits: Bytes8) -> None:
    """What :func:`resolve` gives where no mask has more than one detector, with the slots as they are."""
    for i in range(masks.size):
        out_bases[i] = BASIS_OF_MASK[masks[i]]
        out_bits[i] = BIT_OF_MASK[masks[i]]


@njit(cache=True, nogil=True)
def resolve(
    slots: Int64s,
    masks: Bytes8,
    random_bits: Bytes8,
    rule: Bytes8,
    out_slots: Int64s,
    out_bases: Bytes8,
    out_bits: Bytes8,
    out_doubles: Int64s,
    out_crossed: Int64s,
) -> tuple[np.int64, np.int64, np.int64]:
    """Turn detector masks into at most one detection a slot (double-click rule, decision 60).

    Parameters
    ----------
    slots : *(n,) int64*; masks : *(n,) uint8*, from :func:`gate`.
    random_bits : *(>= 2 * entries with several detectors,) uint8*, fair and secret bits; used in order.
    rule : *(16, 2) uint8*, basis and bit of each mask, see :mod:`common.kernels.click_rule`; masks of one detector
        need no coin.
    out_slots : *(n,) int64* (may be ``slots`` itself); out_bases, out_bits : *(n,) uint8*.
    out_doubles, out_crossed : *(>= entries with several detectors,) int64*: the slots in which both detectors of one
        basis, and in which detectors of both bases, clicked; the latter whatever the rule.

    Returns
    -------
    (int, int, int) : detections, same-basis doubles and cross-basis slots written.
    """
    one = np.uint64(1)
    written = np.uint64(0)
    doubles = np.uint64(0)
    crossed = np.uint64(0)
    used = 0
    for i in range(slots.size):
        mask = masks[i]
        basis, bit = rule[mask, 0], rule[mask, 1]
        if MULTIPLE[mask]:
            if KINDS[mask] == DOUBLE:
                out_doubles[doubles] = slots[i]
                doubles += one
            else:
                out_crossed[crossed] = slots[i]
                crossed += one
            if basis == DROPPED:
                continue
            if basis == COIN:
                basis = random_bits[used]
                used += 1
            if bit == COIN:
                bit = random_bits[used]
                used += 1
        out_slots[written] = slots[i]
        out_bases[written] = basis
        out_bits[written] = bit
        written += one
    return np.int64(written), np.int64(doubles), np.int64(crossed)
