"""Privacy amplification: exactly universal hashing of the verified key to its secret length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from common.datatypes import SecretKey, VerifiedKey
from common.kernels.toeplitz import FAMILIES, Engine, seed_bits, universal_hash
from common.keybits import KeyBits

__all__ = ["FAMILIES", "Engine", "amplify", "draw_seed", "seed_bits", "seed_fault", "universal_hash"]


def draw_seed(n_bits: int, random_bytes: Callable[[int], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """*(ceil(n_bits / 8),) uint8* fresh random bits, as many as :func:`seed_bits` says; the unused ones are zero."""
    seed = np.array(random_bytes((n_bits + 7) // 8), dtype=np.uint8)
    if n_bits % 8:
        seed[-1] &= (1 << n_bits % 8) - 1
    return seed


def seed_fault(seed: NDArray[np.uint8], n_bits: int) -> str | None:
    """What is wrong with a packed seed of ``n_bits``, None if nothing is: a string has exactly one encoding."""
    if seed.size != (n_bits + 7) // 8:
        return f"the seed has {seed.size} bytes, {(n_bits + 7) // 8} are needed"
    if n_bits % 8 and int(seed[-1]) >> n_bits % 8:
        return f"the seed has ones beyond its {n_bits} bits"
    return None


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
