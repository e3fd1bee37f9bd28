"""A link on trial: two daemons, applications at both ends, and the questions that every trial asks."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomlkit

from common.cli.demo import Daemon
from common.config_file import load_config
from common.errors import QkdError
from tests.integration import nodes
from tests.trials.consumers import Consumers
from tests.trials.registry import Verdict

PATIENCE_S = 240.0
"""For one event, on a machine that does other things too."""
POLL_S = 0.1


class Link:
    """Two daemons that are started, harmed and stopped; what they have told is kept.

    Parameters
    ----------
    folder : for configurations, secrets and stores.
    """

    def __init__(self, folder: Path, block_size: int = nodes.BLOCK_SIZE) -> None:
        self.folder = folder
        self.alice, self.bob = nodes.pair(folder, block_size)
        nodes.replace_in(self.alice, "seed = 1\n", "")  # a seeded source gives its old keys again after a start
        self.both = self.alice, self.bob
        self.consumers: Consumers | None = None
        self.tracebacks: list[str] = []

    def edit(self, daemon: Daemon, change: Callable[[Any], None]) -> None:
        """Change a configuration."""
        document: Any = tomlkit.parse(daemon.config.read_text())
        change(document)
        daemon.config.write_text(tomlkit.dumps(document))

    def store(self, daemon: Daemon) -> Path:
        """The database of an end."""
        config = load_config(daemon.config)
        return config.path(config.keys.database)

    # -- running ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self, *, consumers: bool = False) -> Iterator[Link]:
        """Both daemons, and the applications once there is key; all are stopped in the end."""
        try:
            for daemon in self.both:
                daemon.start()
            if consumers:
                self.await_blocks()
                self.consumers = Consumers(self.folder)
            yield self
        finally:
            for daemon in (self.bob, self.alice):
                daemon.stop()
                self.read_log(daemon)

    def restart(self, *daemons: Daemon) -> None:
        """Start again what has ended."""
        for daemon in daemons:
            self.read_log(daemon)
            daemon.start()

    def read_log(self, daemon: Daemon) -> str:
        """Keep a traceback before the log goes with the next start."""
        text = daemon.log.read_text(errors="replace") if daemon.log.exists() else ""
        if "Traceback" in text:
            self.tracebacks.append(f"{daemon.role}: {' '.join(text[text.rfind('Traceback') :].split())[-300:]}")
        return " ".join(text.split())

    def end(self, daemon: Daemon, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        assert daemon.process is not None
        os.kill(daemon.process.pid, number)
        daemon.process.wait()

    def ended(self, daemon: Daemon) -> int | None:
        """The exit code, or None while it runs."""
        return None if daemon.process is None else daemon.process.poll()

    # -- waiting ------------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
        """Whether it came true in time; what the daemons print meanwhile is read."""
        end = time.monotonic() + seconds
        while True:
            for daemon in self.both:
                with contextlib.suppress(QkdError, OSError):
                    daemon.poll()
            if condition():
                return True
            if time.monotonic() > end:
                return False
            time.sleep(POLL_S)

    def await_blocks(self, more: int = 1, seconds: float = PATIENCE_S) -> bool:
        """Whether both ends have made so many more blocks with key."""
        self.until(lambda: True)
        before = [len(daemon.good) for daemon in self.both]
        return self.until(
            lambda: all(len(one.good) >= made + more for one, made in zip(self.both, before, strict=True)), seconds
        )

    def alarm(self, daemon: Daemon, name: str) -> str:
        """The text of an alarm, or nothing."""
        alarms = daemon.status().get("alarms", [])
        return next((text for text in alarms if text.startswith(f"{name}:")), "")

    def alarms(self) -> str:
        """All of both ends."""
        found = {f"{one.role}: {text[:90]}" for one in self.both for text in one.status().get("alarms", [])}
        return "; ".join(sorted(found))

    def await_end(self, daemon: Daemon, seconds: float = PATIENCE_S) -> int | None:
        """The exit code of a daemon that must end by itself; None if it does not."""
        self.until(lambda: self.ended(daemon) is not None, seconds)
        return self.ended(daemon)

    def reason(self, daemon: Daemon) -> str:
        """What the status of an ended node says, and its remedy."""
        status = daemon.status()
        return f"{status.get('reason', 'no reason')} / {status.get('remedy', 'no remedy')}"

    # -- verdicts -----------------------------------------------------------------------------------------------------

    def goes_on(self, what: str, expected: str = "production resumes, no alarm is left") -> Verdict:
        """Both ends make key again, and every alarm has ended."""
        begin = time.monotonic()
        made = self.await_blocks()
        quiet = made and self.until(lambda: not self.alarms())
        codes = ", ".join(f"{one.role} ended with {code}" for one in self.both if (code := self.ended(one)) is not None)
        waited = f"{time.monotonic() - begin:.0f} s"
        seen = f"key again after {waited}" if made else f"no key within {waited}"
        return Verdict(
            what, expected, "; ".join(filter(None, [seen, codes, self.alarms()])), made and quiet and not codes
        )

    def account(self, what: str, lost_at_most: int = 0) -> Verdict:
        """At the end: stop, and compare every key that was given out and every block that is left."""
        if self.consumers is not None:
            self.consumers.end()
        self.until(lambda: True)
        reported = {one.role: {block["block_id"] for block in one.good} for one in self.both}
        for daemon in (self.bob, self.alice):
            daemon.stop()
            self.read_log(daemon)
        faults = self.consumers.faults() if self.consumers is not None else []
        stored = {one.role: set(nodes.blocks_in_store(one)) for one in self.both}
        for role in reported:
            if missing := reported[role] - stored[role]:
                faults.append(f"{role} lost {len(missing)} committed blocks")
        if apart := stored["alice"] ^ stored["bob"]:
            faults.append(f"{len(apart)} blocks are committed at one end alone")
        rest = [nodes.undelivered_bytes(one) for one in self.both]
        differ = [
            i for i in rest[0].keys() & rest[1].keys() if rest[0][i] not in rest[1][i] and rest[1][i] not in rest[0][i]
        ]
        faults += [f"{len(differ)} blocks differ"] if differ else []
        lost = self.consumers.lost if self.consumers is not None else 0
        delivered = self.consumers.delivered if self.consumers is not None else 0
        faults += [f"{lost} keys never came at the second end"] if lost > lost_at_most else []
        faults += self.tracebacks
        seen = f"{len(stored['bob'])} blocks, {delivered} keys at both ends, {lost} lost on the way"
        return Verdict(
            what,
            f"nothing twice, different or lost (answers on their way when a process dies: at most {lost_at_most})",
            "; ".join([seen, *faults]),
            not faults,
        )
