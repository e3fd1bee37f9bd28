"""`qkd soak`: both daemons over the simulated link for hours: memory, lag, rates, queues, and a verdict."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console

from common.cli.benchmark import plot_option, save_plot
from common.cli.demo import Daemon, prepare, running
from common.cli.demo_keys import fetch_and_compare
from common.cli.output import emit, json_option, machine, progress_console, quiet_option, table
from common.planning.presets import PRESETS

ROLES = ("alice", "bob")
FLAT_SHARE = 0.05
FETCH_EVERY = 10
"""Keys are fetched and compared at both ends at every tenth sample."""


def sample(role: str, status: dict[str, Any], hours: float) -> dict[str, Any]:
    """One line of the record of one daemon."""
    load, details = status.get("load", {}), status.get("details", {})
    return {
        "role": role,
        "hours": hours,
        "state": status.get("state", "starting"),
        "memory_bytes": load.get("memory_bytes", 0),
        "loop_lag_ms": load.get("loop_lag_ms", {}).get("recent_worst", 0.0),
        "loop_lag_total_ms": load.get("loop_lag_ms", {}).get("total", {}),
        "secret_key_rate_bps": status.get("secret_key_rate_bps", 0.0),
        "real_time_factor": status.get("real_time_factor", 0.0),
        "jobs_waiting": sum(load.get("jobs_waiting", {}).values()),
        "channel_backlog_bytes": load.get("channel_backlog_bytes", 0),
        "backlog_detections": details.get("backlog_detections", 0),
        "backlog_frames": details.get("backlog_frames", 0),
        "symbols_kept": details.get("symbols_kept", 0),
        "blocks_committed": status.get("blocks_committed", 0),
        "blocks_refused": status.get("blocks_refused", 0),
        "alarms": status.get("alarms", []),
    }


def memory_verdict(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Is the memory flat? The last quarter of the run against its second quarter (the first warms up).

    Flat: grown by at most 5 %, or by less than three times the scatter within the quarters.
    """
    memory = [one["memory_bytes"] for one in samples if one["memory_bytes"]]
    quarter = len(memory) // 4
    if quarter == 0:
        return {"flat": False, "growth_bytes": 0, "reason": "too few samples"}
    early, late = memory[quarter : 2 * quarter], memory[-quarter:]
    centre = median(early)
    scatter = max(median(abs(value - median(part)) for value in part) for part in (early, late))
    growth = median(late) - centre
    return {
        "flat": growth <= max(FLAT_SHARE * centre, 3.0 * scatter),
        "growth_bytes": round(growth),
        "median_bytes": round(centre),
        "reason": "last quarter against second quarter",
    }


def conclude(record: list[dict[str, Any]], keys_compared: int, keys_equal: bool) -> dict[str, Any]:
    """The document: verdicts and all samples."""
    by_role = {role: [one for one in record if one["role"] == role] for role in ROLES}
    memory = {role: memory_verdict(samples) for role, samples in by_role.items()}
    last = {role: samples[-1] for role, samples in by_role.items()}
    lags = [one["loop_lag_ms"] for one in record]
    return {
        "machine": machine(),
        "hours": max(one["hours"] for one in record),
        "memory": memory,
        "memory_flat": all(verdict["flat"] for verdict in memory.values()),
        "loop_lag_ms": {"median_of_worst": median(lags), "worst": max(lags)},
        "loop_lag_total_ms": {role: last[role]["loop_lag_total_ms"] for role in ROLES},
        "real_time_factor": last["bob"]["real_time_factor"],
        "secret_key_rate_bps": last["bob"]["secret_key_rate_bps"],
        "blocks_committed": {role: last[role]["blocks_committed"] for role in ROLES},
        "blocks_refused": {role: last[role]["blocks_refused"] for role in ROLES},
        "queue_worst": {
            name: max(one[name] for one in record)
            for name in (
                "jobs_waiting",
                "channel_backlog_bytes",
                "backlog_detections",
                "backlog_frames",
                "symbols_kept",
            )
        },
        "keys_compared": keys_compared,
        "keys_equal": keys_equal,
        "samples": record,
    }


def watch(
    alice: Daemon, bob: Daemon, seconds: float, interval_s: float, console: Console
) -> tuple[list[dict[str, Any]], int, bool]:
    """Sample both daemons until the time is over; (record, keys compared, all equal)."""
    record: list[dict[str, Any]] = []
    compared, equal = 0, True
    start = time.monotonic()
    turn = 0
    while (gone := time.monotonic() - start) < seconds:
        time.sleep(min(interval_s, seconds - gone))
        turn += 1
        hours = (time.monotonic() - start) / 3600.0
        for daemon in (alice, bob):
            daemon.poll()
            record.append(sample(daemon.role, daemon.status(), hours))
        latest = record[-1]
        if turn % FETCH_EVERY == 0 and min(len(alice.good), len(bob.good)):
            more, same = fetch_and_compare(alice.directory)
            compared, equal = compared + more, equal and same
        console.print(
            f"{hours:.3f} h: {latest['blocks_committed']} blocks, real-time factor {latest['real_time_factor']:.2f}, "
            f"bob {latest['memory_bytes'] / 1e6:.0f} MB"
        )
    return record, compared, equal


def report(document: dict[str, Any], console: Console) -> None:
    """The table for people."""
    rows = []
    for role, verdict in document["memory"].items():
        word = "flat" if verdict["flat"] else "GROWING"
        megabytes = f"{verdict.get('median_bytes', 0) / 1e6:.0f} MB, {verdict['growth_bytes'] / 1e6:+.1f} MB"
        rows.append((f"memory of {role}", f"{word}: {megabytes}"))
    lag = document["loop_lag_ms"]
    rows += [
        ("event loop's lag", f"worst {lag['worst']:.1f} ms, typical worst of a second {lag['median_of_worst']:.1f} ms"),
        *[
            (
                f"lag of {role}, why",
                ", ".join(f"{cause} {spent:.0f} ms" for cause, spent in causes.items()) or "unknown",
            )
            for role, causes in document["loop_lag_total_ms"].items()
        ],
        ("real-time factor", f"{document['real_time_factor']:.2f}"),
        ("secret key", f"{document['secret_key_rate_bps']:.0f} bit/s"),
        ("blocks with key", str(document["blocks_committed"]["bob"])),
        ("blocks refused", str(document["blocks_refused"]["bob"])),
        ("keys compared", f"{document['keys_compared']}, {'equal' if document['keys_equal'] else 'DIFFERENT'}"),
        *[(f"worst {name}", str(value)) for name, value in document["queue_worst"].items()],
    ]
    console.print(table(f"soak of {document['hours']:.2f} h", ("what", "found"), rows))


def draw(figure: Any, document: dict[str, Any]) -> None:
    """Memory, lag, rate and queues over time."""
    panels = [
        ("memory_bytes", 1e6, "memory / MB"),
        ("loop_lag_ms", 1.0, "worst lag / ms"),
        ("secret_key_rate_bps", 1e3, "secret key / kbit/s"),
        ("jobs_waiting", 1.0, "jobs waiting"),
    ]
    for axes, (name, unit, label) in zip(figure.subplots(2, 2, sharex=True).flat, panels, strict=True):
        for role in ROLES:
            ours = [one for one in document["samples"] if one["role"] == role]
            axes.plot([one["hours"] for one in ours], [one[name] / unit for one in ours], label=role)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.0)
        axes.legend()
    figure.supxlabel("hours")


@click.command("soak")
@click.option("--hours", type=click.FloatRange(0.0, min_open=True), help="How long [default: 1 hour].")
@click.option("--minutes", type=click.FloatRange(0.0, min_open=True), help="The same in minutes.")
@click.option("--preset", type=click.Choice(sorted(PRESETS)), default="field-14.6dB", show_default=True)
@click.option("--protocol", type=click.Choice(["three-state", "bb84"]), default="three-state", show_default=True)
@click.option("--block-size", type=click.IntRange(10_000, 100_000_000), default=1_000_000, show_default=True)
@click.option("--interval", "interval_s", type=click.FloatRange(0.5), default=10.0, show_default=True, help="Seconds.")
@click.option("--seed", type=int, help="Make light and symbols reproducible.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON document here too.")
@plot_option
@json_option
@quiet_option
def command(
    hours: float | None,
    minutes: float | None,
    preset: str,
    protocol: str,
    block_size: int,
    interval_s: float,
    seed: int | None,
    out: Path | None,
    plot_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run both daemons for a long time and judge whether memory stays flat; exit code 1 if not, or if keys differ.

    Example: qkd soak --hours 8 --plot soak.png --out soak.json
    """
    if hours is not None and minutes is not None:
        raise click.UsageError("give --hours or --minutes, not both")
    seconds = 3600.0 * hours if hours is not None else 60.0 * (minutes if minutes is not None else 60.0)
    console = progress_console(quiet)
    directory = Path(tempfile.mkdtemp(prefix="qkd-soak-"))
    try:
        alice, bob = prepare(directory, preset, protocol, block_size, seed)
        with running(alice, bob):
            record, compared, equal = watch(alice, bob, seconds, interval_s, console)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    document = {"preset": preset, "protocol": protocol, "block_size": block_size, "seed": seed}
    document |= conclude(record, compared, equal)
    if out is not None:
        out.write_text(json.dumps(document, indent=2, allow_nan=False), encoding="utf-8")
    if plot_path is not None:
        save_plot(plot_path, lambda figure: draw(figure, document))
    emit(document, as_json, lambda target: report(document, target))
    return 0 if document["memory_flat"] and document["keys_equal"] else 1
