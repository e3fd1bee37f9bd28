"""A slow device that does not answer is an alarm until it answers again."""

from __future__ import annotations

from typing import Any

from common.node.telemetry import silent_devices


def test_slow_devices_that_do_not_answer_are_named() -> None:
    good: dict[str, Any] = {"ok": True, "attenuation_db": 3.0}
    bad = {"ok": False, "reason": "no answer within 2 s"}
    assert silent_devices({}) is None
    assert silent_devices({"attenuator": good}) is None
    assert silent_devices({"attenuator": good, "detector_bias": bad}) == "detector_bias: no answer within 2 s"
