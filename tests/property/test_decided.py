"""Alice has decided, and her loop has not heard of it: whatever ends her blocks at that moment leaves the key alone."""

from __future__ import annotations

import heapq
from functools import partial

import pytest

from tests.pair import JOB_NS, End, Pair
from tests.property.test_protocol import (  # noqa: F401
    Feeder,
    agree,
    make_pair,
    short_blocks_give_key,
)

FIRST = 1 << 32 | 1


def run_jobs(self: End, now_ns: int) -> None:
    """As `End.run_jobs`, where every job's work is long done when its result is heard of."""
    while self.jobs and self.jobs[0][0] <= now_ns:
        at, number, job, result = heapq.heappop(self.jobs)
        if result:
            self.carry(job.then(result[0]), now_ns)
        else:
            heapq.heappush(self.jobs, (at + JOB_NS[self.name], number, job, [job.work()]))


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> Pair:
    """The first block is decided in the store, and nothing has been said of it."""
    monkeypatch.setattr(End, "run_jobs", run_jobs)
    pair, sky = make_pair()
    Feeder(pair, sky)
    pair.run(lambda: pair.alice.store.state_of(FIRST) == "decided")
    assert pair.bob.store.state_of(FIRST) == "pending"
    return pair


@pytest.mark.parametrize("what", ["hold", "stop", "peer stops"])
def test_a_key_that_is_decided_is_not_refused(decided: Pair, what: str) -> None:
    pair, alice, bob = decided, decided.alice, decided.bob
    told = {
        "hold": partial(alice.session.hold, "the store is full", pair.now_ns),
        "stop": alice.session.stop,
        "peer stops": bob.session.stop,
    }[what]
    (bob if what == "peer stops" else alice).carry(told(), pair.now_ns)
    pair.on_step = lambda now_ns: None
    pair.settle()
    assert [end.store.state_of(FIRST) for end in (alice, bob)] == ["committed", "committed"]
    for end in (alice, bob):
        assert [facts.state for facts in end.done if facts.block_id == FIRST] == ["committed"]
    agree(pair)


def test_pads_of_a_key_that_was_taken_back_do_not_count(decided: Pair) -> None:
    """Bob has lost the key: Alice's pool must not wait for pads that he will never have."""
    pair = decided
    pair.bob.store.destroy(FIRST)
    pair.crash(pair.bob)
    pair.run(lambda: pair.alice.store.state_of(FIRST) is None)
    pair.settle()
    assert FIRST not in pair.alice.pool._segments
    assert pair.bob.store.committed()
