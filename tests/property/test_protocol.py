"""Whatever happens to single packets and processes, both ends agree on every committed key."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from alice.session import AliceSession
from bob.session import BobSession
from common.auditor.verify_certificate import faults, faults_between, parse
from common.config import Config
from common.config_file import parse_config
from common.datatypes import Detections
from common.errors import HandshakeMismatch, RemoteProtocolError
from common.postprocessing.amplification import FAMILIES
from common.preamble import PREAMBLE_SLOTS
from common.protocol.block import Block, settled_facts
from common.protocol.messages import Seed
from common.protocol.session import Identity
from common.protocol.transitions import Role
from common.security.finite_key import key_length
from tests.identities import identity_of
from tests.pair import LINK_SECRET, End, Pair

N_SLOTS = 1 << 17
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
QBER = 0.02
SETTINGS = """
[link]
p_z_alice = 0.5
p_z_bob = 0.7
[detectors]
cross_basis = "random"
[blocks]
block_size_detections = 20000
chunk_detections = 8192
[reconciliation]
frame_length_bits = 4096
[source]
g2_upper = 1e-9
[security]
accounting = "paper"
"""


class Sky:
    """What Alice sent and Bob saw, without physics."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.bases = (rng.random(N_SLOTS) < 0.5).astype(np.uint8)
        self.bits = np.where(self.bases == 0, rng.integers(0, 2, N_SLOTS), 0).astype(np.uint8)
        self.measured = (rng.random(N_SLOTS) < 0.3).astype(np.uint8)
        wrong = (rng.random(N_SLOTS) < QBER).astype(np.uint8)
        coin = rng.integers(0, 2, N_SLOTS).astype(np.uint8)
        self.outcomes = np.where(self.bases == self.measured, self.bits ^ wrong, coin).astype(np.uint8)
        self.several = np.minimum(rng.integers(0, 100, N_SLOTS), 3)

    def lookup(self, slots: Any) -> tuple[Any, Any, Any]:
        at = slots % N_SLOTS
        return self.bases[at], self.bits[at], np.zeros(slots.size, np.uint8)

    def release_before(self, slot: int) -> None:
        pass

    def detections(self, start: int, count: int) -> Detections:
        first = PREAMBLE_SLOTS + start
        slots = np.arange(first, first + count, dtype=np.int64)
        at = slots % N_SLOTS
        crossed, doubles = slots[self.several[at] == 1], slots[self.several[at] == 2]
        return Detections(slots, self.measured[at], self.outcomes[at], first, first + count, doubles, crossed)


def config(role: str, extra: str = "") -> Config:
    return parse_config(f'role = "{role}"\n' + SETTINGS + extra, Path())


@pytest.fixture(autouse=True)
def short_blocks_give_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block this small has no composable key, and its seed is short: length and parts are set, the rest is real."""
    give_key(monkeypatch, 1024)
    monkeypatch.setattr("alice.session.SEED_PART_BYTES", 1000)


def give_key(monkeypatch: pytest.MonkeyPatch, ell_bits: int) -> None:
    def generous(*args: Any, **kwargs: Any) -> Any:
        return replace(key_length(*args, **kwargs), ell_bits=ell_bits, refusal=None)

    monkeypatch.setattr("common.postprocessing.estimation.key_length", generous)


def make_pair(
    seed: int = 1, bob_extra: str = "", refill: int = 64, family: str = "toeplitz", sky: Sky | None = None
) -> tuple[Pair, Sky]:
    sky = sky or Sky(seed)
    rng = np.random.default_rng(seed)
    amplification = f'[amplification]\nfamily = "{family}"\n'

    def accept(payload: bytes) -> bytes:
        return payload[::-1]

    def identity(settings: Config) -> Identity:
        return identity_of(settings, SIGNER)

    def random_bytes(n: int) -> Any:
        return rng.integers(0, 256, n, dtype=np.uint8)

    def alice(end: End, instance: int) -> AliceSession:
        settings = config("alice", amplification)

        def refill_bytes() -> int:
            return min(end.pool.missing_bits // 4, 480) if end.pool_target_bits else refill

        return AliceSession(settings, identity(settings), end.store, sky, random_bytes, refill_bytes, accept)

    def bob(end: End, instance: int) -> BobSession:
        settings = config("bob", bob_extra + amplification)
        return BobSession(settings, identity(settings), end.store, instance, random_bytes, accept)

    return Pair(End("alice", alice), End("bob", bob)), sky


class Feeder:
    """Gives Bob detections as long as he has few blocks under way."""

    def __init__(self, pair: Pair, sky: Sky) -> None:
        self.pair, self.sky, self.position = pair, sky, 0
        pair.on_step = self

    def __call__(self, now_ns: int) -> None:
        session: Any = self.pair.bob.session
        if session.ready and session.backlog_blocks < 2 and session.backlog_detections < 30_000:
            batch = self.sky.detections(self.position, 4096)
            self.position += 4096
            self.pair.bob.carry(session.on_detections(batch, now_ns), now_ns)


def agree(pair: Pair) -> None:
    """After settling: the same committed keys at both ends, certified alike, nothing that could still be split."""
    alice, bob = pair.alice.store.committed(), pair.bob.store.committed()
    assert alice == bob
    assert len(set(alice.values())) == len(alice), "one key under two names"
    for number, key in alice.items():
        both = [parse(end.store.certificates[number]) for end in (pair.alice, pair.bob)]
        assert faults_between(both) == [], "the two ends certify different blocks"
        assert not any("sign" in fault for one in both for fault in faults(one))
        assert not any(key[:8].hex() in certificate for certificate in map(str, both))
    for sender, receiver in ((pair.alice.pool, pair.bob.pool), (pair.bob.pool, pair.alice.pool)):
        assert sender._next_send == receiver._next_receive, "the ends do not agree on which pads are left"


def finish(pair: Pair, blocks: int) -> None:
    pair.run(lambda: len(pair.alice.store.committed()) >= blocks)
    pair.on_step = lambda now_ns: None
    pair.settle()
    agree(pair)


def test_both_ends_tell_the_same_of_the_devices_and_so_does_the_certificate() -> None:
    pair, sky = make_pair()
    Feeder(pair, sky)
    finish(pair, 1)
    number = min(pair.bob.store.certificates)
    ours, theirs = (next(f for f in end.done if f.block_id == number) for end in (pair.bob, pair.alice))
    settled = settled_facts(pair.bob.store.certificates[number])
    n = ours.detections
    slots = np.arange(PREAMBLE_SLOTS, PREAMBLE_SLOTS + n) % N_SLOTS
    in_x, sent_x, bits = sky.measured[slots] == 1, sky.bases[slots] == 1, sky.outcomes[slots]
    for facts in (ours, theirs, settled):
        assert facts.x_share == in_x.mean()
        assert facts.z_sent_share == (~sent_x).mean()
        assert facts.v_share == pytest.approx(bits[~in_x & ~sent_x].mean(), abs=2.0**-17)
        assert facts.l_share == bits[in_x & ~sent_x].mean()
        assert facts.cross_clicks == (sky.several[slots] == 1).sum()
        assert facts.double_clicks == (sky.several[slots] == 2).sum()


@pytest.mark.parametrize("only_bob", [False, True])
def test_a_block_with_too_many_errors_is_refused_by_either_end(monkeypatch: pytest.MonkeyPatch, only_bob: bool) -> None:
    wanted = SETTINGS.replace("[reconciliation]", f"[reconciliation]\nqber_abort = {QBER / 2}")
    monkeypatch.setattr("tests.property.test_protocol.SETTINGS", wanted)
    if only_bob:
        noise = Block.noise
        monkeypatch.setattr(Block, "noise", lambda block: noise(block) if block.role is Role.BOB else None)
    pair, sky = make_pair()
    Feeder(pair, sky)
    pair.run(lambda: len(pair.alice.done) >= 2)
    refuser = pair.bob if only_bob else pair.alice
    pair.settle(100_000_000)
    for facts in refuser.done:
        assert (facts.state, facts.secret_bits) == ("refused", 0)
        assert re.fullmatch(r"the QBER of [12]\.\d % is above reconciliation.qber_abort = 0.01", facts.reason)
    assert not pair.alice.store.blocks | pair.bob.store.blocks


def test_what_the_ends_publish_of_errors_was_announced() -> None:
    """Certificates and facts of both ends say the same number; the exact one never leaves the decoder."""
    pair, sky = make_pair()
    Feeder(pair, sky)
    finish(pair, 2)
    for number in pair.alice.store.committed():
        both = [json.loads(end.store.certificates[number])["reconciliation"] for end in (pair.alice, pair.bob)]
        assert both[0] == both[1]
    told = {facts.block_id: facts.qber for facts in pair.alice.done}
    assert {facts.block_id: facts.qber for facts in pair.bob.done if facts.block_id in told} == told


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_commit_with_equal_keys(family: str) -> None:
    pair, sky = make_pair(family=family)
    Feeder(pair, sky)
    finish(pair, 2)
    facts = pair.bob.done[0]
    assert 0.01 < facts.qber < 0.03
    assert facts.leak_ec_bits == pair.alice.done[0].leak_ec_bits
    assert facts.slots == 20480


def test_a_seed_has_one_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ones beyond the seed's bits are Alice's fault, and Bob says so before he touches the key."""
    monkeypatch.setattr("alice.session.Seed", lambda *fields: Seed(*fields[:3], fields[3][:-1] + b"\xff"))
    pair, sky = make_pair()
    Feeder(pair, sky)
    with pytest.raises(RemoteProtocolError, match="ones beyond its"):
        finish(pair, 1)


@settings(max_examples=25)
@given(
    st.integers(0, 120),
    st.sampled_from(["lose", "duplicate", "delay"]),
    st.booleans(),
    st.integers(1, 3000),
)
def test_one_faulty_packet(number: int, kind: str, to_bob: bool, delay_ms: int) -> None:
    def fault(n: int, packet: bytes) -> list[tuple[int, bytes]]:
        late = (delay_ms * 1_000_000, packet)
        if n != number:
            return [(0, packet)]
        return {"lose": [], "duplicate": [(0, packet), late], "delay": [late]}[kind]

    pair, sky = make_pair()
    (pair.to_bob if to_bob else pair.to_alice).fault = fault
    Feeder(pair, sky)
    finish(pair, 2)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=4))
def test_kill_minus_nine_at_any_step(kills: list[tuple[int, bool]]) -> None:
    pair, sky = make_pair()
    feeder = Feeder(pair, sky)
    for steps, at_alice in kills:
        before = pair.alice.store.committed() | pair.bob.store.committed()
        for _ in range(steps):
            pair.step()
        pair.crash(pair.alice if at_alice else pair.bob)
        after = pair.alice.store.committed() | pair.bob.store.committed()
        assert before.items() <= after.items(), "a committed key was lost"
    assert feeder.position > 0 or kills[0][0] < 40
    finish(pair, len(pair.alice.store.committed()) + 1)


@pytest.mark.parametrize("at_alice", [True, False])
def test_a_block_settled_by_a_later_handshake_is_reported_once(at_alice: bool) -> None:
    """Alice had decided when one end was killed: the key is good, and both ends say so."""
    pair, sky = make_pair()
    Feeder(pair, sky)
    pair.run(lambda: ("decided", 1 << 32 | 1) in pair.alice.store.history)
    killed = pair.alice if at_alice else pair.bob
    assert ("committed", 1 << 32 | 1) not in pair.alice.store.history
    pair.crash(killed)
    finish(pair, 2)
    for end in (pair.alice, pair.bob):
        told = [facts for facts in end.done if facts.state in ("committed", "decided")]
        assert [facts.block_id for facts in told] == sorted(end.store.committed())
        assert all(facts.secret_bits == 1024 and facts.bits_per_pulse > 0 and facts.f_ec > 1 for facts in told)


def test_restarts_do_not_empty_the_authentication_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pads are soon used up: who restarts must know what the other has left of those that came later."""
    give_key(monkeypatch, 4096)
    pair, sky = make_pair()
    pair.alice, pair.bob = (
        End(end.name, end._make_session, LINK_SECRET[:2080], pool_target_bits=1 << 13) for end in (pair.alice, pair.bob)
    )
    Feeder(pair, sky)
    for killed in [(), (pair.alice,), (pair.bob,), (pair.alice, pair.bob)] * 3:
        for end in killed:
            pair.crash(end)
        blocks = len(pair.alice.store.committed()) + 6
        pair.run(lambda blocks=blocks: len(pair.bob.store.committed()) >= blocks)
    finish(pair, blocks)
    used_up = min(sorted({number for number, _ in end.named})[-3] for end in (pair.alice, pair.bob))
    assert used_up > 0
    for end in (pair.alice, pair.bob):
        kept = [int(name.removeprefix("pads/")) for name in end.store.settings if name.startswith("pads/")]
        assert min(kept) >= used_up, "pads that nobody will name any more are kept"


def test_the_kill_property_can_fail() -> None:
    """Without Alice's durable decision a kill between her COMMIT and Bob's answer splits the keys."""
    split = False
    for steps in range(40, 400, 3):
        pair, sky = make_pair()
        pair.alice.store.decide = lambda block_id: None  # type: ignore[method-assign]
        Feeder(pair, sky)
        for _ in range(steps):
            pair.step()
        pair.crash(pair.alice)
        pair.on_step = lambda now_ns: None
        pair.settle(3_000_000_000)
        alice, bob = set(pair.alice.store.blocks), set(pair.bob.store.committed())
        split |= not bob <= alice
        if split:
            break
    assert split


@pytest.mark.parametrize(
    ("field", "bob_extra"),
    [
        ("security.eps_total", "eps_total = 1e-9\n"),
        ("keys.auth_pool_target_bits", "[keys]\nauth_pool_target_bits = 8192\n"),
    ],
)
def test_different_settings_are_named(field: str, bob_extra: str) -> None:
    pair, _ = make_pair(bob_extra=bob_extra)
    with pytest.raises(HandshakeMismatch, match=re.escape(field)):
        pair.settle()


def test_different_link_secrets_never_open_a_session() -> None:
    """A packet that proves nothing ends nothing: both ends wait, and say why."""
    pair, _ = make_pair()
    pair.bob = End("bob", pair.bob._make_session, secret=bytes(9000))
    pair.settle()
    for end in (pair.alice, pair.bob):
        assert not end.session.ready
        assert "link secrets differ" in str(end.channel.notice(pair.now_ns))


@settings(max_examples=25)
@given(st.integers(4, 90), st.booleans(), st.integers(37, 5000), st.integers(1, 255))
def test_a_tampered_packet_never_gives_different_keys(number: int, to_bob: bool, offset: int, mask: int) -> None:
    def fault(n: int, packet: bytes) -> list[tuple[int, bytes]]:
        if n != number or len(packet) <= 38:
            return [(0, packet)]
        at = 38 + offset % (len(packet) - 38)
        return [(0, packet[:at] + bytes([packet[at] ^ mask]) + packet[at + 1 :])]

    pair, sky = make_pair()
    (pair.to_bob if to_bob else pair.to_alice).fault = fault
    Feeder(pair, sky)
    try:
        pair.run(lambda: len(pair.alice.store.committed()) >= 2)
        pair.on_step = lambda now_ns: None
        pair.settle()
    except RemoteProtocolError:
        pass
    alice, bob = pair.alice.store.blocks, pair.bob.store.blocks
    for number_, (state, key) in bob.items():
        if state == "committed":
            assert alice[number_] in (("committed", key), ("decided", key))


def test_requests_are_answered_by_the_other_end() -> None:
    pair, _ = make_pair()
    pair.run(lambda: pair.alice.session.ready and pair.bob.session.ready)
    answers: list[bytes | None] = []

    def then(answer: bytes | None) -> list[Any]:
        answers.append(answer)
        return []

    pair.alice.carry(pair.alice.session.request(b"abc", then), pair.now_ns)
    pair.run(lambda: bool(answers))
    assert answers == [b"cba"]


@pytest.mark.parametrize("overflow", [(-2000, 0), (-1, 0), (-4000, -3900)])
def test_no_key_holds_detections_of_a_void_range(overflow: tuple[int, int]) -> None:
    """The batch in which tags were lost completes a block: it is full, and refused all the same."""
    pair, sky = make_pair()
    session: Any = pair.bob.session
    pair.run(lambda: session.ready)
    n = config("bob").blocks.block_size_detections
    batch = sky.detections(0, n)
    pair.bob.carry(session.on_detections(batch, pair.now_ns), pair.now_ns)
    assert session.filling_detections == 0
    lost = [batch.to_slot + at for at in overflow]
    pair.bob.carry(session.void(*lost, "overflow", pair.now_ns), pair.now_ns)
    pair.settle()
    assert not pair.bob.store.committed()
    assert [facts.reason for facts in pair.bob.done] == ["overflow"]


def test_a_void_range_spares_the_blocks_before_it_and_drops_what_still_comes_of_it() -> None:
    pair, sky = make_pair()
    session: Any = pair.bob.session
    pair.run(lambda: session.ready)
    n = config("bob").blocks.block_size_detections
    good, rest = sky.detections(0, n), sky.detections(n, n)
    pair.bob.carry(session.on_detections(good, pair.now_ns), pair.now_ns)
    pair.bob.carry(session.void(good.to_slot, good.to_slot + 5000, "overflow", pair.now_ns), pair.now_ns)
    for at in range(0, n, 1000):
        part = sky.detections(n + at, 1000)
        pair.bob.carry(session.on_detections(part, pair.now_ns), pair.now_ns)
    pair.run(lambda: len(pair.bob.store.committed()) >= 1)
    assert session.filling_detections + sum(map(len, session._waiting)) == len(rest) - 5000
    pair.settle()
    assert session._filling.from_slot is None or session._filling.from_slot >= good.to_slot + 5000
    agree(pair)


def test_slot_numbers_that_begin_anew_end_a_void_range() -> None:
    pair, sky = make_pair()
    session: Any = pair.bob.session
    pair.run(lambda: session.ready)
    first = sky.detections(5000, 1000)
    pair.bob.carry(session.on_detections(first, pair.now_ns), pair.now_ns)
    pair.bob.carry(session.void(first.from_slot, first.to_slot + 10_000, "slip", pair.now_ns), pair.now_ns)
    pair.bob.carry(session.on_detections(sky.detections(6000, 500), pair.now_ns), pair.now_ns)
    assert sum(map(len, session._waiting)) == 0
    pair.bob.carry(session.on_detections(sky.detections(100, 500), pair.now_ns), pair.now_ns)
    assert sum(map(len, session._waiting)) == 500


def test_a_block_given_up_before_it_was_announced_is_nothing() -> None:
    pair, sky = make_pair()
    session: Any = pair.bob.session
    pair.run(lambda: session.ready)
    pair.bob.carry(session.on_detections(sky.detections(0, 100), pair.now_ns), pair.now_ns)
    pair.bob.carry(session.void_filling("slip", pair.now_ns), pair.now_ns)
    pair.settle()
    feeder = Feeder(pair, sky)
    feeder.position = 4096
    pair.run(lambda: len(pair.bob.store.committed()) >= 1)
    pair.on_step = lambda now_ns: None
    pair.settle()
    agree(pair)


@pytest.mark.parametrize("restarted", ["alice", "bob"])
def test_what_no_block_shows_alone_is_refused_from_the_sum_of_blocks_on(restarted: str) -> None:
    """A twelfth of R's clicks is missing; one end's restart forgets the sum there, and the other end still refuses."""
    pair, sky = make_pair()
    of_z_pulses = (sky.bases == 0) & (sky.measured == 1)
    rng = np.random.default_rng(3)
    sky.outcomes[of_z_pulses & (sky.outcomes == 0) & (rng.random(N_SLOTS) < 1 / 12)] = 1
    Feeder(pair, sky)
    pair.run(lambda: len(pair.bob.done) >= 6)
    refused = [facts for facts in pair.bob.done if facts.state == "refused"]
    assert 0 < len(pair.bob.store.committed()) < 4
    assert len(refused) > 1
    assert all("detector R is too weak" in facts.reason and facts.device_fault for facts in refused)
    assert any("blocks together" in facts.device_fault for facts in pair.alice.done)
    before = len(pair.bob.store.committed())
    end: Any = getattr(pair, restarted)
    pair.crash(end)
    pair.run(lambda: len(end.done) >= 8)
    assert len(pair.bob.store.committed()) == before
