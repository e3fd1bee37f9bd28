"""Coincidences between two detectors, by their distance in slots."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]


@njit(cache=True, nogil=True)
def count_coincidences(first: Int64s, second: Int64s, counts: Int64s) -> None:
    """Histogram of ``second - first`` over all pairs at most K slots apart, added to ``counts``.

    Parameters
    ----------
    first, second : *(n,)*, *(m,) int64* slots with a click, strictly ascending.
    counts : *(2 K + 1,) int64*; ``counts[K + k]`` grows by the pairs with ``second == first + k``.

    Notes
    -----
    One pass with a moving window: cost n + m + pairs.
    """
    reach = counts.size // 2
    start = 0
    for i in range(first.size):
        low = first[i] - reach
        while start < second.size and second[start] < low:
            start += 1
        j = start
        while j < second.size and second[j] <= first[i] + reach:
            counts[second[j] - low] += 1
            j += 1
