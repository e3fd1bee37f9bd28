"""A reliable, ordered stream over a transport that may lose, duplicate, delay and reorder. Pure: time is an argument.

Every DATA packet is numbered, acknowledged cumulatively and repeated until acknowledged. A peer that restarts shows
a higher instance number; the stream then begins anew and says so with :class:`Opened`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from classical_channel.framing import Kind, Packet
from common.units import NS_PER_MS

RETRANSMIT_NS = 400 * NS_PER_MS
SYN_INTERVAL_NS = 250 * NS_PER_MS
WINDOW_PACKETS = 512
WINDOW_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """A new session with this instance of the peer has begun; everything of the one before is gone."""

    peer_instance: int


class ReliableStream:
    """One end of the stream.

    Parameters
    ----------
    instance : this process's start counter (> 0), larger at every start.
    heartbeat_ns : an idle stream still sends an acknowledgement this often.
    """

    def __init__(self, instance: int, heartbeat_ns: int = 1_000 * NS_PER_MS) -> None:
        self.instance = instance
        self.peer = 0
        self._heartbeat_ns = heartbeat_ns
        self._last_sent_ns = -(10**18)
        self.last_heard_ns: int | None = None
        self._begin(0)

    def _begin(self, peer: int) -> None:
        self.peer = peer
        self._next_sequence = 1
        self._flight: dict[int, tuple[bytes, int]] = {}
        self._flight_bytes = 0
        self._acknowledged_by_peer = 0
        self._received = 0
        self._early: dict[int, bytes] = {}
        self._ack_due = peer != 0
        self._fresh: deque[int] = deque()

    @property
    def has_room(self) -> bool:
        """Whether another body may be sent now (the window is open and the peer is known)."""
        return self.peer != 0 and len(self._flight) < WINDOW_PACKETS and self._flight_bytes < WINDOW_BYTES

    @property
    def next_sequence(self) -> int:
        """Sequence number that the next :meth:`send` gets."""
        return self._next_sequence

    @property
    def idle(self) -> bool:
        """Nothing is waiting to be acknowledged."""
        return not self._flight

    def send(self, body: bytes) -> None:
        """Queue a body; the caller has looked at :attr:`has_room`."""
        sequence = self._next_sequence
        self._next_sequence += 1
        self._flight[sequence] = (body, -1)
        self._flight_bytes += len(body)
        self._fresh.append(sequence)

    def receive(self, raw: bytes, now_ns: int) -> list[Opened | tuple[int, bytes]]:
        """Take one packet; returns what became available in order: an opening, then (sequence, body) pairs.

        Raises
        ------
        RemoteProtocolError
            The packet is malformed.
        """
        packet = Packet.decode(raw)
        if packet.sender < self.peer:
            return []
        self.last_heard_ns = now_ns
        events: list[Opened | tuple[int, bytes]] = []
        if packet.sender > self.peer:
            self._begin(packet.sender)
            events.append(Opened(packet.sender))
        if packet.receiver != self.instance:
            self._ack_due = True
            return events
        self._acknowledge(packet.acknowledged)
        if packet.kind is Kind.DATA:
            self._ack_due = True
            if self._received < packet.sequence <= self._received + 2 * WINDOW_PACKETS:
                self._early[packet.sequence] = packet.body
            while (body := self._early.pop(self._received + 1, None)) is not None:
                self._received += 1
                events.append((self._received, body))
        return events

    def _acknowledge(self, up_to: int) -> None:
        for sequence in range(self._acknowledged_by_peer + 1, min(up_to, self._next_sequence - 1) + 1):
            body, _ = self._flight.pop(sequence)
            self._flight_bytes -= len(body)
            self._acknowledged_by_peer = sequence

    def packets(self, now_ns: int) -> list[bytes]:
        """Everything to put on the transport now."""
        if self.peer == 0:
            if now_ns - self._last_sent_ns < SYN_INTERVAL_NS:
                return []
            self._last_sent_ns = now_ns
            return [Packet(Kind.SYN, self.instance, 0).encode()]
        due = list(self._fresh)
        self._fresh.clear()
        for sequence, (_, sent_ns) in self._flight.items():
            if sent_ns >= 0:
                if now_ns - sent_ns < RETRANSMIT_NS:
                    break
                due.append(sequence)
        out = [self._data(sequence, now_ns) for sequence in due if sequence in self._flight]
        if not out and (self._ack_due or now_ns - self._last_sent_ns >= self._heartbeat_ns):
            out = [Packet(Kind.ACK, self.instance, self.peer, 0, self._received).encode()]
        if out:
            self._ack_due = False
            self._last_sent_ns = now_ns
        return out

    def _data(self, sequence: int, now_ns: int) -> bytes:
        body, _ = self._flight[sequence]
        self._flight[sequence] = (body, now_ns)
        return Packet(Kind.DATA, self.instance, self.peer, sequence, self._received, body).encode()

    def next_timer_ns(self, now_ns: int) -> int:
        """When :meth:`packets` wants to be called again at the latest."""
        if self.peer == 0:
            return self._last_sent_ns + SYN_INTERVAL_NS
        times = [self._last_sent_ns + self._heartbeat_ns]
        oldest = next(iter(self._flight.values()), None)
        if oldest is not None:
            times.append(oldest[1] + RETRANSMIT_NS if oldest[1] >= 0 else now_ns)
        return max(min(times), now_ns)
