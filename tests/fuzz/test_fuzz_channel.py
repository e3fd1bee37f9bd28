"""Whatever bytes arrive, only the errors of the contract come out, and never an accepted message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from classical_channel.channel import Channel, Received
from classical_channel.keypool import KeyPool
from classical_channel.stream import ReliableStream
from common.errors import RemoteProtocolError
from common.protocol.messages import decode

SECRET = bytes(range(256)) * 9


@given(st.lists(st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda b: b"QKD2\x02" + b)), max_size=20))
def test_any_bytes(packets: list[bytes]) -> None:
    channel = Channel(ReliableStream(7), KeyPool(SECRET, alice=True), alice=True)
    for raw in packets:
        try:
            for event in channel.receive(raw, 0):
                assert not (isinstance(event, Received) and event.sealed)
        except RemoteProtocolError:
            pass


@given(st.binary(max_size=100))
def test_any_message(raw: bytes) -> None:
    try:
        message = decode(raw)
    except RemoteProtocolError:
        return
    assert message.encode() == raw
