"""Syndrome of a quasi-cyclic LDPC code, and its layered decoder (64 lanes over the lifting).

Check ``(row, x)`` meets variable ``(column, (x + shift) % lifting)`` for each edge of the row. The decoder looks for
the error pattern of a given syndrome: posteriors in int16, messages in int8, "A-min*" check update with two outputs per
check (boxplus approximated by ``min - (g(|x-y|) - g(x+y)) / 4``), scale and cap driven by the fraction of unsatisfied
checks.
Source: layered schedule, Mansour 2003; A-min*, Jones et al. 2003; scale and cap tables ours, decision 21.
"""

from __future__ import annotations

import numpy as np
from numba import int8, int16, njit

from common.kernels.lanes import (
    LANES,
    add16,
    boxplus8,
    count_negative,
    load8,
    load16,
    magnitude8,
    maximum8,
    minimum8,
    narrow,
    negate_where8,
    scale8,
    select_where_equal8,
    splat8,
    store8,
    store16,
    subtract16,
    widen,
    xor8,
    xor16,
)

#: Room before a column (written, never read) and in all: a vector may start at any lane and wraps by a second store.
PAD = LANES
ROOM = 3 * LANES


@njit(cache=True, nogil=True, boundscheck=False)
def syndrome(words, columns, shifts, row_start, lifting, out):  # type: ignore[no-untyped-def]
    """Syndrome of packed columns.

    Parameters
    ----------
    words : *(n_columns, 2 * w + 1) uint32*, w = lifting / 32; each column twice in a row, then one spare word.
    columns, shifts, row_start : *(edges,), (edges,), (rows + 1,) int64*, the code.
    lifting : circulant size, a multiple of 64.
    out : *(rows, w) uint32*, overwritten.
    """
    width = lifting // 32
    for r in range(len(row_start) - 1):
        for k in range(width):
            out[r, k] = 0
        for e in range(row_start[r], row_start[r + 1]):
            c = columns[e]
            first, low = shifts[e] // 32, np.uint32(shifts[e] % 32)
            high = np.uint32(31) - low
            for k in range(width):
                # Two shifts for the upper part: a shift by 32 is undefined.
                upper = (words[c, first + k + 1] << np.uint32(1)) << high
                out[r, k] ^= (words[c, first + k] >> low) | upper


@njit(cache=True, nogil=True, boundscheck=False)
def expand_signs(words, lifting, out):  # type: ignore[no-untyped-def]
    """*(rows, lifting / 32) uint32* to *(rows * lifting,) int8*: -1 for a one, 0 for a zero."""
    for r in range(words.shape[0]):
        for k in range(words.shape[1]):
            word = words[r, k]
            base = r * lifting + 32 * k
            for b in range(32):
                out[base + b] = -int8((word >> np.uint32(b)) & np.uint32(1))


@njit(cache=True, nogil=True, boundscheck=False)
def set_posteriors(values, lifting, out):  # type: ignore[no-untyped-def]
    """Lay out *(columns, lifting) int16* with the copies of the ends, *(columns * (lifting + ROOM),) int16*."""
    stride = lifting + ROOM
    for c in range(values.shape[0]):
        base = c * stride + PAD
        for z in range(lifting):
            out[base + z] = values[c, z]
        for z in range(PAD):
            out[base - PAD + z] = out[base + lifting - PAD + z]
        for z in range(lifting, lifting + 2 * PAD):
            out[base + z] = out[base + z - lifting]


@njit(cache=True, nogil=True, boundscheck=False)
def hard_decisions(posterior, lifting, out):  # type: ignore[no-untyped-def]
    """*(columns, lifting) uint8*: 1 where the posterior is negative."""
    stride = lifting + ROOM
    for c in range(out.shape[0]):
        base = c * stride + PAD
        for z in range(lifting):
            out[c, z] = 1 if posterior[base + z] < 0 else 0


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def satisfied(posterior, signs, bases, shifts, segments, lifting):  # type: ignore[no-untyped-def]
    """True if the hard decisions have the wanted syndrome; one block of checks is enough to see that they do not."""
    for k in range(segments.shape[0]):
        p0, p1, z0, z1, sign_base, _, _ = segments[k]
        for zb in range(z0, z1, LANES):
            parity = load8(signs, sign_base + zb)
            for e in range(p0, p1):
                o = zb + shifts[np.uintp(e)]
                if o >= lifting:
                    o -= lifting
                parity = xor8(parity, narrow(load16(posterior, bases[np.uintp(e)] + o)))
            if count_negative(parity) > 0:
                return False
    return True


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def decode(  # type: ignore[no-untyped-def]
    posterior,
    messages,
    scratch,
    inputs,
    answers,
    signs,
    bases,
    shifts,
    segments,
    lifting,
    scales,
    caps,
    knee,
    state,
    iterations,
    patience,
):
    """Layered decoding until the syndrome fits, at most ``iterations`` times.

    Parameters
    ----------
    posterior : *(columns * (lifting + ROOM),) int16*, log-likelihood ratios of "no error", in and out.
    messages : *(edges * lifting,) int8*, check-to-variable messages, zero at first, in and out. Those of 64 copies of a
        row (of a pair of rows, merged or not) lie together, edge by edge.
    scratch, inputs : *(>= 64 * largest check degree,) int16* and *(>= 64 * (largest check degree + 2),) int8*.
    answers : ``inputs`` once more, under a name that the compiler does not connect with it.
    signs : *(rows * lifting,) int8*, the wanted syndrome, -1 for a one.
    bases : *(edges,) int64*, where the first variable of an edge's column lies in ``posterior``.
    shifts : *(edges,) int64*.
    segments : *(k, 7) int64*: first edge, end of edges, first and end of the copies (multiples of 64), place of copy 0
        in ``signs``, first edge and number of edges of the row or pair. Each is a range of copies of one check.
    scales, caps : *(bins,) int64*, scale (64 = 1) and cap of the messages by sqrt(2 * unsatisfied fraction).
    knee : of the box-plus correction, 4 times its value at 0; even.
    state : *(3,) int64*, scale and cap to start with, in and out; out: unsatisfied checks.
    patience : iterations without fewer unsatisfied checks (by 1/64) after which it gives up.

    Returns
    -------
    Iterations done, negative if the syndrome was not reached.

    Notes
    -----
    About 28 cycles (8 ns) per edge and 64 lanes in each iteration on a Zen 4 with AVX-512, 33 with AVX2: decision 119.
    """
    bins = len(scales)
    most = splat8(int8(127))
    half_knees = splat8(int8(knee // 2))
    checks = 0
    for k in range(segments.shape[0]):
        checks += segments[k, 3] - segments[k, 2]
    mark, marked = 2 * checks, 0
    for iteration in range(iterations):
        factor = int16(state[0])
        cap = splat8(int8(state[1]))
        unsatisfied = 0
        for k in range(segments.shape[0]):
            p0, p1, z0, z1, sign_base, start, edges = segments[k]
            for zb in range(z0, z1, LANES):
                # Place of the messages of 64 copies, as seen from edge 0.
                heard = start * lifting + zb * edges - start * LANES
                least, rest = most, most
                sign = load8(signs, sign_base + zb)
                parity = widen(sign)
                for e in range(p0, p1):
                    o = zb + shifts[np.uintp(e)]
                    if o >= lifting:
                        o -= lifting
                    total = load16(posterior, bases[np.uintp(e)] + o)
                    wide = subtract16(total, load8(messages, heard + e * LANES))
                    incoming = narrow(wide)
                    store16(scratch, (e - p0) * LANES, wide)
                    store8(inputs, (e - p0) * LANES, incoming)
                    parity = xor16(parity, total)
                    sign = xor8(sign, incoming)
                    size = magnitude8(incoming)
                    # `rest` is the boxplus of all but the least so far.
                    larger = maximum8(size, least)
                    rest = boxplus8(rest, larger, half_knees)
                    least = minimum8(least, size)
                unsatisfied += count_negative(narrow(parity))
                others = minimum8(scale8(boxplus8(least, rest, half_knees), factor), cap)
                at_least = minimum8(scale8(rest, factor), cap)
                # Through memory, out of LLVM's sight: it would scale both in the loop over edges, for every edge.
                answer = (p1 - p0) * LANES
                store8(inputs, answer, negate_where8(others, sign))
                store8(inputs, answer + LANES, negate_where8(at_least, sign))
                others, at_least = load8(answers, answer), load8(answers, answer + LANES)
                for e in range(p0, p1):
                    o = zb + shifts[np.uintp(e)]
                    if o >= lifting:
                        o -= lifting
                    wide = load16(scratch, (e - p0) * LANES)
                    incoming = load8(inputs, (e - p0) * LANES)
                    message = select_where_equal8(magnitude8(incoming), least, at_least, others)
                    message = negate_where8(message, incoming)
                    store8(messages, heard + e * LANES, message)
                    total = add16(wide, message)
                    base = bases[np.uintp(e)] + o
                    store16(posterior, base, total)
                    if o < LANES:
                        store16(posterior, base + lifting, total)
                    if o > lifting - LANES:
                        store16(posterior, base - lifting, total)
        at = min(int((bins - 1) * np.sqrt(2.0 * unsatisfied / checks)), bins - 1)
        state[0], state[1], state[2] = scales[at], caps[at], unsatisfied
        # The count is of checks before they corrected; this looks after, and ends at the first that is not met.
        if satisfied(posterior, signs, bases, shifts, segments, lifting):
            return iteration + 1
        # A decoder that is stuck stays stuck: more checks help, more iterations do not.
        if unsatisfied < mark - mark // 64:
            mark, marked = unsatisfied, iteration
        elif iteration - marked >= patience:
            return -(iteration + 1)
    return -iterations
