"""A recorded session, run again: the same messages and keys, and a difference is found where it begins."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from alice.session import AliceSession
from bob.session import BobSession
from common.config import Config
from common.node.events import EVENTS
from common.node.flight import FlightWriter, Record, read_flight
from common.node.recorder import FlightRecorder
from common.node.replay import Replay, ReplayStore, ReplaySymbols
from common.preamble import PREAMBLE_SLOTS
from common.protocol.effects import Send
from common.protocol.messages import Commit, Refuse, Seed, decode
from common.protocol.session import Identity
from tests.identities import identity_of
from tests.pair import End, Pair
from tests.property.test_protocol import (  # noqa: F401
    SIGNER,
    Feeder,
    Sky,
    config,
    finish,
    short_blocks_give_key,
)

KEY = bytes(32)
ROOT = Path(__file__).parents[2]
SESSIONS = ("alice/session.py", "bob/session.py", "common/protocol/session.py", "common/protocol/block.py")
DAEMONS = ("alice/daemon.py", "bob/daemon.py", "common/node/node.py", "common/node/runtime.py")


class Recorded:
    """Both ends with a recorder each, as the daemons wrap their parts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.sky, self._folder = Sky(seed), folder
        self._random, self._nonces = np.random.default_rng(seed), np.random.default_rng(seed + 1)
        self.writers: list[FlightWriter] = []
        self.recorders: dict[str, FlightRecorder] = {}
        self.paths: dict[str, list[Path]] = {"alice": [], "bob": []}
        self.pair = Pair(End("alice", self._alice), End("bob", self._bob))
        Feeder(self.pair, self.sky)

    def _recorder(self, settings: Config, instance: int) -> tuple[FlightRecorder, Identity]:
        path = self._folder / f"{settings.role}-{instance}.flight"
        writer = FlightWriter(path, KEY, 1 << 30, lambda reason: None)
        self.writers.append(writer)
        self.paths[settings.role].append(path)
        recorder = self.recorders[settings.role] = FlightRecorder(settings, writer, path)
        who = identity_of(settings, SIGNER)
        recorder.begin(who, instance)
        return recorder, who

    def _alice(self, end: End, instance: int) -> AliceSession:
        settings = config("alice")
        recorder, who = self._recorder(settings, instance)
        session = AliceSession(
            settings,
            who,
            recorder.store(end.store),
            recorder.symbols(self.sky),
            recorder.random(lambda n: self._random.integers(0, 256, n, dtype=np.uint8)),
            recorder.answer("refill", lambda: 64),
            recorder.requests(lambda payload: payload[::-1]),
        )
        return recorder.session(session)

    def _bob(self, end: End, instance: int) -> BobSession:
        settings = config("bob")
        recorder, who = self._recorder(settings, instance)
        accept = recorder.requests(lambda payload: payload[::-1])
        nonces = recorder.random(lambda n: self._nonces.integers(0, 256, n, dtype=np.uint8))
        return recorder.session(BobSession(settings, who, recorder.store(end.store), instance, nonces, accept))

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def again(records: Iterable[Record], sky: Sky) -> Replay:
    """As `alice.replay` and `bob.replay`, with the sky in the place of the receiver."""
    run = Replay(records)
    who = run.identity(run.config.agreed())
    session: Any
    if run.config.role == "alice":
        session = AliceSession(
            run.config, who, ReplayStore(run), ReplaySymbols(run), run.random, run.number("refill"), run.reply
        )
    else:
        run.detections = lambda event: sky.detections(event.facts["from_slot"] - PREAMBLE_SLOTS, event.facts["n"])
        session = BobSession(run.config, who, ReplayStore(run), int(run.begin["instance"]), run.random, run.reply)
    run.run(session)
    return run


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Recorded, dict[str, list[Record]]]:
    """Two blocks, a request between the key managers, and a crash of Bob before the third."""
    run = Recorded(tmp_path, 3)
    pair = run.pair
    pair.run(lambda: len(pair.alice.store.committed()) >= 1)
    replies: list[bytes | None] = []

    def heard(reply: bytes | None) -> list[Any]:
        replies.append(reply)
        return []

    pair.alice.carry(pair.alice.session.request(b"one key please", heard), pair.now_ns)
    pair.run(lambda: len(replies) == 1 and len(pair.alice.store.committed()) >= 2)
    pair.crash(pair.bob)
    finish(pair, 3)
    pair.alice.carry(pair.alice.session.stop(), pair.now_ns)
    pair.settle()
    run.close()
    assert replies == [b"esaelp yek eno"]
    return run, {role: list(read_flight(paths[0], KEY)) for role, paths in run.paths.items()}


def test_every_message_and_key_comes_out_again(recorded: tuple[Recorded, dict[str, list[Record]]]) -> None:
    run, records = recorded
    for end in (run.pair.alice, run.pair.bob):
        keys: dict[int, bytes] = {}
        for path in run.paths[end.name]:
            replay = again(read_flight(path, KEY), run.sky)
            assert replay.report.diverged is None
            assert replay.report.complete
            assert replay.report.messages_compared > 10
            keys |= replay.keys
        held = end.store.committed()
        assert len(held) >= 3
        assert {number: keys[number] for number in held} == held  # pads of the channel's pool come before them
        facts = [block["block_id"] for block in replay.report.blocks if block["secret_bits"]]
        assert set(facts) <= set(held)
    assert records["alice"][0].facts["instance"] == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_anywhere_it_replays_to_there(
    recorded: tuple[Recorded, dict[str, list[Record]]], data: st.DataObject
) -> None:
    run, records = recorded
    role = data.draw(st.sampled_from(["alice", "bob"]))
    cut = data.draw(st.integers(1, len(records[role]) - 1))
    report = again(records[role][:cut], run.sky).report
    assert report.diverged is None
    assert not report.complete
    assert report.ended == "cut"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_first_message_that_differs_is_found(
    recorded: tuple[Recorded, dict[str, list[Record]]], data: st.DataObject
) -> None:
    """One byte of one recorded message is changed: that message and that byte are named."""
    run, records = recorded
    role = data.draw(st.sampled_from(["alice", "bob"]))
    sent = [i for i, record in enumerate(records[role]) if record.kind == "sent"]
    number = data.draw(st.integers(0, len(sent) - 1))
    raw = bytearray(records[role][sent[number]].raw)
    assume(len(raw) > 1)
    at = data.draw(st.integers(1, len(raw) - 1))  # byte 0 is the type
    raw[at] ^= 1
    changed = list(records[role])
    changed[sent[number]] = Record("sent", {}, bytes(raw))
    diverged = again(changed, run.sky).report.diverged
    assert diverged is not None
    assert (diverged["message"], diverged["first_byte"]) == (number + 1, at)


def test_other_random_bytes_show_where_they_are_used_first(recorded: tuple[Recorded, dict[str, list[Record]]]) -> None:
    run, records = recorded
    changed = list(records["alice"])
    seeds = [i for i, r in enumerate(changed) if r.kind == "answer" and r.facts["what"] == "random" and len(r.raw) > 16]
    old = changed[seeds[0]]
    changed[seeds[0]] = Record("answer", old.facts, bytes(len(old.raw)))
    diverged = again(changed, run.sky).report.diverged
    assert diverged is not None
    assert diverged["what"] == "after 'job' the message SEED is not the recorded one"
    sent = [decode(r.raw) for r in changed if r.kind == "sent"]
    assert isinstance(sent[diverged["message"] - 1], Seed)


@pytest.mark.parametrize(("byte", "what"), [(-1, "the key of block"), (0, "the authentication key 'pads/")])
def test_another_key_from_the_same_messages_is_found(
    recorded: tuple[Recorded, dict[str, list[Record]]], monkeypatch: pytest.MonkeyPatch, byte: int, what: str
) -> None:
    """A build whose amplification has changed: every message is the same, the key is not."""
    from common.protocol import jobs

    universal_hash = jobs.universal_hash

    def other(*args: Any) -> Any:
        secret = universal_hash(*args)
        secret[byte] ^= 1
        return secret

    monkeypatch.setattr(jobs, "universal_hash", other)
    run, records = recorded
    for role in ("alice", "bob"):
        diverged = again(records[role], run.sky).report.diverged
        assert diverged is not None
        assert diverged["what"].startswith(what)
        assert diverged["what"].endswith("is not the recorded one")


@pytest.mark.parametrize("kind", ["message", "job", "opened", "detections"])
def test_a_missing_event_is_a_difference(recorded: tuple[Recorded, dict[str, list[Record]]], kind: str) -> None:
    run, records = recorded
    changed = list(records["bob"])
    del changed[next(i for i, record in enumerate(changed) if record.kind == kind)]
    assert again(changed, run.sky).report.diverged is not None


@pytest.mark.parametrize("what", ["void_filling", "void", "hold", "stop"])
def test_a_block_that_was_given_up_is_given_up_again(tmp_path: Path, what: str) -> None:
    """By whatever event: dropped because post-processing was behind, voided by an overflow, held, stopped."""
    run = Recorded(tmp_path, 3)
    pair, bob = run.pair, run.pair.bob
    pair.on_step = lambda now_ns: None
    pair.run(lambda: pair.alice.session.ready and bob.session.ready)
    session = bob.session
    run.recorders["bob"].produced(1, batch := run.sky.detections(0, 100))
    bob.carry(session.on_detections(batch, pair.now_ns), pair.now_ns)
    given_up = {
        "void_filling": lambda: session.void_filling("dropped: post-processing is behind", pair.now_ns),
        "void": lambda: session.void(0, 1 << 40, "overflow", pair.now_ns),
        "hold": lambda: session.hold("the light is too strong", pair.now_ns),
        "stop": session.stop,
    }[what]()
    number = session.next_segment()
    assert any(isinstance(effect, Send) and isinstance(effect.message, Refuse) for effect in given_up)
    bob.carry(given_up, pair.now_ns)
    pair.settle(1_000_000_000)
    run.close()
    records = list(read_flight(run.paths["bob"][0], KEY))
    assert {"opened", "message", "detections", "segment"} <= {record.kind for record in records}
    assert number > 1
    report = again(records, run.sky).report
    assert report.diverged is None
    assert [block["state"] for block in report.blocks] == ["refused"]


def test_a_commit_is_settled_again_by_a_later_session(tmp_path: Path) -> None:
    """What the store says of a block of an earlier process (certificate, mark, state) is recorded and answered."""
    run = Recorded(tmp_path, 3)
    pair = run.pair
    pair.run(lambda: any(state == "decided" for state, _ in pair.alice.store.blocks.values()))
    pair.crash(pair.alice)
    pair.crash(pair.bob)
    finish(pair, 2)
    run.close()
    for paths in run.paths.values():
        assert len(paths) == 2
        for path in paths:
            assert again(read_flight(path, KEY), run.sky).report.diverged is None
    sent = [decode(r.raw) for r in read_flight(run.paths["alice"][1], KEY) if r.kind == "sent"]
    assert any(isinstance(message, Commit) and message.block_id == 1 << 32 | 1 for message in sent)


OTHERS = {"take_check_counts": "hands out what was public and forgets it: nothing of the conversation depends on it"}
"""Public method that is called from outside -> why it is no event."""


def attributes(path: str) -> Iterator[tuple[str, str]]:
    """(object, attribute) of every `object.attribute` and `self.object.attribute` in a file."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            yield (node.value.id if isinstance(node.value, ast.Name) else node.value.attr), node.attr


@pytest.mark.parametrize("session", [AliceSession, BobSession])
def test_every_public_event_of_a_session_is_in_the_list(session: type) -> None:
    """What nothing inside the sessions calls is there for the outside: an event, which both must know."""
    inside = {name for path in SESSIONS for _, name in attributes(path)}
    public = {name for name, _ in inspect.getmembers(session, inspect.isfunction) if not name.startswith("_")}
    assert public - inside - set(OTHERS) <= set(EVENTS.values())
    assert public & set(EVENTS.values()) >= {"opened", "handle", "request", "stop", "hold"}


def test_the_daemons_call_nothing_else() -> None:
    called = {
        name for path in DAEMONS for of, name in attributes(path) if of in ("session", "_session")
        if inspect.isfunction(getattr(BobSession, name, None))
    }  # fmt: skip
    assert called <= set(EVENTS.values()) | set(OTHERS)
    assert set(EVENTS.values()) <= called


def test_no_event_happens_inside_another() -> None:
    """The recorder listens to the object itself: an event that a session told itself would be recorded, and happen
    twice in the replay."""
    for path in SESSIONS:
        assert not {name for of, name in attributes(path) if of == "self"} & set(EVENTS.values()), path
