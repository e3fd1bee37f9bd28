"""Gate, common dead time and double clicks: clicks in, at most one detection a slot out.

The rule (assumption A3 of the security proof; decisions 60 and 61): two detectors of one basis in a slot become a
random bit and are kept; detectors of both bases follow the named policy and are counted; after any click all four
detectors are blanked together, so that never one of them is blind alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bob.synchronisation import ClockTracker
from common.datatypes import Bytes8, Detections
from common.kernels import tags
from common.kernels.click_rule import RULES, CrossBasis

RandomBits = Callable[[int], Bytes8]
"""``random_bits(n)`` gives *(n,) uint8* fair, secret bits, one per byte."""

FAR_SLOTS = 0.375
"""A click at least so far from the gate's centre is background; the tail of the light does not reach there."""


@dataclass(frozen=True, slots=True)
class GateCounts:
    """What became of the clicks since the start.

    Parameters
    ----------
    in_gate, outside_gate : clicks.
    blanked : clicks in the gate that fell into the dead time of an earlier click.
    double_clicks : slots in which both detectors of one basis clicked (kept, random bit).
    cross_basis_clicks : slots in which detectors of both bases clicked (by policy).
    """

    in_gate: int = 0
    outside_gate: int = 0
    blanked: int = 0
    double_clicks: int = 0
    cross_basis_clicks: int = 0


@dataclass(frozen=True, slots=True)
class Gated:
    """Entries of one stretch: *(n,)* slots and the mask of the detectors that clicked in each."""

    slots: NDArray[np.int64]
    masks: Bytes8
    multiple: int

    def z_clicks(self) -> tuple[NDArray[np.int64], Bytes8]:
        """Slots and bits of the entries where exactly one Z detector clicked (what synchronisation correlates)."""
        single = (self.masks == 1) | (self.masks == 2)
        return self.slots[single], self.masks[single] >> np.uint8(1)


class Gate:
    """The gate with its running state; measures the clock's offset on the way."""

    def __init__(
        self, half_gate_slots: float, dead_time_ps: int, random_bits: RandomBits, cross_basis: CrossBasis
    ) -> None:
        self.half_gate = half_gate_slots
        self._dead_time_ps = dead_time_ps
        self._random_bits = random_bits
        self._rule = RULES[cross_basis]
        self._state = np.zeros(tags.STATE_SIZE, dtype=np.int64)
        self._state[tags.LAST_CLICK_PS] = self._state[tags.LAST_SLOT] = -(1 << 62)
        self._doubles = self._crossed = self._in_gate = 0
        self.moments = np.zeros(tags.MOMENTS_SIZE, dtype=np.float64)
        self.outside = np.zeros(tags.OUTSIDE_BINS, dtype=np.int64)

    @property
    def per_far(self) -> float:
        """Time inside the gate for each unit of time in which :meth:`far` looks."""
        return 2.0 * self.half_gate / (1.0 - 2.0 * max(FAR_SLOTS, self.half_gate))

    def far(
        self, times_ps: NDArray[np.int64], channels: Bytes8, clock: ClockTracker
    ) -> tuple[NDArray[np.int64], Bytes8]:
        """Slots and bases of the next clicks that are far from the gate, blanked ones left out; before :meth:`sort`."""
        since_ps = np.diff(times_ps, prepend=self._state[tags.LAST_CLICK_PS])
        position = clock.positions(times_ps)
        nearest = np.floor(position + 0.5)
        far = np.abs(position - nearest) > max(FAR_SLOTS, self.half_gate)
        far &= since_ps >= self._dead_time_ps
        return clock.origin_slot + nearest[far].astype(np.int64), channels[far] >> np.uint8(1)

    @property
    def counts(self) -> GateCounts:
        """Totals since the start."""
        state = self._state
        in_gate = self._in_gate + int(self.moments[tags.IN_GATE])
        outside, blanked = int(state[tags.OUTSIDE_GATE]), int(state[tags.BLANKED])
        return GateCounts(in_gate, outside, blanked, self._doubles, self._crossed)

    def renumber(self, last_slot: int) -> None:
        """After a change of the slot numbers: accept slots above ``last_slot``."""
        self._state[tags.LAST_SLOT] = last_slot

    def forget_moments(self) -> None:
        """Start a new measurement of the clock."""
        self._in_gate += int(self.moments[tags.IN_GATE])
        self.moments[:] = 0.0
        self.outside[:] = 0

    def sort(self, times_ps: NDArray[np.int64], channels: Bytes8, clock: ClockTracker) -> Gated:
        """Assign clicks to slots."""
        slots, masks = np.empty(times_ps.size, np.int64), np.empty(times_ps.size, np.uint8)
        count, multiple = tags.gate(
            times_ps,
            channels,
            clock.origin_ps,
            clock.origin_slot,
            clock.phase,
            clock.slots_per_ps,
            self.half_gate,
            self._dead_time_ps,
            self._state,
            self.moments,
            self.outside,
            slots,
            masks,
        )
        return Gated(slots[:count], masks[:count], multiple)

    def resolve(self, gated: Gated, from_slot: int, to_slot: int) -> Detections:
        """Apply the double-click rule to the entries of ``from_slot .. to_slot``."""
        n, several = gated.slots.size, gated.multiple
        bases, bits = np.empty(n, np.uint8), np.empty(n, np.uint8)
        if not several:
            tags.read_masks(gated.masks, bases, bits)
            return Detections(gated.slots, bases, bits, from_slot, to_slot)
        coins = self._random_bits(2 * several)
        doubles, crossed = np.empty(several, np.int64), np.empty(several, np.int64)
        kept, n_doubles, n_crossed = tags.resolve(
            gated.slots, gated.masks, coins, self._rule, gated.slots, bases, bits, doubles, crossed
        )
        self._doubles += int(n_doubles)
        self._crossed += int(n_crossed)
        columns = gated.slots[:kept], bases[:kept], bits[:kept]
        return Detections(*columns, from_slot, to_slot, doubles[:n_doubles], crossed[:n_crossed])
