"""`keysight-awg` and `tektronix-awg`: arbitrary waveform generators over SCPI as Alice's modulator.

Not tried on a real instrument; tried against their wire-level twins through PyVISA-py.

Keysight M8190A in 12-bit mode. Headers found in published programs: `TRACe:DEFine/DATA/SELect`, `FREQuency:RASTer`,
`INITiate:CONTinuous/GATE`, `TRIGger:BEGin` and `:HWDisable`, `STABle:SEQuence:STATe?`. Recalled and not checked
against the manual: little-endian words with the value in bits 15..4, the run state in bits 26..25 (2 = running),
granularity 64, sample clocks from 125 MHz, `DC:VOLTage:AMPLitude`.
Tektronix AWG5200 and AWG70000. Headers found in published programs: `WLISt:WAVeform`, `SOURce:CASSet:WAVeform`,
`AWGControl:RUN/STOP/RSTate?` (2 = running), `CLOCk:SRATe`. Recalled: `SOURce:RMODe TRIGgered`, `TRIGger:IMMediate`,
32-bit floats in -1..1, that a new waveform is all 0.
To be checked first on either: the level after a burst, and that the unused page may be written while the other plays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hardware.drivers.awg import PAGES, BurstModulator


class KeysightAwg(BurstModulator):
    """Drive a Keysight M8190A generator."""

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
            command(":TRIG:BEG:HWD ON")  # software alone triggers
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


class TektronixAwg(BurstModulator):
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
