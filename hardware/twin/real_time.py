"""Light in real time: when it is due by this machine's clock, and a tagger's finite buffer that fills on its own."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

import numpy as np

from common.datatypes import TimeTags

#: Light that is late by so much catches up; beyond, its time has stood still.
PATIENCE_S = 1.0


class LightClock:
    """When slots have passed by the wall clock, counted from the first light after darkness.

    Light is never early. Where a machine cannot make it in time it comes late and catches up; once it is more than
    ``PATIENCE_S`` behind it goes on from there, and ``slowed_s`` counts the seconds for which the link stood still.

    Parameters
    ----------
    clock_rate_hz : slots a second.
    """

    def __init__(self, clock_rate_hz: float) -> None:
        self._rate_hz = clock_rate_hz
        self._origin: tuple[float, int] | None = None
        self.slowed_s = 0.0

    def restart(self) -> None:
        """It was dark: the next slot leaves when it comes."""
        self._origin = None

    def wait_s(self, first_slot: int, to_slot: int, now_s: float) -> float:
        """Seconds from ``now_s`` until slots ``first_slot .. to_slot`` have passed; 0 for late ones."""
        if self._origin is None:
            self._origin = (now_s, first_slot)
        start_s, start_slot = self._origin
        wait_s = start_s + (to_slot - start_slot) / self._rate_hz - now_s
        if wait_s < -PATIENCE_S:
            self.slowed_s -= wait_s
            self._origin = (now_s, to_slot)
        return max(wait_s, 0.0)


class TagBuffer:
    """A tagger's memory between the detectors, which nothing stops, and whoever reads.

    A batch that finds no room is lost, and the next one that finds room says ``overflow``.

    Parameters
    ----------
    capacity : records; each tag is one, and the end of each batch.
    until_ps : the tagger's time before the first batch.
    """

    def __init__(self, capacity: int, until_ps: int) -> None:
        self._capacity, self._until_ps = capacity, until_ps
        self._batches: deque[TimeTags] = deque()
        self._records, self._overflow = 0, False
        self._changed = threading.Condition()
        self._fault: Exception | None = None
        self.tags_lost = 0

    def put(self, tags: TimeTags) -> None:
        """What the detectors did next; never waits."""
        with self._changed:
            if self._records + len(tags) + 1 > self._capacity:
                self._overflow = True
                self.tags_lost += len(tags)
                return
            self._records += len(tags) + 1
            self._batches.append(replace(tags, overflow=tags.overflow or self._overflow))
            self._overflow = False
            self._changed.notify()

    def fail(self, fault: Exception) -> None:
        """There will be no more; every :meth:`get` raises this."""
        with self._changed:
            self._fault = fault
            self._changed.notify()

    def get(self, timeout_s: float) -> TimeTags:
        """The oldest batch; an empty one that tells no time when none came within ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._fault, timeout_s)
            if self._fault is not None:
                raise self._fault
            if not self._batches:
                return TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), self._until_ps)
            tags = self._batches.popleft()
            self._records -= len(tags) + 1
            self._until_ps = tags.until_ps
            return tags
