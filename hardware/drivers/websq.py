"""`single-quantum-websq`: bias and count rates of Single Quantum's detectors, JSON over TCP.

Not tried on a real instrument; tried against its wire-level twin. Protocol (the vendor's open WebSQControl client):
control port 12000 takes JSON objects, answers and broadcasts objects with `label` and `value`, parted by byte 0x17;
`{"request": "labelProps"}` tells every property. Port 12345 sends lines `time, counts, counts, ...`, one a period.
No property carries a serial number, so the manifest must say whether it is simulated.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.errors import AnotherDeviceError, DeviceError
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

NAME = "single-quantum-websq"
SEPARATOR = b"\x17"
MAX_BYTES = 1 << 22


class Parameters(BaseModel):
    """What a manifest says of `single-quantum-websq`."""

    model_config = ConfigDict(extra="forbid")
    host: str
    control_port: int = Field(12000, gt=0, lt=65536)
    counts_port: int = Field(12345, gt=0, lt=65536)
    bias_ua: tuple[float, ...] = Field(min_length=1)
    """Bias current of each detector when on, in microampere."""
    timeout_s: float = Field(5.0, gt=0.0, le=120.0)
    simulated: bool
    """True for a twin behind the ports: its keys are marked."""


class WebSQ:
    """Bias supply of superconducting nanowire detectors; safe state: every current 0, detectors disabled."""

    tried = False

    model = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        self._given, self._lock, self._closed = given, threading.RLock(), False
        self._buffer, self._broken = bytearray(), False
        self._control = self._connect(given.control_port)
        try:
            self._properties = self._ask_properties()
            n_channels = self._properties.get("NumberOfDetectors")
            if n_channels != len(given.bias_ua):
                name = self._properties.get("SystemName", "")
                fault = self._fault(f"{name} has {n_channels} detectors, `bias_ua` has {len(given.bias_ua)}")
                raise AnotherDeviceError(str(fault), remedy="Correct `bias_ua` or `host`.")
        except DeviceError:
            self._control.close()
            raise
        self._on = [False] * len(given.bias_ua)
        model = str(self._properties.get("SystemName", "Single Quantum"))
        firmware = str(self._properties.get("SoftwareVersion", ""))
        self.info = DeviceInfo("detector bias", model, firmware=firmware, simulated=given.simulated)

    def _fault(self, text: str, remedy: str = "Check power and network, and the two ports.") -> DeviceError:
        return DeviceError(f"driver {NAME!r} at {self._given.host}: {text}", remedy=remedy)

    def _connect(self, port: int) -> socket.socket:
        try:
            return socket.create_connection((self._given.host, port), timeout=self._given.timeout_s)
        except OSError as error:
            raise self._fault(f"port {port} cannot be reached: {error}") from None

    @contextlib.contextmanager
    def _conversation(self) -> Iterator[None]:
        """One that goes wrong ends the connection; the next begins with a new one."""
        with self._lock:
            if self._broken:
                self._control.close()
                self._control = self._connect(self._given.control_port)
                self._buffer.clear()
            self._broken = True
            yield
            self._broken = False

    def _send(self, document: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(document).encode())
        except OSError as error:
            raise self._fault(f"the connection broke: {error}") from None

    def _messages(self, connection: socket.socket, buffer: bytearray, separator: bytes) -> Iterator[bytes]:
        """Pieces as they come, until the deadline, which raises."""
        end = time.monotonic() + self._given.timeout_s
        while True:
            while separator in buffer:
                piece, _, rest = bytes(buffer).partition(separator)
                buffer[:] = rest
                yield piece
            left = end - time.monotonic()
            if left <= 0.0 or len(buffer) > MAX_BYTES:
                raise self._fault("was silent, or answered nonsense")
            try:
                connection.settimeout(left)
                data = connection.recv(1 << 16)
            except OSError as error:
                raise self._fault(f"did not answer: {error}") from None
            if not data:
                raise self._fault("closed the connection")
            buffer += data

    def _wait_for(self, *labels: str) -> dict[str, Any]:
        """Collect values until all of these labels have come; an `Error` label raises."""
        found: dict[str, Any] = {}
        for piece in self._messages(self._control, self._buffer, SEPARATOR):
            for document in _objects(piece):
                label, value = str(document.get("label", "")), document.get("value")
                if "Error" in label:
                    raise self._fault(f"says {value!r}", "Look at the controller's own page.")
                found[label] = value.get("value") if isinstance(value, dict) else value
            if all(label in found for label in labels):
                return found
        raise AssertionError("unreachable: the messages end by raising")

    def _ask_properties(self) -> dict[str, Any]:
        self._buffer.clear()
        self._send({"request": "labelProps", "value": "None"})
        return self._wait_for("NumberOfDetectors", "BiasCurrent", "DetectorEnable", "InptMeasurementPeriod")

    def _apply(self, label: str, command: str, value: Any) -> None:
        with self._conversation():
            self._send({"command": command, "label": label, "value": value})
            reached = self._ask_properties()[label]
            if not np.allclose(np.asarray(reached, float), np.asarray(value, float), atol=0.05):
                raise self._fault(f"{label} is {reached}, not {value}", "Look at the controller's own page.")

    def set_bias(self, channel: int, on: bool) -> None:
        """Switch one detector's bias; returns when the read-back agrees."""
        if not 0 <= channel < len(self._on):
            raise DeviceError(f"there is no detector {channel}", remedy=f"Choose 0..{len(self._on) - 1}.")
        if self._closed:
            raise self._fault("is closed", "Open the device again.")
        wanted = [*self._on[:channel], on, *self._on[channel + 1 :]]
        self._apply(
            "BiasCurrent", "SetAllBiasCurrents", [self._given.bias_ua[i] * wanted[i] for i in range(len(wanted))]
        )
        self._apply("DetectorEnable", "DetectorEnable", any(wanted))
        self._on = wanted

    def count_rates_cps(self) -> NDArray[np.float64]:
        """*(n_channels,) float64*: the next measurement, counts per second."""
        if self._closed:
            raise self._fault("is closed", "Open the device again.")
        with self._conversation():
            period_s = float(self._ask_properties()["InptMeasurementPeriod"]) / 1000.0
            connection = self._connect(self._given.counts_port)
            with connection:
                line = next(self._messages(connection, bytearray(), b"\n"))
        try:
            counts = [float(text) for text in line.decode("ascii").split(",")][1:]
        except ValueError:
            raise self._fault(f"sent {line[:40]!r} as counts") from None
        if len(counts) != len(self._on) or not all(map(math.isfinite, counts)) or period_s <= 0.0:
            raise self._fault(f"sent counts of {len(counts)} detectors")
        return np.array(counts) / period_s

    def close(self) -> None:
        """Every bias off; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._apply("BiasCurrent", "SetAllBiasCurrents", [0.0] * len(self._on))
            self._apply("DetectorEnable", "DetectorEnable", False)
        finally:
            self._control.close()


def _objects(piece: bytes) -> Iterator[dict[str, Any]]:
    """JSON objects written one behind the other; what is no object is passed over."""
    text, decoder, at = piece.decode("utf-8", "replace").strip(), json.JSONDecoder(), 0
    while at < len(text):
        try:
            document, at = decoder.raw_decode(text, at)
        except ValueError:
            return
        if isinstance(document, dict):
            yield document
