"""How late the event loop is, and why: it works itself, another thread keeps the interpreter, or no core is free."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

LAG_BINS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
CAUSES = ("own_work", "processor", "interpreter")
_MS = 1e-6


class Lag:
    """Late timers of the event loop: how many, the worst, and what the loop's thread was waiting for.

    The system tells how long the thread ran and how long it stood ready while every core was busy (`schedstat`). Of
    what a timer was late, the time without a core counts first (`processor`: more cores or less load help), then the
    loop's own running (`own_work`); the rest it slept for want of the interpreter (`interpreter`).
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(LAG_BINS_MS) + 1)
        self._worst_ms = 0.0
        self._recent: tuple[float, dict[str, float]] = (0.0, {})
        self._total_ms = dict.fromkeys(CAUSES, 0.0)
        self._path: str | None = None
        self._before: tuple[float, float] | None = None

    def start(self) -> None:
        """Called by the loop's thread before each timer."""
        self._path = self._path or f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._before = self._clock()

    def late(self, lag_ms: float) -> None:
        """The timer begun by :meth:`start` fired so much too late."""
        self._counts[sum(lag_ms > edge for edge in LAG_BINS_MS)] += 1
        self._worst_ms = max(self._worst_ms, lag_ms)
        causes: dict[str, float] = {}
        after = self._clock()
        if self._before is not None and after is not None:
            causes = split(lag_ms, after[0] - self._before[0], after[1] - self._before[1])
            for cause, spent in causes.items():
                self._total_ms[cause] += spent
        if lag_ms > self._recent[0]:
            self._recent = lag_ms, causes

    def _clock(self) -> tuple[float, float] | None:
        """Milliseconds that this thread ran, and that it waited for a core; None where the system does not tell."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            handle = os.open(self._path or "", os.O_RDONLY | os.O_CLOEXEC)
            try:
                ran, waited = os.read(handle, 100).split()[:2]
            finally:
                os.close(handle)
            return int(ran) * _MS, int(waited) * _MS
        return None

    def document(self) -> dict[str, Any]:
        """For the status; what is called recent is since the last call."""
        (recent_ms, causes), self._recent = self._recent, (0.0, {})
        return {
            "recent_worst": round(recent_ms, 2),
            "recent_causes": {cause: round(spent, 2) for cause, spent in causes.items()},
            "worst": round(self._worst_ms, 2),
            "total": {cause: round(spent, 1) for cause, spent in self._total_ms.items()},
            "at_most": {f"{edge:g}": count for edge, count in zip(LAG_BINS_MS, self._counts, strict=False)},
            "above": self._counts[-1],
        }


def split(lag_ms: float, ran_ms: float, waited_ms: float) -> dict[str, float]:
    """Causes of a lag, ms each: they add up to it."""
    processor = min(max(waited_ms, 0.0), lag_ms)
    own_work = min(max(ran_ms, 0.0), lag_ms - processor)
    return {"own_work": own_work, "processor": processor, "interpreter": lag_ms - processor - own_work}
