"""`alice status`, `bob status`: what the running daemon says. Cheap, since scripts ask again and again.

Of the configuration only what names the status file is read; where no node runs, the whole of it, and the key store,
for the alarm that keeps the node from starting.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from common.files import read_file
from common.node.statusfile import Named, alive, read_document

SHOWN: dict[str, tuple[str, str]] = {
    "role": ("role", ""),
    "link": ("link", ""),
    "peer": ("peer", ""),
    "state": ("state", ""),
    "reason": ("reason", ""),
    "remedy": ("remedy", ""),
    "exit_code": ("exit code", ""),
    "blocks_committed": ("blocks with key", ""),
    "blocks_refused": ("blocks without key", ""),
    "qber": ("QBER", "%"),
    "secret_key_rate_bps": ("secret key", "bit/s"),
    "net_key_rate_bps": ("less authentication", "bit/s"),
    "real_time_factor": ("real-time factor", "s of light per s"),
    "link_s": ("light so far", "s"),
    "pool_bits": ("for applications", "bit"),
    "auth_pool_bits": ("for authentication", "bit"),
    "eps_life": ("epsilon, life of the link", ""),
    "life_blocks": ("blocks, life of the link", ""),
    "life_tags": ("tags, life of the link", ""),
    "simulated": ("simulated", ""),
    "process_id": ("process", ""),
    "running": ("running", ""),
}
"""Field of the document -> (name, unit) in the table; every field stands in the JSON under its own name."""


@dataclass(frozen=True)
class _Link:
    name: str


@dataclass(frozen=True)
class _Few:
    """What names a status file."""

    role: str
    link: _Link
    status_file: Path
    base_dir: Path

    def path(self, relative: Path) -> Path:
        return self.base_dir / relative


def status_command(role: str) -> click.Command:
    """The command of one role."""

    @click.command("status", help=f"Show what the running daemon says.\n\nExample: {role} status --json")
    @click.option("--config", "config_path", type=click.Path(path_type=Path), default=Path(f"{role}.toml"),
                  show_default=True, help="Configuration file (TOML).")  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout.")
    def command(config_path: Path, as_json: bool) -> int:
        document = _read(config_path, role)
        if as_json:
            click.echo(json.dumps(document, indent=2, allow_nan=False))
        else:
            _show(document)
        return 0 if document["running"] else 1

    return command


def _read(path: Path, role: str) -> dict[str, Any]:
    few = _few(path, role)
    if few is not None and few.role == role:
        document = read_document(few)
        if document is not None and _runs(document):
            return document | {"running": True}
    from common.config_file import load_config

    return read_status(load_config(path, role))


def _few(path: Path, role: str) -> _Few | None:
    """The little that is needed; None where the configuration is not as it should be, which somebody else tells."""
    try:
        table = tomllib.loads(read_file(path).decode())
        link = _Link(str(table.get("link", {}).get("name", "link")))
        file = Path(str(table.get("status_file", "status.json")))
        return _Few(str(table.get("role")), link, file, path.resolve().parent)
    except (OSError, ValueError, AttributeError):
        return None


def read_status(config: Named) -> dict[str, Any]:
    """The status file, whether its writer still runs, and the alarm that keeps it from starting."""
    document = read_document(config)
    if document is None:
        document = {"role": config.role, "link": config.link.name, "state": "never started", "alarms": []}
    document["running"] = _runs(document)
    if document["running"]:  # its key store may hang with its disk; this must not
        return document
    from common.node.alarms import NAME, alarms_of

    # The file says what held when the node ended; the alarm that locks it may have been cleared since.
    others = [text for text in document["alarms"] if not str(text).startswith(f"{NAME}: ")]
    document["alarms"] = [*others, *(f"{alarm['name']}: {alarm['reason']}" for alarm in alarms_of(config))]  # type: ignore[arg-type]
    if document["state"] not in ("never started", "stopped"):
        document["state"] = "not running (it ended without saying so)"
    return document


def _runs(document: dict[str, Any]) -> bool:
    return document["state"] not in ("never started", "stopped") and alive(document)


def _show(document: dict[str, Any]) -> None:
    rows = [
        (*SHOWN.get(key, (key, "")), value)
        for key, value in document.items()
        if not isinstance(value, dict | list) and value is not None
    ]
    width = max(len(name) for name, _, _ in rows)
    for name, unit, value in rows:
        click.echo(f"{name:<{width}}  {shown(value, unit)}")
    for alarm in document["alarms"]:
        click.secho(f"alarm {alarm}", fg="red", bold=True)


def shown(value: object, unit: str) -> str:
    """A value as a person reads it: four digits, thousands apart, with its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        value = 100 * value if unit == "%" else value
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    else:
        text = f"{value:,}" if isinstance(value, int) and unit == "bit" else str(value)
    return f"{text} {unit}".rstrip()
