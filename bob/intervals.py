"""Do detectors remember? Watches, beyond the dead time, whether a click's detector clicks again as often as by chance.

Slots are public and which detector clicked is the key. Where a detector recovers for longer than
`receiver.dead_time_ps`, two detections close to each other are in different detectors: their bits differ, and everybody
knows it. Afterpulses say the opposite. Both show in the share of consecutive detections that are in the same detector,
by their gap; detectors that have recovered have the same share at all gaps (`kernels.tags.intervals` states the model).

What is secret is which detector clicked, and no number of this module leaves it: only the verdict does. It is "regular"
except with a probability of about 1e-15 as long as detectors do not remember, so that it tells nothing about them; and
where it is another, everything that went into it is thrown away. Source: ours, decision 134.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.datatypes import Bytes8
from common.kernels import tags

SIGMAS = 8.0
"""Of a bin; a normal number is beyond with probability 1.2e-15, a look each 20 ms finds none in a million years."""
FEWEST = 25.0
"""Variance from which on a count may be taken for normal."""
CROWDED_ENTRIES, SAMPLED_ENTRIES = 1 << 14, 1 << 10
"""Of a stretch with more entries the last ones are looked at, this many: the processor still has them at hand."""
WINDOW_SLOTS = 1 << 30
"""Counts begin anew after so much light (14 s at 76 MHz); what is found voids as much that follows."""

Verdict = Literal["recovery", "afterpulses", "regular"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of which slots; ``gap_slots`` is the shortest gap at which it shows."""

    verdict: Verdict
    from_slot: int
    to_slot: int
    gap_slots: int = 0


class IntervalWatch:
    """Judges the intervals of one receiver's detections, stretch by stretch."""

    def __init__(self) -> None:
        self._sums = np.zeros((tags.INTERVAL_ROWS, tags.GAP_BINS))
        self._from_slot: int | None = None
        self._void_until: int | None = None

    def restart(self) -> None:
        """The slot numbers begin anew; what was found has yet to be taken back."""
        self._sums.fill(0.0)
        self._from_slot = None
        if self._void_until is not None:
            self._void_until = 0

    def add(self, slots: NDArray[np.int64], masks: Bytes8, from_slot: int, to_slot: int) -> Finding | None:
        """The entries of one stretch.

        Returns
        -------
        Finding or None : ``recovery`` or ``afterpulses`` for slots that must not be used, those behind ``to_slot``
            included, said again before they end; ``regular`` once a whole window after such a finding was.
        """
        if self._from_slot is None:
            self._from_slot = from_slot
        most = slots.size if slots.size <= CROWDED_ENTRIES else SAMPLED_ENTRIES
        tags.intervals(slots, masks, most, self._sums)
        begun = self._from_slot
        found = int(tags.irregular(self._sums, SIGMAS, FEWEST))
        if found < 0:
            if to_slot - begun < WINDOW_SLOTS:
                return None
            self._begin(to_slot)
            was, self._void_until = self._void_until, None
            return None if was is None else Finding("regular", begun, to_slot)
        verdict: Verdict = "recovery" if self._sums[tags.EXCESS, found] < 0.0 else "afterpulses"
        self._begin(to_slot)
        if self._void_until is not None and to_slot + WINDOW_SLOTS // 2 < self._void_until:
            return None
        self._void_until = to_slot + WINDOW_SLOTS
        return Finding(verdict, begun, self._void_until, 1 << found)

    def _begin(self, slot: int) -> None:
        self._sums.fill(0.0)
        self._from_slot = slot
