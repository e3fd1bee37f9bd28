"""One SCPI conversation over PyVISA: every fault is a DeviceError in bounded time, every command reads its errors.

The instrument is named by a VISA resource (`TCPIP::10.0.0.7::5025::SOCKET`, `USB0::...::INSTR`). PyVISA and its pure
Python back-end are imported on opening (extra `visa`). Source: IEEE 488.2 (common commands, definite-length blocks),
SCPI 1999.0 volume 2, 21.8 (error queue).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from common.errors import AnotherDeviceError, ConfigurationError, DeviceError
from hardware.drivers.sdk import require

POLL_S = 0.02
MAX_ERRORS = 20
#: PyVISA-py sends a message in pieces of this size; large ones make waveform uploads fast.
CHUNK_BYTES = 1 << 20


class VisaParameters(BaseModel):
    """Manifest of every driver that speaks SCPI."""

    model_config = ConfigDict(extra="forbid")
    resource: str = Field(min_length=1)
    """VISA resource name."""
    visa_library: str = "@py"
    """Back-end: "@py" is PyVISA-py, "" an installed vendor's VISA."""
    timeout_s: float = Field(5.0, gt=0.0, le=120.0)
    """For one answer."""
    settle_s: float = Field(10.0, gt=0.0, le=600.0)
    """Until a new setting must be reached."""
    expect: str = ""
    """Text that the answer to `*IDN?` must hold (a serial number, a firmware); empty: the driver's own models."""


class ScpiSession:
    """Commands, queries and blocks to one instrument, one at a time.

    Parameters
    ----------
    given : where and how long. driver : for messages. models : one of these must be in the identity. prepare : what
        the instrument must be told before it is used, also after it was switched off and on.

    Raises
    ------
    DeviceError
        Not there, silent, not the expected instrument.
    """

    def __init__(
        self,
        given: VisaParameters,
        driver: str,
        models: tuple[str, ...] = (),
        prepare: Callable[[ScpiSession], None] = lambda session: None,
    ) -> None:
        self._given, self._driver, self._models, self._prepare = given, driver, models, prepare
        self._lock = threading.RLock()
        self._visa = require("pyvisa", driver, "visa")
        self._failures: tuple[type[BaseException], ...] = (self._visa.errors.Error, OSError, UnicodeDecodeError)
        self._instrument: Any = None
        self._closed = False
        self.identity = ""
        self._connect()

    def _connect(self) -> None:
        """Open, and see that it is the instrument that is meant: at first, and after each broken conversation."""
        given, before = self._given, self.identity
        try:
            manager = self._visa.ResourceManager(given.visa_library)
            self._instrument = manager.open_resource(
                given.resource,
                read_termination="\n",
                write_termination="\n",
                open_timeout=round(1000 * given.timeout_s),
                timeout=round(1000 * given.timeout_s),
            )
            self._instrument.chunk_size = CHUNK_BYTES
            _send_at_once(self._instrument)
        except ValueError as error:
            raise ConfigurationError(f"driver {self._driver!r}: resource {given.resource!r}: {error}") from None
        except Exception as error:  # a back-end raises anything from its own classes to bare Exception
            self._drop()
            raise self._fault(f"cannot be opened: {error}") from None
        try:
            self.identity = self.query("*IDN?")
            self._check_identity(self._models)
            if before and self.identity != before:
                raise AnotherDeviceError(str(self._fault(f"is {self.identity!r} now and was {before!r}")))
            self._prepare(self)
        except DeviceError:
            self.identity = before
            self._drop()
            raise

    def _fault(self, text: str, remedy: str | None = None) -> DeviceError:
        remedy = remedy or "Check power, network and the resource name, and that nobody else holds the instrument."
        return DeviceError(f"driver {self._driver!r} at {self._given.resource}: {text}", remedy=remedy)

    def _check_identity(self, models: tuple[str, ...]) -> None:
        wanted = (self._given.expect,) if self._given.expect else models
        if len(self.identity.split(",")) < 4:
            raise self._fault(f"answers {self.identity[:60]!r} to *IDN?, which is no identity")
        if wanted and not any(text in self.identity for text in wanted):
            raise AnotherDeviceError(
                str(self._fault(f"is {self.identity!r}, expected {' or '.join(wanted)}")),
                remedy="Correct `resource`, `expect` (a serial number, a firmware) or the driver.",
            )

    @property
    def parts(self) -> tuple[str, str, str]:
        """(model, serial number, firmware) of the identity."""
        fields = [part.strip() for part in self.identity.split(",")]
        return fields[1], fields[2], ",".join(fields[3:])

    def query(self, message: str) -> str:
        """The answer to one question."""
        with self._lock:
            try:
                return str(self._open().query(message)).strip()
            except self._failures as error:
                self._drop()  # an answer that comes late must not be taken for that to the next question
                raise self._fault(f"{message!r} was not answered: {error}") from None

    def number(self, message: str) -> float:
        """The answer as a finite number."""
        answer = self.query(message)
        try:
            value = float(answer)
        except ValueError:
            raise self._fault(f"{message!r} was answered {answer[:40]!r}, not a number") from None
        if not abs(value) < 9.0e37:  # SCPI's "not a number" and infinity are 9.91e37 and 9.9e37
            raise self._fault(f"{message!r} was answered {answer!r}: no valid reading")
        return value

    def command(self, message: str, block: bytes | None = None) -> None:
        """Send, wait until done, and read the error queue; a definite-length block may follow the text."""
        with self._lock:
            try:
                data = message.encode("ascii")
                if block is not None:
                    size = str(len(block))
                    data += f"#{len(size)}{size}".encode() + block
                self._open().write_raw(data + b"\n")
            except self._failures as error:
                self._drop()
                raise self._fault(f"{message!r} could not be sent: {error}") from None
            if self.query("*OPC?").lstrip("+") != "1":
                raise self._fault(f"{message!r} was not completed")
            self.check_errors(message)

    def check_errors(self, after: str) -> None:
        """Empty the error queue; anything in it raises."""
        errors = []
        for _ in range(MAX_ERRORS):
            answer = self.query("SYST:ERR?")
            try:
                code = int(answer.split(",")[0])
            except ValueError:
                raise self._fault(f"SYST:ERR? was answered {answer[:40]!r}") from None
            if code == 0:
                break
            errors.append(answer)
        if errors:
            raise self._fault(f"{after!r} was refused: " + "; ".join(errors), "Look up the error in its manual.")

    def settle(self, reached: Callable[[], bool], what: str) -> None:
        """Poll until a setting is reached."""
        end = time.monotonic() + self._given.settle_s
        while not reached():
            if time.monotonic() > end:
                raise self._fault(f"{what} was not reached within {self._given.settle_s:g} s")
            threading.Event().wait(POLL_S)

    def _open(self) -> Any:
        if self._closed:
            raise self._fault("is closed")
        if self._instrument is None:
            self._connect()
        return self._instrument

    def _drop(self) -> None:
        """End a conversation that went wrong; the next word begins a new one."""
        instrument, self._instrument = self._instrument, None
        if instrument is not None:
            try:
                instrument.close()
            except self._failures:
                return

    def close(self) -> None:
        """Let go of the instrument; may be called twice."""
        with self._lock:
            self._closed = True
            self._drop()


def _send_at_once(instrument: Any) -> None:
    """Without it a command and the question after it wait 40 ms for each other (Nagle's algorithm, delayed ACK).

    PyVISA-py has the attribute VI_ATTR_TCPIP_NODELAY but cannot set it on a socket, so the socket itself is told.
    """
    session = getattr(instrument.visalib, "sessions", {}).get(instrument.session)
    connection = getattr(session, "interface", None)
    if isinstance(connection, socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
