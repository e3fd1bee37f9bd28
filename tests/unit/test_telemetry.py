"""What goes to the broker and what may come from it: allow-lists, retained state, commands once and never in alarm."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.node.telemetry import (
    DETAILS,
    GROUPS,
    REMEMBERED_COMMANDS,
    REPEAT_NS,
    STATE,
    Commands,
    Publication,
    Reporter,
)

PREFIX = "qkd/v1/link/bob"


def status(**changes: Any) -> dict[str, Any]:
    fields = {name: 0 for names in (STATE, *GROUPS.values()) for name in names}
    empty = {"alarms": [], "details": {}, "watched": {}, "blocks": []}
    return {**fields, "state": "locked", "peer": "up", **empty, **changes}


def test_what_is_watched_of_the_devices_is_told_once_there_is_a_block() -> None:
    ours, seen = reporter(), {"x_share": 0.1, "v_share": 0.5}
    assert "tele/devices" not in by_topic(ours.update(status(), {}, 0))
    told = json.loads(by_topic(ours.update(status(watched=seen), {}, 1))["tele/devices"].payload)
    assert {name: told[name] for name in seen} == seen


def by_topic(publications: list[Publication]) -> dict[str, Publication]:
    found = {one.topic.removeprefix(PREFIX + "/"): one for one in publications}
    assert len(found) == len(publications)
    return found


def reporter() -> Reporter:
    return Reporter("link", "bob", 7)


def test_retained_on_change_and_every_ten_seconds_telemetry_always() -> None:
    ours = reporter()
    first = by_topic(ours.update(status(), {"attenuator": {"attenuation_db": 3.0}}, 0))
    assert first["state"].retain
    assert first["dev/attenuator/state"].retain
    assert not first["tele/rates"].retain
    second = by_topic(ours.update(status(), {"attenuator": {"attenuation_db": 3.0}}, 1))
    assert set(second) == {"tele/rates", "tele/key"}
    third = by_topic(ours.update(status(state="lost"), {"attenuator": {"attenuation_db": 4.0}}, 2))
    assert {"state", "dev/attenuator/state"} < set(third)
    assert "state" in by_topic(ours.update(status(state="lost"), {}, REPEAT_NS + 2))
    ours.restart()
    assert "state" in by_topic(ours.update(status(state="lost"), {}, REPEAT_NS + 3))


def test_every_message_tells_its_run_and_its_place() -> None:
    ours = reporter()
    payloads = [json.loads(one.payload) for _ in range(3) for one in ours.update(status(), {}, 0)]
    assert {payload["session"] for payload in payloads} == {7}
    numbers = [payload["seq"] for payload in payloads]
    assert numbers == sorted(set(numbers))


def test_alarms_are_retained_until_cleared() -> None:
    ours = reporter()
    raised = by_topic(ours.update(status(alarms=["peer: silent"]), {}, 0))["alarm/peer"]
    assert raised.retain
    assert json.loads(raised.payload)["text"] == "peer: silent"
    assert "alarm/peer" not in by_topic(ours.update(status(alarms=["peer: silent"]), {}, 1))
    assert "alarm/peer" in by_topic(ours.update(status(alarms=["peer: down"]), {}, 1))
    cleared = by_topic(ours.update(status(), {}, 2))["alarm/peer"]
    assert (cleared.payload, cleared.retain) == (b"", True)


def test_an_alarm_of_an_earlier_run_is_cleared_a_present_one_is_not() -> None:
    ours = reporter()
    ours.update(status(alarms=["peer: silent"]), {}, 0)
    assert ours.stale_alarm(f"{PREFIX}/alarm/peer", b"{}") == []
    assert ours.stale_alarm(f"{PREFIX}/alarm/old", b"") == []
    (cleared,) = ours.stale_alarm(f"{PREFIX}/alarm/old", b"{}")
    assert (cleared.payload, cleared.retain) == (b"", True)


def test_only_what_the_lists_name_is_ever_published() -> None:
    secret = "0123456789abcdef"
    leaky = status(
        details={"times_ps": secret, "slips": 3, "seed": secret}, key=secret, blocks=[secret], process_id=secret
    )
    publications = reporter().update(leaky, {}, 0)
    assert not any(secret.encode() in one.payload for one in publications)
    assert json.loads(by_topic(publications)["tele/light"].payload)["slips"] == 3
    assert not any("_ps" in name or name == "bit" or "basis" in name for name in (*DETAILS, *STATE))


def test_a_value_that_json_cannot_carry_becomes_null() -> None:
    rates = by_topic(reporter().update(status(qber=float("nan")), {}, 0))["tele/rates"]
    assert json.loads(rates.payload)["qber"] is None


def test_odd_names_stay_one_level_of_the_tree() -> None:
    (topic,) = [t for t in by_topic(reporter().update(status(alarms=["a/#+ b: x"]), {}, 0)) if t.startswith("alarm")]
    assert topic == "alarm/a----b"


class Bench:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def set(self, request: Any) -> dict[str, Any]:
        self.asked.append(dict(request))
        if request.get("attenuation_db") == "x":
            raise ValueError("attenuation_db must be a number")
        return {"attenuation_db": request.get("attenuation_db")}


def ask(commands: Commands, payload: object, topic: str = "attenuator/set", **how: Any) -> dict[str, Any]:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    answer = commands.carry_out(f"{PREFIX}/cmd/{topic}", raw, **{"retained": False, "alarms": [], **how})
    assert answer.topic.startswith(f"{PREFIX}/ack/")
    assert not answer.retain
    return dict(json.loads(answer.payload))


def commands(bench: Bench) -> Commands:
    return Commands(PREFIX, {("attenuator", "set"): bench.set})


def test_a_command_is_carried_out_once_and_answered_every_time() -> None:
    bench = Bench()
    ours = commands(bench)
    for _ in range(3):
        assert ask(ours, {"id": "a", "attenuation_db": 3.0}) == {
            "id": "a",
            "ok": True,
            "values": {"attenuation_db": 3.0},
        }
    assert bench.asked == [{"attenuation_db": 3.0}]
    for number in range(REMEMBERED_COMMANDS + 1):
        ask(ours, {"id": str(number)})
    assert len(bench.asked) == REMEMBERED_COMMANDS + 2


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"null", b"{}", b"\xff", b'{"id": 3}', b'{"id": ""}', b"[" * 4000, b'{"id": "' + b"x" * 65 + b'"}',
     b'{"id": "a", "x": "' + b"x" * 5000 + b'"}'],
)  # fmt: skip
def test_nonsense_is_answered_and_does_nothing(payload: bytes) -> None:
    bench = Bench()
    answer = ask(commands(bench), payload)
    assert answer["ok"] is False
    assert bench.asked == []


def test_no_command_is_obeyed_in_alarm_and_none_can_end_one() -> None:
    bench = Bench()
    ours = commands(bench)
    assert "alarm" in ask(ours, {"id": "a"}, alarms=["peer: silent"])["reason"]
    for topic in ("node/run", "node/clear", "alarm/peer", "state", "attenuator/run", "attenuator/set/set", ""):
        assert "no such command" in ask(ours, {"id": "b"}, topic)["reason"]
    assert bench.asked == []
    assert ask(ours, {"id": "a"})["ok"], "a refused command may be asked again once the alarm is over"


def test_a_retained_command_is_never_carried_out() -> None:
    bench = Bench()
    assert "retain" in ask(commands(bench), {"id": "a"}, retained=True)["reason"]
    assert bench.asked == []


def test_the_devices_refusal_reaches_the_operator() -> None:
    answer = ask(commands(Bench()), {"id": "a", "attenuation_db": "x"})
    assert answer == {"id": "a", "ok": False, "reason": "ValueError: attenuation_db must be a number"}
