"""What a driver of somebody else's package imports: these names stay, wherever the things behind them move.

A driver that imports nothing else of ours keeps working from version to version; `hardware/interfaces.py` says what
each kind of device promises.
"""

from __future__ import annotations

from common.config import Config
from common.datatypes import Symbols, TimeTags
from common.errors import AnotherDeviceError, ConfigurationError, DeviceError
from hardware.interfaces import (
    Attenuator,
    DetectorBias,
    DeviceInfo,
    Modulator,
    PolarisationController,
    PowerMeter,
    RandomSource,
    TimeTagger,
)
from hardware.registry import parse_parameters

__all__ = [
    "AnotherDeviceError",
    "Attenuator",
    "Config",
    "ConfigurationError",
    "DetectorBias",
    "DeviceError",
    "DeviceInfo",
    "Modulator",
    "PolarisationController",
    "PowerMeter",
    "RandomSource",
    "Symbols",
    "TimeTagger",
    "TimeTags",
    "parse_parameters",
]
