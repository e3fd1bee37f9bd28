"""`random-file`: bits recorded from a quantum random number generator, each used once.

The position is durable on disk before any bit behind it is handed out; a crash loses at most `reserve_bytes` and never
repeats one. The position file is locked, and bound to the recording by its size and a digest of its beginning.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.config import Config
from common.errors import DeviceError
from common.files import open_handle
from hardware.drivers.random_class import StatedClass
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

HEAD_BYTES = 1 << 16


class Parameters(StatedClass):
    """What a manifest says of `random-file`."""

    path: Path
    origin: str = Field(min_length=3)
    """Which generator recorded it and when: the operator's statement, shown wherever the source is named."""
    position_file: Path | None = None
    """Default: beside the recording, `.position` appended."""
    reserve_bytes: int = Field(1 << 22, ge=1)


class RandomFile:
    """A recording that is read through once."""

    tried = True

    model = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, "random-file")
        self._path = config.path(given.path)
        where = given.position_file or given.path.with_name(given.path.name + ".position")
        self._reserve = given.reserve_bytes
        try:
            self._file: int = open_handle(self._path)
            self._position_file = os.open(config.path(where), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DeviceError(f"random file {self._path}: {error.strerror}", remedy="Correct `path`.") from None
        self._open = True
        try:
            self._lock_and_load()
        except DeviceError:
            self._release()
            raise
        model = f"recording: {given.origin}" + (f" ({given.reason})" if given.reason else "")
        self.info = DeviceInfo("random source", model, randomness=given.randomness or "computational")

    def _lock_and_load(self) -> None:
        try:
            fcntl.flock(self._position_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DeviceError(f"random file {self._path} is in use", remedy="Stop the other process.") from None
        self._size = os.fstat(self._file).st_size
        self._head = hashlib.sha256(os.pread(self._file, HEAD_BYTES, 0)).hexdigest()
        text = os.pread(self._position_file, 4096, 0)
        self._at = 0
        if text:
            try:
                kept = json.loads(text)
                if (kept["size"], kept["head"]) != (self._size, self._head):
                    raise ValueError
                self._at = int(kept["used_bytes"])
                if not 0 <= self._at <= self._size:
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                raise DeviceError(
                    f"the position file of {self._path} is damaged or belongs to another recording",
                    remedy="Use a fresh recording; never delete a position file.",
                ) from None
        self._reserved = self._at

    def _write_position(self, used_bytes: int) -> None:
        text = json.dumps({"used_bytes": used_bytes, "size": self._size, "head": self._head}).encode()
        os.pwrite(self._position_file, text.ljust(256), 0)
        os.fsync(self._position_file)
        self._reserved = used_bytes

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes."""
        if not self._open:
            raise DeviceError(f"random file {self._path} is closed", remedy="Open the device again.")
        if self._size - self._at < n_bytes:
            raise DeviceError(
                f"random file {self._path} is used up ({self._size - self._at} of {self._size} bytes left)",
                remedy="Record new bits into a new file.",
            )
        end = self._at + n_bytes
        if end > self._reserved:
            self._write_position(min(max(end, self._at + self._reserve), self._size))
        out = np.frombuffer(os.pread(self._file, n_bytes, self._at), np.uint8)
        self._at = end
        if out.size != n_bytes:
            raise DeviceError(f"random file {self._path} became shorter", remedy="Never write to a recording.")
        return out

    def close(self) -> None:
        """Give back what was reserved and not used; may be called twice."""
        if self._open:
            if self._reserved != self._at:
                self._write_position(self._at)
            self._release()

    def _release(self) -> None:
        self._open = False
        os.close(self._file)
        os.close(self._position_file)
