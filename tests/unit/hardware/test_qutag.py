"""The quTAG driver against a stand-in for the vendor's library, as its header describes it."""

from __future__ import annotations

from typing import Any

import pytest

from common.config import Config
from common.errors import ConfigurationError, DeviceError
from hardware.drivers import qutag

CONFIG = Config(role="bob")
PARAMETERS = {"channels": (3, 1, 0, 7)}


class Library:
    """libtdcbase."""

    def __init__(self) -> None:
        self.kind, self.code, self.lost = 0, 0, 0
        self.tags: list[tuple[int, int]] = [(1, 0)]  # left from before
        self.mask, self.markers, self.initialised = 0, 0, 0

    def TDC_init(self, device_id: int) -> int:
        self.initialised += 1
        return self.code

    def TDC_deInit(self) -> int:
        self.initialised -= 1
        return 0

    def TDC_getDevType(self) -> int:
        return self.kind

    def TDC_setTimestampBufferSize(self, size: int) -> int:
        return 0

    def TDC_enableMarkers(self, mask: int) -> int:
        self.markers = mask
        return 0

    def TDC_enableChannels(self, start: int, mask: int) -> int:
        self.mask = mask
        return 0

    def TDC_getLastTimestamps(self, reset: int, times: Any, channels: Any, valid: Any) -> int:
        for i, (time, channel) in enumerate(self.tags):
            times[i], channels[i] = time, channel
        valid.contents.value = len(self.tags)
        self.tags = []
        return 0

    def TDC_getDataLost(self, lost: Any) -> int:
        lost.contents.value, self.lost = self.lost, 0
        return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setattr(qutag, "load_library", lambda *_: made)
    return made


def test_clicks_become_logical_channels_and_ticks_tell_time(library: Library) -> None:
    device = qutag.QuTag(PARAMETERS, CONFIG)
    assert library.mask == 0b10001011
    library.tags = [(10, 3), (30, 7), (20, 0), (40, 104)]
    tags = device.read(0.0)
    assert tags is not None
    assert tags.times_ps.tolist() == [10, 20, 30]
    assert tags.channels.tolist() == [0, 2, 3]
    assert (tags.until_ps, tags.overflow) == (40, False)
    device.close()
    device.close()
    assert (library.mask, library.initialised) == (0, 0)


def test_data_lost_voids_the_batch(library: Library) -> None:
    device = qutag.QuTag(PARAMETERS, CONFIG)
    library.lost = 1
    tags = device.read(0.0)
    assert tags is not None
    assert tags.overflow


def test_a_full_ring_buffer_voids_the_batch(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qutag, "BUFFER_TAGS", 4)
    device = qutag.QuTag(PARAMETERS, CONFIG)
    library.tags = [(10 * i, 3) for i in range(4)]
    tags = device.read(0.0)
    assert tags is not None
    assert tags.overflow


def test_a_tag_behind_the_last_batch_is_dropped_and_voids(library: Library) -> None:
    device = qutag.QuTag(PARAMETERS, CONFIG)
    library.tags = [(100, 3)]
    device.read(0.0)
    library.tags = [(50, 3), (120, 1)]
    tags = device.read(0.0)
    assert tags is not None
    assert tags.overflow
    assert tags.times_ps.tolist() == [120]


def test_the_librarys_demonstration_is_refused(library: Library) -> None:
    library.kind = 2
    with pytest.raises(DeviceError, match="demonstration"):
        qutag.QuTag(PARAMETERS, CONFIG)
    assert library.initialised == 0


def test_an_error_code_is_a_device_error(library: Library) -> None:
    library.code = 9
    with pytest.raises(DeviceError, match="TDC_init gave error 9") as caught:
        qutag.QuTag(PARAMETERS, CONFIG)
    assert caught.value.remedy.endswith(".")


def test_without_the_library_it_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match="vendor's library") as caught:
        qutag.QuTag({**PARAMETERS, "library": "no-such-library.so"}, CONFIG)
    assert "libtdcbase" in caught.value.remedy
