"""The instruments that do not speak SCPI: OZ Optics and APT on serial ports, WebSQ's JSON over TCP."""

from __future__ import annotations

import asyncio
import json
import struct

from hardware.twin.axes import AxesTwin
from hardware.twin.instruments import AttenuatorTwin, BiasTwin
from hardware.twin.wire.server import Faults

PERIOD_MS = 100.0


class OzDialogue:
    """OZ Optics DD-100-MC: lines that end with CR, answers that end with `Done`."""

    def __init__(self, twin: AttenuatorTwin) -> None:
        self.faults, self._twin, self._buffer = Faults(), twin, b""
        twin.open = True

    def feed(self, data: bytes) -> bytes:
        """Answers to the complete commands."""
        *commands, self._buffer = (self._buffer + data).split(b"\r")
        return b"".join(self._answer(command.decode("ascii", "replace")) for command in commands)

    def _answer(self, command: str) -> bytes:
        if command == "CD":
            lines = [self.faults.identity or "OZ OPTICS DD-100-MC V1.2"]
        elif command == "D":
            value = self._twin.attenuation.read()
            lines = [f"DPos:{round(100 * value)}", f"ATTEN:{value:.2f}"]
        elif command[:1] == "A" and not self.faults.error:
            ok = self._twin.set_db(float(command[1:]))
            lines = [f"Pos:{round(100 * self._twin.attenuation.target)}" if ok else "Error-2"]
        else:
            lines, self.faults.error = [self.faults.error or "Error-1"], ""
        return ("\r\n".join([*lines, "Done", ""]) + "\r\n").encode()


class AptDialogue:
    """Thorlabs MPC320: 6-byte headers, little endian, data where the destination has bit 0x80."""

    paddles = (1, 2, 4)
    range_steps = 1370

    def __init__(self, twin: AxesTwin) -> None:
        self.faults, self._twin, self._buffer = Faults(), twin, bytearray()

    def feed(self, data: bytes) -> bytes:
        """Answers to the complete messages."""
        self._buffer += data
        out = b""
        while len(self._buffer) >= 6:
            message, length, destination, _ = struct.unpack_from("<HHBB", self._buffer)
            size = 6 + (length if destination & 0x80 else 0)
            if len(self._buffer) < size:
                break
            out += self._answer(message, length & 0xFF, bytes(self._buffer[6:size]))
            del self._buffer[:size]
        return out

    def _answer(self, message: int, channel: int, data: bytes) -> bytes:
        if message == 0x0005:
            model = (self.faults.identity.split(",")[1] if self.faults.identity else "MPC320").encode()[:8]
            return self._long(0x0006, struct.pack("<I8sHI", 99_000_001, model, 44, 0x010203).ljust(84, b"\0"))
        if message == 0x0453:
            paddle, steps = struct.unpack("<Hi", data)
            if 0 <= steps <= self.range_steps:
                self._twin.axes[self.paddles.index(paddle)].set(steps / self.range_steps)
        if message == 0x0490:
            steps = round(self._twin.axes[self.paddles.index(channel)].read() * self.range_steps)
            return self._long(0x0491, struct.pack("<HiHHI", channel, steps, 0, 0, 0))
        return b""

    @staticmethod
    def _long(message: int, data: bytes) -> bytes:
        return struct.pack("<HHBB", message, len(data), 0x81, 0x50) + data


class WebSqDialogue:
    """Answer as WebSQ's control port."""

    def __init__(self, twin: BiasTwin, faults: Faults) -> None:
        self.faults, self._twin, self._text = faults, twin, ""

    def feed(self, data: bytes) -> bytes:
        """Answers to the complete objects."""
        self._text += data.decode("utf-8", "replace")
        decoder, out = json.JSONDecoder(), []
        while self._text:
            try:
                document, end = decoder.raw_decode(self._text)
            except ValueError:
                break
            self._text = self._text[end:].lstrip()
            out += self._answer(document)
        return b"".join(json.dumps(answer).encode() + b"\x17" for answer in out)

    def _answer(self, document: dict[str, object]) -> list[dict[str, object]]:
        command, value = document.get("command"), document.get("value")
        if command and self.faults.error:
            error, self.faults.error = self.faults.error, ""
            return [{"label": "Error", "value": error}]
        if command == "SetAllBiasCurrents" and isinstance(value, list):
            self._twin.current_ua = [float(one) for one in value]
            return [{"label": "BiasCurrent", "value": self._twin.current_ua}]
        if command == "DetectorEnable":
            self._twin.enabled = bool(value)
            return [{"label": "DetectorEnable", "value": self._twin.enabled}]
        if document.get("request") == "labelProps":
            n_detectors = 0 if self.faults.identity else len(self._twin.current_ua)
            values = {
                "SystemName": self.faults.identity or "Single Quantum Eos",
                "NumberOfDetectors": n_detectors,
                "BiasCurrent": self._twin.current_ua,
                "DetectorEnable": self._twin.enabled,
                "InptMeasurementPeriod": PERIOD_MS,
            }
            return [{"label": label, "value": {"value": one}} for label, one in values.items()]
        return []


async def websq_counts(twin: BiasTwin, faults: Faults, writer: asyncio.StreamWriter) -> None:
    """WebSQ's counts port: a line now and one every period."""
    line = 0
    while not faults.half_open:
        counts = [rate * PERIOD_MS / 1000.0 for rate in twin.rates_cps]
        text = "?!" if faults.garbage else ",".join(f"{value:g}" for value in [line * PERIOD_MS / 1000.0, *counts])
        if not faults.silent:
            writer.write(text.encode() + b"\n")
            await writer.drain()
        line += 1
        await asyncio.sleep(PERIOD_MS / 1000.0)
