"""`keysight-attenuator` and `exfo-attenuator`: optical attenuators that speak SCPI.

Not tried on a real instrument; tried against their wire-level twins through PyVISA-py. Command sets: Keysight 8156A,
8157xA, N775xA (`:INPut<n>:ATTenuation`, `:OUTPut<n>:STATe`); EXFO FTBx-3500 and LTB platforms
(`LINStrument<n>:INPut:ATTenuation`, `LINStrument<n>:OUTPut:STATe`). Both sets of headers are recalled, not checked
against the makers' manuals.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field

from common.config import Config
from common.errors import DeviceError
from hardware.drivers.scpi import ScpiSession, VisaParameters
from hardware.interfaces import TWIN_SERIAL, DeviceInfo
from hardware.registry import parse_parameters

TOLERANCE_DB = 0.05


class Parameters(VisaParameters):
    """Manifest of both attenuators."""

    channel: int = Field(1, ge=1, le=64)
    """Slot, channel or logical instrument."""
    maximum_db: float = Field(60.0, gt=0.0, le=120.0)
    """The instrument's largest attenuation: the safe state."""


class _ScpiAttenuator:
    tried = False
    name: ClassVar[str]
    models: ClassVar[tuple[str, ...]]
    prefix: ClassVar[tuple[str, str]]
    """Headers of attenuation and shutter, `{n}` = channel."""

    model = Parameters
    needs = "pyvisa"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, self.name)
        self._maximum_db = given.maximum_db
        self._attenuation, self._shutter = (text.format(n=given.channel) for text in self.prefix)
        self._scpi: ScpiSession | None = ScpiSession(given, self.name, self.models)
        model, serial, firmware = self._scpi.parts
        self.info = DeviceInfo("attenuator", model, serial, firmware, serial.startswith(TWIN_SERIAL))

    def _session(self) -> ScpiSession:
        if self._scpi is None:
            raise DeviceError(f"driver {self.name!r} is closed", remedy="Open the device again.")
        return self._scpi

    def set_attenuation_db(self, attenuation_db: float) -> None:
        """Set dB in 0..maximum, open the shutter, and wait until the read-back agrees."""
        if not (math.isfinite(attenuation_db) and 0.0 <= attenuation_db <= self._maximum_db):
            raise DeviceError(
                f"attenuation {attenuation_db} dB is not in 0..{self._maximum_db} dB",
                remedy="Choose a value in range, or correct `maximum_db`.",
            )
        scpi = self._session()
        scpi.command(f"{self._attenuation} {attenuation_db:.3f}")
        scpi.settle(lambda: abs(self.attenuation_db() - attenuation_db) <= TOLERANCE_DB, f"{attenuation_db} dB")
        scpi.command(f"{self._shutter} 1")

    def attenuation_db(self) -> float:
        """The instrument's own read-back in dB."""
        return self._session().number(f"{self._attenuation}?")

    def close(self) -> None:
        """Shutter closed and attenuation at its maximum; may be called twice."""
        scpi, self._scpi = self._scpi, None
        if scpi is None:
            return
        try:
            scpi.command(f"{self._shutter} 0")
            scpi.command(f"{self._attenuation} {self._maximum_db:.3f}")
        finally:
            scpi.close()


class KeysightAttenuator(_ScpiAttenuator):
    """Keysight (Agilent) 8156A, 8157xA, N775xA."""

    name = "keysight-attenuator"
    models = ("8156", "8157", "N775", "N776")
    prefix = (":INP{n}:ATT", ":OUTP{n}:STAT")


class ExfoAttenuator(_ScpiAttenuator):
    """EXFO FTBx-3500 in an LTB platform."""

    name = "exfo-attenuator"
    models = ("EXFO",)
    prefix = ("LINS{n}:INP:ATT", "LINS{n}:OUTP:STAT")
