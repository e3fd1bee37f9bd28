"""`qkd soak`: both daemons over the simulated link for hours: memory, lag, rates, queues, and a verdict."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
from rich.console import Console

from common.cli.benchmark import plot_option, save_plot
from common.cli.demo import LOSSES, Daemon, losses, prepare, running
from common.cli.demo_keys import fetch_and_compare
from common.cli.link_options import block_size_option, preset_option, protocol_option, real_time_option, seed_option
from common.cli.output import emit, json_option, machine, progress_console, quiet_option, table
from common.files import write_file

ROLES = ("alice", "bob")
FLAT_SHARE = 0.05
WARM_UP_BLOCKS = 10
SHORTEST_HOURS = 0.08
"""Between the two thirds that are compared (a run of ten minutes): in less, a growth that matters is not seen."""
"""Until this many blocks have ended, buffers and memory pools still grow to the size of their work."""
FETCH_EVERY = 10
"""Keys are fetched and compared at both ends at every tenth sample."""
MOST_SAMPLES = 4000
"""Samples of a daemon that are kept; then every two become one, and they are taken half as often."""
WORST = (
    "loop_lag_ms",
    "jobs_waiting",
    "channel_backlog_bytes",
    "backlog_detections",
    "backlog_bits",
    "symbols_kept",
)
"""Columns of which the worst is wanted, not the latest."""


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
        "backlog_bits": details.get("backlog_bits", 0),
        "symbols_kept": details.get("symbols_kept", 0),
        "blocks_committed": status.get("blocks_committed", 0),
        "blocks_refused": status.get("blocks_refused", 0),
        **dict.fromkeys(LOSSES, 0),
        **losses(status),
        "locked": float(status.get("state") == "locked"),
        "alarms": status.get("alarms", []),
    }


def thinned(record: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Half as many samples: of every two of a daemon the later one, with the worse of both queues and lags."""
    by_role = [[one for one in record if one["role"] == role] for role in ROLES]
    pairs = [list(zip(samples[::2], samples[1::2], strict=True)) for samples in by_role]
    return [_merged(*pair) for both in zip(*pairs, strict=True) for pair in both]


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    worst = {name: max(first[name], second[name]) for name in WORST}
    return second | worst | {"locked": 0.5 * (first["locked"] + second["locked"])}


def memory_verdict(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Is the memory flat? The last third against the first third of what follows the warming up.

    Warm: ten blocks have ended, and a quarter of the run is over. Flat: grown by at most 5 %, or by less than three
    times the scatter within the thirds; None where the thirds are too close for a verdict.
    ``unseen_bytes_per_hour``: a steady growth up to this would count as flat.
    """
    cold = max(
        len(samples) // 4, sum(one["blocks_committed"] + one["blocks_refused"] < WARM_UP_BLOCKS for one in samples)
    )
    warm = [one for one in samples[cold:] if one["memory_bytes"]]
    third = len(warm) // 3
    if third < 2:
        return {"flat": False, "growth_bytes": 0, "reason": f"too few samples after the first {WARM_UP_BLOCKS} blocks"}
    early, late = ([one["memory_bytes"] for one in part] for part in (warm[:third], warm[-third:]))
    centre = median(early)
    scatter = max(median(abs(value - median(part)) for value in part) for part in (early, late))
    growth, allowed = median(late) - centre, max(FLAT_SHARE * centre, 3.0 * scatter)
    hours = median(one["hours"] for one in warm[-third:]) - median(one["hours"] for one in warm[:third])
    seen = hours >= SHORTEST_HOURS
    too_short = f"NOT JUDGED: less than {60 * SHORTEST_HOURS:.0f} minutes apart; let it run for ten; "
    return {
        "flat": growth <= allowed if seen else None,
        "growth_bytes": round(growth),
        "median_bytes": round(centre),
        "growth_bytes_per_hour": round(growth / hours),
        "unseen_bytes_per_hour": round(allowed / hours),
        "reason": ("" if seen else too_short)
        + f"last third against first third, {hours:.2f} h apart, after {warm[0]['hours']:.2f} h of warming up",
    }


def locked_share(samples: list[dict[str, Any]]) -> float:
    """The fraction of the time since the first lock in which Bob's receiver was locked."""
    locked = [one["locked"] for one in samples]
    since = next((i for i, share in enumerate(locked) if share), len(locked))
    return fmean(locked[since:]) if locked[since:] else 0.0


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
        "memory_flat": min((verdict["flat"] for verdict in memory.values()), key=(False, None, True).index),
        "loop_lag_ms": {"median_of_worst": median(lags), "worst": max(lags)},
        "loop_lag_total_ms": {role: last[role]["loop_lag_total_ms"] for role in ROLES},
        "real_time_factor": last["bob"]["real_time_factor"],
        "locked_share": locked_share(by_role["bob"]),
        "losses": {name: last["bob"][name] for name in LOSSES},
        "store_bytes": {role: last[role].get("store_bytes", 0) for role in ROLES},
        "secret_key_rate_bps": last["bob"]["secret_key_rate_bps"],
        "blocks_committed": {role: last[role]["blocks_committed"] for role in ROLES},
        "blocks_refused": {role: last[role]["blocks_refused"] for role in ROLES},
        "queue_worst": {name: max(one[name] for one in record) for name in WORST if name != "loop_lag_ms"},
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
            daemon.check()
            record.append(sample(daemon.role, daemon.status(), hours) | {"store_bytes": daemon.store_bytes()})
        latest = record[-1]
        if turn % FETCH_EVERY == 0 and min(one["blocks_committed"] for one in record[-2:]):
            more, same = fetch_and_compare(alice.directory)
            compared, equal = compared + more, equal and same
        console.print(
            f"{hours:.3f} h: {latest['blocks_committed']} blocks, real-time factor {latest['real_time_factor']:.2f}, "
            f"bob {latest['memory_bytes'] / 1e6:.0f} MB"
        )
        if len(record) >= len(ROLES) * MOST_SAMPLES:
            record, interval_s = thinned(record), 2.0 * interval_s
    return record, compared, equal


def report(document: dict[str, Any], console: Console) -> None:
    """The table for people."""
    rows = []
    for role, verdict in document["memory"].items():
        word = {True: "flat", False: "GROWING", None: "no verdict"}[verdict["flat"]]
        megabytes = f"{verdict.get('median_bytes', 0) / 1e6:.0f} MB, {verdict['growth_bytes'] / 1e6:+.1f} MB"
        rows.append((f"memory of {role}", f"{word}: {megabytes}, {verdict['reason']}"))
        if "unseen_bytes_per_hour" in verdict and verdict["flat"] is not None:
            rate, unseen = verdict["growth_bytes_per_hour"] / 1e6, verdict["unseen_bytes_per_hour"] / 1e6
            rows.append((f"growth of {role}", f"{rate:+.1f} MB/h; up to {unseen:.1f} MB/h would count as flat"))
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
        ("receiver locked", f"{100 * document['locked_share']:.2f} % of the time since the first lock"),
        ("not kept up", ", ".join(f"{name} {count}" for name, count in document["losses"].items())),
        ("key stores", ", ".join(f"{role} {size / 1e6:.1f} MB" for role, size in document["store_bytes"].items())),
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
        for role, line in zip(ROLES, ("-", "--"), strict=True):  # where both say the same, both are seen
            ours = [one for one in document["samples"] if one["role"] == role]
            axes.plot([one["hours"] for one in ours], [one[name] / unit for one in ours], line, label=role)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.0)
        axes.legend()
    figure.supxlabel("hours")


@click.command("soak")
@click.option("--hours", type=click.FloatRange(0.0, min_open=True), help="Hours to run [default: 1 hour].")
@click.option("--minutes", type=click.FloatRange(0.0, min_open=True), help="Minutes to run, instead of hours.")
@preset_option
@protocol_option()
@block_size_option(1_000_000)
@click.option("--interval", "interval_s", type=click.FloatRange(0.5), default=10.0, show_default=True,
              help="Seconds from one sample to the next.")  # fmt: skip
@seed_option
@real_time_option
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
    real_time: bool,
    out: Path | None,
    plot_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run both daemons for a long time and judge whether memory stays flat; exit code 1 if not, or if keys differ.

    With --real-time it costs what the link costs; without, both daemons work as fast as they can.

    Example: qkd soak --hours 8 --real-time --plot soak.png --out soak.json
    """
    if hours is not None and minutes is not None:
        raise click.UsageError("give --hours or --minutes, not both")
    seconds = 3600.0 * hours if hours is not None else 60.0 * (minutes if minutes is not None else 60.0)
    console = progress_console(quiet)
    directory = Path(tempfile.mkdtemp(prefix="qkd-soak-"))
    try:
        alice, bob = prepare(directory, preset, protocol, block_size, seed, real_time=real_time)
        with running(alice, bob):
            record, compared, equal = watch(alice, bob, seconds, interval_s, console)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    document = {"preset": preset, "protocol": protocol, "block_size": block_size, "seed": seed, "real_time": real_time}
    document |= conclude(record, compared, equal)
    if out is not None:
        write_file(out, json.dumps(document, indent=2, allow_nan=False))
    if plot_path is not None:
        save_plot(plot_path, lambda figure: draw(figure, document))
    emit(document, as_json, lambda target: report(document, target))
    return 0 if document["memory_flat"] is not False and document["keys_equal"] else 1
