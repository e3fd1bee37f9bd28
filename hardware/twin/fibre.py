"""The simulated fibre: Alice's symbols travel to Bob's process over TCP, as fast as Bob takes them.

A message is a header and the planes of basis, bit and intensity. The phase word is not sent: a phase-randomised pulse
is a mixture of photon numbers, which is what Bob's side draws from. Nothing of Bob's protocol code can read this.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.addresses import read_endpoint
from common.datatypes import Symbols
from common.errors import DeviceError
from common.node.listening import refuse

_HEADER = struct.Struct("<4sIIqQ")
_MAGIC = b"QKDl"
_BUFFER_BYTES = 1 << 20
_POLL_S = 0.1
_MAX_WORDS = 1 << 24


@dataclass(frozen=True, slots=True)
class Light:
    """Slots that arrive at Bob."""

    first_slot: int
    basis: NDArray[np.uint64]
    bit: NDArray[np.uint64]
    intensity: NDArray[np.uint64]
    after_dark: bool = False
    """No light left for a while before these slots, although they follow the last ones in number."""

    def pieces(self, most_words: int) -> list[Light]:
        """The same slots, at most this many words of 64 at once."""
        n_words = int(self.basis.size)
        cuts = [slice(at, at + most_words) for at in range(0, n_words, most_words)]
        return [
            Light(
                self.first_slot + 64 * cut.start,
                self.basis[cut],
                self.bit[cut],
                self.intensity[:, cut],
                self.after_dark and cut.start == 0,
            )
            for cut in cuts
        ]


def parse_address(fibre: str) -> tuple[str, int]:
    """(host, port) of `tcp://host:port`."""
    address = read_endpoint(fibre)
    assert address is not None  # the parameters' model has looked at it
    return address.host, address.port


class FibreEntrance:
    """Alice's end: one listener, one Bob at a time; without Bob the light waits."""

    def __init__(self, fibre: str) -> None:
        host, port = parse_address(fibre)
        try:
            self._listener = socket.create_server((host, port), backlog=1)
        except (OSError, UnicodeError) as error:
            refuse("devices.modulator.fibre", fibre, error)
        self._closed = threading.Event()
        self._bob: socket.socket | None = None

    def send(self, symbols: Symbols, *, after_dark: bool = False) -> None:
        """Send the next slots; waits for Bob and for room. What was sent to a Bob that went away is lost."""
        while not self._closed.is_set():
            bob = self._bob or self._accept()
            if bob is None:
                continue
            try:
                planes = symbols.intensity
                head = (_MAGIC, planes.shape[0], int(after_dark), symbols.first_slot, symbols.basis.size)
                bob.sendall(_HEADER.pack(*head))
                for plane in (symbols.basis, symbols.bit, *planes):
                    bob.sendall(np.ascontiguousarray(plane, "<u8").data.cast("B"))
                return
            except OSError:
                bob.close()
                self._bob = None

    def _accept(self) -> socket.socket | None:
        try:
            readable, _, _ = select.select([self._listener], [], [], _POLL_S)
            if not readable:
                return None
            self._bob, _ = self._listener.accept()
        except (OSError, ValueError):  # closed by another thread
            return None
        self._bob.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        return self._bob

    def close(self) -> None:
        """Release a waiting :meth:`send` and the address."""
        self._closed.set()
        _shut(self._bob)
        self._listener.close()


class FibreExit:
    """Bob's end: connects whenever Alice is there."""

    def __init__(self, fibre: str) -> None:
        self._address = parse_address(fibre)
        self._closed = threading.Event()
        self._alice: socket.socket | None = None

    @property
    def connected(self) -> bool:
        """Whether Alice is there; she may still be preparing her next slots."""
        return self._alice is not None

    def receive(self, timeout_s: float) -> Light | None:
        """The next slots, or None: nothing came within ``timeout_s``."""
        alice = self._alice or self._connect(timeout_s)
        if alice is None:
            return None
        try:
            readable, _, _ = select.select([alice], [], [], timeout_s)
            if not readable:
                return None
            magic, planes, after_dark, first_slot, n_words = _HEADER.unpack(self._read(alice, _HEADER.size).data)
            if magic != _MAGIC or n_words > _MAX_WORDS or planes > 8:
                raise DeviceError(f"what listens at {self._address} is not a simulated fibre")
            raw = self._read(alice, 8 * n_words * (2 + planes)).view("<u8").reshape(2 + planes, n_words)
        except (OSError, ValueError):
            alice.close()
            self._alice = None
            return None
        return Light(first_slot, raw[0], raw[1], raw[2:], bool(after_dark))

    def _connect(self, timeout_s: float) -> socket.socket | None:
        try:
            self._alice = socket.create_connection(self._address, timeout=max(timeout_s, 0.01))
        except OSError:
            self._closed.wait(timeout_s)
            return None
        self._alice.settimeout(None)
        self._alice.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        return self._alice

    @staticmethod
    def _read(alice: socket.socket, n_bytes: int) -> NDArray[np.uint8]:
        buffer = np.empty(n_bytes, np.uint8)
        view, at = buffer.data, 0
        while at < n_bytes:
            got = alice.recv_into(view[at:])
            if got == 0:
                raise OSError("the fibre ended")
            at += got
        return buffer

    def close(self) -> None:
        """Release a waiting :meth:`receive`."""
        self._closed.set()
        _shut(self._alice)


def _shut(connection: socket.socket | None) -> None:
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
