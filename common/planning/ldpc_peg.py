"""Progressive edge growth for quasi-cyclic codes: shifts without short cycles, counted over all copies of a circulant.

Counting only the cycles through one copy of the new edge leaves an error floor of tens of per cent on long frames:
a circulant can close a cycle with its own other copies. What meets in a row is drawn beforehand.
Source: Hu, Eleftheriou, Arnold 2005 (progressive edge growth),
Li, Kumar 2004 (quasi-cyclic variant); the look-ahead test on checks is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int = NDArray[np.int64]

#: Longest cycle to look for, as a number of variables, by the degree of the column being placed (index 0..4, then 3).
CYCLE_LOOK = np.array([0, 0, 40, 5, 4, 3], dtype=np.int64)


@dataclass(frozen=True)
class BaseGraph:
    """Edges of a base matrix in row order.

    Parameters
    ----------
    columns, shifts : *(edges,) int64*; check ``(r, x)`` meets variable ``(column, (x + shift) % lifting)``.
    row_start : *(rows + 1,) int64*, first edge of each row.
    """

    lifting: int
    columns: Int
    shifts: Int
    row_start: Int


@njit(cache=True)
def _cycle(  # type: ignore[no-untyped-def]
    j, row, shift, lifting, start, placed, edge_row, edge_shift, row_col, row_shift, row_fill, seen, stamp, queue, look
):
    """Number of variables on the shortest cycle through the candidate edge, or ``look + 1`` if longer than ``look``."""
    first = row * lifting + (lifting - shift) % lifting
    # Targets: the checks of variable (j, 0) by its other edges; all marked with -stamp.
    for e in range(start[j], start[j] + placed[j]):
        target = edge_row[e] * lifting + (lifting - edge_shift[e]) % lifting
        if target == first:
            return 1
        seen[target] = -stamp
    seen[first] = stamp
    queue[0] = first
    head, tail, depth = 0, 1, 1
    while head < tail and depth < look:
        end = tail
        depth += 1
        while head < end:
            r, x = divmod(queue[head], lifting)
            head += 1
            for i in range(row_fill[r] + 1 if r == row else row_fill[r]):
                c, s = row_col[r, i], row_shift[r, i]
                z = (x + s) % lifting
                if c == j and z == 0:
                    if r == row and s == shift:
                        continue
                    return depth - 1
                for e in range(start[c], start[c] + placed[c] + (1 if c == j else 0)):
                    k = edge_row[e] * lifting + (z - edge_shift[e]) % lifting
                    if seen[k] == -stamp:
                        return depth
                    if seen[k] != stamp:
                        seen[k] = stamp
                        queue[tail] = k
                        tail += 1
    return look + 1


@njit(cache=True)
def _grow(degrees, kinds, quota, even, lifting, seed, candidates, cycle_look):  # type: ignore[no-untyped-def]
    """Place every edge; returns ``edge_row, edge_shift`` in column order (empty if a column found no row)."""
    np.random.seed(seed)
    columns, edges, rows = len(degrees), degrees.sum(), quota.shape[1]
    edge_row, edge_shift = np.empty(edges, np.int64), np.empty(edges, np.int64)
    start = np.zeros(columns + 1, np.int64)
    start[1:] = np.cumsum(degrees)
    row_fill, placed = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
    capacity = quota.sum(axis=0)
    width = capacity.max() + 4
    row_col, row_shift = np.full((rows, width), -1, np.int64), np.full((rows, width), -1, np.int64)
    seen, queue = np.zeros(rows * lifting, np.int64), np.empty(rows * lifting + 1, np.int64)
    stamp = 0
    for j in range(columns):
        tries = candidates if even or degrees[j] <= 3 else max(candidates // 5, 1)
        look, kind = cycle_look[min(degrees[j], len(cycle_look) - 1)], kinds[j]
        for _k in range(degrees[j]):
            best, best_fill, best_row, best_shift, good = -1, 1e18, -1, -1, 0
            at, most = start[j] + placed[j], max(quota[kind].max(), 1)
            for _t in range(tries):
                r = -1
                for _tries in range(200):
                    a = np.random.randint(rows)
                    if row_fill[a] >= capacity[a]:
                        continue
                    if even:
                        if np.random.random() < row_fill[a] / capacity[a] and _tries < 60:
                            continue
                    # A row has room for this many edges of each kind; when no such row is left, any room will do.
                    elif np.random.random() * most >= quota[kind, a] and _tries < 160:
                        continue
                    used = False
                    for e in range(start[j], at):
                        used = used or edge_row[e] == a
                    if not used:
                        r = a
                        break
                if r < 0:
                    continue
                s = np.random.randint(lifting)
                edge_row[at], edge_shift[at] = r, s
                row_col[r, row_fill[r]], row_shift[r, row_fill[r]] = j, s
                stamp += 1
                g = _cycle(
                    j,
                    r,
                    s,
                    lifting,
                    start,
                    placed,
                    edge_row,
                    edge_shift,
                    row_col,
                    row_shift,
                    row_fill,
                    seen,
                    stamp,
                    queue,
                    look,
                )
                fill = row_fill[r] / capacity[r]
                if g > best or (even and g == best and fill < best_fill):
                    best, best_fill, best_row, best_shift = g, fill, r, s
                if g > look:
                    good += 1
                    if good >= (6 if even else 1):
                        break
            if best_row < 0:
                return edge_row[:0], edge_shift[:0]
            edge_row[at], edge_shift[at] = best_row, best_shift
            row_col[best_row, row_fill[best_row]], row_shift[best_row, row_fill[best_row]] = j, best_shift
            row_fill[best_row] += 1
            quota[kind, best_row] -= 1
            placed[j] += 1
    return edge_row, edge_shift


def degree_sequence(edge_fractions: dict[int, float], columns: int, rows: int) -> Int:
    """*(columns,) int64* ascending degrees whose edge fractions are nearest to those wished, none above ``rows``."""
    degrees = sorted(edge_fractions)
    nodes = np.array([edge_fractions[d] / d for d in degrees])
    wished = nodes / nodes.sum() * columns
    counts = np.floor(wished).astype(np.int64)
    for i in np.argsort(-(wished - counts))[: columns - int(counts.sum())]:
        counts[i] += 1
    return np.minimum(np.repeat(np.array(degrees, np.int64), counts), rows)


def draw_quota(degrees: Int, rows: int, heavy: int, share: float, seed: int) -> Int:
    """Draw how many edges of each degree every row may have; all rows are equally long.

    Columns of degree 2 are dealt out evenly: rows with many of them close short cycles, and a few bits stay wrong. All
    other edges fall at random, the heavy columns' more often into one half of the rows: rows that differ decode from
    more errors than rows that are alike (decision 16).

    Parameters
    ----------
    degrees : *(columns,) int64*, ascending degrees of the columns.
    heavy, share : the part ``share`` of the edges of columns of this degree or above goes to half of the rows.

    Returns
    -------
    *(kinds, rows) int64*, by ascending degree.
    """
    rng = np.random.default_rng(seed)
    kinds, counts = np.unique(degrees, return_counts=True)
    edges, half = kinds * counts, rows // 2
    quota = np.zeros((len(kinds), rows), np.int64)
    for i in np.flatnonzero(kinds == 2):
        quota[i] = np.bincount(rng.permutation(rows)[np.arange(edges[i]) % rows], minlength=rows)
    room = np.bincount(np.arange(edges.sum()) % rows, minlength=rows) - quota.sum(axis=0)
    slots = np.repeat(np.arange(rows), room)
    first, second = rng.permutation(slots[slots < half]), rng.permutation(slots[slots >= half])
    for i in np.flatnonzero(kinds >= heavy):
        a = min(round(share * int(edges[i])), len(first))
        b = int(edges[i]) - a
        quota[i] = np.bincount(np.concatenate([first[:a], second[:b]]), minlength=rows)
        first, second = first[a:], second[b:]
    rest = rng.permutation(np.concatenate([first, second]))
    for i in np.flatnonzero((kinds > 2) & (kinds < heavy)):
        quota[i] = np.bincount(rest[: edges[i]], minlength=rows)
        rest = rest[edges[i] :]
    return quota[:, rng.permutation(rows)]


def grow(degrees: Int, rows: int, lifting: int, seed: int, quota: Int | None = None, candidates: int = 40) -> BaseGraph:
    """Draw the shifts of a code.

    Parameters
    ----------
    degrees : *(columns,) int64*, ascending degrees of the columns.
    rows, lifting : size of the base matrix's rows, and of the circulants.
    seed : of the search; the same seed gives the same code.
    quota : *(degrees, rows) int64* of :func:`draw_quota`; without it all rows are filled alike.
    candidates : random (row, shift) pairs tried for each edge (with a quota, a fifth of it from degree 4 on).
    """
    kinds = np.zeros(len(degrees), np.int64)
    room, even = np.full((1, rows), -(-int(degrees.sum()) // rows)), quota is None
    if quota is not None:
        kinds, room = np.unique(degrees, return_inverse=True)[1].astype(np.int64), quota.copy()
    for attempt in range(8):
        # The exact numbers may leave a column without a row: then each row may have one edge more.
        found = _grow(degrees, kinds, room.copy(), even, lifting, seed + attempt, candidates, CYCLE_LOOK)
        if len(found[0]):
            break
        room[-1] += 1
    else:
        raise ValueError(f"no code found for {len(degrees)} columns, {rows} rows, lifting {lifting}")
    return _in_row_order(lifting, rows, np.repeat(np.arange(len(degrees)), degrees), *found)


def _in_row_order(lifting: int, rows: int, edge_column: Int, edge_row: Int, edge_shift: Int) -> BaseGraph:
    order = np.lexsort((edge_column, edge_row))
    row_start = np.searchsorted(edge_row[order], np.arange(rows + 1)).astype(np.int64)
    return BaseGraph(lifting, edge_column[order].astype(np.int64), edge_shift[order].astype(np.int64), row_start)


def split(graph: BaseGraph, pairs: int, seed: int) -> BaseGraph:
    """Cut the first rows in two halves each, at random: new rows ``2 i`` and ``2 i + 1`` sum to old row ``i``."""
    rng = np.random.default_rng(seed)
    rows = len(graph.row_start) - 1
    edge_row = np.repeat(np.arange(rows) + pairs, np.diff(graph.row_start))
    for i in range(pairs):
        low, high = graph.row_start[i], graph.row_start[i + 1]
        edge_row[low:high] = 2 * i + rng.permutation(high - low) % 2
    return _in_row_order(graph.lifting, rows + pairs, graph.columns, edge_row, graph.shifts)
