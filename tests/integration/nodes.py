"""Two real daemons on this machine with small blocks, for tests that start, kill and restart them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.cli.demo import Daemon, prepare
from common.config_file import load_config
from common.errors import QkdError
from common.keys.inventory import Owners, Slice
from common.node.keystore import KeyStore

BLOCK_SIZE = 300_000
TIMEOUT_S = 150.0


def pair(directory: Path, block_size: int = BLOCK_SIZE) -> tuple[Daemon, Daemon]:
    """Configurations and secrets of a short, bright link."""
    return prepare(directory, "lab-0.17dB", "three-state", block_size, 1)


def wait_until(condition: Callable[[], bool], *daemons: Daemon) -> None:
    """Poll; a daemon that ends is an error."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        for daemon in daemons:
            daemon.poll()
        assert time.monotonic() < end, "\n".join(daemon.log.read_text()[-1500:] for daemon in daemons)
        time.sleep(0.05)


def good_blocks(*daemons: Daemon) -> int:
    """Blocks with key that all of them have reported."""
    return min(len(daemon.good) for daemon in daemons)


def kill(daemon: Daemon) -> None:
    """kill -9."""
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.process.wait()


@contextlib.contextmanager
def stopped(process_id: int) -> Iterator[None]:
    """As on a machine that has no time for this process."""
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


def light_waits(bob: Daemon) -> bool:
    """Whether Bob, with nothing left to do, has heard nothing for several of his tagger's time-outs."""
    before, end = bob.status(), time.monotonic() + 2.5
    while time.monotonic() < end:
        time.sleep(0.05)
    return before["real_time_factor"] > bob.status()["real_time_factor"]


def replace_in(daemon: Daemon, old: str, new: str) -> None:
    """Edit a configuration."""
    text = daemon.config.read_text()
    assert old in text
    daemon.config.write_text(text.replace(old, new))


def first_failure(*daemons: Daemon, meanwhile: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Wait until one of them ends by itself: (exit code, log in one line).

    ``meanwhile`` repeats what caused it: what is written while the node itself writes cannot be told from its own.
    """
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        for daemon in daemons:
            assert daemon.process is not None
            if (code := daemon.process.poll()) is not None:
                return code, " ".join(daemon.log.read_text().split())
        meanwhile()
        time.sleep(0.05)
    raise AssertionError("no daemon ended")


def blocks_in_store(daemon: Daemon) -> dict[int, dict[str, Any]]:
    """Committed blocks by number, as `qkd keys` shows them."""
    from click.testing import CliRunner

    from common.cli.keys import command

    result = CliRunner().invoke(command, ["--config", str(daemon.config), "--json"], standalone_mode=False)
    if isinstance(result.exception, QkdError):
        raise result.exception
    return {block["block_id"]: block for block in json.loads(result.stdout)["blocks"] if block["state"] == "committed"}


def undelivered_bytes(daemon: Daemon) -> dict[int, bytes]:
    """What is left of every committed block of a stopped daemon; it is handed out by this."""
    config = load_config(daemon.config)
    found: dict[int, bytes] = {}
    with KeyStore.open(config.path(config.keys.database), config.path(config.keys.key_file)) as store:
        for block_id, front, back in store.room(1, from_front=True, simulated=True):
            key_id = str(uuid.uuid4())
            one = Slice(key_id, block_id, front, back - front)
            assert store.cut([one], Owners("test", "test"), from_front=True, ours=False, simulated=True)
            found[block_id] = store.release([key_id])[key_id]
    return found
