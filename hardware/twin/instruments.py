"""Twins of the slow instruments: the same objects answer in this process and behind every wire protocol.

They obey their physics and nothing more: what a power meter reads is what the attenuator before it lets through.
``lag`` is the number of read-backs that a new setting takes to be reached (slow settling).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.errors import DeviceError
from common.units import transmittance_from_db
from hardware.interfaces import DeviceInfo, check_axes
from hardware.registry import parse_parameters
from hardware.twin.axes import AxesTwin, Lagging
from hardware.twin.devices import tagger_at
from hardware.twin.weather import N_AXES


class AttenuatorTwin:
    """A shutter and 0..60 dB."""

    def __init__(self, maximum_db: float = 60.0, lag: int = 0) -> None:
        self.maximum_db, self.open = maximum_db, False
        self.attenuation = Lagging(maximum_db, lag)

    @property
    def transmittance(self) -> float:
        """The transmittance of its light."""
        return transmittance_from_db(self.attenuation.now) if self.open else 0.0

    def set_db(self, value: float) -> bool:
        """Set; False: out of range."""
        if not (math.isfinite(value) and 0.0 <= value <= self.maximum_db):
            return False
        self.attenuation.set(value)
        return True


class PowerMeterTwin:
    """Reads ``source_w`` behind an attenuator."""

    def __init__(self, source_w: float = 1e-3, behind: AttenuatorTwin | None = None) -> None:
        self.source_w, self.behind, self.wavelength_nm = source_w, behind, 1550.0

    @property
    def power_w(self) -> float:
        """Average power in W."""
        return self.source_w * (self.behind.transmittance if self.behind else 1.0)


class BiasTwin:
    """Detectors in darkness: 10 counts per second each while biased, none otherwise."""

    dark_cps = 10.0

    def __init__(self, n_channels: int = 4) -> None:
        self.enabled, self.current_ua = False, [0.0] * n_channels

    @property
    def rates_cps(self) -> list[float]:
        """Count rates of the detectors."""
        return [self.dark_cps if self.enabled and current > 0.0 else 0.0 for current in self.current_ua]


class Parameters(BaseModel):
    """Manifest of the in-process twins."""

    model_config = ConfigDict(extra="forbid")
    lag: int = Field(0, ge=0)


class _Twin:
    tried = True
    kind = ""
    model: ClassVar[type[Parameters]] = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        self._given: Any = parse_parameters(self.model, parameters, f"twin-{self.kind.replace(' ', '-')}")
        self._lag = self._given.lag
        self.info = DeviceInfo(self.kind, "digital twin", simulated=True)
        self._closed = False

    def _alive(self) -> None:
        if self._closed:
            raise DeviceError(f"the simulated {self.kind} is closed", remedy="Open the device again.")

    def close(self) -> None:
        """Safe state; may be called twice."""
        self._closed = True


class TwinAttenuator(_Twin):
    """Simulate an attenuator (`twin-attenuator`)."""

    kind = "attenuator"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        super().__init__(parameters, config)
        self.twin = AttenuatorTwin(lag=self._lag)

    def set_attenuation_db(self, attenuation_db: float) -> None:
        """Set and wait until settled."""
        self._alive()
        if not self.twin.set_db(attenuation_db):
            raise DeviceError(f"attenuation {attenuation_db} dB is out of range", remedy="Choose 0..60 dB.")
        while self.twin.attenuation.read() != attenuation_db:
            pass
        self.twin.open = True

    def attenuation_db(self) -> float:
        """The present setting in dB."""
        self._alive()
        return self.twin.attenuation.read()

    def close(self) -> None:
        """Shutter closed, maximum attenuation."""
        self.twin.open = False
        self.twin.attenuation = Lagging(self.twin.maximum_db)
        super().close()


class TwinPowerMeter(_Twin):
    """Simulate a power meter (`twin-power-meter`)."""

    kind = "power meter"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        super().__init__(parameters, config)
        self.twin = PowerMeterTwin()

    def power_w(self) -> float:
        """Average power in W."""
        self._alive()
        return self.twin.power_w


class PolarisationParameters(Parameters):
    """What a manifest says of `twin-polarisation-controller`."""

    fibre: str = ""
    """Of the twin time tagger that it stands before; without one it turns no light."""


class TwinPolarisation(_Twin):
    """`twin-polarisation-controller`: four retarders (:func:`~hardware.twin.weather.controller_rotation`)."""

    kind = "polarisation controller"
    model: ClassVar[type[Parameters]] = PolarisationParameters
    n_axes = N_AXES

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        super().__init__(parameters, config)
        self.twin = AxesTwin(self.n_axes, self._lag)
        if self._given.fibre:
            tagger_at(self._given.fibre).axes = self.twin

    def set_axes(self, positions: NDArray[np.float64]) -> None:
        """*(4,) float64* in 0..1; the light of the fibre, if there is one, follows within the next 55 ms."""
        self._alive()
        for axis, target in zip(self.twin.axes, check_axes(positions, self.n_axes), strict=True):
            axis.set(target)
            while axis.read() != target:
                pass


class TwinBias(_Twin):
    """Simulate the bias of four detectors (`twin-detector-bias`)."""

    kind = "detector bias"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        super().__init__(parameters, config)
        self.twin = BiasTwin()

    def set_bias(self, channel: int, on: bool) -> None:
        """Switch one detector's bias."""
        self._alive()
        if not 0 <= channel < len(self.twin.current_ua):
            raise DeviceError(f"there is no detector {channel}", remedy="Choose 0..3.")
        self.twin.enabled, self.twin.current_ua[channel] = True, 20.0 if on else 0.0

    def count_rates_cps(self) -> NDArray[np.float64]:
        """*(4,) float64*: count rates of the detectors."""
        self._alive()
        return np.array(self.twin.rates_cps)

    def close(self) -> None:
        """Switch the bias off."""
        self.twin.enabled = False
        super().close()
