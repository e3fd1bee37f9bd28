"""`drbg-expansion`: a slow true random source, stretched by a deterministic generator; declared as such.

AES-256 in counter mode under a key of 32 seed bytes, renewed from the source every `reseed_bytes`. What it gives is
random only as long as AES-256 is a pseudo-random function: keys made with it are not information-theoretically secure.
The manifest must therefore say `accept_computational = true`, and every name of the source says it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from common.config import Config, DeviceSection
from common.errors import ConfigurationError, DeviceError
from hardware.interfaces import DeviceInfo
from hardware.randomness import TestedRandom, drawn_bytes_per_s
from hardware.registry import open_device, parse_parameters

KEY_BYTES = 32


class Parameters(BaseModel):
    """What a manifest says of `drbg-expansion`."""

    model_config = ConfigDict(extra="forbid")
    accept_computational: bool = False
    seed: dict[str, Any]
    """The true random source: `driver` and its parameters."""
    reseed_bytes: int = Field(1 << 20, ge=1 << 10, le=1 << 40)


class DrbgExpansion:
    """Every byte handed out once, from a key that is renewed."""

    tried = True

    model = Parameters

    def __init__(self, parameters: dict[str, Any], config: Config) -> None:
        given = parse_parameters(Parameters, parameters, "drbg-expansion")
        if not given.accept_computational:
            raise ConfigurationError(
                "driver 'drbg-expansion' gives computational, not information-theoretic randomness",
                remedy="Say accept_computational = true if that is wanted, or use a fast enough true random source.",
            )
        if given.seed.get("driver", "drbg-expansion") == "drbg-expansion":
            raise ConfigurationError("driver 'drbg-expansion': parameter 'seed' must name another driver")
        self._reseed_bytes, self._left, self._closed = given.reseed_bytes, 0, False
        seed_source = open_device("random_source.seed", DeviceSection.model_validate(given.seed), config)
        self._seed = TestedRandom(seed_source, KEY_BYTES * drawn_bytes_per_s(config) / given.reseed_bytes)
        info: DeviceInfo = self._seed.info
        seed = info.as_randomness()
        model = f"AES-256-CTR expansion of {seed.source} ({seed.grade})"
        self.info = DeviceInfo("random source", model, simulated=info.simulated, randomness="computational")

    def read(self, n_bytes: int) -> NDArray[np.uint8]:
        """*(n_bytes,) uint8* fresh bytes."""
        if self._closed:
            raise DeviceError("driver 'drbg-expansion' is closed", remedy="Open the device again.")
        parts: list[bytes] = []
        missing = n_bytes
        while missing:
            if not self._left:
                cipher = Cipher(algorithms.AES(self._seed.read(KEY_BYTES).tobytes()), modes.CTR(bytes(16)))
                self._stream, self._left = cipher.encryptor(), self._reseed_bytes
            take = min(missing, self._left)
            parts.append(self._stream.update(bytes(take)))
            missing -= take
            self._left -= take
        return np.frombuffer(b"".join(parts), np.uint8)

    def close(self) -> None:
        """Release the seed's source; may be called twice."""
        if not self._closed:
            self._closed = True
            self._seed.close()
