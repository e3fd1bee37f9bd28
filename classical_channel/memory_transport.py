"""A transport made of a list: the two ends of a test or an in-process demonstration, with faults on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Fault = Callable[[int, bytes], list[tuple[int, bytes]]]
"""(packet number, packet) -> [(extra delay in ns, packet)...]: empty loses it, two entries duplicate it."""


def faithful(number: int, packet: bytes) -> list[tuple[int, bytes]]:
    """No fault."""
    return [(0, packet)]


@dataclass
class MemoryPipe:
    """One direction: packets with their arrival times in virtual ns."""

    delay_ns: int = 1_000_000
    fault: Fault = faithful
    sent: int = 0
    _waiting: list[tuple[int, int, bytes]] = field(default_factory=list)

    def send(self, packet: bytes, now_ns: int) -> None:
        """Put a packet on its way."""
        for extra_ns, copy in self.fault(self.sent, packet):
            self._waiting.append((now_ns + self.delay_ns + extra_ns, len(self._waiting) + self.sent, copy))
        self.sent += 1

    def arrivals(self, now_ns: int) -> list[bytes]:
        """Packets that have arrived by now, in order of arrival."""
        here = sorted(item for item in self._waiting if item[0] <= now_ns)
        self._waiting = [item for item in self._waiting if item[0] > now_ns]
        return [packet for _, _, packet in here]

    def next_arrival_ns(self) -> int | None:
        """When the next packet arrives."""
        return min((item[0] for item in self._waiting), default=None)

    def cut(self) -> None:
        """Lose everything on its way."""
        self._waiting.clear()
