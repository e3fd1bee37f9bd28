"""Either end's store is set back to an earlier copy: no pad leaves under two messages, whatever the network hides."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from classical_channel.framing import SEAL, Kind, Packet
from classical_channel.link import POINTERS, read_pointers
from common.errors import KeyStoreError
from tests.pair import End, Pair
from tests.property.test_protocol import Feeder, agree, make_pair, short_blocks_give_key

__all__ = ["short_blocks_give_key"]


class Listener:
    """Who hears everything: the pads that left under two messages; optionally Eve, who hides every claim."""

    def __init__(self, pair: Pair, end: End) -> None:
        self.seen: dict[tuple[int, int], tuple[object, ...]] = {}
        self.twice: list[tuple[int, int]] = []
        self.hide = False
        out, back = (pair.to_bob, pair.to_alice) if end.alice else (pair.to_alice, pair.to_bob)
        out.fault, back.fault = self.listen, self.hide_claims

    def listen(self, number: int, raw: bytes) -> list[tuple[int, bytes]]:
        packet = Packet.decode(raw)
        sealed = packet.body and (packet.kind is Kind.SYN or packet.body[0])
        if sealed:
            segment, offset, _ = SEAL.unpack(packet.body[-SEAL.size :])
            said = packet.kind, packet.sender, packet.receiver, packet.sequence, packet.body[: -SEAL.size]
            if self.seen.setdefault((segment, offset), said) != said:
                self.twice.append((segment, offset))
        return [(0, raw)]

    def hide_claims(self, number: int, raw: bytes) -> list[tuple[int, bytes]]:
        return [(0, replace(Packet.decode(raw), claim=(0, 0)).encode() if self.hide else raw)]


def set_back(blocks: int, name: str, *, machine: bool) -> tuple[Pair, End, Listener, Feeder]:
    """A copy of one end's store is taken after so many blocks, and put back when it would use pads again."""
    pair, sky = make_pair()
    end = pair.alice if name == "alice" else pair.bob
    listener, feeder = Listener(pair, end), Feeder(pair, sky)
    pair.run(lambda: len(end.store.committed()) >= blocks and end.channel.open)
    backup, started = copy.deepcopy(end.store), end.instance
    pair.crash(end)  # the start after the copy, whose number comes again as well
    would_use = read_pointers(backup.get_setting(POINTERS))["send"]
    pair.run(lambda: end.named[-1] >= would_use and len(end.store.committed()) >= blocks + 2)
    pair.on_step = lambda now_ns: None
    pair.settle(2_000_000_000)
    end.store, end.named, end.instance = backup, [], started
    if machine:
        end.counted = backup.count
    return pair, end, listener, feeder


@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize("blocks", range(5))
def test_a_machine_that_was_set_back_skips_what_the_peer_has_seen(blocks: int, name: str) -> None:
    """It makes key again, and not one pad has left twice. What the copy lacks of committed keys is lost."""
    pair, end, listener, feeder = set_back(blocks, name, machine=True)
    pair.crash(end)
    pair.run(lambda: bool(pair.alice.session.ready and pair.bob.session.ready))
    pair.on_step = feeder
    held = set(pair.alice.store.committed()) | set(pair.bob.store.committed())
    pair.run(lambda: bool(set(pair.bob.store.committed()) - held))
    pair.on_step = lambda now_ns: None
    pair.settle()
    assert len(listener.seen) > 4
    assert listener.twice == []
    new = set(pair.bob.store.committed()) - held
    assert {n: pair.alice.store.committed()[n] for n in new} == {n: pair.bob.store.committed()[n] for n in new}


@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize("blocks", range(5))
def test_a_store_that_was_set_back_does_not_start_whatever_eve_hides(blocks: int, name: str) -> None:
    pair, end, listener, _ = set_back(blocks, name, machine=False)
    listener.hide = True
    with pytest.raises(KeyStoreError, match="set back"):
        pair.crash(end)
    assert listener.twice == []


def test_what_neither_counter_nor_claim_can_tell() -> None:
    """The limit, stated in the RUNBOOK: a whole machine is set back, and Eve has broken CURVE and hides the claims."""
    pair, end, listener, _ = set_back(1, "bob", machine=True)
    listener.hide = True
    pair.crash(end)
    pair.settle()
    assert listener.twice
    assert not end.session.ready


def test_the_listener_sees_no_pad_twice_without_a_rollback() -> None:
    pair, sky = make_pair()
    listener = Listener(pair, pair.bob)
    Feeder(pair, sky)
    for _ in range(3):
        pair.run(lambda: pair.bob.session.ready)
        pair.settle(1_000_000_000)
        pair.crash(pair.bob)
    pair.on_step = lambda now_ns: None
    pair.settle()
    agree(pair)
    assert listener.seen
    assert listener.twice == []
