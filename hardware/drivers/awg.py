"""A waveform generator as Alice's modulator: two pages of memory, and bursts that are played once.

Symbols are written into one page while the other plays. A page is a burst of whole epochs, started by a software
trigger: an instrument that hears nothing more goes to 0 V, never into repetition. The families are in `awg_scpi.py`.
Source: ours, decision 102.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.config import Config
from common.datatypes import Symbols
from common.errors import ConfigurationError, DeviceError
from common.preamble import EPOCH_SLOTS
from hardware.drivers.scpi import POLL_S, ScpiSession, VisaParameters
from hardware.drivers.waveform import Channel, check_channels, fractions, samples
from hardware.interfaces import TWIN_SERIAL, DeviceInfo, SlotOrder
from hardware.registry import parse_parameters

PAGES = 2
#: Samples of 0 V that end every page.
TAIL_SAMPLES = 64
#: A burst that ends earlier than this part of its time was cut short.
WHOLE = 0.98


class Parameters(VisaParameters):
    """Manifest of both families."""

    channels: tuple[Channel, ...] = Field(min_length=1)
    amplitude_v: float = Field(gt=0.0, le=10.0)
    """Peak to peak, of every output."""
    samples_per_slot: int = Field(2, ge=1, le=64)
    burst_epochs: int = Field(2, ge=2, le=64)
    """Epochs of one burst: Bob finds the clock in the first and makes key from the second on."""


class BurstModulator(ABC):
    """What every family of generators does; a family adds its commands and the form of its samples.

    Security
    --------
    Alice's raw key crosses the wire to the instrument and lies in its memory: both must be within her walls. The pages
    are deleted on closing; the instrument's own copies and this process's are not overwritten.
    """

    tried = False
    name: ClassVar[str]
    models: ClassVar[tuple[str, ...]]

    model = Parameters
    needs = "pyvisa"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, self.name)
        check_channels(given.channels, given.amplitude_v, config)
        self.applies_phase = any(channel.driven_by == "phase" for channel in given.channels)
        self._given, self._order, self._closed = given, SlotOrder(), threading.Event()
        self._burst_slots = given.burst_epochs * EPOCH_SLOTS
        if 3 * self._burst_slots > config.blocks.symbol_buffer_slots:
            raise ConfigurationError(
                f"driver {self.name!r}: three bursts of {given.burst_epochs} epochs exceed blocks.symbol_buffer_slots",
                remedy="Choose fewer `burst_epochs` or a larger symbol_buffer_slots.",
            )
        self._rate_hz = given.samples_per_slot * config.link.clock_rate_hz
        self._burst_s = self._burst_slots / config.link.clock_rate_hz
        self._page_samples = self._burst_slots * given.samples_per_slot + TAIL_SAMPLES
        self._tables = [
            np.repeat(self._words(fractions(channel, given.amplitude_v))[:, None], given.samples_per_slot, axis=1)
            for channel in given.channels
        ]
        self._page = self._filled = 0
        self._unsent_from = 0
        self._started_s: float | None = None
        self._scpi = ScpiSession(given, self.name, self.models)
        model, serial, firmware = self._scpi.parts
        self.info = DeviceInfo("modulator", model, serial, firmware, serial.startswith(TWIN_SERIAL))
        try:
            self._prepare([channel.output for channel in given.channels])
        except DeviceError:
            self._scpi.close()
            raise

    @property
    def unsent_from_slot(self) -> int:
        """First slot of the burst that was not started yet."""
        return self._unsent_from

    def _fault(self, text: str, remedy: str) -> DeviceError:
        return DeviceError(f"driver {self.name!r} at {self._given.resource}: {text}", remedy=remedy)

    def _alive(self) -> None:
        if self._closed.is_set():
            raise self._fault("is closed", "Open the device again.")

    def send(self, symbols: Symbols) -> None:
        """Write the next slots into the waiting page; a full page starts once the burst before has left."""
        self._alive()
        if self._order.next_slot is None:
            if symbols.first_slot % EPOCH_SLOTS:
                raise self._fault(f"slot {symbols.first_slot} does not begin an epoch", "Begin with a preamble.")
            self._unsent_from = symbols.first_slot
        self._order.check(symbols)
        self._over()
        done, n_words = 0, int(symbols.basis.size)
        while done < n_words:
            end = min(n_words, done + (self._burst_slots - self._filled) // 64)
            self._write(_part(symbols, done, end))
            done = end
            if self._filled == self._burst_slots:
                self._start()

    def _write(self, part: Symbols) -> None:
        start = self._filled * self._given.samples_per_slot
        n_samples = part.n_slots * self._given.samples_per_slot
        for channel, table in zip(self._given.channels, self._tables, strict=True):
            self._upload(channel.output, start, n_samples, samples(part, channel.driven_by, table))
        self._filled += part.n_slots

    def _start(self) -> None:
        """Wait for the end of the burst before, then let this page leave, once."""
        self._wait()
        self._unsent_from += self._burst_slots  # from here on Bob may have seen its light
        self._play([channel.output for channel in self._given.channels])
        self._started_s = time.monotonic()
        self._page, self._filled = (self._page + 1) % PAGES, 0

    def _wait(self) -> None:
        """Until the burst before has left; a twin's light takes as long as Bob takes."""
        while not self._over():
            self._alive()
            assert self._started_s is not None
            if not self.info.simulated and time.monotonic() > self._started_s + self._burst_s + self._given.settle_s:
                raise self._fault("does not end its burst", "Look at its run mode: it must be triggered, once.")
            self._closed.wait(POLL_S)
        self._alive()

    def _over(self) -> bool:
        """Whether no burst is leaving; one that has just ended is stopped, so that no stray trigger repeats it."""
        if self._started_s is None:
            return True
        if self._running():
            return False
        took_s, self._started_s = time.monotonic() - self._started_s, None
        self._stop()
        if not self.info.simulated and took_s < WHOLE * self._burst_s:
            raise self._fault(
                f"says that a burst of {self._burst_s:.2f} s was over after {took_s:.2f} s",
                "Look at its sample clock and run mode; the light of this burst cannot be relied upon.",
            )
        return True

    @abstractmethod
    def _words(self, levels: NDArray[np.float64]) -> NDArray[np.generic]:
        """Levels in -1..1 as the instrument takes them."""

    @abstractmethod
    def _prepare(self, outputs: list[int]) -> None:
        """Stop, set clock, amplitude and single bursts, make the pages, outputs on."""

    @abstractmethod
    def _upload(self, output: int, start: int, n_samples: int, data: bytes) -> None:
        """Write samples into the waiting page."""

    @abstractmethod
    def _play(self, outputs: list[int]) -> None:
        """Start the waiting page, once."""

    @abstractmethod
    def _running(self) -> bool:
        """Whether a burst is leaving."""

    @abstractmethod
    def _safe(self, output: int) -> None:
        """Output off, and its symbols out of the memory."""

    @abstractmethod
    def _stop(self) -> None:
        """No light from now on."""

    def _check_rate(self, query: str) -> None:
        answer = self._scpi.number(query)
        if not math.isclose(answer, self._rate_hz, rel_tol=1e-9):
            raise self._fault(
                f"has a sample clock of {answer:.12g} Hz, not {self._rate_hz:.12g} Hz",
                "Choose other `samples_per_slot`: the instrument's range, and its steps, must hold that rate.",
            )

    def close(self) -> None:
        """Stop, outputs off, symbols out of the memory; may be called twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        try:
            self._stop()
            for channel in self._given.channels:
                self._safe(channel.output)
        finally:
            self._scpi.close()


def _part(symbols: Symbols, start: int, end: int) -> Symbols:
    """Words ``start`` to ``end``."""
    return Symbols(
        symbols.first_slot + 64 * start,
        symbols.basis[start:end],
        symbols.bit[start:end],
        symbols.intensity[:, start:end],
        symbols.phase[:, start:end],
    )
