"""A bench that falls ill while the node runs: random source, tagger and instruments on their real wires."""

from __future__ import annotations

import os
import pty
import threading
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from common.config import Config
from common.datatypes import TimeTags
from hardware.twin.devices import TwinTimeTagger
from hardware.twin.instruments import AttenuatorTwin, BiasTwin, PowerMeterTwin
from hardware.twin.wire.instruments import WebSqDialogue, websq_counts
from hardware.twin.wire.scpi import ScpiDialogue, attenuator, power_meter
from hardware.twin.wire.server import Faults, WireServer
from hardware.twin.wire.tags import HEARTBEAT, OVERFLOW, UNLOCKED, tag_stream

H, V, R, L = range(4)
PORTION = 1 << 14
NOISE_PER_BATCH = 0.5
"""Of the clicks of a batch, again as clicks of one detector that no light made."""
LASER_W = 1e-6
HOST = "127.0.0.1"


class Fountain(threading.Thread):
    """A random source behind a character device: a terminal in raw mode.

    Attributes
    ----------
    mode : `good`, `hangs`, `repeats` (4 096 bytes again and again), `sticks` (at zero), or `gone`.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path, self.mode = os.ttyname(self._slave), "good"

    def run(self) -> None:
        """Until the trial ends."""
        same = os.urandom(4096)
        while True:
            match self.mode:
                case "hangs":
                    time.sleep(0.01)
                case "gone":
                    os.close(self._slave)
                    os.close(self._master)
                    return
                case mode:
                    piece = {"repeats": same * (PORTION // len(same)), "sticks": bytes(PORTION)}.get(mode)
                    os.write(self._master, os.urandom(PORTION) if piece is None else piece)


@dataclass
class Spoiled:
    """A tagger between the light and the wire.

    Attributes
    ----------
    dead : the share of clicks that each detector loses. swapped : two detectors whose cables are exchanged.
    noisy : a detector that clicks by itself. overflow : every batch lost tags. silent : nothing comes any more.
    """

    tagger: TwinTimeTagger
    dead: dict[int, float] = field(default_factory=dict)
    swapped: tuple[int, int] | None = None
    noisy: int | None = None
    overflow: bool = False
    silent: bool = False
    reference_locked: bool = True
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def heal(self) -> None:
        """As new."""
        self.dead, self.swapped, self.noisy = {}, None, None
        self.overflow, self.silent, self.reference_locked = False, False, True

    def read(self, timeout_s: float) -> TimeTags | None:
        """As the tagger's, with what is wrong."""
        while self.silent:
            time.sleep(0.05)
        tags = self.tagger.read(timeout_s)
        return tags if tags is None else replace(self._spoilt(tags), overflow=tags.overflow or self.overflow)

    def _spoilt(self, tags: TimeTags) -> TimeTags:
        times, channels = tags.times_ps, tags.channels
        for detector, share in self.dead.items():
            kept = (channels != detector) | (self.rng.random(channels.size) >= share)
            times, channels = times[kept], channels[kept]
        if self.swapped is not None:
            table = np.arange(256, dtype=np.uint8)
            one, other = self.swapped
            table[[one, other]] = other, one
            channels = table[channels]
        if self.noisy is not None and times.size > 1:
            count = int(NOISE_PER_BATCH * times.size)
            extra = self.rng.integers(times[0], times[-1], count)
            times = np.concatenate([times, extra])
            channels = np.concatenate([channels, np.full(count, self.noisy, np.uint8)])
            order = np.argsort(times, kind="stable")
            times, channels = times[order], channels[order]
        return TimeTags(times, channels, tags.until_ps, tags.overflow)


class Bench:
    """All devices of both ends; the manifests reach them.

    Parameters
    ----------
    server : where they speak. fibre : where Alice's light leaves. preset : of the link.
    """

    def __init__(self, server: WireServer, fibre: str, preset: str) -> None:
        self._server, self._fibre, self._preset = server, fibre, preset
        self.fountain = Fountain()
        self.fountain.start()
        self._attenuator, self._bias = AttenuatorTwin(), BiasTwin()
        self.meter = PowerMeterTwin(LASER_W, None)
        self.faults = {name: Faults() for name in ("attenuator", "power_meter", "detector_bias")}
        self.tags = self._tagger()

    def _tagger(self) -> Spoiled:
        tagger = TwinTimeTagger({"fibre": self._fibre, "preset": self._preset}, Config(role="bob"))
        self._server.defer(tagger.close)
        return Spoiled(tagger)

    def devices(self, role: str) -> dict[str, Any]:
        """The manifest of one end."""
        if role == "alice":
            return {
                "random_source": {"driver": "random-device", "path": self.fountain.path},
                "modulator": {"driver": "twin-modulator", "fibre": self._fibre},
                "attenuator": {
                    "driver": "keysight-attenuator",
                    "resource": self._visa("attenuator", attenuator(self._attenuator)),
                },
                "power_meter": {
                    "driver": "thorlabs-pm100",
                    "resource": self._visa("power_meter", power_meter(self.meter)),
                    "wavelength_nm": 942.0,
                },
            }
        faults = self.faults["detector_bias"]
        return {
            "time_tagger": {
                "driver": "tcp-tags",
                "host": HOST,
                "port": self._server.stream(lambda reader, writer: tag_stream(self.tags, writer), HOST),
                "simulated": True,
                "heartbeat_channel": HEARTBEAT,
                "overflow_channel": OVERFLOW,
                "unlocked_channel": UNLOCKED,
            },
            "detector_bias": {
                "driver": "single-quantum-websq",
                "host": HOST,
                "control_port": self._server.tcp(lambda: WebSqDialogue(self._bias, faults), HOST),
                "counts_port": self._server.stream(
                    lambda reader, writer: websq_counts(self._bias, faults, writer), HOST
                ),
                "bias_ua": [20.0] * 4,
                "simulated": True,
            },
        }

    def _visa(self, name: str, instrument: Any) -> str:
        instrument.faults = self.faults[name]
        return f"TCPIP::{HOST}::{self._server.tcp(lambda: ScpiDialogue(instrument), HOST)}::SOCKET"

    def heal(self) -> None:
        """Everything as new, but for a random source that is gone."""
        self.tags.heal()
        self.meter.source_w = LASER_W
        self.fountain.mode = "good"
        for faults in self.faults.values():
            faults.silent = faults.half_open = faults.garbage = False
            faults.error = faults.identity = ""


Harm = Callable[[Bench], None]
