"""`id-time-controller`: ID Quantique ID900 and ID1000, SCPI over ZeroMQ and streamed time tags.

Not tried on a real instrument; tried against its wire-level twin over ZeroMQ. Written from the maker's published Python
examples, not from the manual. Commands are questions to a REP socket (port 5555); an answer with `SCPI_ERR_` is an
error. Tags come through the maker's DataLinkTargetService (REP, port 6060, JSON answers), which offers each channel on
a PAIR socket: one message a sub-acquisition, little-endian 64-bit ps since that sub-acquisition began. `RAW<n>:ERRORS?`
counts losses. Acquisitions that an earlier program left in the service are ended: it serves one program.

Taken for granted, to be checked first: a channel without a click sends an empty message, the answer to `*IDN?` has
four fields, inputs are linked as `INPU<n>`. Thresholds and delays of inputs are set in the maker's own program.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.datatypes import TimeTags
from common.errors import AnotherDeviceError, ConfigurationError, DeviceError
from common.units import PS_PER_S
from hardware.interfaces import TWIN_SERIAL, DeviceInfo
from hardware.registry import parse_parameters

NAME = "id-time-controller"
MODELS = ("ID900", "ID1000")
#: Blind time between two sub-acquisitions; the maker asks for at least 40 ns.
GAP_PS = 40_000
#: One channel may be this many sub-acquisitions ahead of another before they are out of step.
MAX_AHEAD = 16


class Parameters(BaseModel):
    """What a manifest says of `id-time-controller`."""

    model_config = ConfigDict(extra="forbid")
    host: str
    """The instrument."""
    port: int = Field(5555, gt=0, lt=65536)
    link_host: str = "127.0.0.1"
    """Where DataLinkTargetService runs."""
    link_port: int = Field(6060, gt=0, lt=65536)
    stream_ports: tuple[int, int, int, int] = (4242, 4243, 4244, 4245)
    """Ports on `link_host` on which it is asked to offer the four channels."""
    channels: tuple[int, int, int, int] = (1, 2, 3, 4)
    """The inputs of H, V, R, L."""
    batch_s: float = Field(0.2, ge=0.2, le=10.0)
    """Length of a sub-acquisition: tags arrive so late."""
    resolution_ps: float = Field(1.0, gt=0.0)
    """Of the model and its mode, for the receiver's report."""
    timeout_s: float = Field(5.0, gt=0.0, le=120.0)


class IdTimeController:
    """Endless sub-acquisitions of the four inputs, merged in time."""

    tried = False

    model = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, NAME)
        if len(set(given.channels)) != 4 or len(set(given.stream_ports)) != 4:
            raise ConfigurationError(f"driver {NAME!r}: `channels` and `stream_ports` need four different numbers")
        self._given, self._context, self._open = given, zmq.Context(), True
        self._length_ps = round(given.batch_s * PS_PER_S)
        self._period_ps = self._length_ps + GAP_PS
        self._n_batches, self._until_ps, self._heard_s = 0, 0, time.monotonic()
        self._ids: list[str] = []
        self._waiting: list[deque[bytes]] = [deque() for _ in given.channels]
        self._streams: list[zmq.Socket[bytes]] = []
        self._control = self._socket(zmq.REQ, given.host, given.port)
        self._link = self._socket(zmq.REQ, given.link_host, given.link_port)
        try:
            self.info = self._identify()
            self._start()
        except DeviceError:
            self._release()
            raise

    def _socket(self, kind: int, host: str, port: int) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        made.linger = 0
        made.rcvtimeo = made.sndtimeo = round(1000 * self._given.timeout_s)
        made.connect(f"tcp://{host}:{port}")
        return made

    def _fault(
        self, text: str, remedy: str = "Check power, network and DataLinkTargetService, and who else uses them."
    ) -> DeviceError:
        return DeviceError(f"driver {NAME!r} at {self._given.host}: {text}", remedy=remedy)

    def _exchange(self, socket: zmq.Socket[bytes], message: str) -> str:
        try:
            socket.send_string(message)
            return socket.recv().decode("utf-8").strip()
        except (zmq.ZMQError, UnicodeDecodeError) as error:
            raise self._fault(f"{message!r} was not answered: {error}") from None

    def _ask(self, message: str) -> str:
        answer = self._exchange(self._control, message)
        if "SCPI_ERR_" in answer:
            raise self._fault(f"{message!r} was refused: {answer[:80]}", "Look up the error in its manual.")
        return answer

    def _ask_link(self, message: str) -> Any:
        answer = self._exchange(self._link, message)
        try:
            document = json.loads(answer) if answer else {}
        except ValueError:
            raise self._fault(f"DataLinkTargetService answered {answer[:40]!r} to {message!r}") from None
        if isinstance(document, dict) and document.get("error"):
            raise self._fault(f"DataLinkTargetService refused {message!r}: {answer[:120]}")
        return document

    def _identify(self) -> DeviceInfo:
        parts = [part.strip() for part in self._ask("*IDN?").split(",")]
        if len(parts) < 4 or not any(model in parts[1] for model in MODELS):
            fault = self._fault(f"is {','.join(parts)[:60]!r}, not an {' or '.join(MODELS)}")
            raise AnotherDeviceError(str(fault), remedy="Correct `host`.")
        return DeviceInfo(
            "time tagger", f"ID Quantique {parts[1]}", parts[2], parts[3], parts[2].startswith(TWIN_SERIAL)
        )

    def _start(self) -> None:
        given = self._given
        for message in ("REC:TRIG:ARM:MODE MANUal", "REC:ENABle ON", "REC:STOP", "REC:NUM INF"):
            self._ask(message)
        self._ask(f"REC:PWID {self._length_ps};PPER {self._period_ps}")
        for left_over in self._ask_link("list"):
            self._ask_link(f"stop --id {left_over}")
        for channel, port in zip(given.channels, given.stream_ports, strict=True):
            self._ask(f"TSCO{channel}:FIR:LINK INPU{channel};OPIN ONLYFIR;OPOU ONLYFIR;WIND:ENAB OFF")
            self._ask(f"RAW{channel}:STOP:LINK TSCO{channel};:RAW{channel}:REF:LINK NONE")
            self._ask(f"RAW{channel}:ERRORS:CLEAR")
            begun = self._ask_link(f"start-stream --address {given.host} --channel {channel} --stream-port {port}")
            self._ids.append(str(begun.get("id", "")))
            self._streams.append(self._socket(zmq.PAIR, given.link_host, port))
            self._ask(f"RAW{channel}:SEND ON")
        self._ask("REC:PLAY")

    @property
    def resolution_ps(self) -> float:
        """Width of a time bin in ps."""
        return self._given.resolution_ps

    def read(self, timeout_s: float) -> TimeTags | None:
        """The next sub-acquisition of all four inputs; an empty batch when none was complete within ``timeout_s``."""
        if not self._open:
            raise self._fault("is closed", "Open the device again.")
        end = time.monotonic() + timeout_s
        while not all(self._waiting):
            left = end - time.monotonic()
            if left <= 0.0 or not self._receive(left):
                return TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), self._until_ps)
        return self._merge([waiting.popleft() for waiting in self._waiting])

    def _receive(self, timeout_s: float) -> bool:
        poller = zmq.Poller()
        for stream in self._streams:
            poller.register(stream, zmq.POLLIN)
        ready = dict(poller.poll(max(1, round(1000 * timeout_s))))
        for stream, waiting in zip(self._streams, self._waiting, strict=True):
            if stream in ready:
                waiting.append(stream.recv())
        if ready:
            self._heard_s = time.monotonic()
        elif time.monotonic() - self._heard_s > self._given.timeout_s + self._given.batch_s:
            raise self._fault("sends no more tags")
        lengths = [len(waiting) for waiting in self._waiting]
        if max(lengths) - min(lengths) > MAX_AHEAD:
            raise self._fault(
                "lost the step between its channels", "Open the device again; choose a shorter `batch_s`."
            )
        return bool(ready)

    def _merge(self, messages: list[bytes]) -> TimeTags:
        """Tags of one sub-acquisition in the clock of the first; what the instrument lost voids the block."""
        parts: list[NDArray[np.int64]] = []
        for message in messages:
            if len(message) % 8:
                raise self._fault(f"sent {len(message)} bytes, which are no whole tags")
            parts.append(np.frombuffer(message, "<i8").astype(np.int64))
            part = parts[-1]
            if part.size and (
                int(part.min()) < 0 or int(part.max()) > self._period_ps or bool((np.diff(part) < 0).any())
            ):
                raise self._fault("sent times outside their sub-acquisition", "Open the device again.")
        times = np.concatenate(parts)
        channels = np.repeat(np.arange(4, dtype=np.uint8), [part.size for part in parts])
        order = np.argsort(times, kind="stable")
        start_ps, self._n_batches = self._n_batches * self._period_ps, self._n_batches + 1
        self._until_ps = start_ps + self._period_ps
        return TimeTags(times[order] + start_ps, channels[order], self._until_ps, self._lost())

    def _lost(self) -> bool:
        lost = False
        for channel in self._given.channels:
            answer = self._ask(f"RAW{channel}:ERRORS?")
            if not answer.isdigit():
                raise self._fault(f"answered {answer[:40]!r} as the number of errors")
            if int(answer):
                lost = True
                self._ask(f"RAW{channel}:ERRORS:CLEAR")
        return lost

    def _release(self) -> None:
        self._open = False
        for socket in (self._control, self._link, *self._streams):
            socket.close()
        self._context.term()

    def close(self) -> None:
        """Stop the acquisition and both services' streams; may be called twice."""
        if not self._open:
            return
        try:
            self._ask("REC:STOP")
            for channel, acquisition in zip(self._given.channels, self._ids, strict=True):
                self._ask(f"RAW{channel}:SEND OFF")
                self._ask_link(f"stop --id {acquisition}")
        finally:
            self._release()
