"""Kernels of the simulated receiver: photons of a batch of slots, Bob's clock, the tagger's record.

The slow twins are in ``reference.py``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hardware.twin import draws


@njit(cache=True, nogil=True)
def sample_photons(
    counter: NDArray[np.uint64],
    gap_cut: NDArray[np.uint64],
    gap_step: NDArray[np.int64],
    numbers: NDArray[np.uint64],
    detectors: NDArray[np.uint64],
    normal_sure: NDArray[np.uint64],
    normal_step: NDArray[np.float64],
    normal_height: NDArray[np.float64],
    basis: NDArray[np.uint64],
    bit: NDArray[np.uint64],
    intensity: NDArray[np.uint64],
    slot_ps: float,
    sigma_ps: float,
    next_slot: int,
    times: NDArray[np.float64],
    channels: NDArray[np.uint8],
) -> tuple[np.int64, int]:  # pragma: no cover - compiled
    """Detected photons of one batch of slots: times in ps since its first slot, nearly ascending.

    Parameters
    ----------
    counter : *(1,) uint64* of the generator, goes on; gap_*, normal_* : see :mod:`hardware.twin.draws`.
    numbers : *(levels, >= 3) uint64* thresholds: at least 1, 2, 3 (and so on) photons, given a candidate.
    detectors : *(4, 3) uint64* thresholds: a photon of this symbol in H, in H or V, in H, V or R.
    basis, bit : *(n_words,) uint64* planes; intensity : *(planes, n_words) uint64*.
    next_slot : slot of the next candidate, counted from the batch's start; -1 - s: to be drawn from slot s.
    times, channels : *(>= most photons,)* room for the result.

    Returns
    -------
    (number of photons, ``next_slot`` of the next batch); -1 photons if there was no room.

    Notes
    -----
    A candidate spends three words (photons, detector, time) and its gap at least one; what is rare goes on from one of
    these words as a counter of its own. Unsigned indices spare numba's test for negative ones.
    """
    n_slots = 64 * basis.size
    one, golden = np.uint64(1), draws.GOLDEN
    n, room = np.uint64(0), np.uint64(times.size - numbers.shape[1])
    at_word = counter[0]
    due = next_slot >= 0
    slot = next_slot if due else -1 - next_slot
    while slot < n_slots:
        if due:
            if n > room:
                return np.int64(-1), 0
            at, shift = np.uint64(slot) >> np.uint64(6), np.uint64(slot) & np.uint64(63)
            level = np.uint64(0)
            for plane in range(intensity.shape[0]):
                level |= ((intensity[plane, at] >> shift) & one) << np.uint64(plane)
            own = at_word + golden
            word = draws.mix(own)
            if level < np.uint64(numbers.shape[0]) and word < numbers[level, 0]:
                symbol = (((basis[at] >> shift) & one) << one) | ((bit[at] >> shift) & one)
                more = np.int64(word < numbers[level, 1]) + np.int64(word < numbers[level, 2])
                for photon in range(3, numbers.shape[1]):  # none but Eve's pulses
                    more += np.int64(word < numbers[level, photon])
                while more >= 0:
                    word = draws.mix(own + golden)
                    in_v = np.uint8(word >= detectors[symbol, 0])
                    channels[n] = in_v + np.uint8(word >= detectors[symbol, 1]) + np.uint8(word >= detectors[symbol, 2])
                    word = draws.mix(own + golden + golden)
                    layer, mantissa = word & np.uint64(draws.LAYERS - 1), word >> np.uint64(9)
                    deviate = np.float64(np.int64(mantissa)) * normal_step[layer]
                    if mantissa >= normal_sure[layer]:
                        deviate = draws.rare_normal(word, normal_sure, normal_step, normal_height)
                    sign = np.float64(1 - 2 * np.int64((word >> np.uint64(8)) & one))
                    times[n] = slot * slot_ps + sign * deviate * sigma_ps
                    n += one
                    more -= 1
                    own = word
            at_word += golden + golden + golden
            slot += 1
        gap = np.int64(draws.LONGEST_GAP)
        while gap == draws.LONGEST_GAP and slot < n_slots:
            at_word += golden
            word = draws.mix(at_word)
            row = word & np.uint64(draws.LONGEST_GAP)
            gap = np.int64(row) + np.int64((word >> np.uint64(draws.GAP_BITS)) >= gap_cut[row]) * gap_step[row]
            slot += gap
        due = bool(gap < draws.LONGEST_GAP)
    counter[0] = at_word
    return np.int64(n), slot - n_slots if due else n_slots - 1 - slot


@njit(cache=True, nogil=True)
def put_on_clock(
    times: NDArray[np.float64],
    channels: NDArray[np.uint8],
    dark_times: NDArray[np.float64],
    dark_channels: NDArray[np.uint8],
    part_ps: float,
    rate: float,
    start_ps: int,
    held: int,
    out_times: NDArray[np.int64],
    out_channels: NDArray[np.uint8],
) -> None:  # pragma: no cover - compiled
    """Read photons and darks on Bob's clock, ``start_ps + floor(part_ps + time * rate)``, in ascending order.

    Parameters
    ----------
    times : *(n,) float64* in Alice's ps, nearly ascending; dark_times : *(m,) float64*, ascending.
    out_times, out_channels : *(held + n + m,)*; the first ``held`` clicks wait there since the last batch.
    """
    end = held
    photon = dark = 0
    while photon < times.size or dark < dark_times.size:
        if dark == dark_times.size or (photon < times.size and times[photon] <= dark_times[dark]):
            time, channel = times[photon], channels[photon]
            photon += 1
        else:
            time, channel = dark_times[dark], dark_channels[dark]
            dark += 1
        tick = start_ps + np.int64(math.floor(part_ps + time * rate))
        at = end
        while at > 0 and out_times[at - 1] > tick:
            out_times[at], out_channels[at] = out_times[at - 1], out_channels[at - 1]
            at -= 1
        out_times[at], out_channels[at] = tick, channel
        end += 1


@njit(cache=True, nogil=True)
def record(
    times: NDArray[np.int64],
    channels: NDArray[np.uint8],
    recovery_ps: int,
    last: NDArray[np.int64],
    grid_ps: int,
    resolution_ps: float,
    out_times: NDArray[np.int64],
    out_channels: NDArray[np.uint8],
) -> np.int64:  # pragma: no cover - compiled
    """What the tagger records: clicks of detectors that have recovered (non-paralysable), in its time bins.

    Parameters
    ----------
    last : *(4,) int64*, each detector's last click, kept from batch to batch.
    grid_ps : a bin's edge close before the first click, so that the float64 arithmetic of the bins is exact.

    Returns
    -------
    int : clicks written to ``out_times``, ``out_channels`` *(>= n,)*.
    """
    n = np.uint64(0)
    for i in range(times.size):
        time, channel = times[i], channels[i]
        out_times[n] = grid_ps + np.int64(math.floor(math.floor((time - grid_ps) / resolution_ps) * resolution_ps))
        out_channels[n] = channel
        if time - last[channel] >= recovery_ps:
            last[channel] = time
            n += np.uint64(1)
    return np.int64(n)
