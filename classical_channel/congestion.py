"""How long to wait before a packet is repeated, and how many bytes may be under way. Pure: time is an argument.

The timer is RFC 6298. The window is AIMD in bytes with slow start (RFC 5681), and it also stops growing, and shrinks,
where round trips are longer than the shortest by more than the peer's own business explains: over TCP, which loses
nothing, a queue shows only in the time. What the window is computed from is not authentic: lies cost speed only, since
timer and window have bounds that hold whatever is said.
"""

from __future__ import annotations

from common.units import NS_PER_MS, NS_PER_S

FIRST_RTO_NS = 2 * NS_PER_S
"""Before the first sample; twice as long as a line is far that must not be flooded by repetitions."""
BUSY_NS = 200 * NS_PER_MS
"""An end may be busy for so long without a word: the least that a timeout is above the round trip."""
LONGEST_RTO_NS = 60 * NS_PER_S
SLOWEST_NS_PER_BYTE = 8_000
"""1 Mbit/s: a long packet is waited for as long as it takes there, though all before it were short and fast."""
LEAST_BYTES = 16 << 10
"""The window after a timeout, and its growth per round trip."""
FIRST_BYTES = 48 << 10
"""The first window, from which it grows by addition at once: doubling ends with a queue of half the window, and where
that is too much a whole burst is missing, of which each round trip closes one hole."""
PATIENT_BYTES = 128 << 10
"""Down to here delay shrinks the window: 1 Mbit/s times one second."""
QUEUE_NS = 250 * NS_PER_MS
"""More than the shortest round trip: a queue."""
SHORTEST_FOR_NS = 60 * NS_PER_S
"""The shortest round trip is forgotten after one to two of these: routes change."""


class RoundTrip:
    """Smoothed round-trip time, its variation, and the timeout from both (RFC 6298, section 2).

    Attributes
    ----------
    smoothed_ns : None before the first sample.
    """

    def __init__(self) -> None:
        self.smoothed_ns: int | None = None
        self._variation_ns = 0
        self._doublings = 0
        self._shortest_ns = self._shortest_lately_ns = 1 << 62
        self._since_ns: int | None = None

    def sample(self, ns: int, now_ns: int) -> None:
        """A packet that was sent once was acknowledged after this time."""
        if self.smoothed_ns is None:
            self.smoothed_ns, self._variation_ns = ns, ns // 2
        else:
            self._variation_ns += (abs(self.smoothed_ns - ns) - self._variation_ns) // 4
            self.smoothed_ns += (ns - self.smoothed_ns) // 8
        self._doublings = 0
        if self._since_ns is None or now_ns - self._since_ns > SHORTEST_FOR_NS:
            self._shortest_ns, self._shortest_lately_ns, self._since_ns = self._shortest_lately_ns, ns, now_ns
        self._shortest_lately_ns = min(self._shortest_lately_ns, ns)
        self._shortest_ns = min(self._shortest_ns, ns)

    def queued(self, ns: int) -> bool:
        """Whether a round trip of this time has waited in a queue."""
        return ns > self._shortest_ns + QUEUE_NS

    def back_off(self) -> None:
        """Nothing came in time: wait twice as long, until a sample says better (Karn's rule)."""
        self._doublings = min(self._doublings + 1, 16)

    def forgive(self) -> None:
        """The line was dead and is not any more: what was waited for says nothing about it."""
        self._doublings = 0

    def timeout_ns(self, n_bytes: int) -> int:
        """From sending a packet of this many bytes, or from the last good news, to its repetition."""
        rto_ns = FIRST_RTO_NS
        if self.smoothed_ns is not None:
            rto_ns = self.smoothed_ns + max(4 * self._variation_ns, BUSY_NS)
        return min(rto_ns << self._doublings, LONGEST_RTO_NS) + n_bytes * SLOWEST_NS_PER_BYTE


class CongestionWindow:
    """This many bytes may be under way.

    Parameters
    ----------
    most_bytes : upper bound.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._threshold_bytes = FIRST_BYTES
        self.n_bytes = FIRST_BYTES

    def acknowledged(self, n_bytes: int, under_way_bytes: int) -> None:
        """This many of the bytes under way have arrived: double per round trip up to the threshold, then add."""
        if 2 * under_way_bytes < self.n_bytes:
            return  # it was not the window that held the sender back: nothing is known of a larger one
        grown = n_bytes if self.n_bytes < self._threshold_bytes else max(LEAST_BYTES * n_bytes // self.n_bytes, 1)
        self.n_bytes = min(self.n_bytes + grown, self._most_bytes)

    def delayed(self) -> None:
        """The round trips of a whole window show a queue: an eighth less, and no doubling any more."""
        self.n_bytes = max(self.n_bytes * 7 // 8, min(PATIENT_BYTES, self.n_bytes))
        self._threshold_bytes = self.n_bytes

    def lost(self, under_way_bytes: int) -> None:
        """A packet is missing and later ones have arrived: half."""
        self.n_bytes = self._threshold_bytes = max(min(self.n_bytes, under_way_bytes) // 2, LEAST_BYTES)

    def timed_out(self, under_way_bytes: int) -> None:
        """Nothing arrives: begin anew, doubling up to half of what was."""
        self._threshold_bytes = max(min(self.n_bytes, under_way_bytes) // 2, self._threshold_bytes // 4, LEAST_BYTES)
        self.n_bytes = LEAST_BYTES
