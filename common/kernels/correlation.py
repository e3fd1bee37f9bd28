"""Kernels of Bob's synchronisation: down-mixing of clicks, folding, and scoring clicks against public patterns.

A click scores +1 where its bit equals the pattern's, -1 where it differs. Patterns are packed, bit ``i % 64`` of word
``i // 64``. Source: ours, decisions 63 and 64. The slow twins are in ``reference_tags.py``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Bytes8 = NDArray[np.uint8]
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]


@njit(cache=True, nogil=True)
def down_mix(
    times_ps: Int64s, start_ps: int, cycles_per_ps: float, bin_ps: float, out_re: Floats, out_im: Floats
) -> None:
    """Multiply each click by exp(2 pi i f (t - start)) and add it to its time bin.

    Parameters
    ----------
    times_ps : *(n,) int64*, from ``start_ps`` on; clicks beyond the last bin are ignored.
    out_re, out_im : *(bins,) float64*, zeroed.
    """
    for i in range(times_ps.size):
        since = np.float64(times_ps[i] - start_ps)
        at = np.int64(since / bin_ps)
        if 0 <= at < out_re.size:
            cycles = since * cycles_per_ps
            angle = 2.0 * np.pi * (cycles - np.floor(cycles))
            out_re[at] += np.cos(angle)
            out_im[at] += np.sin(angle)


@njit(cache=True, nogil=True)
def fold(slots: Int64s, bits: Bytes8, row_shift: int, grid: NDArray[np.int32], counts: Int64s) -> None:
    """Add clicks as +1 (bit 0) or -1 (bit 1) to a grid of rows (time) by columns (slot modulo the word).

    Parameters
    ----------
    slots : *(n,) int64* >= 0; bits : *(n,) uint8*.
    row_shift : a row is ``2^row_shift`` slots.
    grid : *(rows, columns) int32*, both powers of two; counts : *(rows,) int64*, clicks per row.
    """
    rows = grid.shape[0] - 1
    columns = grid.shape[1] - 1
    for i in range(slots.size):
        row = (slots[i] >> row_shift) & rows
        grid[row, slots[i] & columns] += 1 - 2 * np.int32(bits[i])
        counts[row] += 1


@njit(cache=True, nogil=True)
def score_starts(
    positions: Int64s, bits: Bytes8, words: Words, first: int, last: int, step: int, sums: Int64s, counts: Int64s
) -> None:
    """Score clicks against the part ``first .. last - 1`` of a pattern for many possible starts of it.

    Parameters
    ----------
    positions : *(n,) int64*, slot numbers counted from the earliest start; bits : *(n,) uint8*.
    words : packed pattern, at least ``last`` bits.
    step : start ``j`` lies ``j * step`` slots after the earliest.
    sums, counts : *(starts,) int64*, grow by the score and by the number of clicks inside the part.
    """
    for i in range(positions.size):
        for j in range(sums.size):
            at = positions[i] - j * step
            if first <= at < last:
                expected = np.int64((words[at >> 6] >> np.uint64(at & 63)) & np.uint64(1))
                sums[j] += 1 - 2 * (expected ^ np.int64(bits[i]))
                counts[j] += 1


@njit(cache=True, nogil=True)
def score_epochs(positions: Int64s, ages: Int64s, bits: Bytes8, words: Words, oldest: int, sums: Int64s) -> None:
    """Score clicks against a pattern that depends on the epoch, for many possible numbers of the newest epoch.

    Parameters
    ----------
    positions : *(n,) int64*, slots from the start of the part; bits : *(n,) uint8*.
    ages : *(n,) int64*, 0 for the newest epoch, 1 for the one before, ... at most ``oldest``.
    words : *(candidates + oldest, words a part) uint64*; row ``j + oldest`` is the pattern of candidate ``j``.
    sums : *(candidates,) int64*, zeroed.
    """
    for i in range(positions.size):
        word = positions[i] >> 6
        shift = np.uint64(positions[i] & 63)
        bit = np.int64(bits[i])
        for j in range(sums.size):
            expected = np.int64((words[j + oldest - ages[i], word] >> shift) & np.uint64(1))
            sums[j] += 1 - 2 * (expected ^ bit)
