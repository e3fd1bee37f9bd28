"""`picoquant`: PicoQuant's TCSPC devices (MultiHarp, HydraHarp, PicoHarp 330, TimeHarp 260) in T2 mode, through snAPI.

Not tried on a real instrument; tried against a stand-in for the package and, by hand, against the package itself (snAPI
1.2.5) with a recorded PTU file as its device (`file`). Seen there: `unfold.startBlock(0)` streams until stopped, blocks
hold times in ps (unsigned, ascending) and channels, overflow records come out as channel 255 and tell time in darkness,
the arrays are overwritten by the next `getBlock()`, the logs go to standard output and the home folder unless an ini
file says otherwise, a file that is not there is no error. From its documentation: an overrun of its buffer empties it,
which only the log tells. Taken for granted, to be checked first: channel 0 is the sync input and 0x80 marks markers on
every model; without clicks an overflow record comes at least every 0.1 s; a FIFO overrun ends the measurement.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from common.config import Config
from common.datatypes import TimeTags
from common.errors import ConfigurationError, DeviceError
from hardware.drivers.inputs import NO_DETECTOR, detectors_of_inputs
from hardware.drivers.sdk import require
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

NAME = "picoquant"
POLL_S = 0.005
BUFFER_RECORDS = 1 << 24
N_CHANNELS = 64
#: No record of any kind for so long: the package has emptied its buffer.
MAX_SILENCE_PS = 100_000_000_000
SYSTEM_INI = """[Paths]
Data = {folder}
[Log]
File = false
Console = false
[Params]
BufferSize = 32
"""


class Parameters(BaseModel):
    """What a manifest says of `picoquant`."""

    model_config = ConfigDict(extra="forbid")
    serial: str = ""
    """Empty takes the first device."""
    file: Path | None = None
    """A PTU file that plays the device: what it gives is marked as simulated."""
    configuration: Path | None = None
    """The package's own ini file with triggers, offsets and dead times of the inputs."""
    reference: Literal["internal", "external"] = "internal"
    """`external`: the clock is locked to 10 MHz from outside."""
    channels: tuple[int, int, int, int]
    """The inputs of H, V, R, L; 0 is the sync input."""


class PicoQuant:
    """Takes blocks as the package's own threads have them ready."""

    tried = False

    model = Parameters
    needs = "snAPI"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        self._map = detectors_of_inputs(given.channels, N_CHANNELS, NAME)
        if given.file is not None and not config.path(given.file).is_file():
            raise ConfigurationError(f"driver {NAME!r}: there is no file {given.file}")
        self._given, self._last_ps = given, 0
        package = require("snAPI.Main", NAME, "picoquant")
        self._folder = tempfile.TemporaryDirectory(prefix="qkd-snapi-")
        ini = Path(self._folder.name) / "system.ini"
        ini.write_text(SYSTEM_INI.format(folder=self._folder.name))
        self._device: Any = package.snAPI(str(ini))
        try:
            self._open(package, config)
        except (DeviceError, ConfigurationError):
            self.close()
            raise
        facts = self._device.deviceConfig
        model, serial = f"PicoQuant {facts['Model']}", str(facts["ID"])
        self.info = DeviceInfo("time tagger", model, serial, str(facts["Version"]), given.file is not None)
        self._resolution_ps = float(facts["BaseResolution"])

    def _open(self, package: Any, config: Config) -> None:
        given, device = self._given, self._device
        if given.file is not None:
            found = device.getFileDevice(str(config.path(given.file)))
        else:
            found = device.getDevice(given.serial) if given.serial else device.getDevice()
        if not found:
            raise self._fault("was not found")
        external = given.reference == "external"
        reference = package.RefSource.External_10MHZ if external else package.RefSource.Internal
        if not device.initDevice(package.MeasMode.T2, reference):
            raise self._fault("cannot be set to T2 mode")
        if given.configuration is not None and not device.loadIniConfig(str(config.path(given.configuration))):
            raise self._fault(f"does not take {given.configuration}")
        if not device.unfold.startBlock(0, BUFFER_RECORDS, False):
            raise self._fault("does not start to measure")

    def _fault(self, text: str) -> DeviceError:
        what = self._given.file or self._given.serial or "the first device"
        return DeviceError(
            f"driver {NAME!r}: {what} {text}",
            remedy="Check cable, power and driver software, and that no other program holds it.",
        )

    @property
    def resolution_ps(self) -> float:
        """Width of a time bin in ps."""
        return self._resolution_ps

    def read(self, timeout_s: float) -> TimeTags | None:
        """The next block; a full buffer and a silence without overflow records void it; None at the end of a file."""
        end = time.monotonic() + timeout_s
        while True:
            if self._device is None:
                raise DeviceError(f"driver {NAME!r} is closed", remedy="Open the device again.")
            finished = bool(self._device.unfold.isFinished())
            times, channels = self._device.unfold.getBlock()
            n = int(self._device.unfold.numRead())
            if n:
                return self._batch(np.array(times[:n], np.int64), np.array(channels[:n], np.uint8))
            if finished and self._given.file is not None:
                return None
            if finished:
                raise self._fault("ended its measurement: its buffer overran, or it was unplugged")
            if time.monotonic() >= end:
                return TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), self._last_ps)
            threading.Event().wait(POLL_S)

    def _batch(self, times: Any, channels: Any) -> TimeTags:
        steps = np.diff(times, prepend=self._last_ps)
        if bool((steps < 0).any()):
            raise self._fault("sent times that go back")
        lost = times.size >= BUFFER_RECORDS or bool((steps > MAX_SILENCE_PS).any())
        self._last_ps = int(times[-1])
        clicks = self._map[channels] != NO_DETECTOR
        return TimeTags(times[clicks], self._map[channels[clicks]], self._last_ps, lost)

    def close(self) -> None:
        """Stop and let go of the device; may be called twice."""
        device, self._device = self._device, None
        if device is not None:
            device.unfold.stopMeasure()
            device.closeDevice()
            self._folder.cleanup()
