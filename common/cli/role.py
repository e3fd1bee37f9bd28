"""The daemons' own commands, the same for both roles: run, check, status."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.logging import RichHandler

from common.cli.main import LazyGroup
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.cli.status import status_command
from common.config import Config
from common.config_file import load_config
from common.errors import exit_code
from common.node.check import Step, judged, require, told_apart
from common.node.node import Options
from common.node.process import keep_secrets_in_memory, make_room_for_files


def config_option(role: str) -> Callable[[Any], Any]:
    """`--config`, with the same meaning everywhere."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=Path(f"{role}.toml"),
        show_default=True,
        help="Configuration file (TOML).",
    )


def role_command(
    role: str, run: Callable[[Config, Options], Coroutine[Any, Any, None]], steps: tuple[Step, ...]
) -> click.Group:
    """The command group of one daemon.

    Parameters
    ----------
    steps : what `run` refuses before it opens anything; `check` takes the same and tells all.
    """
    name = role.capitalize()

    @click.group(cls=LazyGroup, prefix=f"{role}!", context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(package_name="qkd-node", prog_name=role)
    def group() -> None:
        pass

    group.help = f"{name}'s daemon.\n\nExample: {role} run --config {role}.toml"

    @group.command("run", help=f"Run {name} until stopped (Ctrl-C or SIGTERM).\n\nExample: {role} run --config x.toml")
    @config_option(role)
    @click.option("--blocks", default=0, help="Stop after this many committed blocks (0: never).")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document per ended block, each on a line.")
    @quiet_option
    def run_command(config_path: Path, blocks: int, as_json: bool, quiet: bool) -> None:
        config = load_config(config_path, role)
        keep_secrets_in_memory()
        make_room_for_files()
        _log_to(progress_console(quiet), quiet, role)
        require(steps, config)

        def on_block(facts: Any) -> None:
            if as_json:
                print_line(json.dumps({name: getattr(facts, name) for name in facts.__slots__}))

        asyncio.run(run(config, Options(blocks or config.blocks.max_blocks, on_block)))

    @group.command("check", help=f"Validate everything without light.\n\nExample: {role} check --config {role}.toml")
    @config_option(role)
    @json_option
    def check_command(config_path: Path, as_json: bool) -> int:
        config = load_config(config_path, role)
        rows = [*judged(steps, config), *told_apart(config)]
        document = {
            "ok": all(row.good for row in rows),
            "checks": [
                {"name": row.name, "ok": row.good, "message": row.text, "remedy": row.fault.remedy if row.fault else ""}
                for row in rows
            ],
        }
        marks = [(row.name, "ok" if row.good else "FAULT", row.text) for row in rows]

        def render(console: Console) -> None:
            console.print(table(f"{name}: check", ("what", "", "finding"), marks))
            for row in rows:
                if row.fault is not None:
                    console.print(f"{row.name}: {row.fault.remedy}", markup=False, highlight=False)

        emit(document, as_json, render)
        return next((exit_code(row.fault) for row in rows if row.fault is not None), 0)

    group.add_command(status_command(role))
    return group


def print_line(line: str) -> None:
    """Print at once and without a buffer: what could not be written must not wait to fail again at the end."""
    with FileIO(sys.stdout.fileno(), "w", closefd=False) as out:
        out.write(line.encode() + b"\n")


def _log_to(console: Console, quiet: bool, role: str) -> None:
    """Colours and columns at a terminal; elsewhere one line a record, with date, level and role."""
    level = logging.ERROR if quiet else logging.INFO
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(OneLine(role))
    logging.basicConfig(level=level, handlers=[handler], force=True)


class OneLine(logging.Formatter):
    """`2026-04-01T12:00:00.000+02:00 INFO alice qkd.node: text`; line ends within a record are written as \\n."""

    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {role} %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """ISO 8601 with the offset of this machine's zone."""
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        """Everything in one line, the exception included."""
        return super().format(record).replace("\n", "\\n")
