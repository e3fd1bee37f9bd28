"""Carries public counts to the polarisation feedback, and its answers to the controller, on the event loop.

Counts of light that passed before a setting was complete say nothing about it: they are left out by slot number.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from bob.polarisation import Axes, Feedback, Reading
from common.errors import QkdError
from hardware.interfaces import PolarisationController

log = logging.getLogger("qkd.polarisation")
SETTLING_SLOTS = 1 << 23
"""Light that was under way, or in the tagger's buffers, when a setting was complete (0.11 s at 76 MHz)."""
Counts = Sequence[tuple[int, int, int]]


class Steering:
    """One controller with its feedback.

    Parameters
    ----------
    alarm : raises (text) or clears (None) an alarm. moved : told when the controller has reached a new setting.
    """

    def __init__(
        self,
        feedback: Feedback,
        controller: PolarisationController,
        alarm: Callable[[str, str | None], None],
        moved: Callable[[], None],
    ) -> None:
        self._feedback, self._controller, self._alarm, self._moved = feedback, controller, alarm, moved
        self._moving = False
        self._valid_from = 0
        self._newest = 0
        self._move(feedback.axes)

    @property
    def state(self) -> str:
        """Searching, climbing or watching."""
        return self._feedback.state

    def restarted(self, slot: int) -> None:
        """A new lock: slots count from here, perhaps lower than before."""
        self._newest = slot
        self._valid_from = min(self._valid_from, slot + SETTLING_SLOTS)

    def dark(self, seconds: float) -> None:
        """So much time went by without a lock."""
        if not self._moving:
            self._maybe(self._feedback.without_lock(seconds))

    def counts(self, preambles: Counts, checks: Counts, newest_slot: int) -> None:
        """(first slot, right, wrong) of preambles (Z) and of sifted chunks (X)."""
        self._newest = newest_slot
        if self._moving:
            return
        z = [count for count in preambles if count[0] >= self._valid_from]
        x = [count for count in checks if count[0] >= self._valid_from]
        if z or x:
            right_z, wrong_z = (sum(count[i] for count in z) for i in (1, 2))
            right_x, wrong_x = (sum(count[i] for count in x) for i in (1, 2))
            self._maybe(self._feedback.add(Reading(right_z, wrong_z, right_x, wrong_x)))

    def _maybe(self, axes: Axes | None) -> None:
        if axes is not None:
            self._move(axes)

    def _move(self, axes: Axes) -> None:
        self._moving = True

        def done(future: asyncio.Future[None]) -> None:
            self._moving = False
            self._moved()
            self._valid_from = self._newest + SETTLING_SLOTS
            error = None if future.cancelled() else future.exception()
            if error is not None:
                log.warning("the polarisation controller does not answer: %s", error)
            self._alarm("polarisation", None if error is None else str(error))
            if error is not None and not isinstance(error, QkdError):
                raise error

        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, self._controller.set_axes, axes.copy()).add_done_callback(done)
