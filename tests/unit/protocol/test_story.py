"""The driver of tales: what is yielded becomes effects, in order, and what is waited for is heard there."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from common.errors import LocalProtocolError, RemoteProtocolError
from common.protocol.effects import DropPads, Effect, Errand, Job, Run
from common.protocol.messages import Committed, Sift, Verified
from common.protocol.story import Await, Begin, Do, Refused, Story, Tale, Together, Until

VERDICT = Verified(1, 1, 0, bytes(16))


def twice(number: int) -> int:
    return 2 * number


def says(*numbers: int) -> list[Effect]:
    """Effects that are told apart by a number."""
    return [DropPads(number) for number in numbers]


def job(effects: list[Effect]) -> Run:
    (run,) = effects
    assert isinstance(run, Run)
    return run


def finish(run: Run) -> list[Effect]:
    return run.then(run.work())


def test_a_tale_goes_on_with_results_and_messages_and_its_effects_keep_their_order() -> None:
    def tale() -> Tale:
        yield from says(1)
        number = yield Do("block", Job(twice, (21,)))
        yield from says(number)
        verdict = yield Await(Verified)
        yield from says(verdict.equal)

    story = Story()
    first = story.begin(tale())
    assert first[:1] == says(1)
    assert job(first[1:]).lane == "block"
    assert not story.expects(VERDICT)
    assert finish(job(first[1:])) == says(42)
    assert story.expects(VERDICT)
    assert not story.expects(Committed(1))
    assert not story.told
    assert story.hear(VERDICT) == says(1)
    assert story.told


def test_an_errand_may_end_in_a_job() -> None:
    assert Errand(lambda number: Job(twice, (number,)), (4,))() == 8
    assert Errand(twice, (4,))() == 8


@pytest.mark.parametrize("first", [0, 1])
def test_tales_side_by_side_are_waited_for_in_either_order(first: int) -> None:
    def one(number: int) -> Tale:
        return (yield Do("block", Job(twice, (number,))))

    def both() -> Tale:
        told = yield Together(one(1), one(2))
        yield from says(*told)

    runs = Story().begin(both())
    assert finish(runs[first]) == []  # type: ignore[arg-type]
    assert finish(runs[1 - first]) == says(2, 4)  # type: ignore[arg-type]


def test_tales_that_wait_for_nothing_end_at_once_and_once() -> None:
    def one(number: int) -> Tale:
        yield from says(number)
        return number

    def both() -> Tale:
        told = yield Together(one(1), one(2))
        yield from says(*told)
        yield Begin(one(3))
        yield from says(4)

    story = Story()
    assert story.begin(both()) == says(1, 2, 1, 2, 3, 4)
    assert story.told


def test_a_message_goes_to_the_tale_that_has_waited_longest() -> None:
    def chunk(number: int) -> Tale:
        reply = yield Await(Sift)
        yield from says(number, reply.chunk)

    def fill() -> Tale:
        for number in (1, 2):
            yield Begin(chunk(number))
        yield Await(Verified)

    story = Story()
    assert story.begin(fill()) == []
    assert story.hear(Sift(9, 7, b"")) == says(1, 7)
    assert story.hear(Sift(9, 8, b"")) == says(2, 8)
    assert not story.expects(Sift(9, 9, b""))


def test_a_tale_that_waits_until_something_holds_goes_on_after_what_makes_it_hold() -> None:
    ready: list[int] = []

    def tale() -> Tale:
        yield Until(lambda: len(ready) > 1)
        yield from says(7)

    story = Story()
    assert story.begin(tale()) == []
    run = story.job(Run("frames", lambda: 1, lambda result: ready.append(result) or says(1)))  # type: ignore[func-returns-value]
    assert finish(run) == says(1)
    assert finish(run) == says(1, 7)
    assert story.told
    assert story.after(says(2)) == says(2)


def refusing(effects: list[Effect]) -> tuple[Story, list[str]]:
    reasons: list[str] = []

    def refuse(reason: str) -> list[Effect]:
        assert not story.told
        reasons.append(reason)
        story.close()
        return effects

    story = Story(refuse)
    return story, reasons


@pytest.mark.parametrize("where", ["beside", "inside", "begun"])
def test_a_refusal_anywhere_ends_the_block_and_every_tale_of_it(where: str) -> None:
    closed: list[str] = []

    def waits() -> Tale:
        try:
            yield Await(Sift)
        finally:
            closed.append("waits")

    def refuses() -> Tale:
        yield Await(Verified)
        yield from says(1)
        raise Refused("the keys differ")

    def tale() -> Tale:
        try:
            if where == "beside":
                yield Together(waits(), refuses())
            yield Begin(waits())
            if where == "begun":
                yield Begin(refuses())
                yield Await(Committed)
            yield from refuses()
        finally:
            closed.append("tale")

    story, reasons = refusing(says(2))
    story.begin(tale())
    assert story.hear(VERDICT) == says(1, 2)
    assert reasons == ["the keys differ"]
    assert sorted(closed) == ["tale", "waits"]
    assert story.over
    assert not story.told


def test_a_tale_that_refuses_at_once_leaves_nothing_behind_it() -> None:
    def refuses() -> Tale:
        yield from says(1)
        raise Refused("no")

    def tale() -> Tale:
        yield Together(refuses(), refuses())
        yield from says(9)

    story, reasons = refusing(says(2))
    assert story.begin(tale()) == says(1, 2)
    assert reasons == ["no"]


def test_a_story_without_a_block_refuses_nothing() -> None:
    def tale() -> Tale:
        yield from ()
        raise Refused("why")

    with pytest.raises(LocalProtocolError, match="no block to refuse: why"):
        Story().begin(tale())


def test_a_fault_is_raised_where_the_event_was_told() -> None:
    def tale() -> Tale:
        yield Await(Verified)
        raise RemoteProtocolError("not this")

    story = Story()
    story.begin(tale())
    with pytest.raises(RemoteProtocolError, match="not this"):
        story.hear(VERDICT)
    assert not story.expects(VERDICT)
    assert not story.told, "what has failed owes nothing"


def test_once_it_is_over_no_job_is_done_and_late_results_are_overwritten() -> None:
    done: list[int] = []
    secret, counts = np.full(8, 255, np.uint8), np.arange(3)
    locked = np.ones(2, np.uint8)
    locked.flags.writeable = False

    def tale() -> Tale:
        yield Do("block", Errand(done.append, (1,)))

    story = Story()
    run = job(story.begin(tale()))
    late = job(story.begin(tale()))
    story.close()
    assert run.work() is None
    assert done == []
    assert late.then((secret, (counts, b"public"), locked)) == []
    assert not secret.any()
    assert not counts.any()


def test_a_story_keeps_no_result_and_no_job() -> None:
    """Arrays are let go as soon as the tale has let go of them, not with the story."""

    class Weight:
        pass

    def used(weight: Weight) -> int:
        return 1

    def tale() -> Tale:
        yield Do("block", Job(used, ((yield Do("block", Job(Weight))),)))
        yield Await(Verified)

    story = Story()
    run = job(story.begin(tale()))
    weight: Any = Weight()
    seen = weakref.ref(weight)
    run = job(run.then(weight))
    del weight
    assert seen() is not None
    assert run.then(1) == []
    del run
    assert story.expects(VERDICT)
    assert seen() is None
