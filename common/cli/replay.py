"""`qkd replay RUN`: run a flight recording again and compare; `qkd record RUN`: what is in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points, version
from itertools import chain
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from common.cli.output import emit, json_option, table
from common.errors import ConfigurationError, InputError
from common.files import decoding
from common.node.flight import END, Record, read_flight, read_key_file

ROLES = "qkd_node.replay"
"""Entry points: role -> function of the records that runs them again."""


def open_run(path: Path, key_file: Path | None) -> tuple[dict[str, Any], Iterator[Record]]:
    """The first record's facts, and all records; the key file lies where `record.key_file` says by default."""
    records = read_flight(path, read_key_file(key_file or path.parent.parent / "secrets" / "record.key"))
    begin = next(records, None)
    if begin is None or begin.kind != "begin":
        raise InputError(f"{path.name} has no beginning", remedy="It was cut before the run began.")
    return begin.facts, chain([begin], records)


def key_file_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--key-file`, with the same meaning for both commands."""
    return click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        help="Key file of the recording [default: ../secrets/record.key beside the recordings].",
    )(function)


def replay_run(path: Path, key_file: Path | None) -> Any:
    """Run a recording again; see :class:`common.node.replay.Replay`."""
    begin, records = open_run(path, key_file)
    with decoding(path, "a recording of this version", "Give a recording of this version."):
        role = str(begin["config"]["role"])
    points = {point.name: point for point in entry_points(group=ROLES)}
    if role not in points:
        raise ConfigurationError(f"nothing here can replay the role {role!r}", remedy="Install qkd-node whole.")
    replay: Callable[[Iterable[Record]], Any] = points[role].load()
    return replay(records)


@click.command("replay")
@click.argument("run", type=click.Path(path_type=Path))
@key_file_option
@json_option
def command(run: Path, key_file: Path | None, as_json: bool) -> int:
    """Run a flight recording again: are the same messages sent and the same keys made, byte for byte?

    Ends with 0 if so, with 1 at the first difference, which is named.

    Example: qkd replay link/bob/recordings/20260401T120000Z-bob.flight
    """
    report = replay_run(run, key_file).report
    document = report.document() | {"software": version("qkd-node")}
    emit(document, as_json, lambda console: _show(console, document))
    return 0 if report.equal else 1


def _show(console: Console, document: dict[str, Any]) -> None:
    wanted = ("role", "software_recorded", "software", "ended", "events", "messages_compared", "keys_compared")
    console.print(table("replay", ("what", "value"), [(name, document[name]) for name in wanted]))
    if document["diverged"] is None:
        console.print("[green]every message and key came out as recorded[/]")
    else:
        rows = list(document["diverged"].items())
        console.print(table("first difference", ("what", "value"), rows))


@click.command("record")
@click.argument("run", type=click.Path(path_type=Path))
@key_file_option
@json_option
def record_command(run: Path, key_file: Path | None, as_json: bool) -> int:
    """Show what a flight recording holds (it is made with `enabled = true` below `[record]`).

    Example: qkd record link/bob/recordings/20260401T120000Z-bob.flight
    """
    begin, records = open_run(run, key_file)
    with decoding(run, "a recording of this version", "Give a recording of this version."):
        document, rows = _summary(run, begin, records)
    title = f"{document['role']}, {document['started']}, {document['software']}, ended: {document['ended']}"
    emit(document, as_json, lambda console: console.print(table(title, ("kind", "records", "bytes"), rows)))
    return 0


def _summary(
    run: Path, begin: dict[str, Any], records: Iterator[Record]
) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    counts: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    ended, status = "cut", {}
    for record in records:
        counts[record.kind] += 1
        n_bytes[record.kind] += len(record.raw)
        if record.kind == END:
            ended = str(record.facts["reason"])
        elif record.kind == "note":
            status = record.facts["facts"]
    document = {
        "role": begin["config"]["role"],
        "link": begin["config"]["link"]["name"],
        "started": begin["started"],
        "software": begin["software"],
        "simulated": begin["identity"]["simulated"],
        "devices": begin["devices"],
        "ended": ended,
        "bytes": run.stat().st_size,
        "records": {kind: {"count": counts[kind], "bytes": n_bytes[kind]} for kind in sorted(counts)},
        "last_status": status,
    }
    return document, [(kind, counts[kind], n_bytes[kind]) for kind in sorted(counts)]
