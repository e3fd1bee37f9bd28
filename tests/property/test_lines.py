"""The stream on lines with rate, delay, a bounded queue and loss, in virtual time: what arrives, what is repeated."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classical_channel.congestion import LEAST_BYTES
from classical_channel.framing import FRAME, PLAIN, Kind, Packet
from classical_channel.memory_transport import Line
from classical_channel.stream import WINDOW_BYTES, WINDOW_PACKETS, ReliableStream
from common.units import NS_PER_MS, NS_PER_S

MEGABIT = 125_000.0
"""1 Mbit/s, in bytes per second."""


@dataclass
class Trial:
    """A sender that always has something to send, over a line; counts what it puts on the line and what arrives."""

    to_bob: Line
    to_alice: Line
    body_bytes: int
    limit_bytes: int = 1 << 62
    now_ns: int = 0
    sent_bytes: int = 0
    repeated_bytes: int = 0
    largest_flight: int = 0
    got: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alice, self.bob = ReliableStream(1), ReliableStream(2)
        self.alice.begin(2)
        self.bob.begin(1)
        self._seen: set[int] = set()
        self.queued_bytes = 0

    @property
    def carried_bytes(self) -> int:
        return len(self.got) * self.body_bytes

    def _pump(self) -> None:
        while self.alice.has_room and self.queued_bytes < self.limit_bytes:
            number = self.alice.next_sequence
            head = FRAME.pack(PLAIN, 0) + number.to_bytes(8, "little")
            self.alice.send(head + bytes(self.body_bytes - len(head)))
            self.queued_bytes += self.body_bytes
        for raw in self.alice.packets(self.now_ns):
            packet = Packet.decode(raw)
            self.sent_bytes += len(raw)
            if packet.sequence in self._seen:
                self.repeated_bytes += len(raw)
            elif packet.kind is Kind.DATA:
                self._seen.add(packet.sequence)
            self.to_bob.send(raw, self.now_ns)
        for raw in self.bob.packets(self.now_ns):
            self.to_alice.send(raw, self.now_ns)

    def _step(self) -> None:
        self._pump()
        timers = [end.next_timer_ns(self.now_ns) for end in (self.alice, self.bob)]
        arrivals = [line.next_arrival_ns() for line in (self.to_bob, self.to_alice)]
        self.now_ns = max(self.now_ns + 1000, min([*timers, *(at for at in arrivals if at is not None)]))
        for raw in self.to_bob.arrivals(self.now_ns):
            for sequence, body in self.bob.receive(Packet.decode(raw), self.now_ns):
                assert body[FRAME.size : FRAME.size + 8] == sequence.to_bytes(8, "little")
                self.got.append(sequence)
            self._pump()
        for raw in self.to_alice.arrivals(self.now_ns):
            self.alice.receive(Packet.decode(raw), self.now_ns)
            self._pump()

    def run(self, seconds: float) -> None:
        end_ns = self.now_ns + round(seconds * NS_PER_S)
        while self.now_ns < end_ns and not (self.queued_bytes >= self.limit_bytes and self.alice.idle):
            self._step()
        assert self.got == list(range(1, len(self.got) + 1))

    def share(self, seconds: float) -> float:
        """Of what the line can carry."""
        return self.carried_bytes / (self.to_bob.bytes_per_s * seconds)


def slow(body_bytes: int, queue_bytes: int, loss: float = 0.0) -> Trial:
    """1 Mbit/s, one second there and back."""
    lines = [Line(MEGABIT, 500 * NS_PER_MS, queue_bytes, loss, seed) for seed in (1, 2)]
    return Trial(*lines, body_bytes)


@pytest.mark.parametrize("queue_bytes", [1 << 16, 1 << 17, 1 << 20])
@pytest.mark.parametrize("body_bytes", [1_200, 9_000, 60_000])
def test_a_slow_line_far_away_carries_what_it_can(body_bytes: int, queue_bytes: int) -> None:
    trial = slow(body_bytes, queue_bytes)
    trial.run(120)
    assert trial.share(120) >= 0.8
    assert trial.repeated_bytes < 0.1 * trial.sent_bytes


@pytest.mark.parametrize("body_bytes", [2_000, 20_000, 60_000, 200_000, 1_000_000])
def test_a_block_after_a_quiet_time_is_sent_once(body_bytes: int) -> None:
    """Small messages first, fast, then a burst that takes seconds: no timer learnt from them repeats it."""
    trial = Trial(*(Line(MEGABIT, 1 * NS_PER_MS, 1 << 24) for _ in range(2)), 100)
    for _ in range(50):
        trial.limit_bytes = trial.queued_bytes + 100
        trial.run(5)
    trial.body_bytes, trial.limit_bytes = body_bytes, trial.queued_bytes + 1_000_000
    trial.run(60)
    assert trial.alice.idle
    assert trial.repeated_bytes <= 0.1 * trial.sent_bytes


@pytest.mark.parametrize("body_bytes", [1_200, 60_000])
def test_a_fast_line_is_full(body_bytes: int) -> None:
    trial = Trial(*(Line(100 * MEGABIT, 100_000, WINDOW_BYTES) for _ in range(2)), body_bytes)
    trial.run(2)
    assert trial.share(2) >= 0.9
    assert trial.repeated_bytes == 0


@pytest.mark.parametrize(("delay_ms", "body_bytes"), [(5, 1_200), (5, 20_000), (50, 1_200)])
def test_random_loss_does_not_stop_the_stream(delay_ms: int, body_bytes: int) -> None:
    """A round trip closes one hole, and 20 packets lie between two; at 10 ms a repetition that is lost costs 22 more.

    So about 9 packets a round trip, less what lost acknowledgements cost: 4; of long packets the least window, twice.
    """
    trial = Trial(*(Line(100 * MEGABIT, delay_ms * NS_PER_MS, 1 << 22, 0.05, seed) for seed in (1, 2)), body_bytes)
    trial.run(20)
    round_trips = 20_000 / (2 * delay_ms)
    assert trial.carried_bytes / round_trips >= min(4 * body_bytes, 1.5 * LEAST_BYTES)
    assert trial.repeated_bytes < 0.2 * trial.sent_bytes


def test_after_an_outage_the_stream_goes_on_with_the_first_word_of_the_peer() -> None:
    trial = Trial(*(Line(MEGABIT, 5 * NS_PER_MS, 1 << 20) for _ in range(2)), 1_200)
    trial.run(10)
    for line in (trial.to_bob, trial.to_alice):
        line.loss = 1.0
    trial.run(300)
    before = len(trial.got)
    for line in (trial.to_bob, trial.to_alice):
        line.loss = 0.0
    trial.run(4)
    assert (len(trial.got) - before) * 1_200 >= 2 * MEGABIT


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(500, 30_000), st.integers(0, 300), st.floats(0, 0.3))
def test_everything_arrives_in_order_whatever_the_line(seed: int, body: int, delay_ms: int, loss: float) -> None:
    lines = [Line(MEGABIT, delay_ms * NS_PER_MS, 1 << 16, loss, seed + n) for n in range(2)]
    trial = Trial(*lines, body, limit_bytes=40 * body)
    trial.run(3600)
    assert len(trial.got) == 40


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, WINDOW_PACKETS + 10)), max_size=60))
def test_lies_about_acknowledgements_cost_speed_only(lies: list[tuple[int, int]]) -> None:
    """What Eve says has arrived is repeated once the peer says otherwise, and the window stays within its bounds."""
    trial = Trial(*(Line(MEGABIT, 20 * NS_PER_MS, 1 << 18) for _ in range(2)), 3_000, limit_bytes=600_000)
    for wait_ms, number in lies:
        trial.run(wait_ms / 1000)
        trial.alice.receive(Packet(Kind.ACK, 2, 1, 0, number), trial.now_ns)
        assert 0 < trial.alice.window_bytes <= WINDOW_BYTES
    trial.run(600)
    assert len(trial.got) == 200
    assert trial.sent_bytes < (len(lies) + 4) * 600_000
