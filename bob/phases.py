"""The phases of the receiver: finding the frequency, finding the slot, locked. Pure.

A phase takes the tags that wait, one :class:`Step` after the other. A step says what came of them (detections, events,
counts of a preamble) and which phase goes on.

    FindingFrequency --- comb found ---> FindingSlot --- preambles found ---> Locked
           ^                                  |                                  |
           +-- the light jumped or was away --+---- or preambles contradict -----+

Source: ours, decision 63 (frequency and clock) and 64 (slots).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bob.alignment import Alignment, PreambleCheck, SlotSearch
from bob.selection import NO_CLICKS, FarClicks
from bob.stretches import NEVER, Equipment, FollowingGate, Stretch, WaitingTags
from bob.synchronisation import ClockTracker, FrequencySearch
from common.datatypes import Bytes8, Detections
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS

State = Literal["searching-frequency", "searching-slot", "locked", "lost"]
EventKind = Literal["locked", "lost", "slip", "overflow", "recovery", "afterpulses", "regular"]


@dataclass(frozen=True, slots=True)
class ReceiverEvent:
    """Something the session must know; ``from_slot .. to_slot`` is the half-open range it concerns.

    ``locked``: detections follow from ``from_slot`` (slot numbers may be lower than before if Alice restarted).
    ``lost``: detections ended before ``to_slot``; they were last confirmed at ``from_slot``.
    ``slip``: the slot numbers of the range were wrong: every block that holds detections of it is void.
    ``overflow``: the tagger lost tags in the range: the block is void.
    ``recovery``, ``afterpulses``: detectors remember for ``gap_slots`` or more, beyond the dead time: every block with
    detections of the range is void, which reaches beyond the present. ``regular``: no longer.
    """

    kind: EventKind
    from_slot: int
    to_slot: int
    gap_slots: int = 0


@dataclass(frozen=True, slots=True)
class PreambleCount:
    """Z outcomes of one whole preamble, which are public: its first slot, how many were right and wrong."""

    slot: int
    right: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What the preambles have confirmed last.

    Parameters
    ----------
    slot : slot numbers are right up to here.
    epoch : of that preamble; -1 before the first.
    sigma : how far the last preamble stood out of the noise, whatever it said.
    """

    slot: int = 0
    epoch: int = -1
    sigma: float = 0.0

    @property
    def hint(self) -> int | None:
        """Where to look first for the epoch's number."""
        return None if self.epoch < 0 else self.epoch


class Phase(Protocol):
    """What the receiver is doing at present.

    Attributes
    ----------
    clock : None while the frequency is unknown.
    next_slot : the first slot that no step has taken; arbitrary numbers before the lock.
    """

    @property
    def state(self) -> State:
        """The phase's name in the status."""
        ...

    @property
    def clock(self) -> ClockTracker | None:
        """The clock that follows the light."""
        ...

    @property
    def next_slot(self) -> int:
        """Alice's number of the next slot."""
        ...

    @property
    def confirmed(self) -> Confirmed:
        """What the preambles have said, in this phase or before it."""
        ...

    def step(self, waiting: WaitingTags) -> Step | None:
        """Take some of the tags; None: more must come first."""
        ...

    def ready(self) -> list[Detections]:
        """Detections that may be used and have not been returned yet."""
        ...

    def give_up(self, from_ps: int) -> Step:
        """Break off: search for the frequency in the tags from a time on."""
        ...


class Step(NamedTuple):
    """What came of some tags.

    Parameters
    ----------
    phase : goes on with the tags that wait.
    detections : may be used; ascending.
    events, preambles : in order; see :class:`ReceiverEvent` and :class:`PreambleCount`.
    """

    phase: Phase
    detections: tuple[Detections, ...] = ()
    events: tuple[ReceiverEvent, ...] = ()
    preambles: tuple[PreambleCount, ...] = ()

    def then(self, after: Step) -> Step:
        """Both steps as one."""
        return Step(
            after.phase,
            self.detections + after.detections,
            self.events + after.events,
            self.preambles + after.preambles,
        )


class FindingFrequency:
    """Looks for the comb of the light.

    Parameters
    ----------
    from_ps : earlier tags are not looked at.
    confirmed, next_slot : from the phase before.
    lost : there was a lock before.
    """

    clock: None = None

    def __init__(
        self,
        equipment: Equipment,
        from_ps: int = -NEVER,
        confirmed: Confirmed = Confirmed(),
        next_slot: int = 0,
        *,
        lost: bool = False,
    ) -> None:
        self._equipment, self._lost = equipment, lost
        self._search = FrequencySearch(equipment.nominal_hz, from_ps)
        self.state: State = "lost" if lost else "searching-frequency"
        self.confirmed, self.next_slot = confirmed, next_slot

    def step(self, waiting: WaitingTags) -> Step | None:
        """One window of the search."""
        self._search.skip_to(waiting.first_ps)
        end_ps = self._search.window_end_ps
        times_ps, _ = waiting.take(min(end_ps, waiting.complete_ps))
        self._search.add(times_ps)
        if end_ps > waiting.complete_ps:
            return None
        line = self._search.conclude()
        if line is None:
            return Step(self)
        clock = ClockTracker(line)
        clock.advance(end_ps)
        clock.shift(EPOCH_SLOTS - clock.origin_slot)  # any number will do that leaves room below
        return Step(FindingSlot(self._equipment, FollowingGate(self._equipment, clock), self.confirmed))

    def ready(self) -> list[Detections]:
        """Hand out nothing: there are no slots."""
        return []

    def give_up(self, from_ps: int) -> Step:
        """Begin anew with the frequency."""
        return Step(FindingFrequency(self._equipment, from_ps, self.confirmed, self.next_slot, lost=self._lost))


class FindingSlot:
    """Looks for the preambles in slots that are numbered from an arbitrary start.

    Parameters
    ----------
    gate : on the clock that was found.
    confirmed : before the lock was lost, if there was one.
    """

    state: State = "searching-slot"

    def __init__(self, equipment: Equipment, gate: FollowingGate, confirmed: Confirmed) -> None:
        self._equipment, self._gate, self.confirmed = equipment, gate, confirmed
        self._search = SlotSearch(gate.next_slot, confirmed.hint)

    @property
    def clock(self) -> ClockTracker:
        """The clock that follows the light."""
        return self._gate.clock

    @property
    def next_slot(self) -> int:
        """Of the arbitrary numbers."""
        return self._gate.next_slot

    def anew(self) -> FindingSlot:
        """The same search without the clicks from before."""
        return FindingSlot(self._equipment, self._gate, self.confirmed)

    def step(self, waiting: WaitingTags) -> Step | None:
        """One stretch; the lock, once the slots are found."""
        stretch = self._gate.stretch(waiting)
        if stretch is None:
            return None
        found = self._search.add(*stretch.gated.z_clicks(), stretch.to_slot)
        if found is not None:
            return self._lock(found, stretch.end_ps)
        if self._gate.measure(stretch.end_ps) == "lost":
            return self.give_up(self.clock.start_ps(self.next_slot))
        return Step(self)

    def _lock(self, found: Alignment, end_ps: int) -> Step:
        self._gate.renumber(found.offset)
        self._equipment.intervals.restart()
        slot = self.next_slot
        locked = Locked(self._equipment, self._gate, Confirmed(slot, found.epoch, found.sigma))
        return locked.follow(Step(locked, events=(ReceiverEvent("locked", slot, slot),)), end_ps)

    def ready(self) -> list[Detections]:
        """None without the lock."""
        return []

    def give_up(self, from_ps: int) -> Step:
        """Nothing was certain yet."""
        return Step(FindingFrequency(self._equipment, from_ps, self.confirmed, self.next_slot))


class Locked:
    """Makes detections; every preamble confirms the slot numbers.

    A click is *doubtful* until the clock was measured after it: if the light has jumped since, its slot is wrong and it
    is dropped. Then it is *sure*, and what is sure is emitted.
    """

    state: State = "locked"

    def __init__(self, equipment: Equipment, gate: FollowingGate, confirmed: Confirmed) -> None:
        self._equipment, self._gate, self.confirmed = equipment, gate, confirmed
        self._check = PreambleCheck()
        self._preamble: list[tuple[NDArray[np.int64], Bytes8]] | None = None
        """Clicks of the preamble that passes, seen from its first slot on; else None."""
        self._doubtful: list[tuple[Detections, FarClicks]] = []
        self._sure: list[tuple[Detections, FarClicks]] = []

    @property
    def clock(self) -> ClockTracker:
        """The clock that follows the light."""
        return self._gate.clock

    @property
    def next_slot(self) -> int:
        """Alice's number of the next slot."""
        return self._gate.next_slot

    def step(self, waiting: WaitingTags) -> Step | None:
        """One stretch of a preamble or of payload."""
        next_slot = self._gate.next_slot
        in_epoch = next_slot & (EPOCH_SLOTS - 1)
        in_preamble = in_epoch < PREAMBLE_SLOTS
        region_end = next_slot - in_epoch + (PREAMBLE_SLOTS if in_preamble else EPOCH_SLOTS)
        stretch = self._gate.stretch(waiting, region_end)
        if stretch is None:
            return None
        return self.follow(self._on_preamble(stretch) if in_preamble else self._on_payload(stretch), stretch.end_ps)

    def follow(self, so_far: Step, end_ps: int) -> Step:
        """After a stretch: what is doubtful is sure if the clock holds, and dropped with the lock if it does not."""
        if so_far.phase is not self:
            return so_far
        outcome = self._gate.measure(end_ps)
        if outcome == "lost":
            return so_far.then(self.give_up(self.clock.start_ps(self.next_slot)))
        if outcome == "held":
            self._sure += self._doubtful
            self._doubtful = []
        return so_far

    def _on_payload(self, stretch: Stretch) -> Step:
        entries, slots = stretch.gated, (stretch.from_slot, stretch.to_slot)
        found = self._equipment.intervals.add(entries.slots, entries.masks, *slots)
        self._doubtful.append((self._equipment.gate.resolve(entries, *slots), stretch.far))
        if found is None:
            return Step(self)
        return Step(self, events=(ReceiverEvent(found.verdict, found.from_slot, found.to_slot, found.gap_slots),))

    def _on_preamble(self, stretch: Stretch) -> Step:
        """Gather the clicks of a preamble and, at its end, ask whether the slot numbers are right."""
        self._doubtful.append((Detections.none(stretch.from_slot, stretch.to_slot), NO_CLICKS))
        if stretch.from_slot & (EPOCH_SLOTS - 1) == 0:
            self._preamble = []
        if self._preamble is None:
            return Step(self)
        self._preamble.append(stretch.gated.z_clicks())
        if stretch.to_slot & (EPOCH_SLOTS - 1) != PREAMBLE_SLOTS:
            return Step(self)
        slots, bits = (np.concatenate(column) for column in zip(*self._preamble, strict=True))
        # Asked once: after a slip backwards the last slots of this preamble come again.
        self._preamble = None
        return self._judge(stretch.to_slot // EPOCH_SLOTS, slots, bits)

    def _judge(self, epoch: int, slots: NDArray[np.int64], bits: Bytes8) -> Step:
        check = self._check
        verdict = check.add(epoch, slots, bits)
        self.confirmed = replace(self.confirmed, sigma=check.sigma)
        step = Step(self, preambles=(PreambleCount(epoch * EPOCH_SLOTS, check.right, check.wrong),))
        if verdict == "undecided":
            return step
        if verdict == "verified":
            self.confirmed = Confirmed(self.next_slot, epoch, check.sigma)
            return step
        slip = ReceiverEvent("slip", self.confirmed.slot, self.next_slot)
        step = step.then(Step(self, self._break_off(), (slip,)))
        if verdict == "failed":
            return step.then(self.give_up(self.clock.start_ps(self.next_slot)))
        self._gate.renumber(check.slip)
        self._equipment.intervals.restart()
        self.confirmed = Confirmed(self.next_slot, epoch, check.sigma)
        return step

    def ready(self) -> list[Detections]:
        """What is sure; with selection, the segments that are whole."""
        sure, self._sure = self._sure, []
        if not sure:
            return []
        parts, far = zip(*sure, strict=True)
        detections = Detections.join(parts)
        if self._equipment.selection is None:
            return [detections]
        slots, bases = (np.concatenate(column) for column in zip(*far, strict=True))
        return self._equipment.selection.take(detections, (slots, bases))

    def _break_off(self) -> tuple[Detections, ...]:
        """The slot numbers end here: emit what is sure, the open segment included; drop what is doubtful."""
        made, selection = self.ready(), self._equipment.selection
        self._doubtful = []
        return (*made, *(selection.flush() if selection is not None else ()))

    def give_up(self, from_ps: int) -> Step:
        """The slot numbers are no longer certain."""
        lost = ReceiverEvent("lost", self.confirmed.slot, self.next_slot)
        search = FindingFrequency(self._equipment, from_ps, self.confirmed, self.next_slot, lost=True)
        return Step(search, self._break_off(), (lost,))
