"""Middle products in GF(2)[x]: a window of a product, at the cost of the window and one factor alone.

A string of bits is cut into coefficients of 32, so a product of two of them has 63 bits, fits into an element of
GF(2^64) and is never reduced. With the reversed coefficients ``x`` of one factor the window is ``y_j = sum_i x_i
s_(i+j)``: the transposed map of multiplication by ``x``. Multiplication by ``x``, of at most ``N`` coefficients of
result, is ``C' E' D E C``: ``C`` changes to the novel basis, ``E`` evaluates at ``N`` points
(:mod:`common.kernels.additive_basis`), ``D`` multiplies by the values of ``x``, primes are inverses. The transpose has
the same number of operations and needs ``N`` = |x| + |y| - 1 = |s| points; the whole product would need |x| + |s|:

    y = C^T E^T D E'^T C'^T s        C'^T: arrows of C exchanged; E'^T, E^T: butterflies with halves exchanged
    forth (E):     low += w high, high += low        transposed inverse (E'^T): high += w low, low += high
    back (E^T):    low += high, high += w low        (the inverse of E is not needed)

``N`` is any number of *rows* of ``2^8`` or ``2^16`` coefficients, not a power of two: all maps are restricted to their
first ``N`` coordinates, and what is zero or not read is left out of the levels across rows (:func:`top_steps`).

*Memory and caches.* (1) ``C`` across rows works on packed coefficients, half as wide as elements. (2) The levels across
rows are done on strips of 32 columns that are copied into a small buffer (copying also avoids that rows a power of two
apart fall into the same cache set). (3) A row of ``2^16`` (512 KiB) is again 256 by 256: strips of 8 columns, one cache
line wide, then blocks of 256, one block in each lane of a vector, so that the last levels need no shuffles. A row is
visited once for the rest of both transforms, the products of values, and the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from common.errors import InputError
from common.kernels.additive_basis import (
    ADD,
    FORTH,
    MAX_LOG,
    MULTIPLY_ADD,
    Range,
    clipped,
    conversion,
    exchanged,
    expansion,
    tables,
    top_steps,
)
from common.kernels.clmul import (
    NARROW,
    WIDE,
    add_range,
    even_products,
    in_registers,
    lanes,
    load,
    multiply,
    odd_products,
    reduce,
    spread,
    store,
    transpose,
    xor,
)

Elements = NDArray[np.uint64]
Coefficients = NDArray[np.uint32]
Ranges = NDArray[np.int64]

COEFFICIENT_BITS = 32
#: Up to this many coefficients (log2) rows have 2^8 of them, above 2^16.
_SHORT_ROWS = 18
_STRIP, _ROW_STRIP, _BLOCK = 32, 8, 256

_compile: Callable[..., Callable[..., Callable[..., object]]] = njit


def _kernel(function: Callable[..., object]) -> Callable[..., object]:
    return _compile(cache=True, nogil=True, boundscheck=False, error_model="numpy")(function)


@_kernel
def add_ranges(array, ranges, part, parts):  # type: ignore[no-untyped-def]
    """One of ``parts`` shares of every range, in turn: for one share, or ranges that do not depend on each other."""
    for k in range(ranges.shape[0]):
        low, high = ranges[k, 2] * part // parts, ranges[k, 2] * (part + 1) // parts
        add_range(array, ranges[k, 0] + low, ranges[k, 1] + low, high - low)


@_kernel
def add_rows(array, ranges, columns, low, high):  # type: ignore[no-untyped-def]
    """Columns ``low .. high - 1`` of ranges of whole rows, in turn."""
    for k in range(ranges.shape[0]):
        for row in range(ranges[k, 2]):
            to, begin = (ranges[k, 0] + row) * columns, (ranges[k, 1] + row) * columns
            add_range(array, to + low, begin + low, high - low)


@_kernel
def add_within(array, ranges, columns, first, end):  # type: ignore[no-untyped-def]
    """The same ranges within each of rows ``first .. end - 1``."""
    for row in range(first, end):
        for k in range(ranges.shape[0]):
            add_range(array, row * columns + ranges[k, 0], row * columns + ranges[k, 1], ranges[k, 2])


@_kernel
def _add_units(array, ranges, unit):  # type: ignore[no-untyped-def]
    """Ranges of units of words in a buffer."""
    for k in range(ranges.shape[0]):
        add_range(array, ranges[k, 0] * unit, ranges[k, 1] * unit, ranges[k, 2] * unit)


#: Ways through a change of basis: C of the input, its transposed inverse of the seed, its transpose of the result.
FORTH_X, FORTH_S, BACK_Y = range(3)
_sixteen, _sixteen_s, _sixteen_y = (
    in_registers(list(ranges), 16)
    for ranges in (conversion(4), exchanged(conversion(4)), reversed(exchanged(conversion(4))))
)


@_kernel
def _convert_one(tag, array, at, apart, way):  # type: ignore[no-untyped-def]
    if way == FORTH_X:
        _sixteen(tag, array, at, apart)
    elif way == FORTH_S:
        _sixteen_s(tag, array, at, apart)
    else:
        _sixteen_y(tag, array, at, apart)


@_kernel
def convert(tag, array, unit, ranges, way):  # type: ignore[no-untyped-def]
    """Change of basis of 256 units: digits of 16, then both digits in registers; for the result backwards."""
    if way != BACK_Y:
        _add_units(array, ranges, unit)
        for i in range(0, 16 * unit, lanes(tag)):
            _convert_one(tag, array, i, 16 * unit, way)
    for digit in range(16):
        for i in range(0, unit, lanes(tag)):
            _convert_one(tag, array, 16 * digit * unit + i, unit, way)
    if way == BACK_Y:
        for i in range(0, 16 * unit, lanes(tag)):
            _convert_one(tag, array, i, 16 * unit, way)
        _add_units(array, ranges, unit)


@_kernel
def _factor(table, index):  # type: ignore[no-untyped-def]
    """The point ``w_index`` of the basis."""
    return table[0, index & 255] ^ table[1, index >> 8 & 255] ^ table[2, index >> 16]


@_kernel
def _set_bases(tag, table, block, apart, bits, bases):  # type: ignore[no-untyped-def]
    """Factors of the first block on each of ``bits`` levels, for ``block``, ``block + apart``, ... in the lanes."""
    for below in range(bits):
        for lane in range(lanes(tag)):
            bases[below * lanes(tag) + lane] = _factor(table, 2 * (block + lane * apart) << below)


@_kernel
def forth(tag, array, bits, unit, table, bases, exchange):  # type: ignore[no-untyped-def]
    """``2^bits`` units of words, novel coefficients to values; with ``exchange`` the transposed inverse.

    Two levels at a time (``bits`` is even), factors ``t``, then ``u`` and ``v``. The product ``t c`` is needed in two
    sums: it is reduced within them.
    """
    two = spread(tag, table[0, 2])
    for below in range(0, bits, 2):
        quarter = unit << bits - 2 - below
        base, next_base = load(tag, bases, below * lanes(tag)), load(tag, bases, (below + 1) * lanes(tag))
        for s in range(1 << below):
            t = xor(base, spread(tag, table[0, 2 * s]))
            u = xor(next_base, spread(tag, table[0, 4 * s]))
            v = xor(u, two)
            begin, step = 4 * quarter * s, quarter
            if exchange:
                begin, step, u, v = begin + 3 * quarter, -quarter, v, u
            for i in range(begin, begin + quarter, lanes(tag)):
                a, b = load(tag, array, i), load(tag, array, i + step)
                c, d = load(tag, array, i + 2 * step), load(tag, array, i + 3 * step)
                b = xor(b, multiply(d, t))
                d = xor(d, b)
                even, odd = even_products(c, t), odd_products(c, t)
                c = xor(c, a)
                a = xor(a, reduce(xor(even, even_products(b, u)), xor(odd, odd_products(b, u))))
                c = xor(c, reduce(xor(even, even_products(d, v)), xor(odd, odd_products(d, v))))
                store(array, i, a)
                store(array, i + step, xor(a, b))
                store(array, i + 2 * step, c)
                store(array, i + 3 * step, xor(c, d))


@_kernel
def back(tag, array, bits, unit, table, bases):  # type: ignore[no-untyped-def]
    """The transpose of :func:`forth` without ``exchange``."""
    two = spread(tag, table[0, 2])
    for below in range(bits - 2, -1, -2):
        step = unit << bits - 2 - below
        base, next_base = load(tag, bases, below * lanes(tag)), load(tag, bases, (below + 1) * lanes(tag))
        for s in range(1 << below):
            t = xor(base, spread(tag, table[0, 2 * s]))
            u = xor(next_base, spread(tag, table[0, 4 * s]))
            v = xor(u, two)
            for i in range(4 * step * s, 4 * step * s + step, lanes(tag)):
                a, b = load(tag, array, i), load(tag, array, i + step)
                c, d = load(tag, array, i + 2 * step), load(tag, array, i + 3 * step)
                a, c = xor(a, b), xor(c, d)
                even, odd = even_products(c, v), odd_products(c, v)
                b = xor(xor(b, d), reduce(xor(even, even_products(a, u)), xor(odd, odd_products(a, u))))
                d = xor(d, reduce(xor(even, even_products(b, t)), xor(odd, odd_products(b, t))))
                a = xor(a, c)
                store(array, i, a)
                store(array, i + step, b)
                store(array, i + 2 * step, xor(c, multiply(a, t)))
                store(array, i + 3 * step, d)


@_kernel
def run_steps(tag, array, unit, table, steps):  # type: ignore[no-untyped-def]
    """Packed steps on units of words."""
    for k in range(steps.shape[0]):
        kind, to, begin = steps[k, 0], steps[k, 1] * unit, steps[k, 2] * unit
        factor = spread(tag, _factor(table, steps[k, 3]))
        if kind == ADD:
            add_range(array, to, begin, unit)
        elif kind == MULTIPLY_ADD:
            for i in range(0, unit, lanes(tag)):
                value = multiply(load(tag, array, begin + i), factor)
                store(array, to + i, xor(load(tag, array, to + i), value))
        elif kind == FORTH:
            for i in range(0, unit, lanes(tag)):
                b = load(tag, array, begin + i)
                a = xor(load(tag, array, to + i), multiply(b, factor))
                store(array, to + i, a)
                store(array, begin + i, xor(a, b))
        else:
            for i in range(0, unit, lanes(tag)):
                b = load(tag, array, begin + i)
                a = xor(load(tag, array, to + i), b)
                store(array, to + i, a)
                store(array, begin + i, xor(b, multiply(a, factor)))


@_kernel
def strips(tag, source, rows_in, out, rows_out, columns, log_rows, steps, table, first, end):  # type: ignore[no-untyped-def]
    """Levels across rows for strips ``first .. end - 1``: the first ``rows_in`` rows to the first ``rows_out``."""
    buffer = np.empty(_STRIP << log_rows, np.uint64)
    for strip in range(first, end):
        for row in range(rows_in):
            at = row * columns + strip * _STRIP
            for i in range(0, _STRIP, lanes(tag)):
                store(buffer, row * _STRIP + i, load(tag, source, at + i))
        buffer[rows_in * _STRIP :] = 0
        run_steps(tag, buffer, _STRIP, table, steps)
        for row in range(rows_out):
            at = row * columns + strip * _STRIP
            for i in range(0, _STRIP, lanes(tag)):
                store(out, at + i, load(tag, buffer, row * _STRIP + i))
    buffer[:] = 0


@_kernel
def _copy_strip(tag, source, at, apart, out, to, out_apart):  # type: ignore[no-untyped-def]
    for row in range(_BLOCK):
        for i in range(0, _ROW_STRIP, lanes(tag)):
            store(out, to + row * out_apart + i, load(tag, source, at + row * apart + i))


@_kernel
def _row_forth(tag, array, begin, ranges, table, bases, buffer, exchange):  # type: ignore[no-untyped-def]
    """Change of basis and evaluation, the upper eight levels of a row of 2^16, in strips of columns."""
    for at in range(begin, begin + _BLOCK, _ROW_STRIP):
        _copy_strip(tag, array, at, _BLOCK, buffer, 0, _ROW_STRIP)
        convert(tag, buffer, _ROW_STRIP, ranges, FORTH_S if exchange else FORTH_X)
        forth(tag, buffer, 8, _ROW_STRIP, table, bases, exchange)
        _copy_strip(tag, buffer, 0, _ROW_STRIP, array, at, _BLOCK)


@_kernel
def _row_back(tag, array, begin, ranges, table, bases, buffer):  # type: ignore[no-untyped-def]
    for at in range(begin, begin + _BLOCK, _ROW_STRIP):
        _copy_strip(tag, array, at, _BLOCK, buffer, 0, _ROW_STRIP)
        back(tag, buffer, 8, _ROW_STRIP, table, bases)
        convert(tag, buffer, _ROW_STRIP, ranges, BACK_Y)
        _copy_strip(tag, buffer, 0, _ROW_STRIP, array, at, _BLOCK)


@_kernel
def _gather(tag, array, begin, buffer):  # type: ignore[no-untyped-def]
    """Blocks from ``begin`` on, as many as there are lanes, one into each lane."""
    for i in range(0, _BLOCK, lanes(tag)):
        transpose(tag, array, begin + i, _BLOCK, buffer, i * lanes(tag), lanes(tag))


@_kernel
def rows_multiply(tag, x, s, columns, ranges, ranges_s, ranges_y, table, first, end):  # type: ignore[no-untyped-def]
    """Rows ``first .. end - 1`` (short rows: as many at once as there are lanes): ``s`` becomes ``E^T D E'^T s``, with
    the change of basis of the lower 16 levels but for what rows do before."""
    count = lanes(tag)
    row_bases, bases = np.empty(8 * count, np.uint64), np.empty(8 * count, np.uint64)
    strip = np.empty(_ROW_STRIP * _BLOCK, np.uint64)
    one, other = np.empty(count * _BLOCK, np.uint64), np.empty(count * _BLOCK, np.uint64)
    blocks = columns // _BLOCK
    together = 1 if blocks > 1 else count
    for row in range(first, end, together):
        begin = row * columns
        if blocks > 1:
            _set_bases(tag, table, row, 0, 8, row_bases)
            _row_forth(tag, x, begin, ranges, table, row_bases, strip, False)
            _row_forth(tag, s, begin, ranges_s, table, row_bases, strip, True)
        for block in range(0, blocks * together, count):
            at = begin + _BLOCK * block
            _set_bases(tag, table, row * blocks + block, 1, 8, bases)
            _gather(tag, x, at, one)
            convert(tag, one, count, ranges, FORTH_X)
            forth(tag, one, 8, count, table, bases, False)
            _gather(tag, s, at, other)
            convert(tag, other, count, ranges_s, FORTH_S)
            forth(tag, other, 8, count, table, bases, True)
            for i in range(0, count * _BLOCK, count):
                store(other, i, multiply(load(tag, one, i), load(tag, other, i)))
            back(tag, other, 8, count, table, bases)
            convert(tag, other, count, ranges_y, BACK_Y)
            for i in range(0, _BLOCK, count):
                transpose(tag, other, i * count, count, s, at + i, _BLOCK)
        if blocks > 1:
            _row_back(tag, s, begin, ranges_y, table, row_bases, strip)
    for buffer in (strip, one, other):
        buffer[:] = 0


def _array(ranges: list[Range]) -> Ranges:
    return np.array(ranges, np.int64).reshape(-1, 3)


@lru_cache(maxsize=32)
def _across(log_rows: int, log_columns: int, limit: int, exchange: bool) -> tuple[list[Ranges], Ranges, Ranges]:
    """Change of basis across rows below row ``limit``: groups of ranges of coefficients, of rows, within rows."""
    turn = exchanged if exchange else list
    columns = 1 << log_columns
    groups = [_array(clipped(turn(group), limit * columns)) for group in expansion(log_rows + log_columns, log_columns)]
    within = [step for group in expansion(16, 8) for step in group] if log_columns == 16 else []
    return groups, _array(clipped(turn(conversion(log_rows)), limit)), _array(turn(within))


class MiddleProduct:
    """``y_j = sum_i x_i s_(i+j)`` for polynomials of at most 32 bits ``x_i``, ``s_i``: elements of at most 63 bits.

    Parameters
    ----------
    n_x, n_y : coefficients of ``x`` and of the result; ``s`` has ``n_x + n_y - 1``.
    path : ``clmul512`` or ``clmul128``; the caller has asked :func:`common.kernels.clmul.available_paths`.
    executor, parts : where to run, and on how many threads at once.

    Raises
    ------
    InputError : too large.

    Notes
    -----
    Memory: 20 bytes for each coefficient of ``s``, 94 MB for 1e8 bits hashed to half. Work arrays are overwritten in
    the end, as they hold the key. Source of the method: ours, decision 30.
    """

    def __init__(self, n_x: int, n_y: int, path: str, executor: Executor | None = None, parts: int = 1) -> None:
        size = n_x + n_y - 1
        if not 0 < size <= 1 << MAX_LOG:
            raise InputError(
                f"{COEFFICIENT_BITS * size} bits of input and output are beyond {COEFFICIENT_BITS << MAX_LOG}",
                remedy="Use blocks of at most 3e8 bits.",
            )
        self.n_x, self.n_y, self._tag = n_x, n_y, WIDE if path == "clmul512" else NARROW
        self._log_columns = 8 if size <= 1 << _SHORT_ROWS else 16
        together = int(self._tag) if self._log_columns == 8 else 1
        self._rows_x, self._rows_y = self._rows_of(n_x), self._rows_of(n_y)
        self._rows = -(-self._rows_of(size) // together) * together
        self._log_rows = (self._rows - 1).bit_length()
        # Short rows are done before threads have met.
        self._executor, self._parts = executor, parts if executor and self._log_columns == 16 else 1

    def _rows_of(self, count: int) -> int:
        return -(-count // (1 << self._log_columns))

    def __call__(self, x: Coefficients, s: Coefficients) -> Elements:
        """Multiply; the product is *(n_y,) uint64*."""
        if len(x) != self.n_x or len(s) != self.n_x + self.n_y - 1:
            raise InputError(f"{len(x)} and {len(s)} coefficients, not {self.n_x} and {self.n_x + self.n_y - 1}")
        columns = 1 << self._log_columns
        steps_x, steps_s, steps_y = top_steps(self._log_rows, self._rows, self._rows_x, self._rows_y)
        wide_x, wide_s = np.empty(self._rows * columns, np.uint64), np.empty(self._rows * columns, np.uint64)
        narrow = np.empty(self._rows * columns, np.uint32)
        for given, rows, out, steps, exchange in (
            (s, self._rows, wide_s, steps_s, True),
            (x, self._rows_x, wide_x, steps_x, False),
        ):
            coefficients = narrow[: rows * columns]
            coefficients[: len(given)] = given
            coefficients[len(given) :] = 0
            self._change_basis(coefficients, rows, exchange)
            self._strips(coefficients, rows, out, self._rows, steps)
        digits = [step for group in expansion(8, 4) for step in group]
        ranges = [_array(made) for made in (digits, exchanged(digits), exchanged(digits)[::-1])]
        together = int(self._tag) if self._log_columns == 8 else 1
        self._spread(
            self._rows // together,
            lambda low, high: rows_multiply(
                self._tag, wide_x, wide_s, columns, *ranges, tables(), low * together, high * together
            ),
        )
        out = wide_x[: self._rows_y * columns]
        self._strips(wide_s, self._rows, out, self._rows_y, steps_y)
        self._change_basis(out, self._rows_y, exchange=True, backwards=True)
        result = out[: self.n_y].copy()
        for array in (wide_x, wide_s, narrow):
            self._spread(len(array), lambda low, high, array=array: array[low:high].fill(0))  # type: ignore[misc]
        return result

    def _strips(self, source: object, rows_in: int, out: Elements, rows_out: int, steps: object) -> None:
        columns = 1 << self._log_columns
        self._spread(
            columns // _STRIP,
            lambda low, high: strips(
                self._tag, source, rows_in, out, rows_out, columns, self._log_rows, steps, tables(), low, high
            ),
        )

    def _change_basis(self, array: Coefficients | Elements, rows: int, exchange: bool, backwards: bool = False) -> None:
        """All but what blocks and strips of a row do; whole rows are split by columns, other groups by ranges."""
        groups, whole_rows, within = _across(self._log_rows, self._log_columns, rows, exchange)
        columns = 1 << self._log_columns
        turn = slice(None, None, -1) if backwards else slice(None)

        def inside() -> None:
            self._spread(rows, lambda low, high: add_within(array, within[turn], columns, low, high))

        def across() -> None:
            self._spread(columns, lambda low, high: add_rows(array, whole_rows[turn], columns, low, high))

        def expand() -> None:
            for group in groups[turn]:
                self._each(lambda part, group=group: add_ranges(array, group, part, self._parts))  # type: ignore[misc]

        stages: tuple[Callable[[], None], ...] = (expand, across, inside)
        for stage in stages[turn]:
            stage()

    def _spread(self, count: int, work: Callable[[int, int], object]) -> None:
        self._each(lambda part: work(count * part // self._parts, count * (part + 1) // self._parts))

    def _each(self, work: Callable[[int], object]) -> None:
        if self._executor is None or self._parts == 1:
            work(0)
            return
        for done in [self._executor.submit(work, part) for part in range(self._parts)]:
            done.result()
