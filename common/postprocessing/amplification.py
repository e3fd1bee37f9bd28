"""Privacy amplification: exactly universal hashing of the verified key to its secret length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.datatypes import SecretKey, VerifiedKey
from common.kernels.toeplitz import FAMILIES, Engine, seed_bits, universal_hash
from common.keybits import KeyBits

__all__ = ["FAMILIES", "Engine", "amplify", "seed_bits", "universal_hash"]


def amplify(key: VerifiedKey, seed: NDArray[np.uint8], ell_bits: int, family: str, simulated: bool) -> SecretKey:
    """Amplify a verified key; the key is taken.

    Parameters
    ----------
    seed : *(ceil(seed_bits(family, n, ell_bits) / 8),) uint8*, packed; fresh, public, drawn after the key was fixed.
    """
    n_bits = key.bits.n_bits
    packed = key.bits.take()
    out = universal_hash(family, packed, n_bits, seed, ell_bits)
    packed.fill(0)
    return SecretKey(key.block_id, KeyBits(out, ell_bits), simulated)
