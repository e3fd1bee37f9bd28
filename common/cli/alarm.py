"""`qkd alarm`: what locks a link after a failed authentication, and a person's word that it may start again."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from common.cli.output import emit, json_option, table
from common.config_file import load_config
from common.node import alarms
from common.node.keystore import KeyStore

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="Configuration file (TOML) of the node.",
)


@click.command("list")
@config_option
@json_option
def list_command(config_path: Path, as_json: bool) -> int:
    """Show the alarms that keep a node from starting.

    Example: qkd alarm list --config link/alice.toml
    """
    config = load_config(config_path)
    found = alarms.alarms_of(config)

    def render(console: Console) -> None:
        rows = [(alarm["name"], alarm["since"], alarm["reason"]) for alarm in found]
        console.print(table(f"{config.role}: alarms", ("alarm", "since", "reason"), rows))

    emit({"role": config.role, "alarms": found}, as_json, render)
    return 0


@click.command("clear")
@config_option
@json_option
def clear_command(config_path: Path, as_json: bool) -> int:
    """Let a node start again after a failed authentication: its cause has been found.

    Example: qkd alarm clear --config link/alice.toml
    """
    config = load_config(config_path)
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file)) as store:
        alarm = alarms.latched(store)
        alarms.clear(store)
    cleared = [] if alarm is None else [alarm]
    text = "no alarm stands" if alarm is None else f"cleared: {alarm['name']} ({alarm['reason']})"
    emit({"role": config.role, "cleared": cleared}, as_json, lambda console: console.print(f"{config.role}: {text}"))
    return 0
