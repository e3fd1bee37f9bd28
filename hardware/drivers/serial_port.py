"""A serial port over pyserial whose every fault is a DeviceError in bounded time (extra `serial`)."""

from __future__ import annotations

import threading
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from common.errors import DeviceError
from hardware.drivers.sdk import require


class SerialParameters(BaseModel):
    """Manifest of every driver on a serial port."""

    model_config = ConfigDict(extra="forbid")
    port: str = Field(min_length=1)
    """Such as /dev/ttyUSB0; better a name below /dev/serial/by-id."""
    timeout_s: float = Field(5.0, gt=0.0, le=120.0)
    """For one answer."""
    settle_s: float = Field(30.0, gt=0.0, le=600.0)
    """Until a new setting must be reached."""


class SerialPort:
    """Bytes out, bytes in, with a deadline.

    Parameters
    ----------
    given : which port. driver : for messages. baud_rate : bit/s. flow_control : RTS/CTS.
    """

    def __init__(self, given: SerialParameters, driver: str, baud_rate: int, flow_control: bool = False) -> None:
        self._driver, self._name, self._timeout_s = driver, given.port, given.timeout_s
        self.lock = threading.RLock()
        serial = require("serial", driver, "serial")
        self._failures: tuple[type[BaseException], ...] = (serial.SerialException, OSError, ValueError)
        self._port: Any = None
        try:
            self._port = serial.Serial(
                given.port, baud_rate, timeout=0.05, write_timeout=given.timeout_s, rtscts=flow_control, exclusive=True
            )
            self._port.reset_input_buffer()
        except self._failures as error:
            raise self.fault(f"cannot be opened: {error}") from None

    def fault(self, text: str, remedy: str = "Check power, cable and port name, and who else uses it.") -> DeviceError:
        """The error to raise."""
        return DeviceError(f"driver {self._driver!r} at {self._name}: {text}", remedy=remedy)

    def write(self, data: bytes) -> None:
        """Forget what nobody read, and send."""
        try:
            self._open().reset_input_buffer()
            self._open().write(data)
        except self._failures as error:
            raise self.fault(f"cannot be written to: {error}") from None

    def read(self, n_bytes: int, timeout_s: float | None = None) -> bytes:
        """Exactly this many bytes."""
        got = bytearray()
        end = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while len(got) < n_bytes:
            try:
                got += self._open().read(n_bytes - len(got))
            except self._failures as error:
                raise self.fault(f"cannot be read: {error}") from None
            if time.monotonic() > end and len(got) < n_bytes:
                raise self.fault(f"was silent after {len(got)} of {n_bytes} bytes")
        return bytes(got)

    def read_until(self, ending: bytes, limit: int = 4096) -> bytes:
        """Everything up to and with ``ending``."""
        got = bytearray()
        end = time.monotonic() + self._timeout_s
        while not got.endswith(ending):
            try:
                got += self._open().read(1)
            except self._failures as error:
                raise self.fault(f"cannot be read: {error}") from None
            if time.monotonic() > end or len(got) > limit:
                raise self.fault(f"did not finish its answer {bytes(got[:40])!r}")
        return bytes(got)

    def _open(self) -> Any:
        if self._port is None:
            raise self.fault("is closed", "Open the device again.")
        return self._port

    def close(self) -> None:
        """May be called twice."""
        port, self._port = self._port, None
        if port is not None:
            port.close()
