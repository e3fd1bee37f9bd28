"""While an end is held, no block produces key; afterwards blocks do again, and a recording of it all replays."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.node.flight import read_flight
from tests.pair import End, Pair
from tests.property.test_protocol import Feeder, agree, finish, make_pair, short_blocks_give_key  # noqa: F401
from tests.property.test_replay import KEY, Recorded, again

WHILE_NS = 3_000_000_000
WHY = "the store is full"


def hold(pair: Pair, end: End, reason: str | None) -> None:
    end.carry(end.session.hold(reason, pair.now_ns), pair.now_ns)


def wait(pair: Pair) -> None:
    until_ns = pair.now_ns + WHILE_NS
    pair.run(lambda: pair.now_ns >= until_ns)


def held_for_a_while(pair: Pair, end: End) -> None:
    """One block; then nothing more than what was promised already, as long as the end is held; then blocks again."""
    pair.run(lambda: len(pair.alice.store.committed()) >= 1)
    hold(pair, end, WHY)
    wait(pair)
    before = set(pair.alice.store.committed())
    wait(pair)
    assert set(pair.alice.store.committed()) == before
    assert any(WHY in one.reason for one in end.done)
    hold(pair, end, None)
    finish(pair, len(before) + 2)


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_held_end_gives_no_key_until_it_is_let_go(name: str) -> None:
    pair, sky = make_pair()
    Feeder(pair, sky)
    held_for_a_while(pair, getattr(pair, name))


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_hold_outlives_the_session_that_it_began_in(name: str) -> None:
    pair, sky = make_pair()
    Feeder(pair, sky)
    end, other = (pair.alice, pair.bob) if name == "alice" else (pair.bob, pair.alice)
    hold(pair, end, WHY)
    pair.crash(other)
    wait(pair)
    assert pair.alice.store.committed() == {}
    hold(pair, end, None)
    finish(pair, 1)


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_recording_of_a_hold_replays(tmp_path: Path, name: str) -> None:
    run = Recorded(tmp_path, 5)
    held_for_a_while(run.pair, getattr(run.pair, name))
    run.close()
    for paths in run.paths.values():
        for path in paths:
            report = again(read_flight(path, KEY), run.sky).report
            assert report.diverged is None
            assert report.complete
    agree(run.pair)
