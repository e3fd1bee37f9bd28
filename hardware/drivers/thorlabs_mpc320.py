"""`thorlabs-mpc320`: three motorised paddles over Thorlabs' APT serial protocol.

Not tried on a real instrument; tried against its wire-level twin on a pseudo-terminal. Recalled from Thorlabs'
APT Host-Controller Communications Protocol and not checked against it: 6-byte header (message, length or two
parameters, destination with 0x80 where data follow, source), little endian; paddles are channels 1, 2, 4; 1370 steps
are 170 degrees; serial numbers of MPC320 begin with 38. A twin's begins with 99.
"""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.errors import AnotherDeviceError, DeviceError
from hardware.drivers.serial_port import SerialParameters, SerialPort
from hardware.interfaces import DeviceInfo, check_axes
from hardware.registry import parse_parameters

NAME = "thorlabs-mpc320"
HOST, UNIT = 0x01, 0x50
HW_REQ_INFO, HW_GET_INFO = 0x0005, 0x0006
MOVE_ABSOLUTE, MOVE_STOP = 0x0453, 0x0465
REQ_STATUS, GET_STATUS = 0x0490, 0x0491
PADDLES = (1, 2, 4)
RANGE_STEPS = 1370
#: First two of the eight digits of a twin's serial number, where Thorlabs codes the kind of device.
TWIN_SERIAL_PREFIX = 99
TOLERANCE_STEPS = 8
POLL_S = 0.02


def short_message(message: int, first: int = 0, second: int = 0) -> bytes:
    """A message of the header alone."""
    return struct.pack("<HBBBB", message, first, second, UNIT, HOST)


def long_message(message: int, data: bytes) -> bytes:
    """A message with data."""
    return struct.pack("<HHBB", message, len(data), UNIT | 0x80, HOST) + data


class ThorlabsMPC320:
    """Three paddles, 0..1 of 170 degrees each."""

    tried = False
    n_axes = len(PADDLES)

    model = SerialParameters
    needs = "serial"

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(SerialParameters, parameters, NAME)
        self._settle_s, self._closed = given.settle_s, False
        self._port = SerialPort(given, NAME, 115_200, flow_control=given.port.startswith("/dev/ttyUSB"))
        try:
            self.info = self._identify()
        except DeviceError:
            self._port.close()
            raise

    def _exchange(self, request: bytes, answer: int) -> bytes:
        with self._port.lock:
            self._port.write(request)
            message, length, destination, _ = struct.unpack("<HHBB", self._port.read(6))
            if message != answer or destination != HOST | 0x80 or length > 255:
                raise self._port.fault(f"sent message {message:#06x}, expected {answer:#06x}")
            return self._port.read(length)

    def _identify(self) -> DeviceInfo:
        data = self._exchange(short_message(HW_REQ_INFO), HW_GET_INFO)
        if len(data) < 18:
            raise self._port.fault("gave a short identity")
        serial, model, _, firmware = struct.unpack_from("<I8sHI", data)
        name = model.rstrip(b"\0 ").decode("ascii", "replace")
        if not name.startswith("MPC"):
            fault = self._port.fault(f"is {name!r}, not an MPC", "Correct `port` or the driver.")
            raise AnotherDeviceError(str(fault), remedy=fault.remedy)
        parts = [firmware >> shift & 0xFF for shift in (16, 8, 0)]
        return DeviceInfo(
            "polarisation controller",
            f"Thorlabs {name}",
            str(serial),
            ".".join(map(str, parts)),
            simulated=serial // 1_000_000 == TWIN_SERIAL_PREFIX,
        )

    def _position(self, paddle: int) -> int:
        data = self._exchange(short_message(REQ_STATUS, paddle), GET_STATUS)
        if len(data) < 6:
            raise self._port.fault("gave a short status")
        channel, position = struct.unpack_from("<Hi", data)
        if channel != paddle:
            raise self._port.fault(f"gave the status of paddle {channel}, not {paddle}")
        return int(position)

    def set_axes(self, positions: NDArray[np.float64]) -> None:
        """*(3,) float64* in 0..1; returns when every paddle is there."""
        targets = [round(value * RANGE_STEPS) for value in check_axes(positions, self.n_axes)]
        for paddle, target in zip(PADDLES, targets, strict=True):
            with self._port.lock:
                self._port.write(long_message(MOVE_ABSOLUTE, struct.pack("<Hi", paddle, target)))
                end = time.monotonic() + self._settle_s
                while abs((position := self._position(paddle)) - target) > TOLERANCE_STEPS:
                    if time.monotonic() > end:
                        raise self._port.fault(f"paddle {paddle} stands at {position}, not {target}", "Home it.")
                    threading.Event().wait(POLL_S)

    def close(self) -> None:
        """Paddles stop where they are; may be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            for paddle in PADDLES:
                self._port.write(short_message(MOVE_STOP, paddle, 1))
        finally:
            self._port.close()
