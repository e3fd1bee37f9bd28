"""Waveform generators behind SCPI: an M8190A and an AWG5200 in front of the same twin."""

from __future__ import annotations

import numpy as np

from hardware.twin.generator import GeneratorTwin
from hardware.twin.wire.scpi import Handler, Instrument


def _flag(argument: str) -> bool:
    if argument.upper() not in ("ON", "OFF", "1", "0"):
        raise ValueError(argument)
    return argument.upper() in ("ON", "1")


def _accept(argument: str, _: bytes) -> None:
    return None


class _Panel:
    """Settings that both families have."""

    def __init__(self, twin: GeneratorTwin, highest_v: float, rates_hz: tuple[float, float]) -> None:
        self.twin, self._highest_v, self._rates_hz = twin, highest_v, rates_hz

    def set_rate(self, argument: str, _: bytes) -> None:
        if not self._rates_hz[0] <= float(argument) <= self._rates_hz[1]:
            raise ValueError(argument)
        self.twin.sample_rate_hz = float(argument)

    def rate(self, argument: str, _: bytes) -> str:
        return f"{self.twin.sample_rate_hz:.12E}"

    def set_amplitude(self, argument: str, _: bytes) -> None:
        if not 0.0 < float(argument) <= self._highest_v:
            raise ValueError(argument)
        self.twin.amplitude_v = float(argument)

    def set_output(self, argument: str, _: bytes) -> None:
        self.twin.output = _flag(argument)

    def stop(self, argument: str, _: bytes) -> None:
        self.twin.stop()

    def arm(self, argument: str, _: bytes) -> None:
        self.twin.arm()

    def trigger(self, argument: str, _: bytes) -> None:
        self.twin.trigger()

    def clear(self, argument: str, _: bytes) -> None:
        self.twin.pages.clear()

    @property
    def state(self) -> int:
        """0 stopped, 1 waiting for a trigger, 2 running."""
        return 2 if self.twin.leaving else int(self.twin.waiting)


def keysight(twin: GeneratorTwin) -> Instrument:
    """An M8190A, 12-bit mode, output 1."""
    panel = _Panel(twin, 0.7, (125e6, 12e9))

    def define(argument: str, _: bytes) -> None:
        page, n_samples, level = argument.split(",")
        if page in twin.pages or int(n_samples) % 64 or int(level):
            raise ValueError(argument)
        twin.define(page, int(n_samples))

    def data(argument: str, block: bytes) -> None:
        page, start, _ = argument.split(",")
        if int(start) % 64 or len(block) % 128:
            raise ValueError(argument)
        twin.write(page, int(start), (np.frombuffer(block, "<i2") >> 4) / np.float32(2047.0))

    def select(argument: str, _: bytes) -> None:
        twin.selected = argument

    def continuous(argument: str, _: bytes) -> None:
        twin.triggered = not _flag(argument)

    handlers: dict[str, Handler] = {
        "ABOR": panel.stop,
        "FREQ:RAST": panel.set_rate,
        "FREQ:RAST?": panel.rate,
        "TRAC1:DEL:ALL": panel.clear,
        "TRAC1:DWID": _accept,
        "TRAC1:DEF": define,
        "TRAC1:DATA": data,
        "TRAC1:SEL": select,
        "FUNC1:MODE": _accept,
        "INIT:CONT1": continuous,
        "INIT:GATE1": _accept,
        "INIT:IMM": panel.arm,
        "TRIG:BEG": panel.trigger,
        "TRIG:BEG:HWD": _accept,
        "DC1:VOLT:AMPL": panel.set_amplitude,
        "OUTP1": panel.set_output,
        "STAB:SEQ:STAT?": lambda a, b: str(panel.state << 25),
    }
    return Instrument("Keysight Technologies,M8190A,TWIN0006,5.0.14.0-2", handlers)


def tektronix(twin: GeneratorTwin) -> Instrument:
    """An AWG5200, output 1."""
    panel = _Panel(twin, 0.75, (298.0, 2.5e9))

    def new(argument: str, _: bytes) -> None:
        name, n_samples = argument.split(",")
        if name in twin.pages:
            raise ValueError(argument)
        twin.define(name, int(n_samples))

    def data(argument: str, block: bytes) -> None:
        name, start, size, _ = argument.split(",")
        if len(block) != 4 * int(size):
            raise ValueError(argument)
        twin.write(name, int(start), np.frombuffer(block, "<f4"))

    def delete(argument: str, _: bytes) -> None:
        if argument == "ALL":
            twin.pages.clear()
        elif twin.pages.pop(argument, None) is None:
            raise ValueError(argument)

    def select(argument: str, _: bytes) -> None:
        twin.selected = argument

    def run_mode(argument: str, _: bytes) -> None:
        twin.triggered = argument.upper().startswith("TRIG")

    handlers: dict[str, Handler] = {
        "AWGC:STOP": panel.stop,
        "AWGC:RUN": panel.arm,
        "AWGC:RST?": lambda a, b: str(panel.state),
        "CLOC:SRAT": panel.set_rate,
        "CLOC:SRAT?": panel.rate,
        "WLIS:WAV:NEW": new,
        "WLIS:WAV:DATA": data,
        "WLIS:WAV:DEL": delete,
        "SOUR1:CASS:WAV": select,
        "SOUR1:RMOD": run_mode,
        "SOUR1:TINP": _accept,
        "SOUR1:VOLT": panel.set_amplitude,
        "TRIG:IMM": panel.trigger,
        "OUTP1": panel.set_output,
    }
    return Instrument("TEKTRONIX,AWG5204,TWIN0007,FV:7.3.0012.0", handlers)
