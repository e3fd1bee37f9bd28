"""`swabian`: Swabian Instruments Time Taggers, plugged in here or served over the network.

Not tried on a real instrument; tried against a stand-in for the vendor's package. The names
(`createTimeTagger`, `createTimeTaggerNetwork`, `TimeTagStream.getData`) are those of the package `Swabian-TimeTagger`;
what they do, and the event types, is recalled and was not checked against its documentation: 0 is a click, every other
one (error, overflow begin and end, missed events) voids the block.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.datatypes import TimeTags
from common.errors import ConfigurationError, DeviceError
from hardware.drivers.sdk import require
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

NAME = "swabian"
POLL_S = 0.005
BUFFER_EVENTS = 8_000_000


class Parameters(BaseModel):
    """What a manifest says of `swabian`."""

    model_config = ConfigDict(extra="forbid")
    serial: str = ""
    """Of a tagger that is plugged in here; empty takes the only one."""
    address: str = ""
    """`host:port` of a tagger that is served over the network; not together with `serial`."""
    channels: tuple[int, int, int, int]
    """The tagger's inputs of H, V, R, L (negative: falling edge)."""
    trigger_v: tuple[float, float, float, float] | None = None
    delay_ps: tuple[int, int, int, int] = (0, 0, 0, 0)
    dead_time_ps: int | None = Field(None, ge=0)
    resolution_ps: float = Field(1.0, gt=0.0)
    """Of the model, for the receiver's report: tags themselves are whole ps."""


class Swabian:
    """A stream of tags; the vendor's own thread fills its buffer."""

    tried = False

    model = Parameters
    needs = "Swabian"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        if given.serial and given.address:
            raise ConfigurationError("driver 'swabian': `serial` and `address` exclude each other")
        if len(set(given.channels)) != 4:
            raise ConfigurationError(f"driver 'swabian': channels {given.channels} are not four different inputs")
        self._given, self._sdk = given, require("Swabian.TimeTagger", NAME, "swabian")
        self._tagger: Any = None
        self._last_ps = 0
        try:
            self._tagger = self._connect()
            self._configure()
            self._stream = self._sdk.TimeTagStream(self._tagger, BUFFER_EVENTS, list(given.channels))
        except (RuntimeError, ValueError, OSError) as error:  # the package raises bare RuntimeError
            self.close()
            raise self._fault(error) from None
        model = "Time Tagger over the network" if given.address else "Time Tagger"
        self.info = DeviceInfo("time tagger", f"Swabian {model}", given.serial or given.address)

    @property
    def resolution_ps(self) -> float:
        """Width of a time bin in ps."""
        return self._given.resolution_ps

    @property
    def reference_locked(self) -> bool | None:
        """Of the reference clock that was set with the maker's software; None: none is set, or it cannot tell."""
        if self._tagger is None or not hasattr(self._tagger, "getReferenceClockState"):
            return None
        try:
            state = self._tagger.getReferenceClockState()
        except (RuntimeError, OSError) as error:
            raise self._fault(error) from None
        return bool(state.is_locked) if state.enabled else None

    def _fault(self, error: object) -> DeviceError:
        where = self._given.address or self._given.serial or "USB"
        return DeviceError(
            f"driver {NAME!r} at {where}: {error}",
            remedy="Check cable, power and network, and that no other program holds the tagger.",
        )

    def _connect(self) -> Any:
        if self._given.address:
            return self._sdk.createTimeTaggerNetwork(self._given.address)
        return self._sdk.createTimeTagger(self._given.serial)

    def _configure(self) -> None:
        for index, channel in enumerate(self._given.channels):
            if self._given.trigger_v is not None:
                self._tagger.setTriggerLevel(channel, self._given.trigger_v[index])
            self._tagger.setInputDelay(channel, self._given.delay_ps[index])
            if self._given.dead_time_ps is not None:
                self._tagger.setDeadtime(channel, self._given.dead_time_ps)

    def read(self, timeout_s: float) -> TimeTags | None:
        """The next batch; an empty one tells the time until which nothing clicked."""
        end = time.monotonic() + timeout_s
        while True:
            if self._tagger is None:
                raise DeviceError(f"driver {NAME!r} is closed", remedy="Open the device again.")
            try:
                batch = self._batch(self._stream.getData())
            except (RuntimeError, OSError) as error:
                raise self._fault(error) from None
            if len(batch) or batch.overflow or time.monotonic() >= end:
                return batch
            threading.Event().wait(POLL_S)

    def _batch(self, buffer: Any) -> TimeTags:
        kinds = np.asarray(buffer.getEventTypes())
        is_click = kinds == 0
        times = np.asarray(buffer.getTimestamps(), np.int64)[is_click]
        numbers = np.asarray(buffer.getChannels())[is_click]
        channels = self._logical(numbers)
        lost = bool(buffer.hasOverflows) or not bool(is_click.all())
        backwards = bool(times.size) and (int(times[0]) < self._last_ps or bool((np.diff(times) < 0).any()))
        if backwards:
            raise self._fault("its times went back")
        self._last_ps = max(self._last_ps, int(buffer.tGetData), int(times[-1]) if times.size else 0)
        return TimeTags(times, channels, self._last_ps, lost)

    def _logical(self, numbers: NDArray[Any]) -> NDArray[np.uint8]:
        channels = np.full(numbers.size, 255, np.uint8)
        for logical, number in enumerate(self._given.channels):
            channels[numbers == number] = logical
        if channels.size and int(channels.max()) == 255:
            raise self._fault("sent a channel that was not asked for")
        return channels

    def close(self) -> None:
        """Stop the stream and let go of the tagger; may be called twice."""
        tagger, self._tagger = self._tagger, None
        if tagger is not None:
            self._sdk.freeTimeTagger(tagger)
