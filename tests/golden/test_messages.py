"""The bytes of every message and packet, frozen: a change here is a new protocol version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from classical_channel.framing import FRAME, PLAIN, SEAL, Kind, Packet
from common.errors import RemoteProtocolError
from common.protocol import messages as m

GOLDEN: dict[str, tuple[m.Message, str]] = {
    "hello": (m.Hello(b"{}"), "017b7d"),
    "announce": (
        m.Announce(5, 1, 131072, 131100, b"n" * 16, b"\x00"),
        "0205000000000000000100000000000200000000001c00020000000000" + "6e" * 16 + "00",
    ),
    "sift": (m.Sift(5, 1, b"\xff"), "03050000000000000001000000ff"),
    "block end": (m.BlockEnd(5, 2, 7), "040500000000000000020000000700000000000000"),
    "syndrome": (
        m.Syndrome(5, 3, 1, 9, 65536, 2, 4, b"\xab"),
        "05050000000000000003000000010900000001000200000004000000ab",
    ),
    "frame result": (m.FrameResult(5, 3, 1, 1, 0x534), "0605000000000000000300000001013405"),
    "verify": (
        m.Verify(5, 15, 1, b"r" * 16, b"t" * 16),
        "0705000000000000000f00000001000000" + "72" * 16 + "74" * 16,
    ),
    "verified": (m.Verified(5, 1, 0x8012, b"n" * 16), "080500000000000000011280" + "6e" * 16),
    "propose": (m.Propose(5, 1024, 64, b"{}"), "0905000000000000000004000000000000400000007b7d"),
    "seed": (m.Seed(5, 0, 2, b"\x01"), "0a0500000000000000000000000200000001"),
    "prepared": (m.Prepared(5, b"a" * 32, b"b" * 32), "0b0500000000000000" + "61" * 32 + "62" * 32),
    "commit": (m.Commit(5, b"a" * 32, b"b" * 32), "0c0500000000000000" + "61" * 32 + "62" * 32),
    "committed": (m.Committed(5), "0d0500000000000000"),
    "refuse": (m.Refuse(5, b"why"), "0e0500000000000000776879"),
    "request": (m.Request(6, b"x"), "0f0600000078"),
    "reply": (m.Reply(6, b"y"), "100600000079"),
    "bye": (m.Bye(), "11"),
    "fixed": (m.Fixed(5, b"a" * 32, b"b" * 32), "120500000000000000" + "61" * 32 + "62" * 32),
    "withdraw": (m.Withdraw(5, b"why"), "130500000000000000776879"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes(name: str) -> None:
    message, expected = GOLDEN[name]
    assert message.encode().hex() == expected
    assert m.decode(bytes.fromhex(expected)) == message


def test_every_message_type_is_frozen_here() -> None:
    assert {type(message) for message, _ in GOLDEN.values()} == set(m.message_types().values())


def test_what_must_be_sealed() -> None:
    sealed = {kind.__name__ for kind in m.message_types().values() if kind.SEALED}
    assert sealed == {"Hello", "Fixed", "Prepared", "Commit", "Committed", "Withdraw", "Request", "Reply", "Bye"}


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "unknown message type none"),
        (b"\xc8", "unknown message type 200"),
        (bytes.fromhex("0b05"), "PREPARED of 2 bytes"),
        (bytes.fromhex("0d050000000000000000"), "COMMITTED of 10 bytes"),
        (bytes.fromhex("0205"), "ANNOUNCE of 2 bytes"),
    ],
)
def test_malformed_messages_are_named(raw: bytes, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        m.decode(raw)


PACKETS = {
    "syn": (
        Packet(Kind.SYN, 3, 0, claim=(5, 48)),
        "514b4432 01 0300000000000000 0000000000000000 0000000000000000 0000000000000000 0500000000000000 30000000",
    ),
    "syn with a seal": (
        Packet(Kind.SYN, 3, 0, claim=(5, 48), body=SEAL.pack(9, 64, b"t" * 16)),
        "514b4432 01 0300000000000000 0000000000000000 0000000000000000 0000000000000000 0500000000000000 30000000"
        "0900000000000000 40000000" + "74" * 16,
    ),
    "data": (
        Packet(Kind.DATA, 3, 2, 7, 6, (5, 48), FRAME.pack(PLAIN, 4) + b"\x11"),
        "514b4432 02 0300000000000000 0200000000000000 0700000000000000 0600000000000000 0500000000000000 30000000"
        "00 0400000000000000 11",
    ),
    "ack": (
        Packet(Kind.ACK, 3, 2, 0, 6, (5, 48)),
        "514b4432 03 0300000000000000 0200000000000000 0000000000000000 0600000000000000 0500000000000000 30000000",
    ),
}


@pytest.mark.parametrize("name", PACKETS)
def test_packet_bytes(name: str) -> None:
    packet, raw = PACKETS[name]
    assert packet.encode() == bytes.fromhex(raw)
    assert Packet.decode(bytes.fromhex(raw)) == packet


def test_the_codec_of_the_description_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "classical_channel" / "PROTOCOL.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    for packet, _ in PACKETS.values():
        fields = (packet.kind, packet.sender, packet.receiver, packet.sequence, packet.acknowledged, packet.claim)
        assert names["encode"](*fields, packet.body) == packet.encode()
        assert names["decode"](packet.encode()) == (*fields, packet.body)


SYN = Packet(Kind.SYN, 1, 0).encode()


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"QKD2", "shorter than its header"),
        (SYN.replace(b"QKD2", b"HTTP"), "magic"),
        (SYN.replace(b"QKD2", b"QKD1"), "another program or version"),
        (Packet(Kind.SYN, 0, 0).encode(), "without a sender"),
        (Packet(Kind.SYN, 1, 0, 5).encode(), "sequence 5"),
        (SYN + bytes(27), "SYN packet with sequence 0 and 27 body bytes"),
        (Packet(Kind.DATA, 1, 1, 0).encode(), "sequence 0"),
        (Packet(Kind.DATA, 1, 1, 1, body=bytes(8)).encode(), "shorter than its fixed part"),
        (Packet(Kind.DATA, 1, 1, 1, body=b"\3" + bytes(8)).encode(), "none of the flags plain, sealed, held"),
        (Packet(Kind.DATA, 1, 1, 1, body=b"\1" + bytes(35)).encode(), "no room for its tag"),
        (Packet(Kind.ACK, 1, 1, body=b"x").encode(), "body"),
        (b"QKD2\x09" + bytes(44), "unknown packet kind 9"),
    ],
)
def test_malformed_packets_are_named(raw: bytes, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        Packet.decode(raw)
