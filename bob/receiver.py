"""Time tags in, detections out: finds the light's frequency, then its slots, then makes detections. Pure.

What it is doing is one object, a phase (:mod:`bob.phases`); the receiver hands it the tags, and keeps what came of them
until the session asks. Nothing is emitted before the lock. While locked, every preamble confirms the slot numbers; if
one contradicts them, the receiver says so by the event ``slip`` with the range of slots that must not be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bob.gating import Gate, GateCounts, RandomBits
from bob.intervals import IntervalWatch
from bob.phases import FindingFrequency, FindingSlot, Phase, PreambleCount, ReceiverEvent, State, Step
from bob.selection import WINDOW_S, Selection, SelectionCounts
from bob.stretches import NEVER, Equipment, WaitingTags
from common.config import Config, SelectionRule, check_gate
from common.datatypes import Detections, TimeTags
from common.errors import ConfigurationError
from common.kernels.click_rule import CrossBasis
from common.units import PS_PER_S


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """Telemetry of the receiver; nothing secret."""

    state: State
    frequency_offset_ppm: float
    offset_slots: float
    sigma_slots: float
    next_slot: int
    last_verified_epoch: int
    preamble_sigma: float
    acquisitions: int
    slips: int
    counts: GateCounts
    selection: SelectionCounts


class Receiver:
    """Bob's receiver for one tagger.

    Parameters
    ----------
    clock_rate_hz : Alice's nominal rate.
    random_bits : gives *(n,) uint8* fair secret bits for double clicks.
    gate_ps : full width of the gate.
    dead_time_ps : common software dead time after any click; at least the longest recovery time of the detectors.
    channel_skew_ps : per logical channel, how much later than the others it reports.
    cross_basis : policy for slots in which detectors of both bases clicked.
    p_z : Bob's probability of measuring Z, for the selection.
    selection, segment_s, light_qber : whether segments of poor transmittance are dropped; see :mod:`bob.selection`.
    """

    def __init__(
        self,
        clock_rate_hz: float,
        random_bits: RandomBits,
        *,
        gate_ps: float = 3420.0,
        dead_time_ps: int = 0,
        channel_skew_ps: Sequence[int] = (0, 0, 0, 0),
        cross_basis: CrossBasis = "discard",
        p_z: float = 0.9,
        selection: SelectionRule = "off",
        segment_s: float = 0.01,
        light_qber: float = 0.0,
    ) -> None:
        try:
            check_gate(gate_ps, clock_rate_hz)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        gate = Gate(0.5 * gate_ps * clock_rate_hz / PS_PER_S, dead_time_ps, random_bits, cross_basis)
        chosen: Selection | None = None
        if selection == "transmittance":
            segment, window = (max(1, round(clock_rate_hz * seconds)) for seconds in (segment_s, WINDOW_S))
            chosen = Selection(segment, window, gate.per_far, p_z, light_qber)
        self._equipment = Equipment(clock_rate_hz, gate, chosen, IntervalWatch())
        self._phase: Phase = FindingFrequency(self._equipment)
        self._waiting = WaitingTags(channel_skew_ps)
        self._until_ps = 0
        self._acquisitions = self._slips = 0
        self._events: list[ReceiverEvent] = []
        self._preambles: list[PreambleCount] = []

    @classmethod
    def configured(cls, config: Config, random_bits: RandomBits) -> Receiver:
        """As Bob's configuration wants it."""
        link, wanted = config.link, config.receiver.model_dump()
        wanted["dead_time_ps"] = config.receiver.dead_time_ps or 0
        cross_basis = config.detectors.cross_basis
        return cls(link.clock_rate_hz, random_bits, p_z=link.p_z_bob, cross_basis=cross_basis, **wanted)

    @property
    def state(self) -> State:
        """The name of the present phase; ``lost`` is the search for the frequency after a lock."""
        return self._phase.state

    def search_anew(self) -> None:
        """The light has been turned: without a lock, clicks from before say nothing about the slots."""
        if isinstance(self._phase, FindingSlot):
            self._phase = self._phase.anew()

    def take_events(self) -> list[ReceiverEvent]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def take_preamble_counts(self) -> list[tuple[int, int, int]]:
        """(first slot, right, wrong) Z outcomes of every whole preamble since the last call: public."""
        counts, self._preambles = self._preambles, []
        return [(count.slot, count.right, count.wrong) for count in counts]

    def status(self) -> ReceiverStatus:
        """What the receiver knows now."""
        phase, selection = self._phase, self._equipment.selection
        clock = phase.clock
        return ReceiverStatus(
            state=phase.state,
            frequency_offset_ppm=0.0 if clock is None else (clock.rate_hz / self._equipment.nominal_hz - 1.0) * 1e6,
            offset_slots=0.0 if clock is None else clock.last_offset,
            sigma_slots=1.0 if clock is None else clock.sigma_slots,
            next_slot=phase.next_slot,
            last_verified_epoch=phase.confirmed.epoch,
            preamble_sigma=phase.confirmed.sigma,
            acquisitions=self._acquisitions,
            slips=self._slips,
            counts=self._equipment.gate.counts,
            selection=SelectionCounts() if selection is None else selection.counts,
        )

    def feed(self, batch: TimeTags) -> list[Detections]:
        """Process a batch of tags.

        Returns
        -------
        list of Detections : ascending, contiguous ranges while locked; preamble slots hold none. A click waits until
            the clock was measured after it: if the light has jumped since, its slot is wrong and it is dropped. With
            selection it also waits until its segment is whole.
        """
        made: list[Detections] = []
        if batch.until_ps < self._until_ps:  # the tagger was restarted: nothing known about its clock holds
            made += self._go_on(self._phase.give_up(-NEVER))
            self._waiting.clear()
        self._until_ps = batch.until_ps
        self._waiting.add(batch)
        first_slot = self._phase.next_slot
        while (step := self._phase.step(self._waiting)) is not None:
            made += self._go_on(step)
        made += self._phase.ready()
        if batch.overflow and self.state == "locked" and (clock := self._phase.clock) is not None:
            lost_until = clock.slot_at(batch.until_ps) + 1
            self._events.append(ReceiverEvent("overflow", min(first_slot, self._phase.next_slot), lost_until))
        return made

    def _go_on(self, step: Step) -> tuple[Detections, ...]:
        self._phase = step.phase
        self._events += step.events
        self._preambles += step.preambles
        for event in step.events:
            self._acquisitions += event.kind == "locked"
            self._slips += event.kind == "slip"
        return step.detections
