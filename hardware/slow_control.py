"""Devices that are set now and then: attenuator, polarisation controller, detector bias, power meter.

The daemons open whatever their configuration names, show the readings and offer the commands below to operators. An
attenuator is never set below `mqtt.min_attenuation_db`: the source's calibrated mean photon number, on which the proof
stands (assumption A1), was measured with at least so much attenuation.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from common.config import Config
from common.errors import QkdError
from hardware.interfaces import Device
from hardware.registry import open_device

log = logging.getLogger("qkd.hardware")
ROLES = ("attenuator", "polarisation_controller", "detector_bias", "power_meter")
Request = Mapping[str, Any]
Verb = Callable[[Request], Mapping[str, Any]]


@dataclass
class SlowControl:
    """The slow devices of one node, each used by one thread at a time."""

    devices: dict[str, Any] = field(default_factory=dict)
    min_attenuation_db: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, config: Config) -> SlowControl:
        """Open what `[devices]` names; a device that fails closes the ones before it."""
        made = cls(min_attenuation_db=config.mqtt.min_attenuation_db)
        try:
            for role in ROLES:
                if role in config.devices:
                    made.devices[role] = open_device(role, config.devices[role], config)
        except BaseException:
            made.close()
            raise
        return made

    @property
    def simulated(self) -> bool:
        """Whether any of them is."""
        return any(device.info.simulated for device in self.devices.values())

    def readings(self) -> dict[str, dict[str, Any]]:
        """What each says now; a device that fails says so instead."""
        return {role: self.reading(role) for role in self.devices}

    def reading(self, role: str) -> dict[str, Any]:
        """What one device says now, or why it does not."""
        device = self.devices[role]
        try:
            with self._lock:
                match role:
                    case "attenuator":
                        return {"ok": True, "attenuation_db": device.attenuation_db()}
                    case "power_meter":
                        return {"ok": True, "power_w": device.power_w()}
                    case "detector_bias":
                        return {"ok": True, "count_rates_cps": [float(rate) for rate in device.count_rates_cps()]}
                    case _:
                        return {"ok": True, "axes": device.n_axes}
        except QkdError as error:
            return {"ok": False, "reason": str(error)}

    def verbs(self) -> dict[tuple[str, str], Verb]:
        """(role, verb) of every device that is there -> what does it."""
        known: dict[tuple[str, str], Verb] = {
            ("attenuator", "set"): self._set_attenuation,
            ("polarisation_controller", "set"): self._set_axes,
            ("detector_bias", "set"): self._set_bias,
        }
        return {name: self._alone(verb) for name, verb in known.items() if name[0] in self.devices}

    def _alone(self, verb: Verb) -> Verb:
        def locked(request: Request) -> Mapping[str, Any]:
            with self._lock:
                return verb(request)

        return locked

    def _set_attenuation(self, request: Request) -> Mapping[str, Any]:
        """Carry out ``{"attenuation_db": ...}`` and answer."""
        wanted = _number(request, "attenuation_db", 0.0, 200.0)
        if self.min_attenuation_db is None or wanted < self.min_attenuation_db:
            limit = "not set" if self.min_attenuation_db is None else f"{self.min_attenuation_db} dB"
            raise ValueError(f"attenuation_db {wanted} is not allowed: mqtt.min_attenuation_db is {limit}")
        device = self.devices["attenuator"]
        device.set_attenuation_db(wanted)
        return {"attenuation_db": device.attenuation_db()}

    def _set_axes(self, request: Request) -> Mapping[str, Any]:
        """``{"positions": [0..1 of each axis]}``."""
        device, given = self.devices["polarisation_controller"], request.get("positions")
        if not isinstance(given, list) or len(given) != device.n_axes:
            raise ValueError(f"positions must be a list of {device.n_axes} numbers")
        positions = [_number({"positions": one}, "positions", 0.0, 1.0) for one in given]
        device.set_axes(np.array(positions))
        return {"positions": positions}

    def _set_bias(self, request: Request) -> Mapping[str, Any]:
        """``{"channel": 0.., "on": true | false}``."""
        channel, on = request.get("channel"), request.get("on")
        if not isinstance(channel, int) or isinstance(channel, bool) or not isinstance(on, bool) or channel < 0:
            raise ValueError('a bias command is {"channel": number, "on": true or false}')
        self.devices["detector_bias"].set_bias(channel, on)
        return {"channel": channel, "on": on}

    def close(self) -> None:
        """Every device to its safe state; one that fails does not keep the others from it."""
        for role, device in reversed(list(self.devices.items())):
            try:
                device.close()
            except Exception:
                log.exception("while closing %s", role)


def identities(devices: Mapping[str, Device]) -> list[dict[str, Any]]:
    """Role, kind, model, serial, firmware, simulated of each."""
    return [{"role": role, **asdict(device.info)} for role, device in devices.items()]


def _number(request: Request, name: str, low: float, high: float) -> float:
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number")
    if not low <= value <= high:
        raise ValueError(f"{name} {value} is not in {low} .. {high}")
    return float(value)
