"""`oz-attenuator`: OZ Optics DD-100-MC digital attenuator on a serial port.

Not tried on a real instrument; tried against its wire-level twin on a pseudo-terminal. Protocol, recalled and not
checked against the manual of the DD-100-MC: 9600 baud, command and CR; the answer's lines end with `Done` and an empty
line. `CD` shows the configuration, `A12.34` sets dB, `D` answers `DPos:steps` and `ATTEN:dB`. It has no shutter: its
safe state is its largest attenuation, which is not darkness. No answer carries a serial number, so the manifest must
say whether it is simulated.
"""

from __future__ import annotations

import math
import re
from typing import Any

from pydantic import Field

from common.config import Config
from common.errors import AnotherDeviceError, DeviceError
from hardware.drivers.serial_port import SerialParameters, SerialPort
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

NAME = "oz-attenuator"
TOLERANCE_DB = 0.1
END = b"Done\r\n\r\n"


class Parameters(SerialParameters):
    """What a manifest says of `oz-attenuator`."""

    maximum_db: float = Field(60.0, gt=0.0, le=120.0)
    simulated: bool
    """True for a twin behind the port: its keys are marked."""


class OzAttenuator:
    """A motor-driven neutral filter."""

    tried = False

    model = Parameters
    needs = "serial"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        self._maximum_db, self._closed = given.maximum_db, False
        self._port = SerialPort(given, NAME, 9600)
        try:
            answer = self._ask("CD")
            if "OZ" not in answer.upper() and "DD-100" not in answer.upper():
                fault = self._port.fault(f"is {answer[:60]!r}, not a DD-100", "Correct `port` or the driver.")
                raise AnotherDeviceError(str(fault), remedy=fault.remedy)
            self.attenuation_db()
        except DeviceError:
            self._port.close()
            raise
        self.info = DeviceInfo("attenuator", "OZ Optics DD-100-MC", simulated=given.simulated)

    def _ask(self, command: str) -> str:
        with self._port.lock:
            self._port.write(command.encode() + b"\r")
            return self._port.read_until(END)[: -len(END)].decode("ascii", "replace").strip()

    def set_attenuation_db(self, attenuation_db: float) -> None:
        """Set dB in 0..maximum; the instrument answers when it is there, and the read-back must agree."""
        if not (math.isfinite(attenuation_db) and 0.0 <= attenuation_db <= self._maximum_db):
            raise DeviceError(
                f"attenuation {attenuation_db} dB is not in 0..{self._maximum_db} dB",
                remedy="Choose a value in range, or correct `maximum_db`.",
            )
        answer = self._ask(f"A{attenuation_db:.2f}")
        if not re.search(r"Pos:\s*\d+", answer):
            raise self._port.fault(
                f"refused {attenuation_db} dB: {answer[:60]!r}", "Home it, then look at its display."
            )
        reached = self.attenuation_db()
        if abs(reached - attenuation_db) > TOLERANCE_DB:
            raise self._port.fault(f"stands at {reached} dB, not {attenuation_db} dB", "Home it and try again.")

    def attenuation_db(self) -> float:
        """The instrument's own read-back in dB."""
        answer = self._ask("D")
        found = re.search(r"ATTEN:\s*([-+0-9.]+)", answer)
        if not found:
            raise self._port.fault(f"answered {answer[:60]!r} to D")
        return float(found.group(1))

    def close(self) -> None:
        """Maximum attenuation; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._ask(f"A{self._maximum_db:.2f}")
        finally:
            self._port.close()
