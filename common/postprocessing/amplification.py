"""Privacy amplification: exactly universal hashing of the verified key to its secret length."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from common.datatypes import SecretKey, VerifiedKey
from common.errors import InputError
from common.keybits import KeyBits


def seed_bits(family: str, n: int, m: int) -> int:
    """Seed length for n bits in, m bits out."""
    if family == "toeplitz":
        return max(n + m - 1, 0)
    raise InputError(f"hash family {family!r} is not known")


def amplify_packed(
    bits: NDArray[np.uint8], n_bits: int, seed: NDArray[np.uint8], m_bits: int, family: str
) -> NDArray[np.uint8]:
    """y_j = XOR_i x_i s_{n-1+j-i}; packed little-endian in and out."""
    s_bits = seed_bits(family, n_bits, m_bits)
    x = np.unpackbits(bits, count=n_bits, bitorder="little").astype(np.float64)
    s = np.unpackbits(seed, count=s_bits, bitorder="little").astype(np.float64)
    size = scipy.fft.next_fast_len(n_bits + s_bits, real=True)
    product = scipy.fft.irfft(scipy.fft.rfft(x, size) * scipy.fft.rfft(s, size), size)
    y = np.rint(product[n_bits - 1 : n_bits - 1 + m_bits]).astype(np.int64) & 1
    return np.packbits(y.astype(np.uint8), bitorder="little")


def amplify(key: VerifiedKey, seed: NDArray[np.uint8], ell_bits: int, family: str, simulated: bool) -> SecretKey:
    """Amplify a verified key; the key is taken."""
    n_bits = key.bits.n_bits
    packed = key.bits.take()
    out = amplify_packed(packed, n_bits, seed, ell_bits, family)
    return SecretKey(key.block_id, KeyBits(out, ell_bits), simulated)
