"""What the public counts of many blocks together say about the devices: a weakness that one block is too short to show.

The limits of `monitors.py` are asked of the sums over the last 1, 2, 4, ... blocks and over all that are remembered,
so a sudden fault is not diluted by good blocks before it, and a small one is found once enough blocks show it.
Source: ours, `README.md`, section Monitors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from operator import add

from common.security.monitors import monitors
from common.security.tallies import ONES_STEPS, ProtocolSettings, ReceiverBounds, Tallies

WINDOW_DETECTIONS = 10**8
"""More would find what the mismatch can be measured to no better, and would keep the past for hours on a field link."""
BLOCKS_KEPT = 1024
PROOF_OF_REPAIR = 4
"""Times the detections that accused: a fault that lasts would be at twice as many deviations in them."""

Row = tuple[int, ...]


class RecentBlocks:
    """The memory of one end of a link, of this process only.

    A fault stands until ``PROOF_OF_REPAIR`` times the detections that showed it, at most ``WINDOW_DETECTIONS``, have
    come in without a new one; what came before it is forgotten at once. Until then every block is refused.
    """

    def __init__(self, settings: ProtocolSettings, receiver: ReceiverBounds) -> None:
        self._settings, self._receiver = settings, receiver
        self._rows: deque[Row] = deque(maxlen=BLOCKS_KEPT)
        self._fault: str | None = None
        self._to_prove = 0

    def enter(self, tallies: Tallies) -> str | None:
        """One more block has all its counts, whatever becomes of it: why no key may be made of it, or None.

        Counts that cannot be (`Tallies.impossible`) say nothing of the devices; no detection in X says much.
        """
        if tallies.impossible() is not None:
            return None
        self._rows.append(_row(tallies))
        self._forget()
        for blocks, recent in self._ends(len(tallies.n_z)):
            _, accused = monitors(recent, self._settings, self._receiver)
            if accused is not None:
                self._fault = accused if blocks == 1 else f"{accused}, in the last {blocks} blocks together"
                self._to_prove = max(self._to_prove, min(PROOF_OF_REPAIR * _detections(recent), WINDOW_DETECTIONS))
                self._rows.clear()
                return self._fault
        if self._fault is None:
            return None
        self._to_prove -= _detections(tallies)
        if self._to_prove > 0:
            return f"{self._fault}; good again after {self._to_prove} more detections within the limits"
        self._fault, self._to_prove = None, 0
        return None

    def _forget(self) -> None:
        held = sum(row[2] + row[3] for row in self._rows)
        while len(self._rows) > 1 and held > WINDOW_DETECTIONS:
            oldest = self._rows.popleft()
            held -= oldest[2] + oldest[3]

    def _ends(self, levels: int) -> Iterator[tuple[int, Tallies]]:
        """(how many blocks, their sum) of the newest ones, in powers of two, and of all."""
        sums = accumulate(reversed(self._rows), lambda a, b: tuple(map(add, a, b)))
        for blocks, row in enumerate(sums, start=1):
            if blocks & (blocks - 1) == 0 or blocks == len(self._rows):
                yield blocks, _tallies(row, levels)


def _detections(tallies: Tallies) -> int:
    return tallies.z_detections + tallies.x_detections


def _row(one: Tallies) -> Row:
    """All that adds up: the share of V as the sum of steps of every sifted bit."""
    cells = (value for level in one.x_counts for symbol in level for value in symbol)
    ones = one.z_ones_steps * sum(one.n_z)
    counts = (one.slots_sent, one.n_z_kept, one.z_detections, one.x_detections, one.cross_clicks, one.double_clicks)
    return (*counts, ones, *one.n_z, *cells)


def _tallies(row: Row, levels: int) -> Tallies:
    """The sum as the counts of one block.

    A block's share of V is off by half a step and so is the mean of many; rounded once more it is off by one step,
    which is the tolerance of a single block already.
    """
    slots, kept, in_z, in_x, cross, double, ones = row[:7]
    n_z, cells = row[7 : 7 + levels], row[7 + levels :]
    pairs = tuple(zip(cells[::2], cells[1::2], strict=True))
    sifted = sum(n_z)
    return Tallies(
        slots_sent=slots,
        n_z=n_z,
        n_z_kept=kept,
        x_counts=tuple(pairs[4 * level : 4 * level + 4] for level in range(levels)),
        z_detections=in_z,
        x_detections=in_x,
        cross_clicks=cross,
        double_clicks=double,
        z_ones_steps=min((2 * ones + sifted) // (2 * sifted), ONES_STEPS - 1),
    )
