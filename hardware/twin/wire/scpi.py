"""SCPI as instruments speak it: messages with definite-length blocks, an error queue, a table of commands."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hardware.twin.axes import AxesTwin
from hardware.twin.instruments import AttenuatorTwin, PowerMeterTwin
from hardware.twin.wire.server import Faults

Handler = Callable[[str, bytes], str | None]
"""(argument, block) -> the answer of a query, None for a command; ValueError is an execution error."""


@dataclass
class Instrument:
    """One instrument: its identity, its commands (upper-case headers) and its error queue."""

    identity: str
    handlers: dict[str, Handler]
    faults: Faults = field(default_factory=Faults)
    errors: deque[str] = field(default_factory=deque)

    def execute(self, message: bytes) -> str | None:
        """One message: its answer, or None."""
        text, block = split_block(message)
        header, _, argument = text.strip().partition(" ")
        name = header.upper().lstrip(":")
        if name == "*IDN?":
            return self.faults.identity or self.identity
        if name == "*OPC?":
            return "1"
        if name == "SYST:ERR?":
            return self.errors.popleft() if self.errors else '+0,"No error"'
        if self.faults.error and not name.endswith("?"):
            self.errors.append(self.faults.error)
            self.faults.error = ""
            return None
        handler = self.handlers.get(name)
        if handler is None:
            self.errors.append('-113,"Undefined header"')
            return None
        try:
            return handler(argument.strip(), block)
        except ValueError:
            self.errors.append('-222,"Data out of range"')
            return None


class ScpiDialogue:
    """The bytes of one connection."""

    def __init__(self, instrument: Instrument) -> None:
        self.faults, self._instrument, self._buffer = instrument.faults, instrument, bytearray()

    def feed(self, data: bytes) -> bytes:
        """Answers to all messages that are complete."""
        self._buffer += data
        out = []
        while (end := message_end(self._buffer)) is not None:
            message = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            answer = self._instrument.execute(message)
            if answer is not None:
                out.append(answer + "\n")
        return "".join(out).encode()


_BLOCK = re.compile(rb"^[^\n#]*#([1-9])")


def message_end(buffer: bytearray) -> int | None:
    """Index of the newline that ends the first message (newlines inside a block do not count), or None."""
    found = _BLOCK.match(buffer)
    start = 0
    if found:
        digits = int(found.group(1))
        start = found.end() + digits
        if len(buffer) < start:
            return None
        start += int(buffer[found.end() : start])
    end = buffer.find(b"\n", start)
    return None if end < 0 else end


def split_block(message: bytes) -> tuple[str, bytes]:
    """(text, block) of one message."""
    found = _BLOCK.match(message)
    if not found:
        return message.decode("ascii", "replace"), b""
    digits = int(found.group(1))
    return message[: found.end() - 2].decode("ascii", "replace"), message[found.end() + digits :]


def attenuator(twin: AttenuatorTwin, family: str = "keysight", channel: int = 1) -> Instrument:
    """An attenuator of either family."""
    identity, base = {
        "keysight": ("Keysight Technologies,N7752A,TWIN0001,1.025", ("INP{n}:ATT", "OUTP{n}:STAT")),
        "exfo": ("EXFO Inc.,LTB-8,TWIN0002,1.0.0.0", ("LINS{n}:INP:ATT", "LINS{n}:OUTP:STAT")),
    }[family]
    attenuation, shutter = (text.format(n=channel) for text in base)

    def set_db(argument: str, _: bytes) -> None:
        if not twin.set_db(float(argument)):
            raise ValueError(argument)

    def set_shutter(argument: str, _: bytes) -> None:
        twin.open = bool(int(argument))

    return Instrument(
        identity,
        {
            attenuation: set_db,
            attenuation + "?": lambda a, b: f"{twin.attenuation.read():.6E}",
            shutter: set_shutter,
            shutter + "?": lambda a, b: str(int(twin.open)),
        },
    )


def power_meter(twin: PowerMeterTwin) -> Instrument:
    """Simulate a PM100D power meter."""

    def set_wavelength(argument: str, _: bytes) -> None:
        value = float(argument)
        if not 400.0 <= value <= 1700.0:
            raise ValueError(argument)
        twin.wavelength_nm = value

    return Instrument(
        "Thorlabs,PM100D,TWIN0003,2.4.0",
        {
            "SENS:POW:UNIT": lambda a, b: None,
            "SENS:POW:RANG:AUTO": lambda a, b: None,
            "SENS:CORR:WAV": set_wavelength,
            "SENS:CORR:WAV?": lambda a, b: f"{twin.wavelength_nm:.6E}",
            "MEAS:POW?": lambda a, b: f"{twin.power_w:.6E}",
        },
    )


def voltage_source(twin: AxesTwin, full_scale_v: float) -> Instrument:
    """A source with one voltage per axis, addressed by channel lists (`VOLT 1.5,(@2)`)."""
    pattern = re.compile(r"(?:([-+0-9.eE]+)\s*,\s*)?\(@(\d+)\)")

    def parse(argument: str) -> tuple[float, int]:
        found = pattern.fullmatch(argument)
        if not found or not 1 <= int(found.group(2)) <= len(twin.axes):
            raise ValueError(argument)
        return float(found.group(1) or 0.0), int(found.group(2)) - 1

    def set_voltage(argument: str, _: bytes) -> None:
        volts, axis = parse(argument)
        if not 0.0 <= volts <= full_scale_v:
            raise ValueError(argument)
        twin.axes[axis].set(volts / full_scale_v)

    def get_voltage(argument: str, _: bytes) -> str:
        return f"{twin.axes[parse(argument)[1]].read() * full_scale_v:.6E}"

    return Instrument(
        "Keysight Technologies,E36313A,TWIN0004,1.0.4",
        {"VOLT": set_voltage, "VOLT?": get_voltage, "MEAS:VOLT?": get_voltage, "OUTP": lambda a, b: None},
    )
