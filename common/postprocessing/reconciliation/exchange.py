"""Reconciliation of one block, once it is closed. The same code at both ends.

Sifted bits go in; windows of them are cut into frames that all see the same errors. No parity may be public while light
of the block still arrives, so nothing is sent before :meth:`FrameExchange.close`; then, when it is the block's turn,
for each frame one end is the *reference* (it sends syndromes) and the other corrects. The first frame of a window tells
the error rate to the rest.
Every bit that an end discloses about the key is counted here, at the moment its message is made or arrives.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

from common.config import Reconciliation as Settings
from common.errors import RemoteProtocolError
from common.keybits import KeyBits, overwrite
from common.postprocessing.interleaving import frame_lengths, spread, window_bits
from common.postprocessing.reconciliation.disclosed import DisclosedBits
from common.postprocessing.reconciliation.fitted import SETTLED, WINDOWS_AHEAD, WORK
from common.postprocessing.reconciliation.frame import (
    CorrectingFrame,
    FrameOutcome,
    FrameSpec,
    ReferenceFrame,
    correct,
    first_syndrome,
    next_syndrome,
)
from common.postprocessing.reconciliation.interface import E, Outlet, Packed, Parities, Result, Side, Turns
from common.postprocessing.reconciliation.rates import choose_code
from common.postprocessing.reconciliation.tracker import QberTracker
from common.postprocessing.sifting import BitAccumulator

MIN_TAIL_BITS = 1024
"""A shorter rest at the end of a block is left out at both ends (nothing about it is ever disclosed)."""
QBER_STEP = 2.0**-16
MOST_STEPS = 0xFFFF
STATUS = {"more": 0, "decoded": 1, "failed": 2}


@dataclass(slots=True)
class Frame:
    """One codeword's worth of sifted bits at this end."""

    index: int
    n_bits: int
    window: int = -1
    bits: Packed | None = field(default=None, repr=False)
    work: ReferenceFrame | CorrectingFrame | None = field(default=None, repr=False)
    early: Parities | None = field(default=None, repr=False)
    status: str = "open"
    round: int = 1
    decoder_work: float = 0.0
    errors: int = 0


class FrameExchange(Generic[E]):
    """All frames of one block at one end.

    Parameters
    ----------
    side : whose exchange.
    settings : reconciliation section of the configuration (equal at both ends).
    tracker : the link's running QBER; shared by consecutive blocks.
    outlet : what this end does with words and jobs.
    turns : whose turn it is among the link's blocks.

    Attributes
    ----------
    closed : no more bits come.
    open_bits : in frames without a result: the reconciliation backlog.
    opened_ns, undecoded_bits, waiting_bits, frames_under_way, work_under_way :
        of this end's reference frames, see :class:`common.protocol.schedule.Frames`.
    """

    def __init__(
        self, side: Side, settings: Settings, tracker: QberTracker, outlet: Outlet[E], turns: Turns[E]
    ) -> None:
        self._side, self._settings, self._tracker = side, settings, tracker
        self._outlet, self._turns = outlet, turns
        self._disclosed = DisclosedBits()
        self.opened_ns = turns.now_ns()
        self.undecoded_bits = self.waiting_bits = self.frames_under_way = 0
        self.work_under_way = 0.0
        self._bits = BitAccumulator()
        self._frames: dict[int, Frame] = {}
        self._cut = 0
        self._windows = 0
        self._begun: Counter[int] = Counter()
        self._decoded: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()
        self._waiting: dict[int, deque[Frame]] = {}
        self.closed = False
        self.open_bits = 0

    # -- events -------------------------------------------------------------------------------------------------------

    def add(self, bits: KeyBits) -> list[E]:
        """More sifted bits of the block, in order; what comes of it is for frames of which the peer has spoken."""
        self._bits.append(bits)
        effects: list[E] = []
        window = window_bits(self._settings.frame_length_bits)
        while len(self._bits) >= window:
            effects += self._cut_window(window)
        return effects

    def close(self) -> list[E]:
        """No more bits: the rest becomes a shorter window, or is left out if it is tiny. Now frames may be sent."""
        self.closed = True
        tail = len(self._bits)
        effects = self._cut_window(tail) if tail >= MIN_TAIL_BITS else []
        self._bits.wipe()
        return [*effects, *self._turns.close(self)]

    def begin(self, most: int) -> list[E]:
        """First messages of up to ``most`` reference frames: of each window one, then two for each that has told its
        error rate, then all; windows in order, and few at a time."""
        effects: list[E] = []
        ahead = 1 if self._turns.efficiency(self) == "efficient" else WINDOWS_AHEAD
        for window in list(self._waiting)[:ahead]:
            frames = self._waiting[window]
            while frames and len(effects) < most and self._may_begin(window):
                effects.append(self._begin(frames.popleft()))
            if not frames:
                del self._waiting[window]
        return effects

    def on_parities(self, word: Parities) -> list[E]:
        """The reference end's word on one of our frames."""
        if self._is_reference(word.frame):
            raise RemoteProtocolError(f"{word!r}: this end is the reference of frame {word.frame}")
        frame = self._frame(word.frame, word.n_bits)
        if frame.early is not None or word.round != frame.round or frame.status != "open":
            raise RemoteProtocolError(f"{word!r}: frame {word.frame} does not expect round {word.round}")
        frame.early = word
        return self._correct(frame) if frame.bits is not None else []

    def on_result(self, word: Result) -> list[E]:
        """The correcting end's word on one of our reference frames."""
        frame = self._frames.get(word.frame)
        if frame is None or not isinstance(frame.work, ReferenceFrame) or frame.status != "open":
            raise RemoteProtocolError(f"{word!r}: frame {word.frame} is not waiting for a result")
        if word.round != frame.round or word.status not in STATUS.values():
            raise RemoteProtocolError(f"{word!r}: frame {word.frame} is in round {frame.round}")
        self._disclosed.result(frame.index)
        if word.status == STATUS["more"]:
            frame.round += 1
            return [self._outlet.job(next_syndrome, (frame.work, frame.round), partial(self._disclose, frame))]
        self._finish(frame, "decoded" if word.status == STATUS["decoded"] else "failed", word.qber_steps)
        self.frames_under_way -= 1
        self.work_under_way -= frame.decoder_work
        self.undecoded_bits -= frame.n_bits
        self._turns.ended(frame.decoder_work)
        return self._turns.go_on()

    # -- what the block asks ------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """The block is closed and every frame has its result."""
        return self.closed and not self.open_bits

    @property
    def frames_kept(self) -> int:
        """How many frames were decoded."""
        return len(self._kept())

    @property
    def frames_failed(self) -> int:
        """Frames that never decoded."""
        return sum(frame.status == "failed" for frame in self._frames.values())

    @property
    def rounds_max(self) -> int:
        """Most rounds that a frame took."""
        return max((frame.round for frame in self._frames.values()), default=0)

    @property
    def kept_bits(self) -> int:
        """Bits in decoded frames."""
        return sum(frame.n_bits for frame in self._kept())

    @property
    def leak_ec_bits(self) -> int:
        """Every bit disclosed; a failed frame counts as disclosed in full."""
        return self._disclosed.total

    @property
    def errors(self) -> int:
        """Errors in the decoded frames by the rates that the correcting end announced; the same at both ends."""
        return sum(frame.errors for frame in self._kept())

    def parts(self) -> tuple[Packed, ...]:
        """The packed bits of all decoded frames in order; only the last may be no whole number of bytes."""
        return tuple(frame.bits for frame in self._kept() if frame.bits is not None)

    def wipe(self) -> None:
        """Overwrite all bits; no frame begins any more."""
        self._waiting.clear()
        self.undecoded_bits = self.waiting_bits = self.frames_under_way = 0
        self._bits.wipe()
        for frame in self._frames.values():
            overwrite(frame.bits)
            frame.bits, frame.work = None, None

    # -- work ---------------------------------------------------------------------------------------------------------

    def _kept(self) -> list[Frame]:
        """Decoded frames in order."""
        return [self._frames[i] for i in sorted(self._frames) if self._frames[i].status == "decoded"]

    def _is_reference(self, index: int) -> bool:
        decoder = self._settings.decoding_side
        if decoder == "both":
            decoder = "bob" if index % 2 == 0 else "alice"
        return self._side != decoder

    def _frame(self, index: int, n_bits: int) -> Frame:
        """The frame of that number; new here if neither its bits nor a message came before."""
        if index not in self._frames:
            self._frames[index] = Frame(index, n_bits)
            self.open_bits += n_bits
        return self._frames[index]

    def _cut_window(self, n_bits: int) -> list[E]:
        bits = self._bits.take(n_bits).take()
        places, start = spread(n_bits), 0
        effects: list[E] = []
        for length in frame_lengths(n_bits, self._settings.frame_length_bits):
            stop = start + (length + 7) // 8
            effects += self._start(bits[places[start:stop]], length)
            start = stop
        bits.fill(0)
        self._windows += 1
        return effects

    def _start(self, bits: Packed, n_bits: int) -> list[E]:
        index = self._cut
        self._cut += 1
        frame = self._frame(index, n_bits)
        if frame.n_bits != n_bits:
            raise RemoteProtocolError(f"frame {index} has {n_bits} bits here and {frame.n_bits} at the peer")
        frame.bits, frame.window = bits, self._windows
        if not self._is_reference(index):
            return self._correct(frame) if frame.early is not None else []
        self._waiting.setdefault(frame.window, deque()).append(frame)
        self.undecoded_bits += n_bits
        self.waiting_bits += n_bits
        return []

    def _may_begin(self, window: int) -> bool:
        known, begun = self._decoded[window], self._begun[window]
        settled = known > 0 and self._tracker.uncertainty < SETTLED
        return settled or begun <= 2 * known + self._failed[window]

    def _begin(self, frame: Frame) -> E:
        bits, tracker = frame.bits, self._tracker
        assert bits is not None
        unsure = tracker.uncertainty if self._decoded[frame.window] else tracker.uncertainty_of_next
        efficiency = self._turns.efficiency(self)
        spec = choose_code(tracker.qber, frame.n_bits, efficiency, unsure)
        self._turns.begins()
        self._begun[frame.window] += 1
        frame.decoder_work = WORK[efficiency] * frame.n_bits
        self.frames_under_way += 1
        self.work_under_way += frame.decoder_work
        self.waiting_bits -= frame.n_bits
        return self._outlet.job(first_syndrome, (spec, bits), partial(self._disclose, frame))

    def _disclose(self, frame: Frame, made: tuple[ReferenceFrame, bytes]) -> list[E]:
        frame.work, payload = made
        spec = frame.work.spec
        self._disclosed.parities(frame.index, payload)
        agreed = spec.code_id, spec.payload_bits, spec.first_units, spec.second_units
        return [self._outlet.say(Parities(frame.index, frame.round, *agreed, payload))]

    def _correct(self, frame: Frame) -> list[E]:
        word, bits = frame.early, frame.bits
        assert word is not None
        assert bits is not None
        frame.early = None
        if word.n_bits != frame.n_bits:
            raise RemoteProtocolError(f"{word!r}: frame {frame.index} has {frame.n_bits} bits here")
        self._disclosed.parities(frame.index, word.payload)
        if word.round == 1:
            spec = FrameSpec(word.code_id, word.n_bits, word.first_units, word.second_units)
            frame.work = CorrectingFrame(spec, bits, self._settings.decoder)
        work = frame.work
        assert isinstance(work, CorrectingFrame)
        arguments = work, bits, word.round, word.payload
        return [self._outlet.job(correct, arguments, partial(self._corrected, frame, word.round))]

    def _corrected(self, frame: Frame, number: int, made: tuple[CorrectingFrame, FrameOutcome]) -> list[E]:
        frame.work, outcome = made
        self._disclosed.result(frame.index)
        steps = 0
        if outcome.status == "more":
            frame.round = number + 1
        else:
            if outcome.status == "decoded":
                overwrite(frame.bits)
                frame.bits = outcome.bits
                steps = min(round(outcome.errors / frame.n_bits / QBER_STEP), MOST_STEPS)
            self._finish(frame, outcome.status, steps)
        said = self._outlet.say(Result(frame.index, number, STATUS[outcome.status], steps))
        # With both ends decoding, a frame that we corrected may be what our own wait for.
        return [said, *self._turns.go_on()]

    def _finish(self, frame: Frame, status: str, qber_steps: int) -> None:
        frame.status, spec = status, frame.work.spec if frame.work is not None else None
        (self._decoded if status == "decoded" else self._failed)[frame.window] += 1
        frame.work = None
        self.open_bits -= frame.n_bits
        if status == "decoded":
            # Of the number of errors no more is kept, at either end, than these counted bits say: whatever is made of
            # it (a certificate, a status, the next frame's code) then tells nobody anything new.
            frame.errors = round(qber_steps * QBER_STEP * frame.n_bits)
            self._tracker.decoded(frame.n_bits, frame.errors)
            return
        self._disclosed.dropped(frame.index, frame.n_bits)
        if spec is not None:
            self._tracker.failed(spec)
