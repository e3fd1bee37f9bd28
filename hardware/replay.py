"""A recorded run as devices: the same Protocols as the instruments, everything they give is marked simulated.

`replay-time-tagger` plays a time-tag file or Bob's flight recording; `replay-random-source` hands out the random bytes
of a flight recording of Alice's (made with ``record.light = true``), each once; `replay-modulator` takes symbols and
sends no light. These put recorded data under a live daemon; `qkd replay` runs a recorded session again byte for byte.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.datatypes import Symbols, TimeTags
from common.errors import ConfigurationError, DeviceError, InputError
from common.node.flight import SUFFIX, read_flight, read_key_file
from common.node.recorder import tags_of
from common.units import PS_PER_S
from hardware.formats import read_tags
from hardware.interfaces import NONE_HELD, DeviceInfo
from hardware.registry import parse_parameters

LOGICAL_CHANNELS = 4
DROPPED = 255


class TaggerParameters(BaseModel):
    """What a manifest says of `replay-time-tagger`."""

    model_config = ConfigDict(extra="forbid")
    path: Path
    """Time-tag file of any format, or a flight recording of Bob's."""
    format: str | None = None
    key_file: Path | None = None
    """Of the flight recording."""
    channels: dict[str, int] | None = None
    """Channel in the file -> logical channel (0..3 = H, V, R, L), others are dropped; None: they are these already."""
    speed: float = Field(0.0, ge=0.0)
    """Seconds of the recording in a second; 0: as fast as the receiver takes them."""


class RandomParameters(BaseModel):
    """What a manifest says of `replay-random-source`."""

    model_config = ConfigDict(extra="forbid")
    path: Path
    key_file: Path | None = None


class ModulatorParameters(BaseModel):
    """What a manifest says of `replay-modulator`."""

    model_config = ConfigDict(extra="forbid")
    speed: float = Field(1.0, ge=0.0)
    """Seconds of light taken in a second; 0: without waiting."""


def _records(path: Path, key_file: Path | None, config: Config) -> Any:
    key = read_key_file(config.path(key_file or config.record.key_file))
    return read_flight(config.path(path), key)


class ReplayTimeTagger:
    """A time tagger that plays a recording; faults of the file mark their batch as lost, which voids its block."""

    always_simulated = True

    model = TaggerParameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(TaggerParameters, parameters, "replay-time-tagger")
        path = config.path(given.path)
        self._speed, self._map = given.speed, _channel_map(given.channels)
        self.can_wait = given.speed == 0.0
        if path.name.endswith(SUFFIX):
            records = _records(given.path, given.key_file, config)
            self.resolution_ps = 1.0
            self._batches: Iterator[TimeTags] = (tags_of(one) for one in records if one.kind == "tags")
            self._let_go = records.close
        else:
            file = read_tags(path, given.format, faults="void")
            self.resolution_ps = file.info.resolution_ps
            self._batches = iter(file)
            self._let_go = file.close
        self.info = DeviceInfo("time tagger", f"replay of {path.name}", simulated=True)
        self._held: TimeTags | None = None
        self._origin: tuple[float, int] | None = None
        self._closed = threading.Event()

    def read(self, timeout_s: float) -> TimeTags | None:
        """The next batch, when its time has come; None at the end of the recording."""
        if self._closed.is_set():
            raise DeviceError("the replayed time tagger is closed", remedy="Open the device again.")
        if self._held is None:
            self._held = self._next()
        held = self._held
        if held is None:
            return None
        if self._speed > 0.0:
            held = self._due(held, timeout_s)
        if held is self._held:
            self._held = None
        return held

    def _next(self) -> TimeTags | None:
        try:
            batch = next(self._batches, None)
        except InputError as error:
            raise DeviceError(f"replay: {error}", remedy=error.remedy) from None
        if batch is None:
            return None
        logical = self._map[batch.channels]
        keep = logical != DROPPED
        times = batch.times_ps if keep.all() else batch.times_ps[keep]
        return TimeTags(times, logical[keep], batch.until_ps, batch.overflow)

    def _due(self, held: TimeTags, timeout_s: float) -> TimeTags:
        """What of the batch is due within the time-out; the rest stays held."""
        first_ps = int(held.times_ps[0]) if len(held) else held.until_ps
        if self._origin is None:
            self._origin = (time.monotonic(), first_ps)
        start_s, start_ps = self._origin
        wait_s = start_s + (held.until_ps - start_ps) / PS_PER_S / self._speed - time.monotonic()
        if wait_s > 0.0:
            self._closed.wait(min(wait_s, timeout_s))
        if wait_s <= timeout_s:
            return held
        due_ps = start_ps + int((time.monotonic() - start_s) * self._speed * PS_PER_S)
        n = int(np.searchsorted(held.times_ps, due_ps))
        self._held = TimeTags(held.times_ps[n:], held.channels[n:], held.until_ps, held.overflow)
        return TimeTags(held.times_ps[:n], held.channels[:n], due_ps, held.overflow)

    def close(self) -> None:
        """Stop playing; may be called twice. A read under way in another thread ends by itself."""
        self._closed.set()
        with contextlib.suppress(ValueError):  # that read is still inside the recording: its end closes it
            self._let_go()


class ReplayRandomSource:
    """Recorded random bytes, in their order, each handed out once; then an error."""

    model = RandomParameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(RandomParameters, parameters, "replay-random-source")
        self.info = DeviceInfo(
            "random source", f"replay of {given.path.name}", simulated=True, randomness="computational"
        )
        self._pieces: Iterator[bytes] = (
            one.raw for one in _records(given.path, given.key_file, config) if one.kind == "source"
        )
        self._left = b""

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* recorded bytes."""
        pieces = [self._left]
        have = len(self._left)
        while have < n_bytes:
            piece = next(self._pieces, None)
            if piece is None:
                raise DeviceError(
                    f"replay: the recording has no more random bytes ({n_bytes - have} are missing)",
                    remedy="Record longer, with `record.light = true`; recorded bytes are never used twice.",
                )
            pieces.append(piece)
            have += len(piece)
        joined = b"".join(pieces)
        self._left = joined[n_bytes:]
        return np.frombuffer(joined[:n_bytes], np.uint8)

    def close(self) -> None:
        """Forget what is left; may be called twice."""
        self._pieces, self._left = iter(()), b""


class ReplayModulator:
    """Takes symbols at the configured slot rate; the light is in the recording that Bob replays."""

    always_simulated = True

    unsent_from_slot = NONE_HELD

    model = ModulatorParameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(ModulatorParameters, parameters, "replay-modulator")
        self.info = DeviceInfo("modulator", "replay (no light)", simulated=True)
        self._slots_per_s = given.speed * config.link.clock_rate_hz
        self._origin_s: float | None = None
        self._slots = 0
        self._closed = threading.Event()

    def send(self, symbols: Symbols) -> None:
        """Wait until the slots would have been sent."""
        now_s = time.monotonic()
        self._origin_s = now_s if self._origin_s is None else self._origin_s
        self._slots += symbols.n_slots
        if self._slots_per_s > 0.0:
            self._closed.wait(max(self._origin_s + self._slots / self._slots_per_s - now_s, 0.0))

    def close(self) -> None:
        """Stop waiting; may be called twice."""
        self._closed.set()


def _channel_map(channels: dict[str, int] | None) -> NDArray[np.uint8]:
    """*(256,) uint8* logical channel of each channel of the file, ``DROPPED`` where there is none."""
    table = np.full(256, DROPPED, np.uint8)
    if channels is None:
        channels = {str(i): i for i in range(LOGICAL_CHANNELS)}
    for name, logical in channels.items():
        if not name.isdecimal() or int(name) > DROPPED or not 0 <= logical < LOGICAL_CHANNELS:
            raise ConfigurationError(
                f"replay-time-tagger: channels {name!r} = {logical} maps nothing to 0..3",
                remedy='Give the file\'s channel and its detector, such as {"1" = 0, "2" = 1, "3" = 2, "4" = 3}.',
            )
        table[int(name)] = logical
    return table
