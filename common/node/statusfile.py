"""The status file as others read it: what the node last said of itself, and whether it still runs.

Imports little: `status` is asked every few seconds by scripts, and must not cost what a node costs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from common.files import read_file

LONGEST_BYTES, MAX_PROCESS_ID = 1 << 24, 1 << 31
"""Of a status file, and what the operating system can mean."""


class NamedLink(Protocol):
    """`[link]` of a configuration, as far as it is needed here."""

    @property
    def name(self) -> str:
        """The name of the link."""
        ...


class Named(Protocol):
    """What of a configuration names a node's status file: the whole one, or less."""

    @property
    def role(self) -> str:
        """Of the node: alice or bob."""
        ...

    @property
    def link(self) -> NamedLink:
        """The link that it belongs to."""
        ...

    @property
    def status_file(self) -> Path:
        """As the configuration writes it."""
        ...

    def path(self, relative: Path) -> Path:
        """The same, from the folder of the configuration."""
        ...


def read_document(config: Named) -> dict[str, Any] | None:
    """What the status file says; None without one, or if what is there was not written by a node."""
    try:
        document = json.loads(read_file(config.path(config.status_file), LONGEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    # What a person or another program has put there may have any type, or be missing.
    if not isinstance(document, dict) or not isinstance(document.get("state"), str):
        return None
    usual = {"role": config.role, "link": config.link.name, "alarms": [], "process_id": 0}
    kept = {name: value for name, value in document.items() if type(value) is type(usual.get(name, value))}
    return {**usual, **kept}


def alive(document: dict[str, Any]) -> bool:
    """Whether the process that wrote it runs."""
    if not 0 < document["process_id"] < MAX_PROCESS_ID:
        return False
    try:
        os.kill(document["process_id"], 0)
    except PermissionError:  # it runs, as another user
        return True
    except OSError:
        return False
    return True


def running(config: Named) -> bool:
    """Whether a node of this configuration's status file runs, and is of its role."""
    document = read_document(config)
    if document is None or document["role"] != config.role:
        return False
    return document["state"] != "stopped" and alive(document)
