"""What a node says about itself: counters, rates, alarms. Nothing secret; written to `status_file` once a second."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.config import Config
from common.errors import QkdError, exit_code
from common.files import write_file
from common.keys.life import Life
from common.node.runtime import now_ns
from common.protocol.block import WATCHED, BlockFacts
from common.units import seconds_from_ns

log = logging.getLogger("qkd.node")
RATE_BLOCKS = 20
BARREN_BLOCKS = 5
"""Blocks without key, one after the other, that an operator is told of whatever the reason is."""
DEVICE_REMEDY = "look at bias, temperature, fibre and cable (`qkd doctor --hardware`); else somebody tampers with it"


class StatusBoard:
    """The node's public state.

    Parameters
    ----------
    role, link, clock_rate_hz : who and at which slot rate.
    """

    def __init__(self, role: str, link: str, clock_rate_hz: float) -> None:
        self._role, self._link, self._clock_rate_hz = role, link, clock_rate_hz
        self.state = "starting"
        self.peer = "never seen"
        self.simulated: bool | None = None  # not known before the handshake, unless this end's devices are
        self.alarms: dict[str, str] = {}
        self.blocks: deque[BlockFacts] = deque(maxlen=1000)
        self.blocks_committed = 0
        self.blocks_refused = 0
        self._barren, self._barren_since = 0, ""
        self.secret_bits = 0
        self.auth_pool_bits = 0
        self.auth_bits_spent = 0
        self.life = Life(0, 0, 0.0)
        self.pool_bits = 0
        self.channel: dict[str, int] = {}
        self.applications: dict[str, int] = {}
        self.details: dict[str, Any] = {}
        self.load: dict[str, Any] = {}
        self._ended: dict[str, Any] = {}
        self._started_ns = now_ns()
        self._ready_ns: int | None = None
        self._slots = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=RATE_BLOCKS)

    def ready(self) -> None:
        """The handshake agreed: rates count from the first one."""
        self.peer = "up"
        self._ready_ns = self._ready_ns or now_ns()
        self._recent.append((now_ns(), 0))

    def slots(self, count: int) -> None:
        """This many more slots of light went by."""
        self._slots += count

    def block(self, facts: BlockFacts) -> None:
        """Count a block that ended."""
        self.blocks.append(facts)
        if facts.state in ("committed", "decided"):
            self.blocks_committed += 1
            self.secret_bits += facts.secret_bits
            self._recent.append((now_ns(), facts.secret_bits))
            self._barren = 0
            self.alarm("detectors", None)
            self.alarm("no key", None)
        else:
            self.blocks_refused += 1
            self._gave_none(facts.reason)
        if facts.device_fault:
            self.alarm("detectors", f"{facts.device_fault}; {DEVICE_REMEDY}")

    def _gave_none(self, reason: str) -> None:
        """One more block without key; what no other alarm names is told here, the peer's reason included."""
        self._barren += 1
        if self._barren == 1:
            self._barren_since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if self._barren < BARREN_BLOCKS:
            return
        text = f"the last {self._barren} blocks gave none since {self._barren_since}: {reason}"
        if self._barren == BARREN_BLOCKS:
            log.error("no key: %s", text)
        self.alarm("no key", text)

    def alarm(self, name: str, text: str | None) -> None:
        """Raise (text) or clear (None) an alarm."""
        if text is None:
            self.alarms.pop(name, None)
        else:
            self.alarms[name] = text

    def end(self, error: BaseException) -> None:
        """The node ends with this fault; its status says so until the next start."""
        known = isinstance(error, QkdError)
        self._ended = {
            "reason": str(error) if known else f"a defect of this software ({type(error).__name__})",
            "remedy": error.remedy if isinstance(error, QkdError) else "Please report it with the log.",
            "exit_code": exit_code(error),
        }

    @property
    def real_time_factor(self) -> float:
        """Link seconds per wall second since the first handshake."""
        if self._ready_ns is None:
            return 0.0
        return self._slots / self._clock_rate_hz / max(seconds_from_ns(now_ns() - self._ready_ns), 1e-3)

    def start_counting(self) -> None:
        """The light arrives: the real-time factor counts from now."""
        self._ready_ns, self._slots = now_ns(), 0

    def _rate_bps(self) -> float:
        if len(self._recent) < 2:
            return 0.0
        bits = sum(bits for _, bits in list(self._recent)[1:])
        return bits / max(seconds_from_ns(self._recent[-1][0] - self._recent[0][0]), 1e-3)

    def document(self) -> dict[str, Any]:
        """The status as the command line prints it."""
        rate = self._rate_bps()
        qber = next((facts.qber for facts in reversed(self.blocks) if facts.qber), 0.0)
        sifted = next((facts for facts in reversed(self.blocks) if facts.x_share or facts.z_sent_share), None)
        elapsed_s = max(seconds_from_ns(now_ns() - self._started_ns), 1e-3)
        return {
            "role": self._role,
            "link": self._link,
            "peer": self.peer,
            "state": self.state,
            **self._ended,
            "blocks_committed": self.blocks_committed,
            "blocks_refused": self.blocks_refused,
            "qber": qber,
            "secret_key_rate_bps": rate,
            "net_key_rate_bps": rate - self.auth_bits_spent / elapsed_s,
            "real_time_factor": self.real_time_factor,
            "link_s": self._slots / self._clock_rate_hz,
            "pool_bits": self.pool_bits,
            "auth_pool_bits": self.auth_pool_bits,
            "eps_life": self.life.eps_life,
            "life_blocks": self.life.blocks,
            "life_tags": self.life.tags,
            "simulated": self.simulated,
            "alarms": [f"{name}: {text}" for name, text in sorted(self.alarms.items())],
            "watched": {name: getattr(sifted, name) for name in WATCHED} if sifted is not None else {},
            "channel": self.channel,
            "applications": self.applications,
            "details": self.details,
            "load": self.load,
            "blocks": [asdict(facts) for facts in list(self.blocks)[-50:]],
            "process_id": os.getpid(),
        }


def write_document(document: dict[str, Any], path: Path) -> None:
    """Replace the status file in one step."""
    write_file(path, json.dumps(document), lasting=False)  # every second: a disk has better to do


def tell_end(config: Config, error: QkdError) -> None:
    """Leave in the status file why the node did not start."""
    board = StatusBoard(config.role, config.link.name, config.link.clock_rate_hz)
    board.end(error)
    board.state = "stopped"
    try:
        write_document(board.document(), config.path(config.status_file))
    except (OSError, QkdError) as fault:
        log.error("status file: %s", fault)
