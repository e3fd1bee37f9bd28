"""Whose frames go to the decoder next, and what they are made for. One end of a link; no input or output.

Blocks are corrected whole, one behind the other: a closed block's frames are sent before those of blocks that closed
after it. How much a frame discloses follows the time that is left: few bits take the decoder twice the work of many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.config import Reconciliation
from common.postprocessing.interleaving import window_bits
from common.postprocessing.reconciliation.fitted import WORK, Efficiency
from common.protocol.effects import Effect
from common.units import NS_PER_S

FRAMES_UNDER_WAY = 64
"""Frames under way: enough for a round trip of a second at full rate, and a bound on memory."""
SHARE = 0.35
"""Part of the time in which a block filled that its error correction may take."""
CALM_WINDOWS = 1.0
"""Windows of bits without a result up to which there is always time."""
FIRST_GUESS, GUESS_S = 20e6, 0.1
"""Work a second of a decoder that nobody has seen yet, and for how long it must be seen to outweigh the guess."""
MEMORY_S = 0.5
"""The decoder's speed is an average over so much time in which it had something to do."""


class Frames(Protocol):
    """The reference frames of one closed block at this end."""

    opened_ns: int
    undecoded_bits: int
    """Of frames without a result."""
    waiting_bits: int
    """Of frames that have not begun."""
    frames_under_way: int
    work_under_way: float
    """In units of ``WORK``, of frames that have begun."""

    def begin(self, most: int) -> list[Effect]:
        """Send first messages of up to ``most`` more frames, in order."""
        ...


class Schedule:
    """The order of the closed blocks' frames, the time each block has, and the speed of the decoder.

    Parameters
    ----------
    settings : reconciliation section of the configuration.
    now_ns : time of the event at hand.
    """

    def __init__(self, settings: Reconciliation, now_ns: Callable[[], int] = lambda: 0) -> None:
        self._wanted, self.now_ns = settings.efficiency, now_ns
        self._calm_bits = CALM_WINDOWS * window_bits(settings.frame_length_bits)
        self._blocks: list[tuple[Frames, int]] = []
        self._work, self._busy_s = GUESS_S * FIRST_GUESS, GUESS_S
        self._seen_ns = 0

    # -- order --------------------------------------------------------------------------------------------------------

    def close(self, block: Frames) -> list[Effect]:
        """No more light of this block: it is corrected once those before it have begun."""
        now_ns = self.now_ns()
        self._blocks.append((block, now_ns + round(SHARE * (now_ns - block.opened_ns))))
        return self.go_on()

    def go_on(self) -> list[Effect]:
        """Begin as many frames as may; called whenever one has ended, or a block."""
        self._blocks = [entry for entry in self._blocks if entry[0].undecoded_bits]
        effects: list[Effect] = []
        for block, _ in self._blocks:
            effects += block.begin(FRAMES_UNDER_WAY - sum(other.frames_under_way for other, _ in self._blocks))
            if block.waiting_bits:
                break
        return effects

    # -- time ---------------------------------------------------------------------------------------------------------

    def begins(self) -> None:
        """A frame is about to begin."""
        if not any(block.frames_under_way for block, _ in self._blocks):
            self._seen_ns = self.now_ns()

    def ended(self, work: float) -> None:
        """A frame has its result: so much work is done since the last one."""
        busy_s = (self.now_ns() - self._seen_ns) / NS_PER_S
        self._seen_ns = self.now_ns()
        keep = max(0.0, 1.0 - busy_s / MEMORY_S)
        self._work, self._busy_s = keep * self._work + work, keep * self._busy_s + busy_s

    @property
    def speed(self) -> float:
        """Work a second that the decoder does, round trips and waiting included."""
        return self._work / max(self._busy_s, 1e-3)

    def efficiency(self, block: Frames) -> Efficiency:
        """What the next frame of a block is made for: as few bits as its time allows."""
        if self._wanted != "auto":
            return self._wanted
        if sum(other.undecoded_bits for other, _ in self._blocks) <= self._calm_bits:
            return "efficient"
        deadline_ns = next((deadline for other, deadline in self._blocks if other is block), self.now_ns())
        within = self.speed * (deadline_ns - self.now_ns()) / NS_PER_S - block.work_under_way
        return next((name for name, cost in WORK.items() if cost * block.waiting_bits <= within), "fast")
