"""A question to the other end's key manager is answered once, and in order, whatever ends a session meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.node.questions import Questions
from tests.pair import End, Pair
from tests.property.test_pool import MS, ready


class Asking:
    """Questions of one end, which live as long as its process, and their answers."""

    def __init__(self, pair: Pair, end: End) -> None:
        self.pair, self.end = pair, end
        self.questions = Questions(lambda payload, then: self.end.session.request(payload, then))
        self.answers: list[bytes] = []
        make = end._make_session

        def session(end: End, instance: int) -> Any:
            made: Any = make(end, instance)
            resolve = made.resolve
            made.resolve = lambda *numbers: [*self.questions.ask_again(), *resolve(*numbers)]  # as `Node._on_ready`
            return made

        end._make_session = session

    def ask(self, number: int) -> None:
        self.end.carry(self.questions.ask(b"%06d" % number, self.answers.append), self.pair.now_ns)


def asking(end: str) -> tuple[Pair, Asking]:
    pair, _ = ready()
    one = Asking(pair, getattr(pair, end))
    pair.crash(one.end)  # with the session above
    pair.run(lambda: pair.alice.session.ready and pair.bob.session.ready)
    return pair, one


@pytest.mark.parametrize("end", ["alice", "bob"])
def test_a_question_under_way_when_the_peer_restarts_is_answered_by_its_next_process(end: str) -> None:
    pair, one = asking(end)
    one.ask(1)
    pair.step()
    pair.crash(pair.bob if end == "alice" else pair.alice)
    one.ask(2)  # before the next session
    pair.run(lambda: len(one.answers) == 2, 10_000 * MS)
    assert one.answers == [b"100000", b"200000"]
    assert len(one.questions) == 0


@settings(max_examples=25)
@given(st.sampled_from(["alice", "bob"]), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), max_size=12))
def test_kills_of_the_end_that_answers(end: str, kills: list[tuple[int, int]]) -> None:
    pair, one = asking(end)
    asked = 0
    for steps, more in [*kills, (0, 1)]:
        for _ in range(more):
            one.ask(asked)
            asked += 1
        for _ in range(steps):
            pair.step()
        if (steps, more) != (0, 1):
            pair.crash(pair.bob if end == "alice" else pair.alice)
    pair.run(lambda: len(one.answers) == asked, 60_000 * MS)
    pair.settle(1_000 * MS)
    assert one.answers == [(b"%06d" % number)[::-1] for number in range(asked)]
