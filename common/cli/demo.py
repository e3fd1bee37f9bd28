"""`qkd demo`: both daemons on this machine, from simulated light to keys fetched and compared at both ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from common.cli.demo_keys import fetch_and_compare
from common.cli.init import initialise
from common.cli.link_options import block_size_option, preset_option, protocol_option, real_time_option, seed_option
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.cli.signals import STOP_SIGNALS
from common.errors import PeerUnreachable
from common.planning.optimise import recommended_settings
from common.planning.presets import PRESETS
from common.units import block_name

TIMEOUT_S = 3600.0
POLL_S = 0.2
REFUSED_IN_WEATHER = 500
"""This many blocks may produce no key while Bob turns the light towards his detectors."""
LOSSES = ("blocks_shed", "overflows", "tags_lost", "light_slowed_s")
"""Counters in Bob's status of what did not keep up with light in real time."""
BLOCK_FIELDS = (
    "block_id",
    "slots",
    "n_z",
    "qber",
    "phase_error_upper",
    "f_ec",
    "leak_ec_bits",
    "secret_bits",
    "bits_per_pulse",
    "frames",
    "frames_failed",
    "seconds",
    "seconds_after_last_detection",
)


@dataclass
class Daemon:
    """One daemon as a child process; its log goes to a file, its blocks come as JSON lines."""

    role: str
    directory: Path
    process: subprocess.Popen[str] | None = None
    blocks: list[dict[str, Any]] = field(default_factory=list)
    launcher: tuple[str, ...] = ()
    """What comes before its command, as `ip netns exec NAME`."""
    _read: int = 0

    @property
    def log(self) -> Path:
        """The file of its log."""
        return self.directory / self.role / "log"

    @property
    def _blocks_file(self) -> Path:
        return self.directory / self.role / "blocks.jsonl"

    @property
    def config(self) -> Path:
        """The file of its configuration."""
        return self.directory / f"{self.role}.toml"

    def start(self) -> None:
        """Start the daemon's own process."""
        output, log = self._blocks_file.open("w"), self.log.open("w")
        self._read = 0
        with output, log:
            self.process = subprocess.Popen(
                [*self.launcher, sys.executable, "-P", "-m", self.role, "run", "--config", str(self.config), "--json"],
                stdout=output,
                stderr=log,
                text=True,
            )

    def poll(self) -> None:
        """Read new blocks; a daemon that ended is a fault, told with the end of its log."""
        with self._blocks_file.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        self.blocks += [json.loads(line) | {"seen_s": time.monotonic()} for line in whole.splitlines()]
        self.check()

    def check(self) -> None:
        """A daemon that ended is a fault, told with the end of its log."""
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            tail = "\n".join(self.log.read_text().splitlines()[-8:])
            raise PeerUnreachable(f"{self.role} ended with code {code}:\n{tail}", remedy=f"Read {self.log}.")

    @property
    def good(self) -> list[dict[str, Any]]:
        """Blocks that produced key."""
        return [block for block in self.blocks if block["secret_bits"] > 0]

    def status(self) -> dict[str, Any]:
        """What its status file says."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((self.directory / self.role / "status.json").read_text()))
        return {}

    def store_bytes(self) -> int:
        """What its key store takes on disk."""
        return sum(file.stat().st_size for file in (self.directory / self.role).glob("keys.sqlite*"))

    def stop(self) -> None:
        """SIGTERM, then patience, then SIGKILL."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


WEATHER = {
    "fading_db": 1.1,
    "fading_time_s": 2.0,
    "background_cps": 400.0,
    "background_period_s": 60.0,
    "polarisation_drift": 0.01,
    "random_polarisation": True,
}
"""A changeable day: the field link's fading, background that comes and goes, a fibre that turns polarisation."""


def prepare(
    directory: Path,
    preset: str,
    protocol: str,
    block_size: int,
    seed: int | None,
    *,
    weather: bool = False,
    record: bool = False,
    real_time: bool = False,
    eps_total: float | None = None,
) -> tuple[Daemon, Daemon]:
    """Write both configurations and their secrets.

    ``weather`` makes the link changeable and lets Bob follow it; with ``real_time`` the light keeps to the clock;
    ``eps_total`` : of a block, None for the configuration's default.
    """
    link = PRESETS[preset]
    channel, fibre, kme_alice, kme_bob = free_ports(4)
    light = {"fibre": f"tcp://127.0.0.1:{fibre}"}
    best = recommended_settings(link, block_size, protocol)
    light_levels = {"intensities": list(best.intensities), "p_intensities": list(best.p_intensities)}
    settings = {"p_z_alice": best.p_z_alice, **(light_levels if best.intensities else {})}
    common: dict[str, Any] = {
        "link": {"name": preset, "protocol": protocol, "clock_rate_hz": link.clock_rate_hz, **settings},
        "channel": {"endpoint": f"tcp://127.0.0.1:{channel}"},
        "keys": {"deliver_simulated": True},
        "record": {"enabled": record},
        **({} if eps_total is None else {"security": {"eps_total": eps_total}}),
    }
    seeds = [{} if seed is None else {"seed": seed + i} for i in range(2)]
    alice = {
        **common,
        "etsi014": {"listen": f"127.0.0.1:{kme_alice}"},
        "devices": {
            "random_source": {"driver": "software-random", **seeds[0]},
            "modulator": {"driver": "twin-modulator", **light},
        },
    }
    bob: dict[str, Any] = {
        **common,
        "blocks": {"block_size_detections": block_size},
        "etsi014": {"listen": f"127.0.0.1:{kme_bob}"},
        "devices": {"time_tagger": {"driver": "twin-time-tagger", "preset": preset, **light, **seeds[1]}},
    }
    if real_time:
        bob["devices"]["time_tagger"]["real_time"] = True
    if weather:
        bob["devices"]["time_tagger"]["weather"] = WEATHER
        bob["devices"]["polarisation_controller"] = {"driver": "twin-polarisation-controller", **light}
        bob["polarisation"] = {"feedback": True}
    initialise(directory, {"alice": alice, "bob": bob})
    return Daemon("alice", directory), Daemon("bob", directory)


@contextlib.contextmanager
def running(*daemons: Daemon) -> Iterator[None]:
    """Start, and stop whatever happens."""
    try:
        for daemon in daemons:
            daemon.start()
        yield
    finally:
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
        for daemon in daemons:
            daemon.stop()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def wait_for_blocks(alice: Daemon, bob: Daemon, blocks: int, console: Console, *, refused: int) -> None:
    """Until both ends have committed ``blocks`` blocks with key; up to ``refused`` others are told, not counted."""
    end = time.monotonic() + TIMEOUT_S
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task("starting both daemons", total=blocks)
        told = 0
        while min(len(alice.good), len(bob.good)) < blocks:
            alice.poll()
            bob.poll()
            for block in bob.blocks[told:]:
                progress.console.print(_line(block))
            told = len(bob.blocks)
            progress.update(task, completed=min(len(alice.good), len(bob.good)), description=_now(bob.status()))
            if told >= blocks + refused:
                raise PeerUnreachable(
                    "most blocks produce no key", remedy=f"Read {bob.log}; choose a larger --block-size."
                )
            if time.monotonic() > end:
                raise PeerUnreachable("no key within an hour", remedy=f"Read {alice.log} and {bob.log}.")
            time.sleep(POLL_S)


def _now(status: dict[str, Any]) -> str:
    factor = status.get("real_time_factor", 0.0)
    return f"bob: {status.get('state', 'starting')}" + (f", real-time factor {factor:.2f}" if factor >= 0.01 else "")


def _line(block: dict[str, Any]) -> str:
    if block["secret_bits"] == 0:
        return f"block {block_name(block['block_id'])}: no key: {block['reason']}"
    return (
        f"block {block_name(block['block_id'])}: QBER {100 * block['qber']:.2f} %, "
        f"{block['secret_bits']} secret bits, {block['bits_per_pulse']:.3e} bits per pulse"
    )


def report(document: dict[str, Any], console: Console) -> None:
    """The table for people."""
    rows = [
        (
            block_name(block["block_id"]),
            f"{block['n_z']}",
            f"{100 * block['qber']:.2f}%",
            f"{100 * block['phase_error_upper']:.2f}%",
            f"{block['f_ec']:.3f}",
            f"{block['leak_ec_bits']}",
            f"{block['secret_bits']}",
            f"{block['bits_per_pulse']:.2e}".replace("e-0", "e-"),
            f"{block['seconds']:.1f}",
            f"{block['slots'] / document['clock_rate_hz'] / max(block['seconds'], 1e-9):.2f}",
        )
        for block in sorted(document["blocks"], key=lambda block: int(block["block_id"]))
    ]
    columns = ("block", "n_z", "QBER", "phase <=", "f_EC", "leak", "secret", "bits/pulse", "s", "x real")
    console.print(table(f"{document['preset']}, {document['protocol']}, simulated light", columns, rows, padding=0))
    console.print("phase <=: bound of the phase errors; s: seconds that it took; x real: of light in each")
    console.print(f"real-time factor {document['real_time_factor']:.2f} (link seconds per second of this machine)")
    if "light_used" in document:
        console.print(f"in blocks: {document['light_used']:.2f} (their link seconds per second of this machine)")
    if any(document["losses"].values()):
        console.print("not kept up: " + ", ".join(f"{name} {count}" for name, count in document["losses"].items()))
    verdict = "[green]equal[/]" if document["keys_equal"] else "[bold red]DIFFERENT[/]"
    console.print(f"{document['keys_compared']} keys fetched over ETSI GS QKD 014 at both ends: {verdict}")


def run_link(
    preset: str,
    protocol: str,
    block_size: int,
    blocks: int,
    seed: int | None,
    console: Console,
    keep: Path | None = None,
    *,
    weather: bool = False,
    record: bool = False,
    real_time: bool = False,
    eps_total: float | None = None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Both daemons until ``blocks`` blocks have given key, then keys fetched and compared at both ends.

    Returns
    -------
    (the document of `qkd demo`, each role's last status)
    """
    directory = keep or Path(tempfile.mkdtemp(prefix="qkd-demo-"))
    try:
        settings = {"weather": weather, "record": record, "real_time": real_time}
        alice, bob = prepare(directory, preset, protocol, block_size, seed, **settings, eps_total=eps_total)
        with running(alice, bob):
            wait_for_blocks(alice, bob, blocks, console, refused=REFUSED_IN_WEATHER if weather else 2 * blocks + 3)
            statuses = {daemon.role: daemon.status() for daemon in (alice, bob)}
            console.print("fetching keys at both ends (ETSI GS QKD 014, mutual TLS)")
            compared, equal = fetch_and_compare(directory)
        peaks = [daemon.status().get("load", {}).get("memory_peak_bytes", 0) for daemon in (alice, bob)]
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)
    rate_hz = PRESETS[preset].clock_rate_hz
    steady = steady_factor(bob.blocks, rate_hz)
    overall = statuses["bob"].get("real_time_factor", 0.0)
    document = {
        "preset": preset,
        "protocol": protocol,
        "simulated": True,
        "block_size": block_size,
        "clock_rate_hz": rate_hz,
        "blocks": [{name: block[name] for name in BLOCK_FIELDS} for block in bob.good[:blocks]],
        "keys_compared": compared,
        "keys_equal": equal,
        "real_time_factor": overall if real_time else steady or overall,
        "memory_peak_bytes": max(peaks),
        "losses": losses(statuses["bob"]),
    }
    if real_time:
        document["light_used"] = steady or overall
    return document, statuses


def losses(status: dict[str, Any]) -> dict[str, Any]:
    """What Bob's node, or the simulated light, could not keep up with: ``LOSSES`` of his status, as far as they are."""
    details = status.get("details", {})
    return {name: details[name] for name in LOSSES if name in details}


def steady_factor(blocks: list[dict[str, Any]], clock_rate_hz: float) -> float:
    """Link seconds in blocks per wall second between the ends of the first and the last; 0.0 if that says nothing.

    Until the first block has ended, programs start and kernels are loaded or compiled: that is not the link's speed.
    """
    ends = [block["seen_s"] for block in blocks]
    if len(blocks) < 2 or ends[-1] - ends[0] < 1.0:
        return 0.0
    return float(sum(block["slots"] for block in blocks[1:]) / clock_rate_hz / (ends[-1] - ends[0]))


@click.command("demo")
@preset_option
@protocol_option()
@block_size_option(1_000_000)
@click.option("--blocks", type=click.IntRange(1), default=3, show_default=True, help="Blocks with key to wait for.")
@seed_option
@real_time_option
@click.option("--weather", is_flag=True, help="Fading, background and turning polarisation; Bob's feedback follows.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep configurations, logs and stores in this folder.")
@click.option("--record", is_flag=True, help="Record both runs for `qkd replay` (with --keep).")
@json_option
@quiet_option
def command(
    preset: str,
    protocol: str,
    block_size: int,
    blocks: int,
    seed: int | None,
    real_time: bool,
    weather: bool,
    keep: Path | None,
    record: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run both daemons on this machine over the simulated link and compare the keys that they deliver.

    Example: qkd demo --preset field-14.6dB --block-size 1000000 --blocks 3
    """
    if record and keep is None:
        raise click.UsageError("--record needs --keep DIR: recordings are kept there")
    console = progress_console(quiet)
    settings = {"weather": weather, "record": record, "real_time": real_time}
    document, _ = run_link(preset, protocol, block_size, blocks, seed, console, keep, **settings)
    emit(document, as_json, lambda out: report(document, out))
    return 0 if document["keys_equal"] and document["keys_compared"] else 1
