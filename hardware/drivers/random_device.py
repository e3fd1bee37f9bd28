"""`random-device`: a random number generator behind a character device.

Tried with /dev/urandom; vendors' devices (/dev/hwrng, /dev/qrandom0, ...) are read in the same way but were not at
hand. The kernel's own generator is told by its device number, whatever path leads to it, and is computational: it
expands a seed. The kernel's interface to a generator in hardware is physical, any other device computational, unless
the manifest states another class with its reason.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import Config
from common.errors import ConfigurationError, DeviceError
from common.randomness import RandomnessClass
from hardware.drivers.random_class import StatedClass
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

KERNEL_GENERATOR = {(1, 8): "/dev/random", (1, 9): "/dev/urandom"}
"""(major, minor) device numbers: Linux, Documentation/admin-guide/devices.txt."""
HARDWARE_GENERATOR = (10, 183)
"""/dev/hwrng, of the same list."""


class Parameters(StatedClass):
    """What a manifest says of `random-device`."""

    path: Path = Path("/dev/hwrng")


class RandomDevice:
    """A character device that gives true random bytes."""

    tried = False

    model = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, "random-device")
        self._path = given.path
        try:
            self._handle = os.open(given.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"random source {given.path}: {error.strerror}") from None
        try:
            model, grade = self._classify(given, os.fstat(self._handle))
        except BaseException:
            self.close()
            raise
        self.info = DeviceInfo("random source", model, randomness=grade)

    @staticmethod
    def _classify(given: Parameters, found: os.stat_result) -> tuple[str, RandomnessClass]:
        """Name and class of the device that was opened."""
        if not stat.S_ISCHR(found.st_mode):
            raise DeviceError(
                f"random source {given.path} is not a character device", remedy="A file would be used twice."
            )
        number = (os.major(found.st_rdev), os.minor(found.st_rdev))
        if number in KERNEL_GENERATOR:
            if given.randomness not in (None, "computational"):
                raise ConfigurationError(
                    f"driver 'random-device': {given.path} is the kernel's generator: it is computational",
                    remedy="Leave `randomness` out, or name the device of a true random source.",
                )
            return f"{given.path}, the kernel's generator", "computational"
        if given.randomness is not None:
            return f"{given.path}: {given.reason}", given.randomness
        return str(given.path), "physical" if number == HARDWARE_GENERATOR else "computational"

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes."""
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
        return out

    def close(self) -> None:
        """Release the device; may be called twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
