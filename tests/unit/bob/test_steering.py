"""What the feedback is shown, and what happens to a controller that does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from bob.polarisation import Feedback
from bob.steering import SETTLING_SLOTS, Steering
from common.errors import DeviceError


class Controller:
    n_axes = 4
    broken = False

    def __init__(self) -> None:
        self.settings: list[Any] = []

    def set_axes(self, positions: Any) -> None:
        if self.broken:
            raise DeviceError("no answer within 1 s")
        self.settings.append(positions)


class Bench:
    def __init__(self, clicks: int = 10) -> None:
        self.controller, self.alarms, self.moves = Controller(), {}, asyncio.Semaphore(0)
        self.steering = Steering(Feedback(4, clicks), self.controller, self._alarm, self.moves.release)

    def _alarm(self, name: str, text: str | None) -> None:
        self.alarms[name] = text

    async def moved(self) -> None:
        async with asyncio.timeout(5.0):
            await self.moves.acquire()


async def test_counts_from_before_a_setting_are_left_out() -> None:
    bench = Bench()
    await bench.moved()
    bench.steering.counts([], [], 1000)
    bench.steering.counts([(0, 20, 0)], [(0, 20, 0)], 1000)
    assert len(bench.controller.settings) == 1
    late = SETTLING_SLOTS + 1000
    bench.steering.counts([(late, 20, 0)], [(late, 20, 0)], late)
    await bench.moved()
    assert len(bench.controller.settings) == 2
    np.testing.assert_array_equal(bench.controller.settings[0], Feedback().axes)


async def test_darkness_makes_it_search_and_a_new_lock_counts_anew() -> None:
    bench = Bench()
    await bench.moved()
    bench.steering.counts([], [], 10 * SETTLING_SLOTS)
    bench.steering.dark(100.0)
    await bench.moved()
    assert bench.steering.state == "searching"
    bench.steering.restarted(0)
    bench.steering.counts([(SETTLING_SLOTS, 20, 0)], [(SETTLING_SLOTS, 20, 0)], SETTLING_SLOTS)
    await bench.moved()
    assert bench.steering.state == "climbing"


async def test_a_controller_that_fails_is_an_alarm_and_is_asked_again() -> None:
    bench = Bench()
    await bench.moved()
    assert bench.alarms == {"polarisation": None}
    bench.controller.broken = True
    bench.steering.dark(100.0)
    await bench.moved()
    assert bench.alarms == {"polarisation": "no answer within 1 s"}
    bench.controller.broken = False
    bench.steering.dark(100.0)
    await bench.moved()
    assert bench.alarms == {"polarisation": None}
