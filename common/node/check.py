"""One validator: what `run` asks before it opens anything, and `check` and `doctor` tell, with the same words.

A step looks at one thing of a configuration. It returns what it found, or raises the fault: the exception's class says
whether the configuration is wrong or the machine lacks something, and so gives the exit code. `run` stops at the first
fault, `check` tells all of them. What only a device could answer, and what does not stop a node, is told by `check`
alone (:func:`told_apart`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from common import statements
from common.addresses import read_address, read_endpoint
from common.config import Config, DeviceSection
from common.errors import ConfigurationError, EnvironmentFault, KeyStoreError, QkdError
from common.node import alarms, credentials
from common.node.etsi014 import revocation, tls_context
from common.node.keystore import examine_store, open_store
from common.node.listening import require_free
from common.node.mqtt import proofs
from common.node.recorder import recorded_bytes
from common.node.statusfile import running
from common.randomness import OPERATING_SYSTEM

Finding = tuple[str, bool, str]
"""(what was looked at, whether it is good, what was found)."""
Step = tuple[str, Callable[[Config], str | None]]
"""What is looked at, and how: returns what was found (None: nothing that concerns this node), or raises the fault."""
ASKED_BY_OPENING = ("key store",)
"""Steps of `check` whose questions a node asks when it opens for writing, with the same words."""
LEAST_FREE_BYTES = 16 << 20
"""Of the disks of key store and status file: the store's journal alone needs a few million."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at; ``fault`` is None if it is good."""

    name: str
    text: str
    fault: QkdError | None = None

    @property
    def good(self) -> bool:
        """Whether it is as it must be."""
        return self.fault is None


def judged(steps: Iterable[Step], config: Config) -> list[Row]:
    """Take every step and tell what it found."""
    rows = []
    for name, look in steps:
        try:
            found = look(config)
        except QkdError as error:
            rows.append(Row(name, str(error), error))
        else:
            if found is not None:
                rows.append(Row(name, found))
    return rows


def require(steps: Iterable[Step], config: Config) -> None:
    """Take the steps until one raises a fault; what opening asks itself, of all that is stored, is not asked twice."""
    for name, look in steps:
        if name not in ASKED_BY_OPENING:
            look(config)


# -- steps ------------------------------------------------------------------------------------------------------------


def _secrets(config: Config) -> str:
    credentials.require_private(config)
    return "no secret can be read or replaced by others"


def _certificate_key(config: Config) -> str:
    credentials.read_certificate_key(config.path(config.keys.certificate_key_file))
    return "Ed25519"


def _disk(config: Config) -> str:
    """Folders that can be written, on disks with room."""
    free = []
    for field, path, made in (
        ("keys.database", config.keys.database, True),
        ("status_file", config.status_file, False),
    ):
        file = config.path(path)
        folder = writable(field, file, made=made)
        left = shutil.disk_usage(folder).free
        if left < LEAST_FREE_BYTES:
            raise EnvironmentFault(
                f"{field} {file}: {left} bytes are free on its disk, a node needs {LEAST_FREE_BYTES}",
                remedy="Make room on that disk, or name a file on another one.",
            )
        free.append(left)
    return f"{min(free)} bytes free"


def writable(field: str, file: Path, *, made: bool) -> Path:
    """The folder in which ``file`` can be made; with ``made``, the nearest one above it that is there already.

    Raises
    ------
    ConfigurationError
        There is no such folder. EnvironmentFault: it cannot be written.
    """
    folder = file.parent
    while made and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or file.is_dir() or (file.exists() and not file.is_file()):
        reason = "is no ordinary file" if folder.is_dir() else f"{folder} is no folder"
        raise ConfigurationError(f"{field} {file}: {reason}", remedy=f"Make the folder, or correct {field}.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise EnvironmentFault(
            f"{field} {file}: nothing can be written in {folder}: {error.strerror}",
            remedy="Give this user the right to write there, make room, or name another folder.",
        ) from None
    return folder


def _key_store(config: Config) -> str:
    """Does the key file open the store, and is all of it as it was left?"""
    return examine_store(config)


def _alarm(config: Config) -> str | None:
    """What keeps the node from starting until a person clears it."""
    database = config.path(config.keys.database)
    if not database.exists():
        return None
    try:
        with open_store(config, read_only=True) as store:
            alarms.refuse_if_latched(store, config.role)
    except KeyStoreError:  # the step before tells what is wrong with the store
        return None
    return None


def _tls(config: Config) -> str | None:
    if not config.etsi014.enabled:
        return None
    tls_context(config)
    revocation(config)
    return f"certificate of {config.etsi014.kme_id}, key and authority fit"


def _broker(config: Config) -> str | None:
    if not config.mqtt.enabled:
        return None
    proofs(config)
    return f"files for {config.mqtt.host} can be read; whether it answers is seen at run time"


def _addresses(config: Config) -> str:
    """Those that this end listens at; a node that runs holds its own."""
    listened = {"etsi014.listen": config.etsi014.listen} if config.etsi014.enabled else {}
    addresses = {field: read_address(value) for field, value in listened.items()}
    if config.role == "alice" and (address := read_endpoint(config.channel.endpoint)) is not None:
        listened["channel.endpoint"], addresses["channel.endpoint"] = config.channel.endpoint, address
    held = running(config)
    if not held:
        for field, address in addresses.items():
            require_free(field, listened[field], address)
    state = "held by the node that runs" if held else "free"
    return f"{', '.join(listened.values())} {state}" if listened else "listens nowhere"


NODE: tuple[Step, ...] = (
    ("secrets", _secrets),
    ("certificate key", _certificate_key),
    ("disk", _disk),
    ("key store", _key_store),
    ("alarm", _alarm),
    ("key delivery", _tls),
    ("broker", _broker),
    ("addresses", _addresses),
)
"""Of what both daemons share; the channel and the roles add theirs."""


# -- what does not stop a node, and what only a device could answer ---------------------------------------------------


def told_apart(config: Config) -> list[Row]:
    """Rows of `check` that are no steps: `run` asks the device itself, or goes on without a recording."""
    rows = [_row(ConfigurationError, finding) for finding in check_statements(config)]
    return rows + [_row(EnvironmentFault, finding) for finding in check_recorder(config)]


def _row(fault: type[QkdError], finding: Finding) -> Row:
    name, good, text = finding
    return Row(name, text, None if good else fault(text))


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
