"""One way to answer: a single JSON document on stdout, or a table for people; progress always goes to stderr."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

Function = TypeVar("Function", bound=Callable[..., Any])


def json_option(function: Function) -> Function:
    """`--json`, with the same meaning everywhere."""
    option = click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON document on stdout.")
    return option(function)


def quiet_option(function: Function) -> Function:
    """`--quiet`, with the same meaning everywhere."""
    return click.option("--quiet", is_flag=True, help="No progress on stderr.")(function)


def progress_console(quiet: bool = False) -> Console:
    """The console for progress and logs (stderr)."""
    return Console(stderr=True, quiet=quiet)


def emit(document: Mapping[str, Any], as_json: bool, render: Callable[[Console], None]) -> None:
    """Print the answer: the JSON document, or what ``render`` writes to a console."""
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        render(Console())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, padding: int = 1) -> Table:
    """A plain table; numbers are formatted by the caller and stand at the right, words at the left."""
    made = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, padding, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for index, column in enumerate(columns):
        number = bool(rows) and all(str(row[index])[:1].isdigit() for row in rows)
        made.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*[str(value) for value in row])
    return made


def machine() -> dict[str, Any]:
    """What a measurement was made on: processor, cores, versions. No host name and no path."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    packages = ("numpy", "numba", "scipy", "pyzmq", "cryptography", "ldpc")
    return {
        "processor": model,
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("qkd-node", *packages)},
    }
