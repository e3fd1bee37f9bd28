"""Ascending slot numbers as variable-length differences: seven bits a byte, least first, high bit = more follows.

Source: the well-known base-128 variable-length integer (LEB128); differences of ascending numbers are ours.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Bytes8 = NDArray[np.uint8]
Words = NDArray[np.uint64]

VARINT_MAX_BYTES = 9
"""Nine bytes carry 63 bits: every slot number that fits int64."""

DECODED = 0
TRUNCATED = -1
OVERLONG = -2
NOT_ASCENDING = -3
TOO_LARGE = -4


@njit(cache=True, nogil=True)
def _put(delta: np.uint64, out: Bytes8, used: int) -> int:
    """Write one number at ``used``; where the next one goes."""
    while delta >= np.uint64(128):
        out[used] = np.uint8(delta & np.uint64(127)) | np.uint8(128)
        used += 1
        delta >>= np.uint64(7)
    out[used] = np.uint8(delta)
    return used + 1


@njit(cache=True, nogil=True)
def encode_deltas(slots: Int64s, out: Bytes8) -> int:
    """Differences of ascending slots as varints, the first from -1.

    Parameters
    ----------
    slots : *(n,) int64*; out : *(>= 9 n,) uint8*.

    Returns
    -------
    int : bytes written; -1 if the slots are negative or not ascending.
    """
    used = 0
    previous = np.int64(-1)
    for i in range(slots.size):
        if slots[i] <= previous:
            return -1
        used = _put(np.uint64(slots[i] - previous), out, used)
        previous = slots[i]
    return used


@njit(cache=True, nogil=True)
def announce(
    slots: Int64s, bases: Bytes8, bits: Bytes8, out: Bytes8, out_bases: Words, out_bits: Words
) -> tuple[int, np.int64]:
    """One pass over a chunk: the slots' differences as varints (the first from -1), packed bases, packed X outcomes.

    Parameters
    ----------
    slots : *(n,) int64*; bases, bits : *(n,) uint8*, 0 or 1; basis 1 = X.
    out : *(>= 9 n,) uint8*.
    out_bases, out_bits : *(>= n // 64 + 1,) uint64*; zero above what is written.

    Returns
    -------
    (int, int) : bytes written to ``out`` (-1 if the slots are negative or not ascending), number of X detections.
    """
    used = 0
    previous = np.int64(-1)
    packed, outcomes = np.uint64(0), np.uint64(0)
    n_x = np.uint64(0)
    for i in range(slots.size):
        if slots[i] <= previous:
            return -1, np.int64(n_x)
        used = _put(np.uint64(slots[i] - previous), out, used)
        previous = slots[i]
        in_x = np.uint64(bases[i])
        packed |= in_x << (np.uint64(i) & np.uint64(63))
        if i & 63 == 63:
            out_bases[i >> 6] = packed
            packed = np.uint64(0)
        if in_x:
            outcomes |= np.uint64(bits[i]) << (n_x & np.uint64(63))
            out_bits[n_x >> np.uint64(6)] = outcomes
            n_x += np.uint64(1)
            if n_x & np.uint64(63) == np.uint64(0):
                outcomes = np.uint64(0)
    out_bases[slots.size >> 6] = packed
    return used, np.int64(n_x)


@njit(cache=True, nogil=True)
def decode_deltas(data: Bytes8, start: int, limit: int, out: Int64s) -> tuple[int, int]:
    """Read exactly ``out.size`` differences back into slots; hostile input is answered with a negative status.

    Parameters
    ----------
    data : *(m,) uint8*.
    start : int64, what the first difference was taken from.
    limit : int64, slots must be below this.
    out : *(n,) int64*, the slots.

    Returns
    -------
    (int, int) : bytes consumed and status: ``DECODED``, ``TRUNCATED`` (bytes ran out), ``OVERLONG`` (more bytes than
        the value needs, or more than nine), ``NOT_ASCENDING`` (a difference of zero), ``TOO_LARGE``.
    """
    used = 0
    previous = np.int64(start)
    for i in range(out.size):
        if used >= data.size:
            return used, TRUNCATED
        byte = np.int64(data[used])
        used += 1
        delta = byte & 127
        shift = 7
        while byte & 128:
            if used >= data.size:
                return used, TRUNCATED
            if shift >= 63:
                return used, OVERLONG
            byte = np.int64(data[used])
            used += 1
            if byte == 0:
                return used, OVERLONG
            delta |= (byte & 127) << shift
            shift += 7
        if delta == 0:
            return used, NOT_ASCENDING
        if delta >= limit - previous:
            return used, TOO_LARGE
        previous += delta
        out[i] = previous
    return used, DECODED
