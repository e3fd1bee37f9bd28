"""`thorlabs-pm100`: the PM100 family of optical power meters, over SCPI.

Not tried on a real instrument; tried against its wire-level twin through PyVISA-py. Commands
(`SENSe:CORRection:WAVelength` in nm, `SENSe:POWer:UNIT W`, `MEASure:POWer?`) are recalled, not checked against the
PM100D's manual.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from common.config import Config
from common.errors import DeviceError
from hardware.drivers.scpi import ScpiSession, VisaParameters
from hardware.interfaces import TWIN_SERIAL, DeviceInfo
from hardware.registry import parse_parameters


class Parameters(VisaParameters):
    """What a manifest says of `thorlabs-pm100`."""

    wavelength_nm: float = Field(ge=180.0, le=25_000.0)
    """Of the light: selects the sensor's calibration."""


class ThorlabsPM100:
    """Average optical power through a calibrated sensor."""

    tried = False

    model = Parameters
    needs = "pyvisa"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, "thorlabs-pm100")

        def prepare(scpi: ScpiSession) -> None:
            scpi.command("SENS:POW:UNIT W")
            scpi.command("SENS:POW:RANG:AUTO ON")
            scpi.command(f"SENS:CORR:WAV {given.wavelength_nm:g}")
            reached = scpi.number("SENS:CORR:WAV?")
            if abs(reached - given.wavelength_nm) > 0.5:
                raise DeviceError(f"the power meter is calibrated for {reached} nm, not {given.wavelength_nm} nm")

        scpi = ScpiSession(given, "thorlabs-pm100", ("PM10", "PM16", "PM40", "PM5"), prepare)
        self._scpi: ScpiSession | None = scpi
        model, serial, firmware = scpi.parts
        self.info = DeviceInfo("power meter", model, serial, firmware, serial.startswith(TWIN_SERIAL))

    def power_w(self) -> float:
        """Average power in W."""
        if self._scpi is None:
            raise DeviceError("driver 'thorlabs-pm100' is closed", remedy="Open the device again.")
        return self._scpi.number("MEAS:POW?")

    def close(self) -> None:
        """Release the meter (it has no unsafe state); may be called twice."""
        if self._scpi is not None:
            self._scpi.close()
            self._scpi = None
