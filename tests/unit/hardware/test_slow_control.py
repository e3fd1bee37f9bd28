"""Slow devices as operators see them: limits before the device, readings that never fail, closing that always ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import DeviceError
from hardware.interfaces import DeviceInfo
from hardware.slow_control import SlowControl, identities


class Attenuator:
    info = DeviceInfo("attenuator", "test", simulated=True)
    broken = False
    closed = False
    value = 10.0

    def set_attenuation_db(self, attenuation_db: float) -> None:
        self.value = attenuation_db

    def attenuation_db(self) -> float:
        if self.broken:
            raise DeviceError("no answer within 1 s")
        return self.value

    def close(self) -> None:
        self.closed = True
        if self.broken:
            raise DeviceError("no answer within 1 s")


class Polarisation(Attenuator):
    info = DeviceInfo("polarisation controller", "test")
    n_axes = 2
    axes = np.zeros(2)

    def set_axes(self, positions: Any) -> None:
        self.axes = positions


def test_the_calibrated_attenuation_is_a_floor() -> None:
    device = Attenuator()
    slow = SlowControl({"attenuator": device}, min_attenuation_db=5.0)
    set_attenuation = slow.verbs()["attenuator", "set"]
    assert set_attenuation({"attenuation_db": 6}) == {"attenuation_db": 6.0}
    for wrong in (4.9, -1, 500, float("nan"), "6", True, None):
        with pytest.raises(ValueError, match="attenuation_db"):
            set_attenuation({"attenuation_db": wrong})
    assert device.value == 6.0


def test_without_a_floor_nothing_is_set() -> None:
    slow = SlowControl({"attenuator": Attenuator()})
    with pytest.raises(ValueError, match="min_attenuation_db is not set"):
        slow.verbs()["attenuator", "set"]({"attenuation_db": 100.0})


def test_axes_are_numbers_from_0_to_1_one_an_axis() -> None:
    device = Polarisation()
    set_axes = SlowControl({"polarisation_controller": device}).verbs()["polarisation_controller", "set"]
    set_axes({"positions": [0.25, 1]})
    assert device.axes.tolist() == [0.25, 1.0]
    for wrong in ([0.5], [0.5, 1.1], [0.5, None], "ab", None):
        with pytest.raises(ValueError, match="positions"):
            set_axes({"positions": wrong})


def test_only_what_is_there_can_be_asked_for() -> None:
    assert SlowControl().verbs() == {}
    assert SlowControl().readings() == {}


def test_a_broken_device_says_so_and_does_not_keep_others_from_their_safe_state() -> None:
    broken, good = Attenuator(), Polarisation()
    broken.broken = True
    slow = SlowControl({"polarisation_controller": good, "attenuator": broken})
    readings = slow.readings()
    assert readings["attenuator"] == {"ok": False, "reason": "no answer within 1 s"}
    assert readings["polarisation_controller"]["ok"]
    slow.close()
    assert broken.closed
    assert good.closed


def test_one_simulated_device_makes_the_node_simulated() -> None:
    assert SlowControl({"attenuator": Attenuator()}).simulated
    assert not SlowControl({"polarisation_controller": Polarisation()}).simulated
    (one,) = identities({"attenuator": Attenuator()})
    assert (one["role"], one["kind"], one["simulated"]) == ("attenuator", "attenuator", True)
