"""One peer at a time: a second process with the same keys gets the place when the first has gone, not before."""

from __future__ import annotations

from classical_channel.framing import Kind, Packet
from classical_channel.zmq_process import AT_ONCE_S, BUSY_S, PRESENT_S, Seat


def packet(sender: int) -> bytes:
    return Packet(Kind.ACK, sender, 1).encode()


def test_the_first_process_keeps_its_place_while_it_is_heard() -> None:
    seat = Seat()
    for step in range(200):
        now_s = 0.25 * step
        assert seat.admits(packet(7), now_s)
        assert seat.admits(packet(8), now_s + 0.1) is False
    assert seat.rivals >= 30


def test_a_process_started_anew_gets_the_place_after_a_silence_and_is_no_rival() -> None:
    seat = Seat()
    assert seat.admits(packet(7), 0.0)
    assert not seat.admits(packet(8), 0.9 * PRESENT_S)
    assert seat.admits(packet(8), 1.1 * PRESENT_S)
    for step in range(10):
        assert seat.admits(packet(8), 2 * PRESENT_S + step)
    assert seat.rivals == 0


def test_one_attempt_is_told_once() -> None:
    seat = Seat()
    assert seat.admits(packet(7), 0.0)
    assert not seat.admits(packet(8), 0.5)
    for step in range(100):
        assert seat.admits(packet(7), 0.6 + 0.1 * step)
        assert seat.rivals == (0.6 + 0.1 * step - 0.5 > AT_ONCE_S)


def test_further_connections_wait_only_while_the_first_process_is_heard() -> None:
    seat = Seat()
    seat.admits(packet(7), 0.0)
    assert not seat.crowded(0.1)
    seat.admits(packet(8), 0.2)
    assert seat.crowded(0.3)
    assert not seat.crowded(0.1 + AT_ONCE_S), "its own connection may have broken: it must be able to come back"
    seat.admits(packet(7), 1.5)
    assert not seat.crowded(0.3 + BUSY_S)


def test_what_is_no_packet_takes_no_place() -> None:
    seat = Seat()
    assert seat.admits(b"hello", 0.0)
    assert seat.admits(packet(7), 0.1)
    assert seat.admits(b"world", 0.2)
    assert seat.admits(b"", 0.3)
