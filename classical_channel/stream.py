"""A reliable, ordered stream over a transport that may lose, duplicate, delay and reorder. Pure: time is an argument.

Every DATA packet is numbered, acknowledged cumulatively and repeated until acknowledged, after a timeout or three
acknowledgements that say the same (NewReno, RFC 6582); how long and how much at once, says `congestion`. Who the peer
is, is decided above (:class:`classical_channel.channel.Channel`): only that layer can tell a peer from somebody who
says so.

Nothing in a packet's header is authentic. So an acknowledgement is believed only for now: what it acknowledges is kept
for another window, and a later packet may take it back. What comes too early is bounded in number and bytes.
"""

from __future__ import annotations

from classical_channel.congestion import CongestionWindow, RoundTrip
from classical_channel.framing import MAX_BODY_BYTES, Kind, Packet, Position
from common.errors import PeerUnreachable
from common.units import NS_PER_MS, NS_PER_S

SYN_INTERVAL_NS = 250 * NS_PER_MS
WINDOW_PACKETS = 512
WINDOW_BYTES = 8 << 20
SAME_ACKNOWLEDGEMENTS = 3
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
        self._round_trip = RoundTrip()
        self._window = CongestionWindow(WINDOW_BYTES)
        self._under_way = 0  # up to here packets have been sent, since the last timeout
        self._repeated = 0  # no packet beyond this one was ever sent twice
        self._recovered = 0  # the hole is closed, or the timeout over, once this one is acknowledged
        self._repairing = False
        self._missing = False  # the first packet that is not acknowledged is due
        self._same = 0
        self._round_ends = 0
        self._due_ns: int | None = None

    @property
    def has_room(self) -> bool:
        """Whether another body may be sent now (the window is open and the peer is known)."""
        last = self._next_sequence - 1
        room = last - self._acknowledged < WINDOW_PACKETS and self._bytes_up_to(last) < self._window.n_bytes
        return self.peer != 0 and room

    @property
    def window_bytes(self) -> int:
        """This many bytes may be under way now, and the packet with which they become more."""
        return self._window.n_bytes

    def _bytes_up_to(self, sequence: int) -> int:
        """Of the bodies that are not acknowledged."""
        return self._ends[sequence] - self._ends[self._acknowledged]

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
        self._end_silence(now_ns)
        if packet.receiver != self.instance:
            self._ack_due |= packet.kind is Kind.SYN
            return []
        self._acknowledge(packet, now_ns)
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

    def _end_silence(self, now_ns: int) -> None:
        """The first word after an outage: what waits for a timer that has backed off is due now."""
        silent_ns = now_ns - (self.last_heard_ns or now_ns)
        self.last_heard_ns = now_ns
        if self._due_ns is not None and silent_ns > 2 * self._heartbeat_ns:
            self._round_trip.forgive()
            self._due_ns = min(self._due_ns, self._first_sent_ns() + self._timeout_ns())

    def _acknowledge(self, packet: Packet, now_ns: int) -> None:
        up_to = packet.acknowledged
        if up_to >= self._next_sequence:
            return
        if up_to + 1 < self._oldest:
            self._lost_since_ns = self._lost_since_ns or now_ns
            if now_ns - self._lost_since_ns > LOST_NS:
                raise PeerUnreachable("the peer waits for messages that had been acknowledged in its name")
            return
        self._lost_since_ns = None
        if up_to > self._acknowledged:
            self._advance(up_to, now_ns)
        elif up_to == self._acknowledged and packet.kind is Kind.ACK:
            self._hear_same(now_ns)
        self._acknowledged = up_to
        self._under_way = max(self._under_way, up_to)
        if up_to == self._under_way:
            self._due_ns = None
        elif self._due_ns is None:  # an earlier acknowledgement lied, or was overtaken by this one
            self._due_ns = now_ns + self._timeout_ns()
        while self._oldest <= up_to and (
            up_to - self._oldest >= WINDOW_PACKETS or self._ends[up_to] - self._ends[self._oldest] > HISTORY_BYTES
        ):
            del self._kept[self._oldest], self._ends[self._oldest - 1]
            self._oldest += 1

    def _advance(self, up_to: int, now_ns: int) -> None:
        """More is acknowledged: measure (Karn's rule: nothing that was repeated), let the window grow, close holes."""
        if self._acknowledged >= self._repeated:
            ns = now_ns - self._kept[up_to][1]
            self._round_trip.sample(ns, now_ns)
            if up_to > self._round_ends:  # once per round trip
                self._round_ends = self._under_way
                if self._round_trip.queued(ns):
                    self._window.delayed()
        self._repairing &= up_to < self._recovered
        self._missing = self._repairing
        self._same = 0
        if not self._repairing:
            self._window.acknowledged(self._bytes_up_to(up_to), self._bytes_up_to(max(self._under_way, up_to)))
        self._acknowledged = up_to
        self._due_ns = now_ns + self._timeout_ns()

    def _hear_same(self, now_ns: int) -> None:
        """An acknowledgement that says nothing new: a later packet has arrived, or it is a heartbeat.

        What a timeout had repeated in vain is answered so, too, up to the last packet before it (RFC 6582, 3.2).
        """
        soon = now_ns - self._first_sent_ns() < (self._round_trip.smoothed_ns or 0)
        later = self._under_way - self._acknowledged - 1
        if later < SAME_ACKNOWLEDGEMENTS or 0 < self._acknowledged <= self._recovered or soon:
            return
        self._same += 1
        if self._same == SAME_ACKNOWLEDGEMENTS:
            self._window.lost(self._bytes_up_to(self._under_way))
            self._recovered, self._repairing, self._missing = self._under_way, True, True

    def _first_sent_ns(self) -> int:
        """When the first packet that is not acknowledged was last sent."""
        return self._kept[self._acknowledged + 1][1] if not self.idle else 0

    def _timeout_ns(self) -> int:
        return self._round_trip.timeout_ns(0 if self.idle else len(self._kept[self._acknowledged + 1][0]))

    def _time_out(self) -> None:
        """Nothing new in time: everything under way counts as lost, and is sent again as the window opens."""
        self._window.timed_out(self._bytes_up_to(self._under_way))
        self._round_trip.back_off()
        self._recovered = max(self._recovered, self._under_way)
        self._under_way = self._acknowledged
        self._repairing = self._missing = False
        self._due_ns = None

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
        if self._due_ns is not None and now_ns >= self._due_ns:
            self._time_out()
        data = []
        if self._missing:
            self._missing = False
            data.append(self._data(self._acknowledged + 1, now_ns))
        while self._may_send():
            self._under_way += 1
            data.append(self._data(self._under_way, now_ns))
        if self._due_ns is None and not self.idle:
            self._due_ns = now_ns + self._timeout_ns()
        if not data and (self._ack_due or now_ns - self._last_sent_ns >= self._heartbeat_ns):
            data = [Packet(Kind.ACK, self.instance, self.peer, 0, self.received, self.claim).encode()]
        if data:
            self._ack_due = False
            self._last_sent_ns = now_ns
        return out + data

    def _may_send(self) -> bool:
        waiting = self._under_way < self._next_sequence - 1
        return waiting and self._bytes_up_to(self._under_way) < self._window.n_bytes

    def _data(self, sequence: int, now_ns: int) -> bytes:
        body, sent_ns = self._kept[sequence]
        if sent_ns >= 0:
            self._repeated = max(self._repeated, sequence)
        self._kept[sequence] = (body, now_ns)
        return Packet(Kind.DATA, self.instance, self.peer, sequence, self.received, self.claim, body).encode()

    def next_timer_ns(self, now_ns: int) -> int:
        """When :meth:`packets` wants to be called again at the latest."""
        if self.peer == 0:
            return self._last_sent_ns + SYN_INTERVAL_NS
        times = [self._last_sent_ns + self._heartbeat_ns]
        if self._due_ns is not None:
            times.append(self._due_ns)
        if self._missing or self._may_send():
            times.append(now_ns)
        return max(min(times), now_ns)
