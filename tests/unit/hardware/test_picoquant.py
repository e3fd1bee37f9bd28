"""The PicoQuant driver against a stand-in for snAPI, as the package behaved with a recorded file as its device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from common.config import Config
from common.config_file import parse_config
from common.errors import ConfigurationError, DeviceError
from hardware.drivers import picoquant
from hardware.drivers.picoquant import PicoQuant

CHANNELS = (1, 2, 0, 4)
WRAP_PS = 33_554_432


class Unfold:
    """Blocks to be read; its arrays are overwritten by the next block."""

    def __init__(self) -> None:
        self.blocks: list[list[tuple[int, int]]] = []
        self.started: tuple[Any, ...] = ()
        self.finished = self.stopped = False
        self._n = 0
        self._times, self._channels = np.zeros(1 << 10, np.uint64), np.zeros(1 << 10, np.uint8)

    def startBlock(self, *arguments: Any) -> bool:
        self.started = arguments
        return True

    def getBlock(self) -> tuple[Any, Any]:
        block = self.blocks.pop(0) if self.blocks else []
        self._n = len(block)
        for i, (time, channel) in enumerate(block):
            self._times[i], self._channels[i] = time, channel
        return self._times[: self._n], self._channels[: self._n]

    def numRead(self) -> int:
        return self._n

    def isFinished(self) -> bool:
        return self.finished

    def stopMeasure(self) -> None:
        self.stopped = True


class Device:
    def __init__(self, ini: str) -> None:
        self.ini = Path(ini).read_text()
        self.unfold, self.calls = Unfold(), []  # type: ignore[var-annotated]
        self.there = self.takes = True
        self.deviceConfig = {"Model": "MultiHarp 150 4P", "ID": "1045483", "Version": "1.0", "BaseResolution": 5.0}

    def getDevice(self, *serial: str) -> bool:
        self.calls.append(("device", *serial))
        return serial != ("absent",)

    def getFileDevice(self, path: str) -> bool:
        self.calls.append(("file", Path(path).name))
        return True

    def initDevice(self, mode: Any, reference: Any) -> bool:
        self.calls.append(("init", mode.name, reference.name))
        return True

    def loadIniConfig(self, path: str) -> bool:
        self.calls.append(("ini", Path(path).name))
        return "good" in path

    def closeDevice(self) -> None:
        self.calls.append(("close",))


class Vendor(ModuleType):
    """`snAPI.Main`."""

    MeasMode = Enum("MeasMode", "Histogram T2 T3")
    RefSource = Enum("RefSource", "Internal External_10MHZ")

    def __init__(self) -> None:
        super().__init__("snAPI.Main")
        self.device: Device

    def snAPI(self, ini: str) -> Device:
        self.device = Device(ini)
        return self.device


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    made = Vendor()
    monkeypatch.setitem(sys.modules, "snAPI", ModuleType("snAPI"))
    monkeypatch.setitem(sys.modules, "snAPI.Main", made)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config('role = "bob"\n', tmp_path)


@pytest.fixture
def opened(vendor: Vendor, config: Config) -> Iterator[Callable[..., PicoQuant]]:
    """Opens a device that is closed at the end of the test."""
    made: list[PicoQuant] = []

    def start(**parameters: Any) -> PicoQuant:
        made.append(PicoQuant({"channels": CHANNELS, **parameters}, config))
        return made[-1]

    yield start
    for device in made:
        device.close()


Opened = Callable[..., PicoQuant]


def test_clicks_become_logical_channels_and_overflow_records_tell_time(vendor: Vendor, opened: Opened) -> None:
    device = opened(serial="1045483", reference="external")
    assert vendor.device.calls == [("device", "1045483"), ("init", "T2", "External_10MHZ")]
    assert vendor.device.unfold.started[0] == 0  # until stopped
    assert (device.info.model, device.info.simulated) == ("PicoQuant MultiHarp 150 4P", False)
    vendor.device.unfold.blocks = [
        [(10, 4), (20, 0), (30, 3), (WRAP_PS, 255)],  # input 3 is not ours
        [(WRAP_PS + 1, 1), (2 * WRAP_PS, 255)],
        [(3 * WRAP_PS, 255)],
    ]
    first, second, dark = device.read(1.0), device.read(1.0), device.read(1.0)
    assert first is not None
    assert second is not None
    assert dark is not None
    assert (first.times_ps.tolist(), first.channels.tolist()) == ([10, 20], [3, 2])
    assert (second.times_ps.tolist(), second.channels.tolist()) == ([WRAP_PS + 1], [0])
    assert (len(dark), dark.until_ps) == (0, 3 * WRAP_PS)
    assert not any(tags.overflow for tags in (first, second, dark))
    assert first.times_ps.dtype == np.int64
    device.close()
    device.close()
    assert vendor.device.unfold.stopped
    assert vendor.device.calls.count(("close",)) == 1
    with pytest.raises(DeviceError, match="closed"):
        device.read(0.0)


def test_the_package_is_kept_off_standard_output(vendor: Vendor, opened: Opened) -> None:
    """`bob run --json` prints JSON there."""
    device = opened()
    assert "Console = false" in vendor.device.ini
    folder = Path(device._folder.name)
    assert folder.is_dir()
    device.close()
    assert not folder.exists()


def test_nothing_ready_is_an_empty_batch(vendor: Vendor, opened: Opened) -> None:
    tags = opened().read(0.0)
    assert tags is not None
    assert (len(tags), tags.until_ps) == (0, 0)


def test_a_full_buffer_voids_the_batch(vendor: Vendor, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picoquant, "BUFFER_RECORDS", 3)
    device = opened()
    vendor.device.unfold.blocks = [[(1, 1), (2, 1)], [(3, 1), (4, 1), (5, 1)]]
    assert [getattr(device.read(1.0), "overflow", None) for _ in range(2)] == [False, True]


def test_a_silence_without_overflow_records_voids_the_batch(vendor: Vendor, opened: Opened) -> None:
    """A buffer that overran is emptied by the package, which tells nobody."""
    device = opened()
    vendor.device.unfold.blocks = [[(WRAP_PS, 255)], [(WRAP_PS + picoquant.MAX_SILENCE_PS + 1, 1)], [(1 << 40, 255)]]
    assert [getattr(device.read(1.0), "overflow", None) for _ in range(3)] == [False, True, True]


def test_times_that_go_back_are_a_device_error(vendor: Vendor, opened: Opened) -> None:
    device = opened()
    vendor.device.unfold.blocks = [[(20, 1)], [(10, 1)]]
    device.read(1.0)
    with pytest.raises(DeviceError, match="go back") as caught:
        device.read(1.0)
    assert caught.value.remedy.endswith(".")


def test_the_end_of_a_measurement_is_a_fault_and_the_end_of_a_file_is_the_end(
    vendor: Vendor, opened: Opened, config: Config
) -> None:
    device = opened()
    vendor.device.unfold.finished = True
    with pytest.raises(DeviceError, match="ended its measurement"):
        device.read(1.0)
    config.path(Path("run.ptu")).write_bytes(b"")
    replay = opened(file="run.ptu")
    assert replay.info.simulated
    vendor.device.unfold.finished, vendor.device.unfold.blocks = True, [[(7, 1)]]
    last = replay.read(1.0)
    assert last is not None
    assert last.times_ps.tolist() == [7]
    assert replay.read(1.0) is None


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"serial": "absent"}, "absent was not found"),
        ({"configuration": "bad.ini"}, "does not take"),
        ({"file": "absent.ptu"}, "there is no file"),
        ({"channels": (1, 1, 2, 3)}, "four different"),
        ({"channels": (1, 2, 3, 64)}, "four different"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    vendor: Vendor, config: Config, parameters: dict[str, Any], fault: str
) -> None:
    with pytest.raises((DeviceError, ConfigurationError), match=fault):
        PicoQuant({"channels": CHANNELS, **parameters}, config)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    monkeypatch.setitem(sys.modules, "snAPI", None)
    with pytest.raises(ConfigurationError, match=r"snAPI\.Main") as caught:
        PicoQuant({"channels": CHANNELS}, config)
    assert "qkd-node[picoquant]" in caught.value.remedy
