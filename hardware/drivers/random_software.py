"""`software-random`: AES-256 in counter mode. For demonstrations: keys made with it are marked simulated."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config
from common.errors import DeviceError
from hardware.interfaces import DeviceInfo
from hardware.registry import parse_parameters

_ZEROS = memoryview(bytes(1 << 18))


class Parameters(BaseModel):
    """What a manifest says of `software-random`."""

    model_config = ConfigDict(extra="forbid")
    seed: int | None = Field(None, ge=0)
    """Makes the stream reproducible; for tests alone."""


class SoftwareRandom:
    """An endless stream from 256 bits of the operating system (or of a seed), each byte handed out once."""

    model = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, "software-random")
        self.info = DeviceInfo("random source", "software (AES-256-CTR)", simulated=True, randomness="computational")
        key = os.urandom(32) if given.seed is None else _key_of(given.seed)
        self._closed = False
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes."""
        if self._closed:
            raise DeviceError("driver 'software-random' is closed", remedy="Open the device again.")
        out = np.empty(n_bytes, dtype=np.uint8)
        for at in range(0, n_bytes, len(_ZEROS)):
            part = out[at : at + len(_ZEROS)]
            self._stream.update_into(_ZEROS[: part.size], part.data)
        return out

    def close(self) -> None:
        """Gives no more; may be called twice."""
        self._closed = True


def _key_of(seed: int) -> bytes:
    digest = Hash(SHA256())
    digest.update(b"qkd-node software-random " + str(seed).encode())
    return digest.finalize()
