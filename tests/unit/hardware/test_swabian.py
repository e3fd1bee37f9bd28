"""The Swabian driver against a stand-in that answers as the driver recalls the vendor's package: neither was checked
against its documentation or an instrument."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from common.config import Config
from common.errors import ConfigurationError, DeviceError
from hardware.drivers.swabian import Swabian

CONFIG = Config(role="bob")
CHANNELS = (1, 2, -3, 4)


class Buffer:
    def __init__(self, times: list[int], channels: list[int], kinds: list[int], until: int) -> None:
        self._columns = (np.array(times, np.int64), np.array(channels, np.int32), np.array(kinds, np.uint8))
        self.hasOverflows, self.tGetData = False, until

    def getTimestamps(self) -> Any:
        return self._columns[0]

    def getChannels(self) -> Any:
        return self._columns[1]

    def getEventTypes(self) -> Any:
        return self._columns[2]


class Tagger:
    def __init__(self, where: str) -> None:
        self.where = where
        self.calls: list[tuple[Any, ...]] = []

    def setTriggerLevel(self, channel: int, volts: float) -> None:
        self.calls.append(("trigger", channel, volts))

    def setInputDelay(self, channel: int, delay_ps: int) -> None:
        self.calls.append(("delay", channel, delay_ps))

    def setDeadtime(self, channel: int, dead_time_ps: int) -> None:
        self.calls.append(("dead time", channel, dead_time_ps))


class Vendor(ModuleType):
    """`Swabian.TimeTagger`."""

    def __init__(self) -> None:
        super().__init__("Swabian.TimeTagger")
        self.buffers: list[Buffer] = []
        self.freed: list[Tagger] = []
        self.taggers: list[Tagger] = []

    def createTimeTagger(self, serial: str = "") -> Tagger:
        if serial == "absent":
            raise RuntimeError("No Time Tagger found")
        self.taggers.append(Tagger(serial))
        return self.taggers[-1]

    def createTimeTaggerNetwork(self, address: str) -> Tagger:
        return self.createTimeTagger(address)

    def freeTimeTagger(self, tagger: Tagger) -> None:
        self.freed.append(tagger)

    def TimeTagStream(self, tagger: Tagger, n_max_events: int, channels: list[int]) -> Any:
        vendor = self

        class Stream:
            def getData(self) -> Buffer:
                return vendor.buffers.pop(0)

        return Stream()


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    made = Vendor()
    monkeypatch.setitem(sys.modules, "Swabian", ModuleType("Swabian"))
    monkeypatch.setitem(sys.modules, "Swabian.TimeTagger", made)
    return made


def test_clicks_become_logical_channels(vendor: Vendor) -> None:
    device = Swabian({"channels": CHANNELS, "delay_ps": (0, -112, 64, 20)}, CONFIG)
    vendor.buffers = [Buffer([10, 20, 30], [4, -3, 1], [0, 0, 0], 40)]
    tags = device.read(0.0)
    assert tags is not None
    assert tags.times_ps.tolist() == [10, 20, 30]
    assert tags.channels.tolist() == [3, 2, 0]
    assert (tags.until_ps, tags.overflow) == (40, False)
    assert ("delay", 2, -112) in vendor.taggers[0].calls
    device.close()
    device.close()
    assert vendor.freed == vendor.taggers


def test_darkness_still_tells_time(vendor: Vendor) -> None:
    device = Swabian({"channels": CHANNELS}, CONFIG)
    vendor.buffers = [Buffer([], [], [], 12_345)]
    tags = device.read(0.0)
    assert tags is not None
    assert (len(tags), tags.until_ps) == (0, 12_345)


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_an_event_that_is_no_click_voids_the_batch(vendor: Vendor, kind: int) -> None:
    device = Swabian({"channels": CHANNELS}, CONFIG)
    vendor.buffers = [Buffer([10, 20], [1, 0], [0, kind], 30)]
    tags = device.read(0.0)
    assert tags is not None
    assert tags.overflow
    assert tags.times_ps.tolist() == [10]


@pytest.mark.parametrize(
    ("buffer", "fault"),
    [(Buffer([20, 10], [1, 1], [0, 0], 30), "went back"), (Buffer([10], [7], [0], 30), "not asked for")],
)
def test_nonsense_is_a_device_error(vendor: Vendor, buffer: Buffer, fault: str) -> None:
    device = Swabian({"channels": CHANNELS}, CONFIG)
    vendor.buffers = [buffer]
    with pytest.raises(DeviceError, match=fault):
        device.read(0.0)


def test_an_absent_tagger_is_a_device_error(vendor: Vendor) -> None:
    with pytest.raises(DeviceError, match="No Time Tagger found") as caught:
        Swabian({"channels": CHANNELS, "serial": "absent"}, CONFIG)
    assert caught.value.remedy.endswith(".")


def test_the_network_is_used_for_an_address(vendor: Vendor) -> None:
    Swabian({"channels": CHANNELS, "address": "tagger:41101"}, CONFIG)
    assert vendor.taggers[0].where == "tagger:41101"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Swabian", None)
    with pytest.raises(ConfigurationError, match=r"Swabian\.TimeTagger") as caught:
        Swabian({"channels": CHANNELS}, CONFIG)
    assert "qkd-node[swabian]" in caught.value.remedy
