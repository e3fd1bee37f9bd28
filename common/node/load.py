"""How busy a node is: processor seconds per stage, queues, the event loop's lag, memory. Shown in its status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from common.node.lag import Lag

LAG_STEP_S = 0.01
SWITCH_INTERVAL_S = 0.0001
"""How long a thread may keep the interpreter while the event loop waits for it (a fiftieth of Python's default)."""
NICENESS = {"frames": 5, "block": 4, "sift": 4, "light": 3}
"""Threads of long jobs, of sifting and of the light give way to the event loop where cores are short, and frames a
little to the block before theirs, whose key is waited for."""


class Load:
    """Counters that worker threads add to and the status shows.

    ``loop_lag_ms`` is how much too late a timer of the event loop fired, and why: see :mod:`common.node.lag`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cpu_s: dict[str, float] = {}
        self._waiting: Counter[str] = Counter()
        self._lag = Lag()
        self._thread = threading.local()
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the processor time that this thread spends inside to a stage."""
        begin = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - begin
            with self._lock:
                self._cpu_s[name] = self._cpu_s.get(name, 0.0) + spent

    def job(self, lane: str, work: Callable[[], Any]) -> Callable[[], Any]:
        """The same work, counted as waiting in its lane until it is called and as its stage's time from then on."""
        with self._lock:
            self._waiting[lane] += 1

        def counted() -> Any:
            with self._lock:
                self._waiting[lane] -= 1
            self.give_way(lane)
            with self.stage(lane):
                return work()

        return counted

    def give_way(self, lane: str) -> None:
        """Lower this thread's priority, once (a thread has its own on Linux; elsewhere nothing is done)."""
        if lane in NICENESS and not getattr(self._thread, "gave_way", False) and sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS[lane])
        self._thread.gave_way = True

    async def watch(self) -> None:
        """Measure the event loop's lag, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._lag.start()
            due = loop.time() + LAG_STEP_S
            await asyncio.sleep(LAG_STEP_S)
            self._lag.late(1e3 * max(loop.time() - due, 0.0))

    def document(self) -> dict[str, Any]:
        """For the status; the recent worst lag is since the last call."""
        with self._lock:
            cpu_s, waiting = dict(self._cpu_s), dict(self._waiting)
        return {
            "cpu_s": {**{name: round(spent, 3) for name, spent in cpu_s.items()}, "all": round(time.process_time(), 3)},
            "jobs_waiting": waiting,
            "loop_lag_ms": self._lag.document(),
            "memory_bytes": memory_bytes(),
            "memory_peak_bytes": memory_peak_bytes(),
            "clock_s": round(time.monotonic(), 3),
        }


def memory_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def memory_peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
