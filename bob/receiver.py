"""Time tags in, detections out: frequency search, slot search, gate, clock tracking, preamble checks. Pure.

States: searching-frequency -> searching-slot -> locked -> lost (as searching-frequency, but it was locked before).
Nothing is emitted before the lock. While locked, every preamble confirms the slot numbers; if one contradicts them, the
receiver says so by a :class:`ReceiverEvent` ``slip`` with the range of slots that must not be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bob.alignment import PreambleCheck, SlotSearch
from bob.gating import CrossBasisPolicy, Gate, GateCounts, Gated, RandomBits
from bob.intervals import IntervalWatch
from bob.selection import NO_CLICKS, WINDOW_S, FarClicks, Selection, SelectionCounts
from bob.synchronisation import SIGNIFICANT_POWER, ClockTracker, FrequencySearch, light_power
from common.config import Config, SelectionRule, check_gate
from common.datatypes import Bytes8, Detections, TimeTags
from common.errors import ConfigurationError
from common.kernels import tags
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS
from common.units import PS_PER_S

State = Literal["searching-frequency", "searching-slot", "locked", "lost"]
EventKind = Literal["locked", "lost", "slip", "overflow", "recovery", "afterpulses", "regular"]

MEASURE_PS = 20_000_000_000
"""The clock is corrected this often while there is light enough,"""
PATIENCE_PS = 150_000_000_000
"""and after this time a stretch without light is given up."""
MAX_STEP_TAGS = 1 << 17


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


@dataclass(slots=True)
class _Batch:
    """Detections of one contiguous range, gathered during one call, and the clicks far from the gate."""

    from_slot: int
    parts: list[Detections] = field(default_factory=list)
    far: list[FarClicks] = field(default_factory=list)

    def take(self, more: _Batch) -> None:
        self.parts += more.parts
        self.far += more.far

    def close(self, to_slot: int) -> Detections:
        all_ = Detections.join(self.parts)
        columns = all_.slots, all_.bases, all_.bits
        return Detections(*columns, self.from_slot, to_slot, all_.double_slots, all_.cross_slots)


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
        cross_basis: CrossBasisPolicy = "discard",
        p_z: float = 0.9,
        selection: SelectionRule = "off",
        segment_s: float = 0.01,
        light_qber: float = 0.0,
    ) -> None:
        try:
            check_gate(gate_ps, clock_rate_hz)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._nominal_hz = clock_rate_hz
        self._skew_ps = np.array(channel_skew_ps, dtype=np.int64)
        self._step_slots = round(clock_rate_hz * MEASURE_PS / PS_PER_S)
        self._guard_ps = int(np.abs(self._skew_ps).max()) if self._skew_ps.any() else 0
        self._gate = Gate(0.5 * gate_ps * clock_rate_hz / PS_PER_S, dead_time_ps, random_bits, cross_basis)
        self._selection: Selection | None = None
        if selection == "transmittance":
            segment, window = (max(1, round(clock_rate_hz * seconds)) for seconds in (segment_s, WINDOW_S))
            self._selection = Selection(segment, window, self._gate.per_far, p_z, light_qber)
        self._times_ps, self._channels = np.zeros(0, np.int64), np.zeros(0, np.uint8)
        self._search: FrequencySearch | None = None
        self._slot_search: SlotSearch | None = None
        self._clock: ClockTracker | None = None
        self._check = PreambleCheck()
        self._intervals = IntervalWatch()
        self._preamble: list[tuple[NDArray[np.int64], Bytes8]] = []
        self._preamble_whole = False
        self._next_slot = 0
        self._verified_slot = 0
        self._verified_epoch = -1
        self._epoch_hint: int | None = None
        self._preamble_sigma = 0.0
        self._acquisitions = self._slips = 0
        self._batch: _Batch | None = None
        self._doubtful: _Batch | None = None
        self._sure_slot = 0
        self._events: list[ReceiverEvent] = []
        self._preamble_counts: list[tuple[int, int, int]] = []
        self._until_ps = 0
        self.state: State = "searching-frequency"

    @classmethod
    def configured(cls, config: Config, random_bits: RandomBits) -> Receiver:
        """As Bob's configuration wants it."""
        link, wanted = config.link, config.receiver.model_dump()
        wanted["dead_time_ps"] = config.receiver.dead_time_ps or 0
        cross_basis = config.detectors.cross_basis
        return cls(link.clock_rate_hz, random_bits, p_z=link.p_z_bob, cross_basis=cross_basis, **wanted)

    def search_anew(self) -> None:
        """The light has been turned: without a lock, clicks from before say nothing about the slots."""
        if self._slot_search is not None:
            self._slot_search = SlotSearch(self._next_slot, self._epoch_hint)

    def take_events(self) -> list[ReceiverEvent]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def take_preamble_counts(self) -> list[tuple[int, int, int]]:
        """(first slot, right, wrong) Z outcomes of every whole preamble since the last call: public."""
        counts, self._preamble_counts = self._preamble_counts, []
        return counts

    def status(self) -> ReceiverStatus:
        """The state now."""
        clock = self._clock
        return ReceiverStatus(
            state=self.state,
            frequency_offset_ppm=0.0 if clock is None else (clock.rate_hz / self._nominal_hz - 1.0) * 1e6,
            offset_slots=0.0 if clock is None else clock.last_offset,
            sigma_slots=1.0 if clock is None else clock.sigma_slots,
            next_slot=self._next_slot,
            last_verified_epoch=self._verified_epoch,
            preamble_sigma=self._preamble_sigma,
            acquisitions=self._acquisitions,
            slips=self._slips,
            counts=self._gate.counts,
            selection=SelectionCounts() if self._selection is None else self._selection.counts,
        )

    def feed(self, batch: TimeTags) -> list[Detections]:
        """Process a batch of tags.

        Returns
        -------
        list of Detections : ascending, contiguous ranges while locked; preamble slots hold none. A click waits until
            the clock was measured after it: if the light has jumped since, its slot is wrong and it is dropped. With
            selection it also waits until its segment is whole.
        """
        done: list[Detections] = []
        if batch.until_ps < self._until_ps:
            self._restart(done)
        self._until_ps = batch.until_ps
        until_ps = self._take_in(batch)
        first_slot = self._next_slot
        progress = True
        while progress:
            progress = self._find_frequency(until_ps) if self._clock is None else self._step(until_ps, done)
        self._emit(done)
        if batch.overflow and self._clock is not None and self.state == "locked":
            lost_until = self._clock.slot_at(batch.until_ps) + 1
            self._events.append(ReceiverEvent("overflow", min(first_slot, self._next_slot), lost_until))
        return done

    def _take_in(self, batch: TimeTags) -> int:
        """Append the new tags, in order and without skew; return the time up to which they are complete."""
        times_ps = np.concatenate([self._times_ps, batch.times_ps])
        channels = np.concatenate([self._channels, batch.channels])
        if self._guard_ps:
            skew_ps = self._skew_ps.copy()
            sorted_ps, sorted_channels = np.empty_like(times_ps), np.empty_like(channels)
            times_ps[: self._times_ps.size] += skew_ps[self._channels]  # these were corrected before
            tags.correct_skew(times_ps, channels, skew_ps, sorted_ps, sorted_channels)
            times_ps, channels = sorted_ps, sorted_channels
        self._times_ps, self._channels = times_ps, channels
        if self._search is None and self._clock is None:
            first = int(times_ps[0]) if times_ps.size else batch.until_ps
            self._search = FrequencySearch(self._nominal_hz, first)
        return batch.until_ps - self._guard_ps

    def _restart(self, done: list[Detections]) -> None:
        """The tagger's time went back: it was restarted, and nothing known about its clock holds."""
        if self._clock is not None:
            self._lose(done)
        self._search = None
        self._drop(self._times_ps.size)

    def _drop(self, n: int) -> None:
        self._times_ps, self._channels = self._times_ps[n:], self._channels[n:]

    def _find_frequency(self, until_ps: int) -> bool:
        """One window of the frequency search; True if there is more to do with the tags at hand."""
        assert self._search is not None
        self._search.skip_to(min(int(self._times_ps[0]), until_ps) if self._times_ps.size else until_ps)
        end_ps = self._search.window_end_ps
        n = int(np.searchsorted(self._times_ps, min(end_ps, until_ps)))
        self._search.add(self._times_ps[:n])
        self._drop(n)
        if end_ps > until_ps:
            return False
        line = self._search.conclude()
        if line is not None:
            self._search = None
            self._clock = ClockTracker(line)
            self._clock.advance(end_ps)
            self._clock.shift(EPOCH_SLOTS - self._clock.origin_slot)
            self._next_slot = self._clock.slot_at(end_ps)
            self._gate.forget_moments()
            self._gate.renumber(self._next_slot - 1)
            self._slot_search = SlotSearch(self._next_slot, self._epoch_hint)
            self.state = "searching-slot"
        return True

    def _step(self, until_ps: int, done: list[Detections]) -> bool:
        """One stretch of slots: gate, then search, check or emit; True if there may be more to do."""
        clock = self._clock
        assert clock is not None
        complete = clock.slot_at(until_ps)
        to_slot = min(complete, self._next_slot + self._step_slots, self._region_end())
        if self._times_ps.size > MAX_STEP_TAGS:
            crowded = clock.slot_at(int(self._times_ps[MAX_STEP_TAGS]))
            to_slot = min(to_slot, max(crowded, self._next_slot + 1))
        if to_slot <= self._next_slot:
            return False
        end_ps = clock.start_ps(to_slot)
        n = int(np.searchsorted(self._times_ps, end_ps))
        times_ps, channels = self._times_ps[:n], self._channels[:n]
        far = NO_CLICKS if self._selection is None else self._gate.far(times_ps, channels, clock)
        gated = self._gate.sort(times_ps, channels, clock)
        self._drop(n)
        from_slot, self._next_slot = self._next_slot, to_slot
        if self._slot_search is not None:
            self._align(*gated.z_clicks(), to_slot)
        elif from_slot & (EPOCH_SLOTS - 1) < PREAMBLE_SLOTS:
            self._check_preamble(from_slot, *gated.z_clicks(), done)
        else:
            self._collect(from_slot, gated, far)
        if self._clock is clock:
            self._track(end_ps, done)
        return True

    def _region_end(self) -> int:
        """Where the preamble or the payload that the next slot lies in ends."""
        if self._slot_search is not None:
            return 1 << 62
        epoch_start = self._next_slot & -EPOCH_SLOTS
        in_preamble = self._next_slot - epoch_start < PREAMBLE_SLOTS
        return epoch_start + (PREAMBLE_SLOTS if in_preamble else EPOCH_SLOTS)

    def _collect(self, from_slot: int, gated: Gated, far: FarClicks) -> None:
        if self._doubtful is None:
            self._doubtful = _Batch(self._sure_slot)
        found = self._intervals.add(gated.slots, gated.masks, from_slot, self._next_slot)
        if found is not None:
            self._events.append(ReceiverEvent(found.verdict, found.from_slot, found.to_slot, found.gap_slots))
        detections = self._gate.resolve(gated, from_slot, self._next_slot)
        self._doubtful.take(_Batch(from_slot, [detections], [far]))

    def _confirm(self) -> None:
        """The clock was measured and held: what came since the measurement before may be used."""
        self._sure_slot = self._next_slot
        if self._batch is None:
            self._batch = self._doubtful
        elif self._doubtful is not None:
            self._batch.take(self._doubtful)
        self._doubtful = None

    def _emit(self, done: list[Detections]) -> None:
        batch, self._batch = self._batch, None
        if batch is None:
            return
        detections = batch.close(self._sure_slot)
        if self._selection is None:
            done.append(detections)
        else:
            slots, bases = (np.concatenate(column) for column in zip(*batch.far, strict=True))
            done += self._selection.take(detections, (slots, bases))

    def _break_off(self, done: list[Detections]) -> None:
        """The slot numbers end here: what is sure is emitted, what is doubtful is dropped."""
        self._emit(done)
        if self._selection is not None:
            done += self._selection.flush()
        self._doubtful = None

    def _align(self, slots: NDArray[np.int64], bits: Bytes8, to_slot: int) -> None:
        """Slot search; on success the slots are Alice's from here on."""
        assert self._slot_search is not None
        assert self._clock is not None
        found = self._slot_search.add(slots, bits, to_slot)
        if found is None:
            return
        self._slot_search = None
        self._check = PreambleCheck()
        self._renumber(found.offset)
        self._preamble, self._preamble_whole = [], False
        self._verified_slot, self._verified_epoch = self._next_slot, found.epoch
        self._epoch_hint, self._preamble_sigma = found.epoch, found.sigma
        self._acquisitions += 1
        self.state = "locked"
        self._events.append(ReceiverEvent("locked", self._next_slot, self._next_slot))

    def _renumber(self, offset: int) -> None:
        assert self._clock is not None
        self._clock.shift(offset)
        self._next_slot += offset
        self._sure_slot = self._next_slot
        self._gate.renumber(self._next_slot - 1)
        self._intervals.restart()

    def _check_preamble(self, from_slot: int, slots: NDArray[np.int64], bits: Bytes8, done: list[Detections]) -> None:
        """Gather the clicks of a preamble and, at its end, ask whether the slot numbers are right."""
        if from_slot & (EPOCH_SLOTS - 1) == 0:
            self._preamble, self._preamble_whole = [], True
        self._preamble.append((slots, bits))
        if self._next_slot & (EPOCH_SLOTS - 1) != PREAMBLE_SLOTS or not self._preamble_whole:
            return
        epoch = self._next_slot // EPOCH_SLOTS
        all_slots, all_bits = (np.concatenate(column) for column in zip(*self._preamble, strict=True))
        verdict = self._check.add(epoch, all_slots, all_bits)
        self._preamble_sigma = self._check.sigma
        self._preamble_counts.append((epoch * EPOCH_SLOTS, self._check.right, self._check.wrong))
        if verdict == "verified":
            self._verified_slot, self._verified_epoch, self._epoch_hint = self._next_slot, epoch, epoch
        elif verdict != "undecided":
            self._break_off(done)
            self._slips += 1
            self._events.append(ReceiverEvent("slip", self._verified_slot, self._next_slot))
            if verdict == "failed":
                self._lose(done)
            else:
                self._renumber(self._check.slip)
                self._verified_slot, self._verified_epoch = self._next_slot, epoch

    def _track(self, end_ps: int, done: list[Detections]) -> None:
        """Correct the clock when there is light enough for it, or give the stretch up."""
        clock, gate = self._clock, self._gate
        assert clock is not None
        elapsed = end_ps - clock.origin_ps
        many = gate.moments[tags.IN_GATE] >= MAX_STEP_TAGS // 2
        bright = (many or elapsed >= MEASURE_PS // 2) and light_power(gate.moments, gate.outside) > (SIGNIFICANT_POWER)
        if not bright and elapsed < PATIENCE_PS:
            return
        outcome = clock.measure(gate.moments, gate.outside, gate.half_gate, end_ps)
        gate.forget_moments()
        if outcome == "jump" or not clock.holding:
            self._lose(done)
        else:
            self._confirm()

    def _lose(self, done: list[Detections]) -> None:
        """The slot numbers are no longer certain: start again from the frequency."""
        self._break_off(done)
        if self.state == "locked":
            self._events.append(ReceiverEvent("lost", self._verified_slot, self._next_slot))
            self.state = "lost"
        elif self.state == "searching-slot":
            self.state = "searching-frequency"
        assert self._clock is not None
        self._search = FrequencySearch(self._nominal_hz, self._clock.start_ps(self._next_slot))
        self._clock = self._slot_search = None
