"""A transport made of a list: the two ends of a test or an in-process demonstration, with faults on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from common.units import NS_PER_S

Fault = Callable[[int, bytes], list[tuple[int, bytes]]]
"""(packet number, packet) -> [(extra delay in ns, packet)...]: empty loses it, two entries duplicate it."""


def faithful(number: int, packet: bytes) -> list[tuple[int, bytes]]:
    """Let every packet pass unharmed."""
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


@dataclass
class Line:
    """One direction of a line with a rate and a bounded queue before it; what finds the queue full is lost.

    Parameters
    ----------
    bytes_per_s, delay_ns : a packet arrives ``delay_ns`` after its last byte has left.
    queue_bytes : so much may wait, besides the packet that is leaving. loss : share of packets lost at random.
    """

    bytes_per_s: float
    delay_ns: int
    queue_bytes: int
    loss: float = 0.0
    seed: int = 0
    overflows: int = 0
    _free_ns: int = 0
    _waiting: deque[tuple[int, bytes]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    def send(self, packet: bytes, now_ns: int) -> None:
        """Put a packet into the queue, if there is room."""
        waiting_bytes = max(self._free_ns - now_ns, 0) * self.bytes_per_s / NS_PER_S
        if waiting_bytes > self.queue_bytes:
            self.overflows += 1
            return
        self._free_ns = max(self._free_ns, now_ns) + round(len(packet) * NS_PER_S / self.bytes_per_s)
        if self._random.random() >= self.loss:
            self._waiting.append((self._free_ns + self.delay_ns, packet))

    def arrivals(self, now_ns: int) -> list[bytes]:
        """Packets that have arrived by now."""
        here = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            here.append(self._waiting.popleft()[1])
        return here

    def next_arrival_ns(self) -> int | None:
        """When the next packet arrives."""
        return self._waiting[0][0] if self._waiting else None
