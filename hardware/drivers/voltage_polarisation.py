"""`voltage-polarisation`: retarders driven by a multi-channel voltage source over SCPI (`VOLT value,(@n)`).

Not tried on a real instrument; tried against its wire-level twin through PyVISA-py. Command form: Keysight E36300
series and compatible sources, recalled and not checked against a manual.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.config import Config
from hardware.drivers.scpi import ScpiSession, VisaParameters
from hardware.interfaces import TWIN_SERIAL, DeviceInfo, check_axes
from hardware.registry import parse_parameters

NAME = "voltage-polarisation"


class Parameters(VisaParameters):
    """What a manifest says of `voltage-polarisation`."""

    channels: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    """Output that drives each axis."""
    full_scale_v: float = Field(gt=0.0, le=500.0)
    """Volts of position 1; 0 V is position 0. Never more than the retarder bears."""


class VoltagePolarisation:
    """One retarder a channel; safe state 0 V."""

    tried = False

    model = Parameters
    needs = "pyvisa"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        self._channels, self._full_scale_v, self._closed = given.channels, given.full_scale_v, False
        self._scpi = ScpiSession(given, NAME, ("E363", "EDU363"))
        model, serial, firmware = self._scpi.parts
        self.info = DeviceInfo("polarisation controller", model, serial, firmware, serial.startswith(TWIN_SERIAL))

    @property
    def n_axes(self) -> int:
        """The number of its retarders."""
        return len(self._channels)

    def set_axes(self, positions: NDArray[np.float64]) -> None:
        """*(n_axes,) float64* in 0..1; returns when the measured voltages agree to 1 % of full scale."""
        for channel, position in zip(self._channels, check_axes(positions, self.n_axes), strict=True):
            self._set(channel, position * self._full_scale_v)

    def _set(self, channel: int, volts: float) -> None:
        self._scpi.command(f"VOLT {volts:.4f},(@{channel})")
        close_to = 0.01 * self._full_scale_v
        self._scpi.settle(
            lambda: abs(self._scpi.number(f"MEAS:VOLT? (@{channel})") - volts) <= close_to, f"{volts:.3f} V"
        )

    def close(self) -> None:
        """All outputs at 0 V; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            for channel in self._channels:
                self._scpi.command(f"VOLT 0,(@{channel})")
        finally:
            self._scpi.close()
