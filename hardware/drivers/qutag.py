"""`qutag`: qutools quTAG MC and HR through the vendor's library libtdcbase (ctypes).

Not tried on a real instrument; tried against a stand-in for the library. Source: the vendor's header tdcbase.h for
quTAG MC and HR: times in ps, channel numbers from 0, marker 104 every millisecond (it tells time in darkness), a ring
buffer that forgets the oldest tags, a latch for data lost. Without an instrument the library plays a demonstration in
which every call succeeds: the device type must be asked for.
"""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.datatypes import TimeTags
from common.errors import DeviceError
from hardware.drivers.inputs import NO_DETECTOR, detectors_of_inputs
from hardware.drivers.sdk import load_library
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

NAME = "qutag"
BUFFER_TAGS = 1_000_000
DEVICE_TYPES = ("quTAG MC", "quTAG HR")
TICK_MASK = 1 << 4
N_INPUTS = 32
POLL_S = 0.005


class Parameters(BaseModel):
    """What a manifest says of `qutag`."""

    model_config = ConfigDict(extra="forbid")
    library: Path = Path("libtdcbase.so")
    """The vendor's library; a bare name is looked for where the system keeps libraries."""
    device_id: int = -1
    """Of the library; -1 takes the first device."""
    channels: tuple[int, int, int, int]
    """The inputs of H, V, R, L as the library counts them (stop input 1 is 0)."""
    resolution_ps: float = Field(1.0, gt=0.0)


class QuTag:
    """Polls the library's ring buffer."""

    tried = False

    model = Parameters
    needs = "libtdcbase.so"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        self._map = detectors_of_inputs(given.channels, N_INPUTS, NAME)
        self._library = load_library(
            given.library, NAME, "Install qutools' software and name its libtdcbase.so in `library`."
        )
        self._given, self._last_ps, self._open = given, 0, False
        self._times, self._numbers = np.zeros(BUFFER_TAGS, np.int64), np.zeros(BUFFER_TAGS, np.uint8)
        self._call("TDC_init", given.device_id)
        self._open = True
        try:
            kind = int(self._library.TDC_getDevType())
            if not 0 <= kind < len(DEVICE_TYPES):
                raise self._fault("the library found no instrument and plays its demonstration")
            self._call("TDC_setTimestampBufferSize", BUFFER_TAGS)
            self._call("TDC_enableMarkers", TICK_MASK)
            self._call("TDC_enableChannels", 0, sum(1 << channel for channel in given.channels))
            self._fetch()  # what was in the buffer before belongs to nobody
        except DeviceError:
            self.close()
            raise
        self.info = DeviceInfo("time tagger", f"qutools {DEVICE_TYPES[kind]}", str(given.device_id))

    @property
    def resolution_ps(self) -> float:
        """Width of a time bin in ps."""
        return self._given.resolution_ps

    def _fault(self, text: str) -> DeviceError:
        return DeviceError(f"driver {NAME!r}: {text}", remedy="Check cable, power, and who else uses the quTAG.")

    def _call(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self._library, name)(*arguments))
        if code != 0:
            raise self._fault(f"{name} gave error {code}")

    def _fetch(self) -> tuple[int, bool]:
        """(number of tags taken out of the buffer, were any lost)."""
        lost, valid = ctypes.c_int32(0), ctypes.c_int32(0)
        times = self._times.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
        numbers = self._numbers.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        self._call("TDC_getLastTimestamps", 1, times, numbers, ctypes.pointer(valid))
        self._call("TDC_getDataLost", ctypes.pointer(lost))
        return valid.value, bool(lost.value) or valid.value >= BUFFER_TAGS

    def read(self, timeout_s: float) -> TimeTags | None:
        """The next batch; a full ring buffer and the library's latch of data lost void it."""
        end = time.monotonic() + timeout_s
        while True:
            if not self._open:
                raise DeviceError(f"driver {NAME!r} is closed", remedy="Open the device again.")
            n, lost = self._fetch()
            if n or lost or time.monotonic() >= end:
                return self._batch(n, lost)
            threading.Event().wait(POLL_S)

    def _batch(self, n: int, lost: bool) -> TimeTags:
        order = np.argsort(self._times[:n], kind="stable")
        times, numbers = self._times[:n][order], self._numbers[:n][order]
        late = bool(n) and int(times[0]) < self._last_ps
        clicks = (self._map[numbers] != NO_DETECTOR) & (times >= self._last_ps)
        self._last_ps = max(self._last_ps, int(times[-1]) if n else 0)
        return TimeTags(times[clicks], self._map[numbers[clicks]], self._last_ps, lost or late)

    def close(self) -> None:
        """Inputs off and the library released; may be called twice."""
        if self._open:
            self._open = False
            self._library.TDC_enableChannels(0, 0)
            self._library.TDC_deInit()
