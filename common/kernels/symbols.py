"""Biased symbols from uniform bits, exactly: bit-sliced for plentiful random sources, recycling for scarce ones.

Probabilities are multiples of 2^-16. Both samplers are exact: the distribution is the stated fraction, not nearly it.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.kernels.bits import deposit, ones

Words = NDArray[np.uint64]

WORST_WORDS = 16
"""Random words that the bit-sliced comparison of 64 lanes needs at most (one a bit of the 16-bit threshold)."""
LEADING = 4
"""Bits of the threshold that all lanes are compared with; what is undecided then (1 in 16) is finished one by one."""

_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_CHUNK = np.uint64(16)
_LOW = np.uint64(0xFFFF)
_FULL = np.uint64(1 << 47)


@njit(cache=True, nogil=True)
def compare_leading(levels: Words, numerator: int, below: Words, undecided: Words) -> None:
    """Compare the ``LEADING`` most significant bits of 64 uniform numbers at once with those of a threshold.

    Parameters
    ----------
    levels : *(>= LEADING, m) uint64* uniform random words; row 0 holds the most significant bits.
    numerator : threshold in 1..65535, of 16 bits.
    below, undecided : *(m,) uint64*, written: the lanes known to be below the threshold; those still equal to it.
    """
    flips = np.empty(LEADING, np.uint64)
    for k in range(LEADING):
        flips[k] = np.uint64(0) if (numerator >> (15 - k)) & 1 else _ALL
    a, b, c, d = flips[0], flips[1], flips[2], flips[3]
    for i in range(below.size):
        # row ^ flip: all lanes equal to the threshold's bit; below where the threshold has 1 and the lane 0
        equal = levels[0, i] ^ a
        less = ~equal & ~a
        here = levels[1, i] ^ b
        less |= equal & ~here & ~b
        equal &= here
        here = levels[2, i] ^ c
        less |= equal & ~here & ~c
        equal &= here
        here = levels[3, i] ^ d
        less |= equal & ~here & ~d
        below[i] = less
        undecided[i] = equal & here


@njit(cache=True, nogil=True)
def fill_symbols(
    values: Words, chunks: NDArray[np.uint16], start: int, numerator: int, x_random: bool, basis: Words, bit: Words
) -> tuple[int, np.int64]:
    """Finish what :func:`compare_leading` began: one 16-bit number for each undecided lane, then the bit plane.

    Parameters
    ----------
    values : *(m,) uint64* uniform random words, the bits of the symbols.
    chunks : *(n,) uint16* uniform random numbers, read from ``start``.
    numerator : P(Z) = numerator / 2^16, in 1..65535.
    x_random : False leaves the bit of every X symbol 0 (three-state).
    basis, bit : *(m,) uint64*, on entry ``below`` and ``undecided``; on return 1 = X in ``basis``.

    Returns
    -------
    (int, int)
        Words finished before the numbers ran out, and numbers used.

    Notes
    -----
    The comparisons are made for 64 numbers at once and then deposited at the undecided lanes, in order.

    A lane stays undecided with probability 2^-LEADING; it is below the threshold if its number is below what is left of
    the threshold, shifted up to 16 bits. LEADING + 1 + 16 / 2^LEADING = 6 random bits a slot, the bit plane included.
    """
    rest = (numerator << LEADING) & 0xFFFF
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    less = _less(chunks[start:], rest)
    used, last = np.uint64(0), chunks.size - start - 64
    done = 0
    while done < basis.size and np.int64(used) <= last:
        undecided = bit[done] if rest else np.uint64(0)
        at, shift = used >> six, used & low
        next_64 = (less[at] >> shift) | ((less[at + one] << one) << (low - shift))
        below = basis[done] | deposit(next_64, undecided)
        used += ones(undecided)
        value = values[done]
        basis[done] = ~below
        bit[done] = value if x_random else value & below
        done += 1
    return done, np.int64(used)


@njit(cache=True, nogil=True)
def _less(numbers: NDArray[np.uint16], limit: int) -> Words:
    """One bit a number, least first: is it below the limit? Zeros follow, 64 or more."""
    whole = numbers.size // 64
    out = np.zeros(whole + 2, np.uint64)
    for i in range(whole):
        part, word = numbers[64 * i : 64 * i + 64], np.uint64(0)
        for lane in range(64):
            word |= np.uint64(part[lane] < limit) << np.uint64(lane)
        out[i] = word
    for lane in range(numbers.size - 64 * whole):
        out[whole] |= np.uint64(numbers[64 * whole + lane] < limit) << np.uint64(lane)
    return out


@njit(cache=True, nogil=True)
def fill_intensities(
    words: Words, start: int, signal: int, not_vacuum: int, planes: NDArray[np.uint64], at: int
) -> int:
    """Draw intensity indices 0, 1, 2 with probabilities ``signal``, ``not_vacuum - signal`` and the rest, over 2^16.

    Parameters
    ----------
    words : *(n,) uint64* uniform random words, read from ``start``.
    at : index of the first word of the planes that is written.
    signal, not_vacuum : thresholds in 0..65536, ``signal <= not_vacuum``.
    planes : *(2, m) uint64*, plane 0 the least bit of the index.

    Returns
    -------
    int
        ``written * 2^32 + used``: words of each plane, and random words.
    """
    used = start
    out = at
    while out < planes.shape[1] and used + 16 <= words.size:
        open_a = _ALL if signal < 65536 else np.uint64(0)
        open_b = _ALL if not_vacuum < 65536 else np.uint64(0)
        below_a = ~open_a
        below_b = ~open_b
        position = 15
        while position >= 0 and (open_a | open_b) != 0:
            uniform = words[used]
            used += 1
            if (signal >> position) & 1:
                below_a |= open_a & ~uniform
                open_a &= uniform
            else:
                open_a &= ~uniform
            if (not_vacuum >> position) & 1:
                below_b |= open_b & ~uniform
                open_b &= uniform
            else:
                open_b &= ~uniform
            position -= 1
        planes[0, out] = below_b & ~below_a
        planes[1, out] = ~below_b
        out += 1
    return ((out - at) << 32) + (used - start)


@njit(cache=True, nogil=True)
def fill_symbols_scarce(
    chunks: NDArray[np.uint16],
    start: int,
    pool: Words,
    numerator: int,
    x_random: bool,
    basis: Words,
    bit: Words,
    at: int,
) -> int:
    """Draw the same distribution as :func:`fill_symbols` with about h(p_z) + 1 random bits a slot, exactly.

    Parameters
    ----------
    chunks : *(n,) uint16* uniform random numbers, read from ``start``.
    pool : *(2,) uint64*, kept between calls, initially (0, 1): a number uniform in ``0..pool[1]-1``, secret.
    numerator, x_random : as :func:`fill_symbols`.
    basis, bit : *(m,) uint64*, written from word ``at``: 1 = X; the bits.

    Returns
    -------
    int
        ``written * 2^32 + chunks used``; written in whole words of 64 slots.

    Notes
    -----
    Randomness recycling: a uniform number below n splits exactly into a uniform 16-bit number and a uniform rest;
    after the comparison what is left of the 16-bit number is uniform too and is folded back. The rare remainder
    (n mod 2^16) is kept as well, so almost nothing is lost. Source: ours, decision 51.
    """
    value = pool[0]
    size = pool[1]
    p = np.uint64(numerator)
    q = np.uint64(65536 - numerator)
    used = start
    out = at
    total = chunks.size
    while out < basis.size and used + 4 * 64 <= total:
        plane_basis = np.uint64(0)
        plane_bit = np.uint64(0)
        lane = 0
        while lane < 64 and used + 8 <= total:
            while size < _FULL:
                value = (value << _CHUNK) | np.uint64(chunks[used])
                size = size << _CHUNK
                used += 1
            whole = size >> _CHUNK
            if (value >> _CHUNK) >= whole:
                value -= whole << _CHUNK
                size -= whole << _CHUNK
                continue
            low = value & _LOW
            high = value >> _CHUNK
            is_x = low >= p
            if is_x:
                value = high * q + (low - p)
                size = whole * q
                plane_basis |= _ONE << np.uint64(lane)
            else:
                value = high * p + low
                size = whole * p
            if x_random or not is_x:
                if size & _ONE and value == size - _ONE:
                    # an odd size does not halve: give this one value up and start afresh
                    value = np.uint64(0)
                    size = _ONE
                    while size < _FULL:
                        value = (value << _CHUNK) | np.uint64(chunks[used])
                        size = size << _CHUNK
                        used += 1
                plane_bit |= (value & _ONE) << np.uint64(lane)
                value >>= _ONE
                size >>= _ONE
            lane += 1
        if lane < 64:
            break
        basis[out] = plane_basis
        bit[out] = plane_bit
        out += 1
    pool[0] = value
    pool[1] = size
    return ((out - at) << 32) + (used - start)


@njit(cache=True, nogil=True)
def overwrite_words(target: Words, at: int, source: Words, first: int, count: int) -> None:
    """Copy ``source[first:first + count]`` over ``target[at:]`` (the public preamble over random symbols)."""
    for i in range(count):
        target[at + i] = source[first + i]


@njit(cache=True, nogil=True)
def lookup_symbols(
    slots: NDArray[np.int64],
    first_slot: int,
    origin: int,
    mask: int,
    basis: Words,
    bit: Words,
    planes: NDArray[np.uint64],
    out_basis: NDArray[np.uint8],
    out_bit: NDArray[np.uint8],
    out_intensity: NDArray[np.uint8],
) -> None:
    """Gather the symbols of ``slots`` from ring planes.

    Parameters
    ----------
    slots : *(n,) int64*, each inside the ring's range (the caller checks).
    first_slot : slot of lane 0 of ring word ``origin``; a multiple of 64.
    mask : ring words - 1 (a power of two).
    basis, bit : *(mask + 1,) uint64*; planes : *(k, mask + 1) uint64*.
    out_basis, out_bit, out_intensity : *(n,) uint8*.
    """
    for i in range(slots.size):
        offset = slots[i] - first_slot
        word = (origin + (offset >> 6)) & mask
        lane = np.uint64(offset & 63)
        out_basis[i] = np.uint8((basis[word] >> lane) & _ONE)
        out_bit[i] = np.uint8((bit[word] >> lane) & _ONE)
        index = np.uint64(0)
        for k in range(planes.shape[0]):
            index |= ((planes[k, word] >> lane) & _ONE) << np.uint64(k)
        out_intensity[i] = np.uint8(index)
