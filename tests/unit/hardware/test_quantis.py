"""The Quantis driver against a stand-in for the vendor's library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.config import Config
from common.errors import ConfigurationError, DeviceError
from hardware.drivers import quantis

CONFIG = Config(role="alice")


class Library:
    """libQuantis with one USB device."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.given, self.code = rng, b"", 0

    def QuantisCount(self, kind: int) -> int:
        return int(kind == 2)

    def QuantisRead(self, kind: int, number: int, buffer: Any, size: Any) -> int:
        if self.code:
            return self.code
        data = self.rng.bytes(size.value)
        for i, value in enumerate(data):
            buffer[i] = value
        self.given += data
        return int(size.value)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> Library:
    made = Library(rng)
    monkeypatch.setattr(quantis, "load_library", lambda *_: made)
    return made


def test_bytes_come_once_and_in_order_across_reads(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantis, "MAX_READ_BYTES", 1000)
    source = quantis.Quantis({}, CONFIG)
    got = source.read(2500).tobytes() + source.read(7).tobytes()
    assert got == library.given
    assert not source.info.simulated
    assert source.info.randomness == "quantum"


def test_an_error_of_the_library_is_a_device_error(library: Library) -> None:
    source = quantis.Quantis({}, CONFIG)
    library.code = -3
    with pytest.raises(DeviceError, match="gave -3"):
        source.read(10)
    source.close()
    source.close()
    with pytest.raises(DeviceError, match="closed"):
        source.read(1)


def test_an_absent_device_is_refused(library: Library) -> None:
    with pytest.raises(DeviceError, match="0 are connected") as caught:
        quantis.Quantis({"connection": "pci"}, CONFIG)
    assert caught.value.remedy.endswith(".")


def test_without_the_library_it_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match="vendor's library"):
        quantis.Quantis({"library": "no-such-library.so"}, CONFIG)
