"""`tcp-tags`: a time tagger that sends raw records over TCP (open FPGA taggers, Red Pitaya, bridges of one's own).

Not tried on a real instrument; tried against its wire-level twin over a socket. A record is one little-endian 64-bit
word, time in bins above `channel_bits` bits of channel. Three channel numbers may be set aside: a heartbeat, which only
tells time, an overflow mark, and a mark for a lost reference clock. Without a heartbeat an empty batch tells no time.
A time that goes back and a mark void the block. The stream carries no identity, so the manifest must say whether its
source is simulated.
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.datatypes import TimeTags
from common.errors import DeviceError
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

NAME = "tcp-tags"
RECORD_BYTES = 8
MAX_READ_BYTES = 1 << 20
NOT_MAPPED = 255


class Parameters(BaseModel):
    """What a manifest says of `tcp-tags`."""

    model_config = ConfigDict(extra="forbid")
    host: str
    port: int = Field(gt=0, lt=65536)
    simulated: bool
    """True for a twin or a recording behind the socket: its keys are marked."""
    bin_ps: float = Field(1.0, gt=0.0, le=1e6)
    channel_bits: int = Field(4, ge=2, le=8)
    channels: tuple[int, int, int, int] = (0, 1, 2, 3)
    """The stream's numbers of H, V, R, L."""
    heartbeat_channel: int | None = None
    overflow_channel: int | None = None
    unlocked_channel: int | None = None
    """Marks that the source has lost its reference clock: what comes in this batch is void."""
    timeout_s: float = Field(5.0, gt=0.0, le=120.0)
    """For connecting."""


class TcpTags:
    """Reads records as they come; what the network cannot keep up with waits in the sender."""

    tried = False

    model = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        self._given, self._last_ps, self._rest = given, 0, b""
        self.reference_locked = None if given.unlocked_channel is None else True
        self._map = np.full(1 << given.channel_bits, NOT_MAPPED, np.uint8)
        self._map[list(given.channels)] = np.arange(4)
        try:
            self._socket: socket.socket | None = socket.create_connection((given.host, given.port), given.timeout_s)
        except OSError as error:
            raise self._fault(f"cannot be reached: {error}") from None
        self.info = DeviceInfo("time tagger", "raw records over TCP", simulated=given.simulated)

    def _fault(self, text: str, remedy: str = "Check the tagger, the network, host and port.") -> DeviceError:
        return DeviceError(f"driver {NAME!r} at {self._given.host}:{self._given.port}: {text}", remedy=remedy)

    @property
    def resolution_ps(self) -> float:
        """Width of a time bin in ps."""
        return self._given.bin_ps

    def read(self, timeout_s: float) -> TimeTags | None:
        """The next records; an empty batch when none came within ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while len(self._rest) < RECORD_BYTES:
            left = end - time.monotonic()
            if left <= 0.0 or not self._receive(left):
                return TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), self._last_ps)
        whole = len(self._rest) // RECORD_BYTES * RECORD_BYTES
        words = np.frombuffer(self._rest[:whole], "<u8")
        self._rest = self._rest[whole:]
        return self._decode(words)

    def _receive(self, timeout_s: float) -> bool:
        if self._socket is None:
            raise self._fault("is closed", "Open the device again.")
        try:
            if not select.select([self._socket], [], [], timeout_s)[0]:
                return False
            data = self._socket.recv(MAX_READ_BYTES)
        except (OSError, ValueError) as error:
            raise self._fault(f"the connection broke: {error}") from None
        if not data:
            raise self._fault("closed the connection")
        self._rest += data
        return True

    def _decode(self, words: NDArray[np.uint64]) -> TimeTags:
        given = self._given
        bits = np.uint64(given.channel_bits)
        bins = (words >> bits).astype(np.int64)
        times = bins if given.bin_ps == 1.0 else np.floor(bins * given.bin_ps).astype(np.int64)
        numbers = (words & np.uint64((1 << given.channel_bits) - 1)).astype(np.uint8)
        special = np.zeros(words.size, bool)
        overflow = False
        for channel in (given.heartbeat_channel, given.overflow_channel, given.unlocked_channel):
            if channel is not None:
                special |= numbers == channel
        if given.overflow_channel is not None:
            overflow = bool((numbers == given.overflow_channel).any())
        if given.unlocked_channel is not None:
            self.reference_locked = not bool((numbers == given.unlocked_channel).any())
            overflow |= not self.reference_locked
        channels = self._map[numbers]
        if bool((channels[~special] == NOT_MAPPED).any()):
            raise self._fault(
                "sent a channel that is not mapped, or no records at all",
                "Correct `channels`, `channel_bits`, `bin_ps`.",
            )
        latest = np.maximum.accumulate(np.concatenate([[self._last_ps], times]))
        forward = times >= latest[:-1]
        self._last_ps = int(latest[-1])
        keep = forward & ~special
        return TimeTags(times[keep], channels[keep], self._last_ps, overflow or not bool(forward.all()))

    def close(self) -> None:
        """Hang up; may be called twice."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
