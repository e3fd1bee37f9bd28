"""Time tags in stretches of slots: tags wait until they are wanted, then pass the gate on a clock that follows. Pure.

A stretch is as long as the clock may run without a correction. What the gate saw of it corrects the clock, or says that
the clock no longer holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bob.gating import Gate, Gated
from bob.intervals import IntervalWatch
from bob.selection import NO_CLICKS, FarClicks, Selection
from bob.synchronisation import SIGNIFICANT_POWER, ClockTracker, light_power
from common.datatypes import Bytes8, TimeTags
from common.kernels import tags
from common.units import PS_PER_S

MEASURE_PS = 20_000_000_000
"""The clock is corrected this often while there is light enough,"""
PATIENCE_PS = 150_000_000_000
"""and after this time a stretch without light is given up."""
MAX_STEP_TAGS = 1 << 17
"""No stretch holds more tags: a step then takes milliseconds whatever the light."""
NEVER = 1 << 62
"""A slot, or a time in ps, that does not come."""

Outcome = Literal["held", "lost", "too early"]


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every phase of one receiver works with; counts go on from phase to phase.

    Parameters
    ----------
    nominal_hz : Alice's nominal rate.
    selection : None: all segments are kept.
    """

    nominal_hz: float
    gate: Gate
    selection: Selection | None
    intervals: IntervalWatch


class WaitingTags:
    """The tags that have come and are not part of a stretch yet: in order, without skew.

    Parameters
    ----------
    skew_ps : per logical channel, how much later than the others it reports.

    Attributes
    ----------
    times_ps, channels : see :class:`common.datatypes.TimeTags`.
    complete_ps : every tag before this time is here or was here.
    """

    def __init__(self, skew_ps: Sequence[int]) -> None:
        self._skew_ps = np.array(skew_ps, dtype=np.int64)
        self._guard_ps = int(np.abs(self._skew_ps).max()) if self._skew_ps.any() else 0
        self.complete_ps = 0
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self.times_ps: NDArray[np.int64] = np.zeros(0, np.int64)
        self.channels: Bytes8 = np.zeros(0, np.uint8)

    def add(self, batch: TimeTags) -> None:
        """More tags as the tagger gives them."""
        times_ps = np.concatenate([self.times_ps, batch.times_ps])
        channels = np.concatenate([self.channels, batch.channels])
        if self._guard_ps:
            skew_ps = self._skew_ps.copy()
            sorted_ps, sorted_channels = np.empty_like(times_ps), np.empty_like(channels)
            times_ps[: self.times_ps.size] += skew_ps[self.channels]  # these were corrected before
            tags.correct_skew(times_ps, channels, skew_ps, sorted_ps, sorted_channels)
            times_ps, channels = sorted_ps, sorted_channels
        self.times_ps, self.channels = times_ps, channels
        self.complete_ps = batch.until_ps - self._guard_ps

    @property
    def first_ps(self) -> int:
        """No tag waits or will come before this time."""
        return min(int(self.times_ps[0]), self.complete_ps) if self.times_ps.size else self.complete_ps

    def take(self, before_ps: int) -> tuple[NDArray[np.int64], Bytes8]:
        """Times and channels of the tags before a time; they no longer wait."""
        n = int(np.searchsorted(self.times_ps, before_ps))
        taken = self.times_ps[:n], self.channels[:n]
        self.times_ps, self.channels = self.times_ps[n:], self.channels[n:]
        return taken


class Stretch(NamedTuple):
    """What the gate makes of the slots ``from_slot .. to_slot``, which end at ``end_ps``.

    ``far`` are the clicks far from the gate, where somebody selects.
    """

    from_slot: int
    to_slot: int
    end_ps: int
    gated: Gated
    far: FarClicks


class FollowingGate:
    """The gate on a clock that follows the light: stretch after stretch, and a measurement whenever light allows.

    Parameters
    ----------
    clock : runs on from its origin; the first stretch begins there.

    Attributes
    ----------
    next_slot : where the next stretch begins.
    """

    def __init__(self, equipment: Equipment, clock: ClockTracker) -> None:
        self.clock = clock
        self._gate, self._selecting = equipment.gate, equipment.selection is not None
        self._most_slots = round(equipment.nominal_hz * MEASURE_PS / PS_PER_S)
        self.next_slot = clock.slot_at(clock.origin_ps)
        self._gate.forget_moments()
        self._gate.renumber(self.next_slot - 1)

    def stretch(self, waiting: WaitingTags, end_slot: int = NEVER) -> Stretch | None:
        """Take the next stretch, not beyond ``end_slot``; None: its tags have not all come."""
        clock, from_slot = self.clock, self.next_slot
        to_slot = min(clock.slot_at(waiting.complete_ps), from_slot + self._most_slots, end_slot)
        if waiting.times_ps.size > MAX_STEP_TAGS:
            crowded = clock.slot_at(int(waiting.times_ps[MAX_STEP_TAGS]))
            to_slot = min(to_slot, max(crowded, from_slot + 1))
        if to_slot <= from_slot:
            return None
        end_ps = clock.start_ps(to_slot)
        times_ps, channels = waiting.take(end_ps)
        far = self._gate.far(times_ps, channels, clock) if self._selecting else NO_CLICKS
        gated = self._gate.sort(times_ps, channels, clock)
        self.next_slot = to_slot
        return Stretch(from_slot, to_slot, end_ps, gated, far)

    def measure(self, end_ps: int) -> Outcome:
        """Correct the clock at the end of a stretch, once there was light enough, or after ``PATIENCE_PS``.

        Returns
        -------
        str : ``held`` (what came since the last measurement is where the clock says), ``lost`` (the light has jumped,
            or was away for too long), or ``too early``.
        """
        clock, gate = self.clock, self._gate
        elapsed = end_ps - clock.origin_ps
        many = gate.moments[tags.IN_GATE] >= MAX_STEP_TAGS // 2
        bright = (many or elapsed >= MEASURE_PS // 2) and light_power(gate.moments, gate.outside) > SIGNIFICANT_POWER
        if not bright and elapsed < PATIENCE_PS:
            return "too early"
        seen = clock.measure(gate.moments, gate.outside, gate.half_gate, end_ps)
        gate.forget_moments()
        return "lost" if seen == "jump" or not clock.holding else "held"

    def renumber(self, offset: int) -> None:
        """Every slot number grows by ``offset``."""
        self.clock.shift(offset)
        self.next_slot += offset
        self._gate.renumber(self.next_slot - 1)
