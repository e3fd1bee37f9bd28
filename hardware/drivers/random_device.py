"""`random-device`: a quantum random number generator behind a character device, with continuous health tests.

Tried with /dev/urandom; vendors' devices (/dev/hwrng, /dev/qrandom0, ...) are read in the same way but were not at
hand. Health tests: NIST SP 800-90B, 4.4.1 (repetition count) and 4.4.2 (adaptive proportion), on bytes, at a false
alarm probability of 2^-40 each for a source of full entropy.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from common.config import Config
from common.errors import DeviceError
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

#: 1 + ceil(40 / 8): six equal bytes in a row.
REPETITION_CUTOFF = 6
WINDOW_BYTES = 512
#: Smallest c with P(Binomial(511, 2^-8) >= c - 1) <= 2^-40.
PROPORTION_CUTOFF = 20


class Parameters(BaseModel):
    """Manifest of `random-device`."""

    model_config = ConfigDict(extra="forbid")
    path: Path = Path("/dev/hwrng")


class HealthTests:
    """Both tests over one stream; a window that straddles two reads is tested too."""

    def __init__(self) -> None:
        self._tail = np.zeros(0, np.uint8)
        self._left = np.zeros(0, np.uint8)

    def check(self, fresh: NDArray[np.uint8]) -> None:
        """Raise DeviceError on an alarm."""
        joined = np.concatenate([self._tail, fresh])
        need = REPETITION_CUTOFF - 1
        if joined.size > need:
            same = joined[1:] == joined[:-1]
            runs = np.convolve(same, np.ones(need, np.int64), "valid")
            if runs.size and int(runs.max()) >= need:
                raise DeviceError(f"random source: {REPETITION_CUTOFF} equal bytes in a row")
        self._tail = joined[-need:].copy()
        stream = np.concatenate([self._left, fresh])
        windows = stream[: stream.size // WINDOW_BYTES * WINDOW_BYTES].reshape(-1, WINDOW_BYTES)
        counts = (windows == windows[:, :1]).sum(axis=1)
        if counts.size and int(counts.max()) >= PROPORTION_CUTOFF:
            raise DeviceError(f"random source: one byte value {int(counts.max())} times in {WINDOW_BYTES}")
        self._left = stream[windows.size :].copy()


class RandomDevice:
    """A character device that gives true random bytes."""

    tried = False

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, "random-device")
        self._path, self._health = given.path, HealthTests()
        try:
            self._handle = os.open(given.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"random source {given.path}: {error.strerror}") from None
        if not stat.S_ISCHR(os.fstat(self._handle).st_mode):
            os.close(self._handle)
            raise DeviceError(
                f"random source {given.path} is not a character device", remedy="A file would be used twice."
            )
        self.info = DeviceInfo("random source", str(given.path))
        self.read(4 * WINDOW_BYTES)  # the start-up test; these bytes are not used

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes that passed the health tests."""
        out = np.empty(n_bytes, np.uint8)
        view, at = out.data, 0
        while at < n_bytes:
            try:
                got = os.readv(self._handle, [view[at:]]) if self._handle >= 0 else -1
            except OSError as error:
                raise DeviceError(f"random source {self._path}: {error.strerror}") from None
            if got <= 0:
                state = "ended" if self._handle >= 0 else "is closed"
                raise DeviceError(f"random source {self._path} {state}", remedy="Open the device again.")
            at += got
        self._health.check(out)
        return out

    def close(self) -> None:
        """Release the device; may be called twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
