"""Tamper, lose, kill, restart: whatever the schedule, both ends hold equal keys and pads of a block, or neither does.

A few hundred schedules run with every `make test`. Many more:

    pytest -m schedules -n 0 tests/property/test_schedules.py              (10 000 on one core)
    QKD_SCHEDULES=20000:5000 pytest -m schedules ...                       (5 000, from number 20 000 on)

A failing schedule is printed as the line that repeats it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from alice.session import AliceSession
from bob.session import BobSession
from classical_channel.channel import Channel, Received
from classical_channel.framing import Frame
from common.config import Config
from common.protocol.block import Block
from common.protocol.messages import Fixed
from common.protocol.session import Identity
from common.security.finite_key import key_length
from tests.identities import identity_of
from tests.pair import End, Pair
from tests.property.test_protocol import SIGNER, Sky, config
from tests.schedules import DEEDS, FIELDS, Schedule, WatchedStore, World

CHUNK = 3 << 9
DETECTIONS = 2 * CHUNK
ALWAYS, MANY = 300, 10_000
SKY = Sky(7)


@lru_cache
def tiny(role: str) -> tuple[Config, Identity]:
    """Blocks of two chunks and one frame."""
    whole = config(role)
    blocks = whole.blocks.model_copy(update={"block_size_detections": DETECTIONS, "chunk_detections": CHUNK})
    settings = whole.model_copy(update={"blocks": blocks})
    return settings, identity_of(settings, SIGNER)


@pytest.fixture(autouse=True)
def cheap_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block this small has no key, and its length takes longer than all the rest: one ledger serves all."""
    made: list[Any] = []

    def length(tallies: Any, *args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(replace(key_length(tallies, *args, **kwargs), ell_bits=768, refusal=None))
        return replace(made[0], tallies=tallies)

    monkeypatch.setattr("common.postprocessing.estimation.key_length", length)
    monkeypatch.setattr("alice.session.SEED_PART_BYTES", 100)


def make_world(
    schedule: Schedule, alice: Callable[..., Any] = AliceSession, bob: Callable[..., Any] = BobSession
) -> World:
    random = np.random.default_rng(schedule.seed)

    def random_bytes(n: int) -> Any:
        return random.integers(0, 256, n, dtype=np.uint8)

    def make_alice(end: End, instance: int) -> Any:
        return alice(*tiny("alice"), end.store, SKY, random_bytes, lambda: 64, bytes)

    def make_bob(end: End, instance: int) -> Any:
        return bob(*tiny("bob"), end.store, instance, random_bytes, bytes)

    stores = WatchedStore(), WatchedStore()
    stores[0].peer, stores[1].peer = stores[1], stores[0]
    pair = Pair(End("alice", make_alice, store=stores[0]), End("bob", make_bob, store=stores[1]))
    position = 0

    def feed(now_ns: int) -> float:
        nonlocal position
        session: Any = pair.bob.session
        if not session.ready or session.backlog_blocks >= 2:
            return 0.0
        batch = SKY.detections(position, CHUNK)
        position += CHUNK
        pair.bob.carry(session.on_detections(batch, now_ns), now_ns)
        return CHUNK / DETECTIONS

    return World(schedule, pair, feed)


def run(seed: int, **sessions: Any) -> World:
    """One schedule; a failure names it."""
    schedule = Schedule(seed)
    world = make_world(schedule, **sessions)
    try:
        world.run()
    except Exception as error:
        command = f"QKD_SCHEDULES={seed}:1 pytest -m schedules -n 0 tests/property/test_schedules.py"
        raise AssertionError(f"{type(error).__name__}: {error}\n{schedule}\nrepeat it: {command}") from error
    return world


def test_some_schedules() -> None:
    worlds = [run(seed) for seed in range(ALWAYS)]
    assert sum(world.failed_tags for world in worlds) > ALWAYS // 20, "Eve was hardly ever noticed: is she there?"
    assert sum(len(world.pair.alice.store.committed()) for world in worlds) > 2 * ALWAYS
    done = set().union(*(world.done for world in worlds))
    assert {name for _, name in done} >= set(FIELDS) - {"BYE"}, "some message was never touched"
    assert {what for what, _ in done} == set(DEEDS)


@pytest.mark.schedules
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_schedules() -> None:
    first, count = map(int, os.environ.get("QKD_SCHEDULES", f"0:{MANY}").split(":"))
    for seed in range(first, first + count):
        run(seed)


def test_the_property_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """With FIXED's tag believed unseen, and nothing compared, some schedule splits a key: found among the first."""
    honest = Channel._open

    def careless(channel: Channel, sequence: int, body: bytes) -> Received:
        with monkeypatch.context() as patch:
            if Frame.decode(body).message[:1] == bytes([Fixed.TYPE]):
                patch.setattr("classical_channel.channel.equal_tags", lambda ours, theirs: True)
            return honest(channel, sequence, body)

    monkeypatch.setattr(Channel, "_open", careless)
    monkeypatch.setattr(Block, "compare", lambda block, message: None)
    monkeypatch.setattr("bob.session.compare", lambda message, ours: None)
    with pytest.raises(AssertionError, match=r"one end commits|the two ends commit|keys differ|pads differ"):
        _ = [run(seed) for seed in range(ALWAYS)]
