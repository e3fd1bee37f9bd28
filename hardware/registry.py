"""From a manifest's driver name to an open device: drivers are entry points, so that any package may bring its own."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from common.config import Config, DeviceSection
from common.errors import ConfigurationError, QkdError

GROUP = "qkd_node.devices"


def driver_factory(name: str) -> Callable[[dict[str, Any], Config], Any]:
    """The factory of a driver; an unknown name is refused with the nearest known one."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        near = difflib.get_close_matches(name, points, n=1, cutoff=0.4)
        raise ConfigurationError(
            f"unknown driver {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
            remedy="Known drivers: " + ", ".join(sorted(points)),
        )
    factory: Callable[[dict[str, Any], Config], Any] = points[name].load()
    return factory


def open_device(role: str, section: DeviceSection | None, config: Config) -> Any:
    """Open the device that plays a role (random_source, modulator, time_tagger, ...)."""
    if section is None:
        raise ConfigurationError(f"devices.{role} is missing")
    parameters = dict(section.model_extra or {})
    return driver_factory(section.driver)(parameters, config)


def doctor() -> list[tuple[str, bool, str]]:
    """For `qkd doctor`: which drivers are installed, and whether each can be imported."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    broken = []
    for point in points:
        try:
            point.load()
        except ImportError as error:
            broken.append((f"driver {point.name}", False, str(error)))
    untried = [name for name in (point.name for point in points) if not tried(name)]
    return [
        ("drivers", not broken, ", ".join(point.name for point in points)),
        ("not tried on an instrument", True, ", ".join(untried) or "none"),
        *broken,
    ]


def tried(name: str) -> bool:
    """Whether a driver says (``tried``) that it was tried on a real instrument; one that cannot be read was not."""
    try:
        return bool(getattr(driver_factory(name), "tried", True))
    except ImportError:
        return False


def manifest_digest(config: Config) -> str:
    """SHA-256 (hex) of the devices of a configuration, canonical JSON: which bench a run stood on."""
    devices = {role: section.model_dump(mode="json") for role, section in config.devices.items()}
    return hashlib.sha256(json.dumps(devices, sort_keys=True).encode()).hexdigest()


def check_devices(config: Config, roles: Sequence[str], optional: Sequence[str] = ()) -> list[tuple[str, bool, str]]:
    """(device, good, finding) for every role needed or configured: is its driver known? Nothing is opened.

    A device whose role is in neither list is good, but the finding says that no daemon opens it.
    """
    rows = []
    for role in [*roles, *(role for role in config.devices if role not in roles)]:
        section = config.devices.get(role)
        try:
            if section is None:
                raise ConfigurationError(f"devices.{role} is missing")
            driver_factory(section.driver)
            note = "" if tried(section.driver) else " (not tried on a real instrument)"
            note += "" if role in (*roles, *optional) else ", but this role is never opened"
            rows.append((f"device {role}", True, section.driver + note))
        except QkdError as error:
            rows.append((f"device {role}", False, str(error)))
    rows.append(("device manifest", True, f"sha256 {manifest_digest(config)[:16]}"))
    return rows


def parse_parameters(model: type[Any], parameters: dict[str, Any], driver: str) -> Any:
    """Validate a driver's parameters; a wrong one is named, with the nearest known."""
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        item = error.errors()[0]
        name = ".".join(map(str, item["loc"]))
        near = difflib.get_close_matches(name, list(model.model_fields), n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]!r}?)" if item["type"] == "extra_forbidden" and near else ""
        raise ConfigurationError(f"driver {driver!r}: parameter {name!r}: {item['msg']}{hint}") from None
