"""Faults of light and tagger become alarms, and the alarms end."""

from __future__ import annotations

from bob.lookout import LATELY_NS, NO_LIGHT_NS, NO_TAGS_NS, Lookout
from common.units import NS_PER_S


def lookout(*, can_wait: bool = False) -> Lookout:
    return Lookout(can_wait=can_wait, now_ns=0)


def told(one: Lookout, now_ns: int) -> list[str]:
    return [name for name in ("light", "tagger", "reference") if getattr(one, name)(now_ns) is not None]


def test_a_good_link_is_silent() -> None:
    one = lookout()
    for second in range(100):
        one.saw("searching-frequency" if second < 20 else "locked", False, None, second * NS_PER_S, second * NS_PER_S)
        assert told(one, second * NS_PER_S) == []


def test_light_that_is_not_found_or_lost_and_found() -> None:
    one = lookout()
    for state in ("searching-slot", "lost"):
        begin = 0 if state == "searching-slot" else 10 * NO_LIGHT_NS
        one.saw(state, False, True, begin + NO_LIGHT_NS - 1, begin + NO_LIGHT_NS - 1)
        assert told(one, begin + NO_LIGHT_NS) == []
        one.saw(state, False, True, begin + NO_LIGHT_NS, begin + NO_LIGHT_NS)
        assert state in str(one.light(begin + NO_LIGHT_NS))
        one.saw("locked", False, True, 10 * NO_LIGHT_NS, 10 * NO_LIGHT_NS)
        assert told(one, 10 * NO_LIGHT_NS) == []


def test_lost_tags_are_told_for_a_minute() -> None:
    one = lookout()
    one.saw("locked", True, None, 0, 0)
    one.saw("locked", True, None, NS_PER_S, NS_PER_S)
    assert "2 batches" in str(one.tagger(NS_PER_S))
    one.saw("locked", False, None, LATELY_NS, LATELY_NS)
    assert "1 batches" in str(one.tagger(LATELY_NS))
    one.saw("locked", False, None, LATELY_NS + NS_PER_S, LATELY_NS + NS_PER_S)
    assert told(one, LATELY_NS + NS_PER_S) == []


def test_a_tagger_that_says_nothing_unless_it_waits_for_the_node() -> None:
    for can_wait in (False, True):
        one = lookout(can_wait=can_wait)
        one.saw("locked", False, None, 0, 0)
        assert told(one, NO_TAGS_NS + 1) == ([] if can_wait else ["tagger"])
        one.saw("locked", False, None, NO_TAGS_NS + 2, NO_TAGS_NS + 2)
        assert told(one, NO_TAGS_NS + 3) == []


def test_a_lost_reference() -> None:
    one = lookout()
    one.saw("locked", False, False, 0, 0)
    assert told(one, 0) == ["reference"]
    one.saw("locked", False, True, 1, 1)
    assert told(one, 1) == []


def test_a_tagger_whose_time_stands_still_though_it_answers() -> None:
    """A stream that is open and empty: every read ends with an empty batch."""
    for can_wait in (False, True):
        one = lookout(can_wait=can_wait)
        for second in range(12):
            one.saw("locked", False, None, 7, second * NS_PER_S)
        assert told(one, 11 * NS_PER_S) == ([] if can_wait else ["tagger"])
        one.saw("locked", False, None, 8, 12 * NS_PER_S)
        assert told(one, 12 * NS_PER_S) == []
