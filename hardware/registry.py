"""From a manifest's driver name to an open device: drivers are entry points, so that any package may bring its own."""

from __future__ import annotations

import ctypes.util
import difflib
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Literal, TypeVar, overload

from pydantic import BaseModel, ValidationError

from common.config import Config, DeviceSection
from common.errors import ConfigurationError, QkdError
from common.node.check import Step
from hardware.interfaces import (
    Attenuator,
    DetectorBias,
    Device,
    Modulator,
    PolarisationController,
    PowerMeter,
    RandomSource,
    TimeTagger,
)

GROUP = "qkd_node.devices"
Table = DeviceSection | None
Source = Literal["random_source", "random_source.seed"]
Parameters = TypeVar("Parameters", bound=BaseModel)
Factory = Callable[[dict[str, object], Config], Device]
"""Makes a device of a driver's parameters; what its role demands beyond that is for the conformance tests."""


def driver_factory(name: str) -> Factory:
    """The factory of a driver; an unknown name is refused with the nearest known one."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        near = difflib.get_close_matches(name, points, n=1, cutoff=0.4)
        raise ConfigurationError(
            f"unknown driver {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
            remedy="Known drivers: " + ", ".join(sorted(points)),
        )
    try:
        factory: Factory = points[name].load()
    except ImportError as error:
        raise ConfigurationError(
            f"driver {name!r} cannot be imported: {error}", remedy="Install what its package needs."
        ) from None
    return factory


@overload
def open_device(role: Source, table: Table, config: Config) -> RandomSource: ...
@overload
def open_device(role: Literal["modulator"], table: Table, config: Config) -> Modulator: ...
@overload
def open_device(role: Literal["time_tagger"], table: Table, config: Config) -> TimeTagger: ...
@overload
def open_device(role: Literal["attenuator"], table: Table, config: Config) -> Attenuator: ...
@overload
def open_device(
    role: Literal["polarisation_controller"], table: Table, config: Config
) -> PolarisationController: ...
@overload
def open_device(role: Literal["detector_bias"], table: Table, config: Config) -> DetectorBias: ...
@overload
def open_device(role: Literal["power_meter"], table: Table, config: Config) -> PowerMeter: ...
@overload
def open_device(role: str, table: Table, config: Config) -> Device: ...
def open_device(role: str, table: Table, config: Config) -> Device:
    """Open the device that plays a role (random_source, modulator, time_tagger, ...)."""
    if table is None:
        raise missing(role)
    parameters: dict[str, object] = dict(table.model_extra or {})
    return driver_factory(table.driver)(parameters, config)


def doctor() -> list[tuple[str, bool, str]]:
    """For `qkd doctor`: which drivers are installed, and whether each can be imported."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    broken = []
    for point in points:
        try:
            point.load()
        except ImportError as error:
            broken.append((f"driver {point.name}", False, str(error)))
    lacking = {point.name: needs for point in points if (needs := lacks(point.name)) is not None}
    untried = [name for name in (point.name for point in points) if not tried(name)]
    return [
        ("drivers", not broken, ", ".join(point.name for point in points if point.name not in lacking)),
        ("not usable here", True, "; ".join(f"{name} needs {needs}" for name, needs in lacking.items()) or "none"),
        ("not tried on an instrument", True, ", ".join(untried) or "none"),
        *broken,
    ]


def lacks(name: str) -> str | None:
    """The vendor's package or library (``needs``) that a driver does not find on this machine; nothing is loaded."""
    try:
        needs: str | None = getattr(driver_factory(name), "needs", None)
    except QkdError:
        return None
    if needs is None:
        return None
    if needs.endswith(".so"):
        found = ctypes.util.find_library(needs.removeprefix("lib").removesuffix(".so"))
        return None if found else f"{needs}, or its path in `library`"
    return None if importlib.util.find_spec(needs) else f"the package {needs!r}"


def tried(name: str) -> bool:
    """Whether a driver says (``tried``) that it was tried on a real instrument; one that cannot be read was not."""
    try:
        return bool(getattr(driver_factory(name), "tried", True))
    except QkdError:
        return False


def manifest_digest(config: Config) -> str:
    """SHA-256 (hex) of the devices of a configuration, canonical JSON: which bench a run stood on."""
    try:
        devices = {role: section.model_dump(mode="json") for role, section in config.devices.items()}
    except ValueError as error:  # lists in lists, deeper than anything that a device has
        raise ConfigurationError(f"devices: {error}", remedy="Correct the parameters of the devices.") from None
    return hashlib.sha256(json.dumps(devices, sort_keys=True).encode()).hexdigest()


def device_steps(roles: Sequence[str], optional: Sequence[str] = ()) -> tuple[Step, ...]:
    """Steps over the devices of a manifest: driver and parameters are right. Nothing is opened.

    Parameters
    ----------
    roles : needed. optional : opened where they are configured; the other roles of a manifest are looked at too.
    """

    def others(config: Config) -> str | None:
        found = [f"{role}: {_described(config, role)}" for role in config.devices if role not in (*roles, *optional)]
        return "never opened by this daemon: " + "; ".join(found) if found else None

    needed = [(f"device {role}", partial(_described, role=role)) for role in roles]
    wanted = [(f"device {role}", partial(_described_if_there, role=role)) for role in optional]
    digest = ("device manifest", lambda config: f"sha256 {manifest_digest(config)[:16]}")
    return (*needed, *wanted, ("other devices", others), digest)


def _described_if_there(config: Config, role: str) -> str | None:
    return _described(config, role) if role in config.devices else None


def _described(config: Config, role: str) -> str:
    section = config.devices.get(role)
    if section is None:
        raise missing(role)
    model: type[BaseModel] | None = getattr(driver_factory(section.driver), "model", None)
    if model is not None:
        parse_parameters(model, dict(section.model_extra or {}), section.driver)
    return section.driver + ("" if tried(section.driver) else " (not tried on a real instrument)")


def missing(role: str) -> ConfigurationError:
    """Of a device that a daemon needs and the manifest does not have."""
    return ConfigurationError(f"devices.{role} is missing", remedy=f"Write a table [devices.{role}]: docs/hardware.md.")


def parse_parameters(model: type[Parameters], parameters: Mapping[str, object], driver: str) -> Parameters:
    """Validate a driver's parameters; a wrong one is named, with the nearest known."""
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        faults = error.errors()
        # A misspelt key is also a missing one: the misspelling is what a person must see.
        item = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
        name = ".".join(map(str, item["loc"]))
        near = difflib.get_close_matches(name, list(model.model_fields), n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]!r}?)" if item["type"] == "extra_forbidden" and near else ""
        raise ConfigurationError(f"driver {driver!r}: parameter {name!r}: {item['msg']}{hint}") from None
