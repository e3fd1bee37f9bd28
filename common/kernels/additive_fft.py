"""Products in GF(2)[x] by an additive fast Fourier transform over GF(2^128).

A polynomial over F2 is cut into coefficients of 64 bits, so a product of two of them fits into one field element and
nothing is ever reduced. Let ``b_i`` be the Cantor basis and ``w_j`` the sum of the ``b_i`` at the ones of ``j``. With
``s_i(x)`` the polynomial that vanishes on ``w_0 .. w_(2^i - 1)``, the *novel* basis ``X_j`` is the product of the
``s_i(x)`` at the ones of ``j``. Because ``s_i(b_(i+k)) = b_k``, evaluating the half-sized parts ``f = f0 + s_i f1`` of a
block ``c`` of points needs one factor, ``w_(2c)``, for the whole block:

    lower half: f0 + w_(2c) f1        upper half: lower half + f1

Source: Cantor 1989; novel basis, Lin, Chung, Han 2014; Cantor basis with it, Li, Chen, Kuan, Cheng, Yang 2018.

*Change of basis.* For ``h`` a power of two ``s_h(x) = x^(2^h) + x``, so writing a polynomial in powers of it is a few
exclusive-ors of ranges (:func:`expansion`); applied to the powers and to the digits in turn it ends in the novel basis.
All these steps are lists of ``(to, from, count)``, each its own inverse, so backwards they undo it.

*Index maps and caches.* ``2^k`` coefficients are ``2^(k-16)`` rows of ``2^16`` (1 MiB; or of ``2^8`` for ``k <= 16``). The levels
across rows are done in strips of 64 columns that are copied into a small buffer (copying also avoids that rows a power
of two apart fall into the same cache set). A row of ``2^16`` is again 256 by 256: strips of 8 columns, then blocks of
256 with four blocks side by side in the lanes of a vector, so that even the last levels need no shuffles. Each row is
visited once for both forward transforms, the product of values and the inverse.

*Truncation.* A product that needs only some of the rows costs in proportion: the values of its first rows are enough,
because in the novel basis all later coefficients are zero (:func:`truncated_inverse`; after van der Hoeven 2004).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import InputError
from common.kernels.clmul import (
    FOUR,
    ONE,
    cantor_basis,
    even_lanes,
    field_product,
    lanes,
    load,
    lower_lanes,
    multiply,
    multiply_by,
    odd_lanes,
    spread,
    store,
    upper_lanes,
    xor,
)

Words = NDArray[np.uint64]
Steps = NDArray[np.int64]

MIN_LOG, MAX_LOG = 10, 24
_STRIP, _ROW_STRIP = 64, 8
_BLOCK = 256
_MASK = (1 << 64) - 1


def point(index: int) -> int:
    """``w_index``."""
    basis, result = cantor_basis(MAX_LOG), 0
    for i in range(index.bit_length()):
        if index >> i & 1:
            result ^= basis[i]
    return result


def _entry(index: int) -> list[int]:
    """Words of ``w_index`` and of ``w_index x^64``."""
    value = point(index)
    raised = field_product(value, 1 << 64)
    return [value & _MASK, value >> 64, raised & _MASK, raised >> 64]


@cache
def tables() -> Words:
    """*(3, 256, 4) uint64*: factors by byte of their index, least first: ``w`` is linear in the index's bits."""
    return np.array([[_entry(i << 8 * byte) for i in range(256)] for byte in range(3)], np.uint64)


@cache
def lane_factors() -> Words:
    """*(8, 2, 8) uint64*: what lane ``l`` adds to a factor ``n`` levels below the top of a block, plain and raised."""
    made = np.zeros((8, 2, 8), np.uint64)
    for below in range(8):
        for lane in range(4):
            made[below, :, 2 * lane : 2 * lane + 2] = np.array(_entry(2 * lane << below), np.uint64).reshape(2, 2)
    return made


def expansion(log_size: int, log_part: int) -> list[tuple[int, int, int]]:
    """Steps that write ``2^log_size`` coefficients in powers of ``x^(2^h) + x``, h = log_part."""
    steps = []
    for t in range(log_size - log_part - 1, -1, -1):
        shift, half = 1 << t, 1 << t + log_part
        for begin in range(0, 1 << log_size, 2 * half):
            steps.append((begin + half, begin + 2 * half - shift, shift))
            steps.append((begin + shift, begin + half, half - shift))
    return steps


@cache
def conversion(log_size: int) -> Steps:
    """*(k, 3) int64*: steps from the powers of x to the novel basis."""
    return np.array(_conversion(log_size), np.int64).reshape(-1, 3)


def _conversion(log_size: int) -> list[tuple[int, int, int]]:
    if log_size < 2:
        return []
    part = 1 << (log_size - 1).bit_length() - 1
    size = 1 << part
    steps = expansion(log_size, part)
    steps += [(to * size, begin * size, count * size) for to, begin, count in _conversion(log_size - part)]
    inner = _conversion(part)
    for digit in range(1 << log_size - part):
        steps += [(digit * size + to, digit * size + begin, count) for to, begin, count in inner]
    return steps


@cache
def truncated_inverse(log_size: int, known: int) -> Steps:
    """*(k, 5) int64*: steps from the first ``known`` values and zero coefficients after them to all coefficients.

    Columns: 0 add, 1 add times factor; to, from, count, index of the factor. Let a block hold ``p`` values, then known
    coefficients, and ``g0 = f0 + w f1``, ``g1 = g0 + f1`` be the polynomials of its halves. If ``p`` reaches into the upper
    half, ``g0`` comes from the lower values alone, and ``f1`` beyond ``p`` makes ``g1`` known there; else ``f1`` is known
    wholly and makes ``g0`` known beyond ``p``. So one half at a time is a smaller problem of the same kind.
    """
    steps: list[tuple[int, int, int, int, int]] = []

    def solve(begin: int, log: int, values: int, block: int) -> None:
        if log == 0:
            return
        half = 1 << log - 1
        upper, factor = begin + half, 2 * block
        if values >= half:
            solve(begin, log - 1, half, 2 * block)
            if 2 * half > values:
                steps.append((0, begin + values, begin + values - half, 2 * half - values, 0))
            solve(upper, log - 1, values - half, 2 * block + 1)
            steps.append((0, upper, begin, half, 0))
        else:
            steps.append((1, begin + values, upper + values, half - values, factor))
            solve(begin, log - 1, values, 2 * block)
        steps.append((1, begin, upper, half, factor))

    solve(0, log_size, known, 0)
    return np.array(steps, np.int64).reshape(-1, 5)


_compile: Callable[..., Callable[..., Callable[..., object]]] = njit


def _kernel(function: Callable[..., object]) -> Callable[..., object]:
    return _compile(cache=True, nogil=True, boundscheck=False, error_model="numpy")(function)


@_kernel
def _add(tag, array, to, begin, count):  # type: ignore[no-untyped-def]
    """``array[to .. ] ^= array[begin ..]``, ``count`` words, ranges apart."""
    step = 2 * lanes(tag)
    whole = count - count % step
    for i in range(0, whole, step):
        store(array, to + i, xor(load(tag, array, to + i), load(tag, array, begin + i)))
    for i in range(whole, count):
        array[to + i] ^= array[begin + i]


@_kernel
def _convert(tag, array, begin, unit, steps, backwards):  # type: ignore[no-untyped-def]
    """Run the steps of a change of basis on units of words."""
    for i in range(steps.shape[0]):
        k = steps.shape[0] - 1 - i if backwards else i
        _add(tag, array, begin + steps[k, 0] * unit, begin + steps[k, 1] * unit, steps[k, 2] * unit)


@_kernel
def convert_part(tag, array, unit, steps, first, end, part, parts):  # type: ignore[no-untyped-def]
    """One of ``parts`` shares of steps ``first .. end - 1``, which do not depend on each other."""
    for k in range(first, end):
        count = steps[k, 2] * unit
        low, high = count * part // parts, count * (part + 1) // parts
        _add(tag, array, steps[k, 0] * unit + low, steps[k, 1] * unit + low, high - low)


@_kernel
def _set_base(tag, table, by_lane, block, bits, side_by_side, base):  # type: ignore[no-untyped-def]
    """Factors of the first block on each of ``bits`` levels, for a block (or for four from ``block`` on)."""
    width = 2 * lanes(tag)
    for below in range(bits):
        j = 2 * block << below
        for raised in range(2):
            value = xor(
                spread(tag, table, 4 * (j & 255) + 2 * raised),
                xor(
                    spread(tag, table, 1024 + 4 * (j >> 8 & 255) + 2 * raised),
                    spread(tag, table, 2048 + 4 * (j >> 16) + 2 * raised),
                ),
            )
            if side_by_side:
                value = xor(value, load(tag, by_lane, 16 * below + 8 * raised))
            store(base, (2 * below + raised) * width, value)


@_kernel
def _forward(tag, array, begin, bits, unit, table, base):  # type: ignore[no-untyped-def]
    """Evaluate: ``2^bits`` units of words, novel coefficients to values."""
    width = 2 * lanes(tag)
    for below in range(bits):
        half = unit << bits - 1 - below
        plain, up = load(tag, base, 2 * below * width), load(tag, base, (2 * below + 1) * width)
        for s in range(1 << below):
            factor = xor(plain, spread(tag, table, 8 * s))
            raised = xor(up, spread(tag, table, 8 * s + 2))
            at = begin + 2 * half * s
            for i in range(at, at + half, width):
                high = load(tag, array, i + half)
                low = xor(load(tag, array, i), multiply_by(high, factor, raised))
                store(array, i, low)
                store(array, i + half, xor(low, high))


@_kernel
def _backward(tag, array, begin, bits, unit, table, base):  # type: ignore[no-untyped-def]
    """Interpolate: the inverse of :func:`_forward`."""
    width = 2 * lanes(tag)
    for below in range(bits - 1, -1, -1):
        half = unit << bits - 1 - below
        plain, up = load(tag, base, 2 * below * width), load(tag, base, (2 * below + 1) * width)
        for s in range(1 << below):
            factor = xor(plain, spread(tag, table, 8 * s))
            raised = xor(up, spread(tag, table, 8 * s + 2))
            at = begin + 2 * half * s
            for i in range(at, at + half, width):
                low = load(tag, array, i)
                high = xor(load(tag, array, i + half), low)
                store(array, i + half, high)
                store(array, i, xor(low, multiply_by(high, factor, raised)))


@_kernel
def _backward_steps(tag, array, unit, table, steps):  # type: ignore[no-untyped-def]
    """Interpolate from some of the values, by :func:`truncated_inverse`."""
    width = 2 * lanes(tag)
    for k in range(steps.shape[0]):
        to, begin, count = steps[k, 1] * unit, steps[k, 2] * unit, steps[k, 3] * unit
        if steps[k, 0] == 0:
            _add(tag, array, to, begin, count)
        else:
            factor, raised = spread(tag, table, 4 * steps[k, 4]), spread(tag, table, 4 * steps[k, 4] + 2)
            for i in range(0, count, width):
                value = multiply_by(load(tag, array, begin + i), factor, raised)
                store(array, to + i, xor(load(tag, array, to + i), value))


@_kernel
def strips_forward(tag, words, used, out, log_rows, log_columns, rows_out, steps, table, base, first, end):  # type: ignore[no-untyped-def]
    """Top levels for strips ``first .. end - 1``: expanded words to values between rows, ``rows_out`` of them."""
    rows, columns = 1 << log_rows, 1 << log_columns
    narrow, wide = np.empty(_STRIP * rows, np.uint64), np.empty(2 * _STRIP * rows, np.uint64)
    for strip in range(first, end):
        for r in range(rows):
            at = r * columns + strip * _STRIP
            for i in range(_STRIP):
                narrow[r * _STRIP + i] = words[at + i] if at + i < used else np.uint64(0)
        _convert(tag, narrow, 0, _STRIP, steps, False)
        for i in range(rows * _STRIP):
            wide[2 * i] = narrow[i]
            wide[2 * i + 1] = np.uint64(0)
        _forward(tag, wide, 0, log_rows, 2 * _STRIP, table, base)
        for r in range(rows_out):
            at = 2 * (r * columns + strip * _STRIP)
            for i in range(0, 2 * _STRIP, 2 * lanes(tag)):
                store(out, at + i, load(tag, wide, 2 * _STRIP * r + i))


@_kernel
def strips_backward(tag, array, log_rows, log_columns, rows_in, inverse, steps, table, first, end):  # type: ignore[no-untyped-def]
    """Inverse of the top levels for some strips, from the first ``rows_in`` rows to all."""
    rows, columns = 1 << log_rows, 1 << log_columns
    wide = np.empty(2 * _STRIP * rows, np.uint64)
    for strip in range(first, end):
        for r in range(rows):
            at = 2 * (r * columns + strip * _STRIP)
            if r < rows_in:
                for i in range(0, 2 * _STRIP, 2 * lanes(tag)):
                    store(wide, 2 * _STRIP * r + i, load(tag, array, at + i))
            else:
                wide[2 * _STRIP * r : 2 * _STRIP * (r + 1)] = 0
        _backward_steps(tag, wide, 2 * _STRIP, table, inverse)
        _convert(tag, wide, 0, 2 * _STRIP, steps, True)
        for r in range(rows):
            at = 2 * (r * columns + strip * _STRIP)
            for i in range(0, 2 * _STRIP, 2 * lanes(tag)):
                store(array, at + i, load(tag, wide, 2 * _STRIP * r + i))


@_kernel
def _row_strips(tag, array, begin, steps, table, base, buffer, backwards):  # type: ignore[no-untyped-def]
    """The upper eight levels of a row of 2^16, in strips of columns."""
    for strip in range(_BLOCK // _ROW_STRIP):
        at = begin + 2 * _ROW_STRIP * strip
        for r in range(_BLOCK):
            for i in range(0, 2 * _ROW_STRIP, 2 * lanes(tag)):
                store(buffer, 2 * _ROW_STRIP * r + i, load(tag, array, at + 2 * _BLOCK * r + i))
        if backwards:
            _backward(tag, buffer, 0, 8, 2 * _ROW_STRIP, table, base)
            _convert(tag, buffer, 0, 2 * _ROW_STRIP, steps, True)
        else:
            _convert(tag, buffer, 0, 2 * _ROW_STRIP, steps, False)
            _forward(tag, buffer, 0, 8, 2 * _ROW_STRIP, table, base)
        for r in range(_BLOCK):
            for i in range(0, 2 * _ROW_STRIP, 2 * lanes(tag)):
                store(array, at + 2 * _BLOCK * r + i, load(tag, buffer, 2 * _ROW_STRIP * r + i))


@_kernel
def _side_by_side(tag, array, begin, buffer, back):  # type: ignore[no-untyped-def]
    """Blocks of 256 elements into the lanes of a vector, as many as it has, or back: a 4 x 4 transposition."""
    if lanes(tag) == 1:
        for i in range(0, 2 * _BLOCK, 2):
            if back:
                store(array, begin + i, load(tag, buffer, i))
            else:
                store(buffer, i, load(tag, array, begin + i))
        return
    block = 2 * _BLOCK
    for i in range(0, block, 8):
        if back:
            a, b = load(tag, buffer, 4 * i), load(tag, buffer, 4 * i + 8)
            c, d = load(tag, buffer, 4 * i + 16), load(tag, buffer, 4 * i + 24)
        else:
            a, b = load(tag, array, begin + i), load(tag, array, begin + block + i)
            c, d = load(tag, array, begin + 2 * block + i), load(tag, array, begin + 3 * block + i)
        p, q, r, s = lower_lanes(a, b), upper_lanes(a, b), lower_lanes(c, d), upper_lanes(c, d)
        a, b, c, d = even_lanes(p, r), odd_lanes(p, r), even_lanes(q, s), odd_lanes(q, s)
        if back:
            store(array, begin + i, a)
            store(array, begin + block + i, b)
            store(array, begin + 2 * block + i, c)
            store(array, begin + 3 * block + i, d)
        else:
            store(buffer, 4 * i, a)
            store(buffer, 4 * i + 8, b)
            store(buffer, 4 * i + 16, c)
            store(buffer, 4 * i + 24, d)


@_kernel
def rows_multiply(tag, left, right, log_columns, expand, convert, table, by_lane, first, end):  # type: ignore[no-untyped-def]
    """Rows ``first .. end - 1``: the rest of both forward transforms, the product, and its inverse, into ``left``."""
    count = lanes(tag)
    width = 2 * count
    base, block_base = np.empty(16 * width, np.uint64), np.empty(16 * width, np.uint64)
    strip = np.empty(2 * _ROW_STRIP * _BLOCK, np.uint64)
    one, other = np.empty(width * _BLOCK, np.uint64), np.empty(width * _BLOCK, np.uint64)
    blocks = 1 << log_columns - 8
    # Rows of one block each come side by side, as many as there are lanes.
    together = 1 if blocks > 1 else count
    for row in range(first, end, together):
        begin = row << log_columns + 1
        if blocks > 1:
            _set_base(tag, table, by_lane, row, 8, False, base)
            for array in (left, right):
                _convert(tag, array, begin, 2, expand, False)
                _row_strips(tag, array, begin, convert, table, base, strip, False)
        for block in range(0, blocks * together, count):
            at = begin + 2 * _BLOCK * block
            _set_base(tag, table, by_lane, row * blocks + block, 8, True, block_base)
            _side_by_side(tag, left, at, one, False)
            _convert(tag, one, 0, width, convert, False)
            _forward(tag, one, 0, 8, width, table, block_base)
            _side_by_side(tag, right, at, other, False)
            _convert(tag, other, 0, width, convert, False)
            _forward(tag, other, 0, 8, width, table, block_base)
            for i in range(0, width * _BLOCK, width):
                store(one, i, multiply(load(tag, one, i), load(tag, other, i)))
            _backward(tag, one, 0, 8, width, table, block_base)
            _convert(tag, one, 0, width, convert, True)
            _side_by_side(tag, left, at, one, True)
        if blocks > 1:
            _row_strips(tag, left, begin, convert, table, base, strip, True)
            _convert(tag, left, begin, 2, expand, True)


@_kernel
def join(array, out, first, low, high):  # type: ignore[no-untyped-def]
    """Coefficients of up to 127 bits at distances of 64 to words ``low .. high - 1`` of ``out``, ``first`` being the first."""
    for i in range(first + low, first + high):
        out[i - first] = array[2 * i] ^ (array[2 * i - 1] if i else np.uint64(0))


class Multiplier:
    """Multiplies polynomials over F2; keeps its work arrays for the next product of the same size.

    Parameters
    ----------
    words : most words of both factors together.
    path : ``clmul512`` or ``clmul128``; the caller has asked :func:`common.kernels.clmul.available_paths`.
    executor, parts : where to run, and on how many threads at once.

    Notes
    -----
    Memory: 40 bytes for each word of the next power of two, 168 MB at 2^22 words. Source of the method: module's text.
    """

    def __init__(self, words: int, path: str, executor: Executor | None = None, parts: int = 1) -> None:
        log = max(MIN_LOG, (max(words, 1) - 1).bit_length())
        if log > MAX_LOG:
            raise InputError(f"a product of {words} words is beyond {1 << MAX_LOG}", remedy="Use a smaller block.")
        self.words, self._tag = words, FOUR if path == "clmul512" else ONE
        self._log_columns = 8 if log <= 16 else 16
        self._log_rows = log - self._log_columns
        together = 4 if self._log_columns == 8 else 1
        self._rows = -(-max(words, 1) // (1 << self._log_columns) // together) * together
        rows_needed = -(-max(words, 1) // (1 << self._log_columns))
        self._rows = -(-rows_needed // together) * together
        self._executor, self._parts = executor, parts if executor else 1
        self._left, self._right = (np.empty(2 << log, np.uint64) for _ in range(2))
        self._expanded = np.empty(1 << log, np.uint64)

    def __call__(self, left: Words, right: Words, first: int, count: int) -> Words:
        """Words ``first .. first + count - 1`` of the product of two polynomials, 64 coefficients a word."""
        if len(left) + len(right) > self.words or first + count > len(left) + len(right):
            raise InputError(f"{len(left)} and {len(right)} words do not fit a multiplier for {self.words}")
        tag, table = self._tag, tables().reshape(-1)
        columns, rows = self._log_columns, self._log_rows
        self._transform(left, self._left)
        self._transform(right, self._right)
        expand = np.array(expansion(16, 8) if columns == 16 else [], np.int64).reshape(-1, 3)
        by_lane = lane_factors().reshape(-1)
        step = 4 if columns == 8 else 1
        self._spread(
            self._rows // step,
            lambda low, high: rows_multiply(
                tag, self._left, self._right, columns, expand, conversion(8), table, by_lane, low * step, high * step
            ),
        )
        inverse = truncated_inverse(rows, self._rows)
        self._spread(
            (1 << columns) // _STRIP,
            lambda low, high: strips_backward(
                tag, self._left, rows, columns, self._rows, inverse, conversion(rows), table, low, high
            ),
        )
        self._expand(self._left, rows + columns, 2, backwards=True)
        out = np.empty(count, np.uint64)
        self._spread(count, lambda low, high: join(self._left, out, first, low, high))
        return out

    def _transform(self, words: Words, out: Words) -> None:
        columns, rows = self._log_columns, self._log_rows
        log = max(columns, (max(len(words), 1) - 1).bit_length())
        self._expanded[: len(words)] = words
        self._expanded[len(words) : 1 << log] = 0
        self._expand(self._expanded, log, 1, backwards=False)
        base = np.zeros(2 * 8 * 8, np.uint64)
        self._spread(
            (1 << columns) // _STRIP,
            lambda low, high: strips_forward(
                self._tag, self._expanded, 1 << log, out, rows, columns, self._rows, conversion(rows),
                tables().reshape(-1), base, low, high,
            ),
        )  # fmt: skip

    def _expand(self, array: Words, log: int, unit: int, *, backwards: bool) -> None:
        """The change of basis across rows; steps of one size do not depend on each other, two kinds in turn."""
        if log <= self._log_columns:
            return
        steps = expansion(log, self._log_columns)
        groups: list[list[tuple[int, int, int]]] = []
        at = 0
        for t in range(log - self._log_columns - 1, -1, -1):
            size = 2 << log - self._log_columns - 1 - t
            groups += [steps[at : at + size : 2], steps[at + 1 : at + size : 2]]
            at += size
        for group in reversed(groups) if backwards else groups:
            made = np.array(group, np.int64)
            self._each(
                lambda part, made=made: convert_part(  # type: ignore[misc]
                    self._tag, array, unit, made, 0, len(made), part, self._parts
                )
            )

    def _spread(self, count: int, work: Callable[[int, int], object]) -> None:
        self._each(lambda part: work(count * part // self._parts, count * (part + 1) // self._parts))

    def _each(self, work: Callable[[int], object]) -> None:
        if self._executor is None or self._parts == 1:
            work(0)
            return
        for done in [self._executor.submit(work, part) for part in range(self._parts)]:
            done.result()
