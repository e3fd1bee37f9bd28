"""The field GF(2^64), Cantor's basis of its points, and the additive Fourier transform as lists of steps.

Let ``b_i`` be the Cantor basis (``b_0 = 1``, ``b_i^2 + b_i = b_(i-1)``) and ``w_j`` the sum of the ``b_i`` at the ones
of ``j``. With ``s_i(x)`` the polynomial that vanishes on ``w_0 .. w_(2^i - 1)``, the *novel* basis ``X_j`` is the
product of the ``s_i(x)`` at the ones of ``j``. Because ``s_i(b_(i+k)) = b_k``, evaluating the halves of ``f = f0 + s_i
f1`` on block ``c`` of ``2^(i+1)`` points needs one factor, ``w_(2c)``, for the whole block, and ends in two problems of
half the size:

    lower half: g0 = f0 + w_(2c) f1        upper half: g1 = g0 + f1

Source: Cantor 1989; novel basis, Lin, Chung, Han 2014; Cantor basis with it, Li, Chen, Kuan, Cheng, Yang 2018.

A *step* ``(to, from, j)`` is ``a[to] += w_j a[from]`` and is its own inverse; ``w_1 = 1`` adds. So a list backwards is
the inverse map, and a list backwards with ``to`` and ``from`` exchanged is the transposed map (:func:`transposed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.int64]
Step = tuple[int, int, int]
#: Ranges of a change of basis: to, from, count.
Range = tuple[int, int, int]

POLYNOMIAL = (1 << 64) | 0x1B
MAX_LOG = 24


def field_product(left: int, right: int) -> int:
    """``left * right`` in the field, from the definition (slow; for tables and tests)."""
    result = 0
    while right:
        if right & 1:
            result ^= left
        right >>= 1
        left <<= 1
        if left >> 64:
            left ^= POLYNOMIAL
    return result


@cache
def cantor_basis(count: int) -> tuple[int, ...]:
    """``b_0 = 1`` and ``b_i^2 + b_i = b_(i-1)``: solved by linear algebra over F2."""
    pivots: dict[int, tuple[int, int]] = {}
    for i in range(64):
        source = 1 << i
        image = field_product(source, source) ^ source
        while image:
            top = image.bit_length() - 1
            if top not in pivots:
                pivots[top] = (image, source)
                break
            image, source = image ^ pivots[top][0], source ^ pivots[top][1]
    basis = [1]
    while len(basis) < count:
        rest, solution = basis[-1], 0
        while rest:
            image, source = pivots[rest.bit_length() - 1]
            rest, solution = rest ^ image, solution ^ source
        basis.append(solution)
    return tuple(basis)


def point(index: int) -> int:
    """The point ``w_index`` of the basis."""
    result = 0
    for i, value in enumerate(cantor_basis(MAX_LOG)):
        if index >> i & 1:
            result ^= value
    return result


@cache
def tables() -> NDArray[np.uint64]:
    """*(3, 256) uint64*: ``w`` by byte of its index, least first: it is linear in the index's bits."""
    return np.array([[point(i << 8 * byte) for i in range(256)] for byte in range(3)], np.uint64)


def expansion(log_size: int, log_part: int) -> list[list[Range]]:
    """Ranges that write ``2^log_size`` coefficients in powers of ``s_h(x)``, ``2^h`` of them a digit, ``h = log_part``.

    For ``h`` a power of two ``s_h(x) = x^(2^h) + x``, so with ``q = 2^t``: ``x^(q 2^h) = s_h^q + x^q``, and division by
    ``s_h^q`` moves what stands ``q (2^h - 1)`` above. Ranges of one inner list do not depend on each other.
    """
    groups: list[list[Range]] = []
    for t in range(log_size - log_part - 1, -1, -1):
        shift, half = 1 << t, 1 << t + log_part
        begins = range(0, 1 << log_size, 2 * half)
        groups.append([(begin + half, begin + 2 * half - shift, shift) for begin in begins])
        groups.append([(begin + shift, begin + half, half - shift) for begin in begins])
    return groups


def conversion(log_size: int) -> list[Range]:
    """Ranges from powers of x to the novel basis: digits in ``s_h``, then each digit and the powers of ``s_h``."""
    if log_size < 2:
        return []
    part = 1 << (log_size - 1).bit_length() - 1
    size = 1 << part
    ranges = [step for group in expansion(log_size, part) for step in group]
    ranges += [(to * size, begin * size, count * size) for to, begin, count in conversion(log_size - part)]
    inner = conversion(part)
    for digit in range(1 << log_size - part):
        ranges += [(digit * size + to, digit * size + begin, count) for to, begin, count in inner]
    return ranges


def exchanged(ranges: Iterable[Range]) -> list[Range]:
    """``to`` and ``from`` exchanged: what was the map M is now the inverse of its transpose."""
    return [(begin, to, count) for to, begin, count in ranges]


def clipped(ranges: Iterable[Range], limit: int) -> list[Range]:
    """Only what lies below ``limit``: conversions are triangular, so a leading part needs no more."""
    cut = ((to, begin, min(count, limit - max(to, begin))) for to, begin, count in ranges)
    return [step for step in cut if step[2] > 0]


def evaluation(log_size: int) -> list[Step]:
    """Novel coefficients to values at ``w_0 .. w_(2^log_size - 1)``."""
    steps: list[Step] = []
    for level in range(log_size - 1, -1, -1):
        half = 1 << level
        for block in range(1 << log_size - 1 - level):
            for i in range(2 * half * block, 2 * half * block + half):
                steps += [(i, i + half, 2 * block), (i + half, i, 1)]
    return steps


def interpolation(log_size: int, known: int) -> list[Step]:
    """The first ``known`` values, then zeros, to the ``known`` coefficients of the polynomial that has these values.

    In general let a block hold ``p`` values and then known coefficients. If ``p`` reaches into the upper half, ``g0``
    comes from the lower values alone, and ``f1`` beyond ``p`` makes ``g1`` known there; else ``f1`` is known wholly and
    makes ``g0`` known beyond ``p``. So one half at a time is a smaller problem of the same kind.
    Source: van der Hoeven 2004.
    """
    steps: list[Step] = []

    def solve(begin: int, log: int, values: int, block: int) -> None:
        if log == 0:
            return
        half = 1 << log - 1
        upper, factor = begin + half, 2 * block
        if values >= half:
            solve(begin, log - 1, half, 2 * block)
            steps.extend((upper + i, begin + i, 1) for i in range(values - half, half))
            solve(upper, log - 1, values - half, 2 * block + 1)
            for i in range(half):
                steps.extend([(upper + i, begin + i, 1), (begin + i, upper + i, factor)])
        else:
            steps.extend((begin + i, upper + i, factor) for i in range(values, half))
            solve(begin, log - 1, values, 2 * block)
            steps.extend((begin + i, upper + i, factor) for i in range(half))

    solve(0, log_size, known, 0)
    return steps


def transposed(steps: list[Step]) -> list[Step]:
    """The transposed map of this one."""
    return [(begin, to, factor) for to, begin, factor in reversed(steps)]


def pruned(steps: list[Step], given: int, wanted: int) -> list[Step]:
    """Without what adds zero (beyond the first ``given``) or feeds nothing (only the first ``wanted`` are read)."""
    filled = set(range(given))
    alive: list[Step] = []
    for to, begin, factor in steps:
        if factor and begin in filled:
            filled.add(to)
            alive.append((to, begin, factor))
    needed = set(range(wanted))
    used: list[Step] = []
    for to, begin, factor in reversed(alive):
        if to in needed:
            needed.add(begin)
            used.append((to, begin, factor))
    return used[::-1]


#: Kinds of packed steps.
ADD, MULTIPLY_ADD, FORTH, BACK = range(4)


def packed(steps: list[Step]) -> Steps:
    """*(k, 4) int64*: kind, to, from, factor; two steps that form a butterfly are one."""
    rows: list[tuple[int, int, int, int]] = []
    i = 0
    while i < len(steps):
        to, begin, factor = steps[i]
        follower = steps[i + 1] if i + 1 < len(steps) else None
        if follower is not None and follower[:2] == (begin, to) and 1 in (factor, follower[2]):
            rows.append((BACK, to, begin, follower[2]) if factor == 1 else (FORTH, to, begin, factor))
            i += 2
        else:
            rows.append((ADD if factor == 1 else MULTIPLY_ADD, to, begin, factor))
            i += 1
    return np.array(rows, np.int64).reshape(-1, 4)


@lru_cache(maxsize=16)
def top_steps(log_rows: int, rows: int, rows_x: int, rows_y: int) -> tuple[Steps, Steps, Steps]:
    """Levels across rows for input, seed and output of a middle product (see :mod:`common.kernels.additive_fft`)."""
    forth = evaluation(log_rows)
    x = pruned(forth, rows_x, rows)
    s = pruned(transposed(interpolation(log_rows, rows)), rows, rows)
    y = pruned(transposed(forth), rows, rows_y)
    return packed(x), packed(s), packed(y)
