"""A reliable, ordered stream over a transport that may lose, duplicate, delay and reorder. Pure: time is an argument.

Every DATA packet is numbered, acknowledged cumulatively and repeated until acknowledged. Who the peer is, is decided
above (:class:`classical_channel.channel.Channel`): only that layer can tell a peer from somebody who says so.

Nothing in a packet's header is authentic. So an acknowledgement is believed only for now: what it acknowledges is kept
for another window, and a later packet may take it back. What comes too early is bounded in number and bytes.
"""

from __future__ import annotations

from collections import deque

from classical_channel.framing import MAX_BODY_BYTES, Kind, Packet, Position
from common.errors import PeerUnreachable
from common.units import NS_PER_MS, NS_PER_S

RETRANSMIT_NS = 400 * NS_PER_MS
SYN_INTERVAL_NS = 250 * NS_PER_MS
WINDOW_PACKETS = 512
WINDOW_BYTES = 8 << 20
EARLY_PACKETS = 2 * WINDOW_PACKETS
EARLY_BYTES = 2 * WINDOW_BYTES
HISTORY_BYTES = WINDOW_BYTES + MAX_BODY_BYTES
"""As much as can be under way at once: an acknowledgement that lies can be taken back."""
LOST_NS = 10 * NS_PER_S
"""So long nothing but acknowledgements of what is no longer kept: the session cannot go on."""


class ReliableStream:
    """One end of the stream.

    Parameters
    ----------
    instance : this process's number (> 0); no other process has it.
    heartbeat_ns : an idle stream still sends an acknowledgement this often.

    Attributes
    ----------
    peer : the peer's instance; 0 until :meth:`begin`.
    claim : goes into every packet; see `framing`.
    """

    def __init__(self, instance: int, heartbeat_ns: int = 1_000 * NS_PER_MS) -> None:
        self.instance = instance
        self.claim: Position = (0, 0)
        self._heartbeat_ns = heartbeat_ns
        self._last_sent_ns = -(10**18)
        self.last_heard_ns: int | None = None
        self._syn = Packet(Kind.SYN, instance, 0).encode()
        self._asker = 0
        self.begin(0)

    def begin(self, peer: int) -> None:
        """Begin anew with this peer; everything of the session before is gone."""
        self.peer = peer
        self._next_sequence = 1
        self._kept: dict[int, tuple[bytes, int]] = {}
        self._oldest = 1
        self._ends = {0: 0}
        self._acknowledged = 0
        self._lost_since_ns: int | None = None
        self.received = 0
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self._ack_due = peer != 0
        self._fresh: deque[int] = deque()

    @property
    def has_room(self) -> bool:
        """Whether another body may be sent now (the window is open and the peer is known)."""
        last = self._next_sequence - 1
        waiting_bytes = self._ends[last] - self._ends[self._acknowledged]
        return self.peer != 0 and last - self._acknowledged < WINDOW_PACKETS and waiting_bytes < WINDOW_BYTES

    @property
    def next_sequence(self) -> int:
        """Sequence number that the next :meth:`send` gets."""
        return self._next_sequence

    @property
    def idle(self) -> bool:
        """Nothing is waiting to be acknowledged."""
        return self._acknowledged == self._next_sequence - 1

    def send(self, body: bytes) -> None:
        """Queue a body; the caller has looked at :attr:`has_room`."""
        sequence = self._next_sequence
        self._next_sequence += 1
        self._kept[sequence] = (body, -1)
        self._ends[sequence] = self._ends[sequence - 1] + len(body)
        self._fresh.append(sequence)

    def knock(self, syn: bytes) -> None:
        """This is the SYN from now on; it is due at once."""
        self._syn = syn
        self._last_sent_ns = -(10**18)

    def answer(self, asker: int) -> None:
        """Tell somebody who is not the peer that this process is here; once, the last who asked."""
        self._asker = asker

    def receive(self, packet: Packet, now_ns: int) -> list[tuple[int, bytes]]:
        """Take one packet of the peer; returns (sequence, body) of what became available in order.

        Raises
        ------
        PeerUnreachable
            The peer waits for what is no longer kept: it or the network lied about what had arrived.
        """
        self.last_heard_ns = now_ns
        if packet.receiver != self.instance:
            self._ack_due |= packet.kind is Kind.SYN
            return []
        self._acknowledge(packet.acknowledged, now_ns)
        if packet.kind is not Kind.DATA:
            return []
        self._ack_due = True
        early = self.received + 1 < packet.sequence <= self.received + EARLY_PACKETS
        if packet.sequence == self.received + 1 or (early and self._early_bytes + len(packet.body) <= EARLY_BYTES):
            self._put(packet.sequence, packet.body)
        events = []
        while (body := self._early.pop(self.received + 1, None)) is not None:
            self._early_bytes -= len(body)
            self.received += 1
            events.append((self.received, body))
        return events

    def _put(self, sequence: int, body: bytes) -> None:
        if sequence not in self._early:
            self._early[sequence] = body
            self._early_bytes += len(body)

    def _acknowledge(self, up_to: int, now_ns: int) -> None:
        if up_to >= self._next_sequence:
            return
        if up_to + 1 < self._oldest:
            self._lost_since_ns = self._lost_since_ns or now_ns
            if now_ns - self._lost_since_ns > LOST_NS:
                raise PeerUnreachable("the peer waits for messages that had been acknowledged in its name")
            return
        self._lost_since_ns = None
        self._acknowledged = up_to
        while self._oldest <= up_to and (
            up_to - self._oldest >= WINDOW_PACKETS or self._ends[up_to] - self._ends[self._oldest] > HISTORY_BYTES
        ):
            del self._kept[self._oldest], self._ends[self._oldest - 1]
            self._oldest += 1

    def packets(self, now_ns: int) -> list[bytes]:
        """Everything to put on the transport now."""
        out = []
        if self._asker:
            out.append(Packet(Kind.ACK, self.instance, self._asker, claim=self.claim).encode())
            self._asker = 0
        if self.peer == 0:
            if now_ns - self._last_sent_ns >= SYN_INTERVAL_NS:
                self._last_sent_ns = now_ns
                out.append(self._syn)
            return out
        due = list(self._fresh)
        self._fresh.clear()
        for sequence in range(self._acknowledged + 1, self._next_sequence):
            sent_ns = self._kept[sequence][1]
            if sent_ns >= 0:
                if now_ns - sent_ns < RETRANSMIT_NS:
                    break
                due.append(sequence)
        data = [self._data(sequence, now_ns) for sequence in due if sequence > self._acknowledged]
        if not data and (self._ack_due or now_ns - self._last_sent_ns >= self._heartbeat_ns):
            data = [Packet(Kind.ACK, self.instance, self.peer, 0, self.received, self.claim).encode()]
        if data:
            self._ack_due = False
            self._last_sent_ns = now_ns
        return out + data

    def _data(self, sequence: int, now_ns: int) -> bytes:
        body, _ = self._kept[sequence]
        self._kept[sequence] = (body, now_ns)
        return Packet(Kind.DATA, self.instance, self.peer, sequence, self.received, self.claim, body).encode()

    def next_timer_ns(self, now_ns: int) -> int:
        """When :meth:`packets` wants to be called again at the latest."""
        if self.peer == 0:
            return self._last_sent_ns + SYN_INTERVAL_NS
        times = [self._last_sent_ns + self._heartbeat_ns]
        if not self.idle:
            sent_ns = self._kept[self._acknowledged + 1][1]
            times.append(sent_ns + RETRANSMIT_NS if sent_ns >= 0 else now_ns)
        return max(min(times), now_ns)
