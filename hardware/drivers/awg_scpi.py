"""`keysight-awg` and `tektronix-awg`: arbitrary waveform generators over SCPI as Alice's modulator.

Not tried on a real instrument; tried against their wire-level twins through PyVISA-py. Symbols are written into one of
two pages of the generator's memory while the other page plays. A page is a burst of whole epochs, started by a software
trigger and played once: an instrument that hears nothing more goes to 0 V, never into repetition.

Keysight M8190A in 12-bit mode: the headers `TRACe:DEFine/DATA`, `INITiate:CONTinuous/GATE`, `TRIGger:BEGin`,
`STABle:SEQuence:STATe?` are found in published programs; recalled and not checked against the manual: little-endian
words with the value in bits 15..4, the run state in bits 26..25 (2 = running), granularity 64, `DC:VOLTage:AMPLitude`.
Tektronix AWG5200 and AWG70000: `WLISt:WAVeform`, `CASSet:WAVeform`, `AWGControl:RSTate?` (2 = running), `CLOCk:SRATe`
are found in published programs; recalled: `SOURce:RMODe TRIGgered`, `TRIGger:IMMediate`, that new waveforms are 0.
To be checked first on either: the level after a burst, and that the unused page may be written while the other plays.
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
    laser_phase_random: bool = False
    """Weak coherent pulses: the laser itself starts every pulse with a fresh phase (gain switching)."""


class _Awg(ABC):
    tried = False
    name: ClassVar[str]
    models: ClassVar[tuple[str, ...]]

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, self.name)
        check_channels(given.channels, given.amplitude_v, given.laser_phase_random, config)
        self._given, self._order, self._closed = given, SlotOrder(), threading.Event()
        self._burst_slots = given.burst_epochs * EPOCH_SLOTS
        if 2 * self._burst_slots > config.blocks.symbol_buffer_slots:
            raise ConfigurationError(
                f"driver {self.name!r}: two bursts of {given.burst_epochs} epochs exceed blocks.symbol_buffer_slots",
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

    @property
    def burst_slots(self) -> int:
        """So many slots leave together."""
        return self._burst_slots

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
        if self._started_s is None:
            return
        while self._running():
            self._alive()
            if not self.info.simulated and time.monotonic() > self._started_s + self._burst_s + self._given.settle_s:
                raise self._fault("does not end its burst", "Look at its run mode: it must be triggered, once.")
            self._closed.wait(POLL_S)
        self._alive()
        took_s = time.monotonic() - self._started_s
        if not self.info.simulated and took_s < WHOLE * self._burst_s:
            raise self._fault(
                f"says that a burst of {self._burst_s:.2f} s was over after {took_s:.2f} s",
                "Look at its sample clock and run mode; the light of this burst cannot be relied upon.",
            )

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


class KeysightAwg(_Awg):
    """Keysight M8190A."""

    name = "keysight-awg"
    models = ("M8190",)

    def _words(self, levels: NDArray[np.float64]) -> NDArray[np.generic]:
        return (np.rint(levels * 2047.0).astype("<i2") << 4).astype("<i2")

    def _prepare(self, outputs: list[int]) -> None:
        command = self._scpi.command
        command(":ABOR")
        command(f":FREQ:RAST {self._rate_hz:.12g}")
        self._check_rate(":FREQ:RAST?")
        for n in outputs:
            command(f":TRAC{n}:DEL:ALL")
            command(f":TRAC{n}:DWID WSP")
            command(f":FUNC{n}:MODE ARB")
            command(f":INIT:CONT{n} OFF")
            command(f":INIT:GATE{n} OFF")
            command(f":DC{n}:VOLT:AMPL {self._given.amplitude_v:.6g}")
            for page in range(PAGES):
                command(f":TRAC{n}:DEF {page + 1},{self._page_samples},0")
            command(f":OUTP{n} ON")
        if len(outputs) > 1:
            command(":INST:COUP:STAT ON")

    def _upload(self, output: int, start: int, n_samples: int, data: bytes) -> None:
        self._scpi.command(f":TRAC{output}:DATA {self._page + 1},{start},", data)

    def _play(self, outputs: list[int]) -> None:
        self._scpi.command(":ABOR")
        for n in outputs:
            self._scpi.command(f":TRAC{n}:SEL {self._page + 1}")
        self._scpi.command(":INIT:IMM")
        self._scpi.command(":TRIG:BEG")

    def _running(self) -> bool:
        return int(self._scpi.number(":STAB:SEQ:STAT?")) >> 25 & 3 == 2

    def _stop(self) -> None:
        self._scpi.command(":ABOR")

    def _safe(self, output: int) -> None:
        self._scpi.command(f":OUTP{output} OFF")
        self._scpi.command(f":TRAC{output}:DEL:ALL")


class TektronixAwg(_Awg):
    """Tektronix AWG5200 and AWG70000."""

    name = "tektronix-awg"
    models = ("AWG5200", "AWG520", "AWG700")

    def _words(self, levels: NDArray[np.float64]) -> NDArray[np.generic]:
        return levels.astype("<f4")

    @staticmethod
    def _waveform(page: int, output: int) -> str:
        return f'"QKD{page + 1}_{output}"'

    def _prepare(self, outputs: list[int]) -> None:
        command = self._scpi.command
        command("AWGC:STOP")
        command("WLIS:WAV:DEL ALL")
        command(f"CLOC:SRAT {self._rate_hz:.12g}")
        self._check_rate("CLOC:SRAT?")
        for n in outputs:
            command(f"SOUR{n}:RMOD TRIG")
            command(f"SOUR{n}:TINP ATR")
            command(f"SOUR{n}:VOLT {self._given.amplitude_v:.6g}")
            for page in range(PAGES):
                command(f"WLIS:WAV:NEW {self._waveform(page, n)},{self._page_samples}")
            command(f"OUTP{n} ON")

    def _upload(self, output: int, start: int, n_samples: int, data: bytes) -> None:
        self._scpi.command(f"WLIS:WAV:DATA {self._waveform(self._page, output)},{start},{n_samples},", data)

    def _play(self, outputs: list[int]) -> None:
        self._scpi.command("AWGC:STOP")
        for n in outputs:
            self._scpi.command(f"SOUR{n}:CASS:WAV {self._waveform(self._page, n)}")
        self._scpi.command("AWGC:RUN")
        self._scpi.command("TRIG:IMM ATR")

    def _running(self) -> bool:
        return int(self._scpi.number("AWGC:RST?")) == 2

    def _stop(self) -> None:
        self._scpi.command("AWGC:STOP")

    def _safe(self, output: int) -> None:
        self._scpi.command(f"OUTP{output} OFF")
        for page in range(PAGES):
            self._scpi.command(f"WLIS:WAV:DEL {self._waveform(page, output)}")


def _part(symbols: Symbols, start: int, end: int) -> Symbols:
    """Words ``start`` to ``end``."""
    return Symbols(
        symbols.first_slot + 64 * start,
        symbols.basis[start:end],
        symbols.bit[start:end],
        symbols.intensity[:, start:end],
        symbols.phase[:, start:end],
    )
