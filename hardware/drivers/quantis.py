"""`quantis`: ID Quantique Quantis PCIe and USB through the vendor's libQuantis (ctypes).

Not tried on a real instrument; tried against a stand-in for the library. The interface (`QuantisCount`, `QuantisRead`;
device type 1 = PCI(e), 2 = USB; at most 16 MiB a read; a negative result is an error) is recalled from the vendor's API
and was not checked against its header: do that first. The package called Quantis on PyPI is something else.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.errors import DeviceError
from hardware.drivers.sdk import load_library
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

NAME = "quantis"
DEVICE_TYPES = {"pci": 1, "usb": 2}
MAX_READ_BYTES = 16 << 20


class Parameters(BaseModel):
    """What a manifest says of `quantis`."""

    model_config = ConfigDict(extra="forbid")
    connection: Literal["pci", "usb"] = "usb"
    number: int = Field(0, ge=0, le=15)
    library: Path = Path("libQuantis.so")


class Quantis:
    """True random bytes, each handed out once."""

    tried = False

    model = Parameters
    needs = "libQuantis.so"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        self._library = load_library(
            given.library, NAME, "Install ID Quantique's Quantis software and name its libQuantis.so in `library`."
        )
        self._given, self._closed = given, False
        count = int(self._library.QuantisCount(DEVICE_TYPES[given.connection]))
        if given.number >= count:
            raise self._fault(f"{count} are connected")
        model = f"ID Quantique Quantis ({given.connection})"
        self.info = DeviceInfo("random source", model, str(given.number), randomness="quantum")

    def _fault(self, text: str) -> DeviceError:
        return DeviceError(
            f"driver {NAME!r}: {self._given.connection} device {self._given.number}: {text}",
            remedy="Check that it is plugged in and that this user may use it.",
        )

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes."""
        if self._closed:
            raise DeviceError(f"driver {NAME!r} is closed", remedy="Open the device again.")
        out = np.zeros(n_bytes, np.uint8)
        for start in range(0, n_bytes, MAX_READ_BYTES):
            piece = out[start : start + MAX_READ_BYTES]
            pointer = piece.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
            device = DEVICE_TYPES[self._given.connection], self._given.number
            got = int(self._library.QuantisRead(*device, pointer, ctypes.c_size_t(piece.size)))
            if got != piece.size:
                raise self._fault(f"gave {got} for {piece.size} bytes")
        return out

    def close(self) -> None:
        """Nothing stays open between reads; may be called twice."""
        self._closed = True
