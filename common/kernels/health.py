"""What the health tests of random bytes count: equal bytes in a row, one value in a window, the anchor seen again.

Every random bit of the link passes here, 95 MB a second of light at 76 MHz: the loops over all bytes have no branch,
so that processors do 32 or 64 bytes at once. What each test does about a count is in ``hardware/health.py``; the slow
twin is in ``reference_health.py``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes8 = NDArray[np.uint8]

WINDOW_BYTES = 512
"""SP 800-90B, 4.4.2: the window of a source whose samples are not binary."""
ANCHOR_BYTES = 16
"""Holds a whole aligned word of four bytes, wherever it lies, and is not met by chance: 2^-128 a byte."""
LONG_RUN = 7
"""Equal bytes in a row that hold a whole aligned word of four."""
_PART = 128
"""Bytes that a counter of 8 bits can count."""

# What is kept from one call to the next, in one int64 array.
LAST = 0
RUN = 1
FIRST = 2
SEEN = 3
ALIKE = 4
STATE_SIZE = 5


@njit(cache=True, nogil=True)
def scan(data: Bytes8, anchor: Bytes8, state: NDArray[np.int64], short_runs: bool) -> tuple[int, int, bool]:
    """Count in the next bytes of a stream.

    Parameters
    ----------
    data : *(n,) uint8*. anchor : *(ANCHOR_BYTES,) uint8*, or *(0,)* for none.
    state : *(STATE_SIZE,) int64*, zero at the beginning of the stream, changed: the last byte and the run that it ends;
        the first byte of the window under way, how many bytes of it came, and how many of them are as the first.
    short_runs : whether runs shorter than ``LONG_RUN`` matter; looking for them takes a hundred times as long.

    Returns
    -------
    (int, int, bool) : the longest run of equal bytes that ends here, perhaps a shorter one if it is not of ``LONG_RUN``
        and short ones do not matter; the most bytes of a window that are as its first; whether the anchor is in
        ``data``.
    """
    if data.size == 0:
        return 0, 0, False
    most = _windows(data, state)
    longest = _edges(data, state)
    alike, known = _hints(data[: data.size & ~3].view(np.uint32), anchor)
    if alike or short_runs:
        longest = max(longest, _longest_run(data))
    return longest, most, known and _holds(data, anchor)


@njit(cache=True, nogil=True)
def _hints(words: NDArray[np.uint32], anchor: Bytes8) -> tuple[bool, bool]:
    """Whether an aligned word is of four equal bytes; whether one is in the anchor.

    The smallest difference is sought instead of an equality: there is an instruction for it. Sound bytes give a hint
    once in 2^26 and once in 2^32 bytes, and the slow look decides.
    """
    p = np.zeros(4, np.uint32)
    for k in range(4 if anchor.size else 0):
        for j in range(4):
            p[k] |= np.uint32(anchor[k + j]) << np.uint32(8 * j)
    p0, p1, p2, p3 = p[0], p[1], p[2], p[3]
    unlike = unknown = np.uint32(0xFFFFFFFF)
    for i in range(words.size):
        word = words[i]
        unlike = min(unlike, np.uint32(word ^ np.uint32((word << np.uint32(8)) | (word >> np.uint32(24)))))
        near = min(min(np.uint32(word ^ p0), np.uint32(word ^ p1)), min(np.uint32(word ^ p2), np.uint32(word ^ p3)))
        unknown = min(unknown, near)
    return unlike == 0, unknown == 0


@njit(cache=True, nogil=True)
def _edges(data: Bytes8, state: NDArray[np.int64]) -> int:
    """The longer one of the runs that the first byte goes on with and that the last byte ends."""
    n = data.size
    begin = 0
    while state[RUN] > 0 and begin < n and data[begin] == state[LAST]:
        begin += 1
    first = state[RUN] + begin if begin else 0
    if begin == n:
        state[RUN] = first
        return first
    end = n - 1
    while end > begin and data[end - 1] == data[n - 1]:
        end -= 1
    state[LAST], state[RUN] = data[n - 1], n - end
    return max(first, n - end)


@njit(cache=True, nogil=True)
def _longest_run(data: Bytes8) -> int:
    longest = run = 1
    for i in range(1, data.size):
        run = run + 1 if data[i] == data[i - 1] else 1
        longest = max(longest, run)
    return longest


@njit(cache=True, nogil=True)
def _holds(data: Bytes8, anchor: Bytes8) -> bool:
    for i in range(data.size - anchor.size + 1 if anchor.size else 0):
        same = 0
        while same < anchor.size and data[i + same] == anchor[same]:
            same += 1
        if same == anchor.size:
            return True
    return False


@njit(cache=True, nogil=True)
def _windows(data: Bytes8, state: NDArray[np.int64]) -> int:
    """Finish the window under way, count whole ones, begin the next."""
    n, at, most = data.size, 0, 0
    while at < n:
        if state[SEEN] == 0 and n - at >= WINDOW_BYTES:
            most = max(most, _as_first(data[at : at + WINDOW_BYTES]))
            at += WINDOW_BYTES
            continue
        if state[SEEN] == 0:
            state[FIRST], state[ALIKE] = data[at], 0
        part = min(WINDOW_BYTES - state[SEEN], n - at)
        for i in range(at, at + part):
            state[ALIKE] += data[i] == state[FIRST]
        most = max(most, state[ALIKE])
        state[SEEN] = (state[SEEN] + part) % WINDOW_BYTES
        at += part
    return most


@njit(cache=True, nogil=True)
def _as_first(window: Bytes8) -> int:
    """How many of a whole window's bytes are as its first."""
    first, total = window[0], 0
    for at in range(0, WINDOW_BYTES, _PART):
        part = window[at : at + _PART]
        count = np.uint8(0)
        for i in range(_PART):
            count = np.uint8(count + np.uint8(part[i] == first))
        total += int(count)
    return total
