"""What `check` says about the parts that both daemons share."""

from __future__ import annotations

import shutil
from importlib.metadata import entry_points

from common import statements
from common.config import Config, DeviceSection
from common.errors import ConfigurationError, QkdError
from common.node.alarms import alarms_of
from common.node.keystore import KeyStore
from common.node.recorder import recorded_bytes
from common.randomness import OPERATING_SYSTEM


def check_key_store(config: Config) -> tuple[str, bool, str]:
    """(what, good, finding): does the key file open the store?"""
    database, key_file = config.path(config.keys.database), config.path(config.keys.key_file)
    try:
        if not database.exists():
            return ("key store", key_file.exists(), "not made yet" if key_file.exists() else f"no key file {key_file}")
        with KeyStore.open(database, key_file, read_only=True) as store:
            return ("key store", True, f"{store.available_bits()} bits for applications")
    except QkdError as error:
        return ("key store", False, str(error))


def surely_simulated(section: DeviceSection) -> bool:
    """Whether a device is simulated by what its manifest says; what answers at an address is known once it is open."""
    points = {point.name: point for point in entry_points(group="qkd_node.devices")}
    try:
        always = section.driver in points and getattr(points[section.driver].load(), "always_simulated", False)
    except ImportError:
        always = False
    return bool(always) or (section.model_extra or {}).get("simulated") is True


def check_statements(config: Config) -> list[tuple[str, bool, str]]:
    """What the configuration must state about a real device and does not."""
    section = config.devices.get(statements.DEVICE_OF[config.role])
    if section is None or surely_simulated(section):
        return []
    rows = [(field, False, f"{fault}: {remedy}") for field, fault, remedy in statements.faults(config)]
    uses = {"start": statements.start_secret(config)}
    if config.role == "bob" and "random_source" not in config.devices:
        uses["coins"] = OPERATING_SYSTEM
    try:
        statements.require_randomness(config, False, uses)
    except ConfigurationError as error:
        rows.append(("randomness", False, f"{error}: {error.remedy}"))
    return rows or [("statements", True, "all that the proof takes from the device is stated")]


def check_alarms(config: Config) -> list[tuple[str, bool, str]]:
    """What keeps the node from starting until a person clears it."""
    return [(f"alarm {a['name']}", False, f"{a['reason']} ({a['since']}): qkd alarm clear") for a in alarms_of(config)]


def check_recorder(config: Config) -> list[tuple[str, bool, str]]:
    """The flight recorder, where it is on: what it may still write, and whether the disk has room for that."""
    if not config.record.enabled:
        return []
    folder = config.path(config.record.directory)
    used = recorded_bytes(folder)
    left = config.record.max_bytes - used
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    finding = f"{used} bytes recorded, {left} to go, {free} free on the disk"
    return [("flight recorder", 0 < left <= free, finding)]
