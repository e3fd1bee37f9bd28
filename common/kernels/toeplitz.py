"""Three exactly universal hash families on packed bits, by one product in GF(2)[x] each.

*Toeplitz*: ``y_j = XOR_i x_i s_(n-1+j-i)``. With polynomials ``x(z)`` and ``s(z)`` this is coefficient ``n - 1 + j`` of their
product: a window of it.

*Modified Toeplitz* ``[I | T]``: ``y = x[:m] + T x[m:]``, a Toeplitz hash of the rest added to the first bits; a seed of
``n - 1`` bits. Source: Hayashi and Tsurumaru 2016.

*GF(2^k)*: ``y`` = first ``m`` bits of ``x1 + a x2`` with ``x1 = x[:m]``, ``x2 = x[m:]``. The field is
``F2[z] / (1 + z + ... + z^k)``, a field if ``k + 1`` is prime and 2 generates its residues; ``k`` is the least such number with
``k >= m`` and ``k >= n - m``. Two inputs that differ in ``x2`` meet with probability ``2^-m``, since ``a x2`` is uniform; two
that differ in ``x1`` alone never do, since ``x1`` is not longer than what is kept. With ``m = k`` this is the family of
Hayashi and Tsurumaru 2016. Reduction is by ``z^(k+1) = 1`` and then by the all-one polynomial: two exclusive-ors.

Without carry-less multiplication the windows come from floating-point transforms of tiles of 2^20 bits. They are exact:
by Higham, *Accuracy and Stability of Numerical Algorithms*, theorem 24.2, each of the three transforms of length 2^21
has a relative error in the 2-norm of at most 21 * 7 * 2^-53 < 2e-14, so every coefficient of a tile is off by at most
6e-14 * 2^10 * 2^10.5 < 1e-7 (and sums of a thousand tiles by 1e-4), far below the 1/2 at which rounding would go wrong.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from common.errors import InputError
from common.kernels.additive_fft import MAX_LOG, Multiplier
from common.kernels.clmul import Path, active_path

Bits = NDArray[np.uint8]
Words = NDArray[np.uint64]
Family = Literal["toeplitz", "modified-toeplitz", "gf2m"]
FAMILIES: tuple[Family, ...] = ("toeplitz", "modified-toeplitz", "gf2m")

_TILE = 1 << 20
_GROUP = 8


@dataclass(frozen=True)
class Engine:
    """How products are made: the path, and where to run.

    Parameters
    ----------
    path : see :mod:`common.kernels.clmul`; None takes the active one.
    executor, parts : threads to share one product; None runs in the caller's.
    """

    path: Path | None = None
    executor: Executor | None = None
    parts: int = 1

    def window(self, left: Words, right: Words, first_bit: int, n_bits: int) -> Words:
        """Bits ``first_bit .. first_bit + n_bits - 1`` of a product, *(ceil(n_bits / 64),) uint64*, unused bits zero."""
        if n_bits == 0:
            return np.zeros(0, np.uint64)
        path = self.path or active_path()
        if path == "fft":
            return _window_by_fft(left, right, first_bit, n_bits)
        total = len(left) + len(right)
        if total > 1 << MAX_LOG:
            raise InputError(
                f"a hash over {64 * total} bits of input and seed is beyond {64 << MAX_LOG}",
                remedy="Use blocks of at most 4e8 bits.",
            )
        first, shift = divmod(first_bit, 64)
        count = min((n_bits + 63) // 64 + 1, total - first)
        words = Multiplier(total, path, self.executor, self.parts)(left, right, first, count)
        return _shifted(words, shift, n_bits)


def _shifted(words: Words, shift: int, n_bits: int) -> Words:
    size = (n_bits + 63) // 64
    out = words[:size] >> np.uint64(shift)
    if shift:
        upper = words[1 : size + 1] << np.uint64(64 - shift)
        out[: len(upper)] |= upper
    if n_bits % 64:
        out[-1] &= np.uint64((1 << n_bits % 64) - 1)
    return out


def to_words(packed: Bits) -> Words:
    """Packed bytes as words, padded with zeros."""
    words = np.zeros((len(packed) + 7) // 8, "<u8")
    words.view(np.uint8)[: len(packed)] = packed
    return words.astype(np.uint64, copy=False)


def to_bytes(words: Words, n_bits: int) -> Bits:
    """Words as ``ceil(n_bits / 8)`` packed bytes."""
    return words.astype("<u8", copy=False).view(np.uint8)[: (n_bits + 7) // 8].copy()


def _cut(words: Words, first_bit: int, n_bits: int) -> Words:
    """Bits of a packed string as words of their own."""
    first, shift = divmod(first_bit, 64)
    if n_bits == 0:
        return np.zeros(0, np.uint64)
    return _shifted(words[first : first + (n_bits + 63) // 64 + 1], shift, n_bits)


def _window_by_fft(left: Words, right: Words, first_bit: int, n_bits: int) -> Words:
    """The same by floating-point transforms, tile by tile; the shorter factor is cut into tiles."""
    if len(left) > len(right):
        left, right = right, left
    a = np.unpackbits(left.astype("<u8").view(np.uint8), bitorder="little")
    b = np.unpackbits(right.astype("<u8").view(np.uint8), bitorder="little")
    size = 2 * _TILE
    tiles = -(-len(a) // _TILE)
    out = np.zeros(-(-n_bits // 64) * 64, np.uint8)

    def spectrum(of: Bits, begin: int, length: int) -> NDArray[np.complex128]:
        part = np.zeros(size)
        low, high = max(begin, 0), min(begin + length, len(of))
        if high > low:
            part[low - begin : high - begin] = of[low:high]
        return scipy.fft.rfft(part)

    for group in range(0, n_bits, _GROUP * _TILE):
        begins = range(group, min(group + _GROUP * _TILE, n_bits), _TILE)
        sums = [np.zeros(size // 2 + 1, np.complex128) for _ in begins]
        seen: dict[int, NDArray[np.complex128]] = {}
        for i in range(tiles):
            tile = spectrum(a, i * _TILE, _TILE)
            for j, begin in enumerate(begins):
                # Output begin + k needs b from begin + k + first - (tile's last bit) on.
                at = first_bit + begin - i * _TILE - (_TILE - 1)
                if at not in seen:
                    seen[at] = spectrum(b, at, size)
                sums[j] += tile * seen[at]
            seen = {at: kept for at, kept in seen.items() if at < first_bit + begins[-1] - i * _TILE - (_TILE - 1)}
        for j, begin in enumerate(begins):
            count = min(_TILE, n_bits - begin)
            values = scipy.fft.irfft(sums[j], size)[_TILE - 1 : _TILE - 1 + count]
            out[begin : begin + count] = np.rint(values).astype(np.int64) & 1
    return np.packbits(out, bitorder="little").view("<u8").astype(np.uint64)


def is_field_degree(k: int) -> bool:
    """True if ``1 + z + ... + z^k`` is irreducible over F2: k + 1 prime with 2 as a primitive root."""
    p = k + 1
    if p < 3 or not _is_prime(p):
        return False
    return all(pow(2, k // factor, p) != 1 for factor in _prime_factors(k))


def field_degree(n: int, m: int) -> int:
    """The degree ``k`` of the field for n bits in and m out."""
    k = max(m, n - m, 2)
    while not is_field_degree(k):
        k += 1
    return k


def _is_prime(p: int) -> bool:
    """Miller-Rabin with bases that decide every number below 3.3e24 (Sorenson and Webster 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
    if p < 2 or any(p % q == 0 for q in bases):
        return p in bases
    odd = p - 1
    twos = (odd & -odd).bit_length() - 1
    odd >>= twos
    for base in bases:
        x = pow(base, odd, p)
        if x in (1, p - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % p
            if x == p - 1:
                break
        else:
            return False
    return True


def _prime_factors(n: int) -> set[int]:
    factors, q = set(), 2
    while q * q <= n:
        while n % q == 0:
            factors.add(q)
            n //= q
        q += 1
    return factors | {n} if n > 1 else factors


def seed_bits(family: Family, n: int, m: int) -> int:
    """Length of the seed for n bits in and m bits out."""
    if m == 0 or n == 0:
        return 0
    if family == "toeplitz":
        return n + m - 1
    if family == "modified-toeplitz":
        return n - 1
    return field_degree(n, m)


def _require(family: str, bits: Bits, n: int, seed: Bits, m: int) -> Family:
    for known in FAMILIES:
        if family == known:
            break
    else:
        raise InputError(f"hash family {family!r} is not known", remedy=f"Use one of: {', '.join(FAMILIES)}.")
    if not 0 <= m <= n:
        raise InputError(f"{m} bits cannot be hashed out of {n}", remedy="Ask for 0 to n bits.")
    for name, array, length in (("input", bits, n), ("seed", seed, seed_bits(known, n, m))):
        if array.dtype != np.uint8 or array.ndim != 1:
            raise InputError(f"the {name} is an array of {array.dtype} with {array.ndim} dimensions, not packed uint8")
        if array.size != (length + 7) // 8:
            raise InputError(f"the {name} has {array.size} bytes; {length} bits need {(length + 7) // 8}")
        if length % 8 and array[-1] >> length % 8:
            raise InputError(f"the {name} has ones beyond its {length} bits", remedy="Set unused bits to zero.")
    return known


def universal_hash(family: str, bits: Bits, n: int, seed: Bits, m: int, engine: Engine | None = None) -> Bits:
    """Hash n bits to m.

    Parameters
    ----------
    bits, seed : *(ceil(n / 8),)* and *(ceil(seed_bits(family, n, m) / 8),) uint8*, packed, bit i is bit ``i % 8`` of byte
        ``i // 8``, unused bits zero.
    m : 0 .. n.

    Returns
    -------
    *(ceil(m / 8),) uint8*.

    Raises
    ------
    InputError : wrong lengths or types.
    """
    known = _require(family, bits, n, seed, m)
    engine = engine or Engine()
    if m == 0:
        return np.zeros(0, np.uint8)
    x, s = to_words(bits), to_words(seed)
    if known == "toeplitz":
        return to_bytes(engine.window(s, x, n - 1, m), m)
    head = _cut(x, 0, m)
    if n == m:
        return to_bytes(head, m)
    rest = _cut(x, m, n - m)
    if known == "modified-toeplitz":
        return to_bytes(head ^ engine.window(s, rest, n - m - 1, m), m)
    return to_bytes(head ^ _times_in_field(s, rest, field_degree(n, m), m, engine), m)


def _times_in_field(a: Words, x: Words, k: int, m: int, engine: Engine) -> Words:
    """First m bits of ``a x`` modulo ``1 + z + ... + z^k``."""
    size = 64 * (len(a) + len(x))
    product = engine.window(a, x, 0, size)
    low = _cut(product, 0, k + 1)
    high = _cut(product, k + 1, max(0, size - k - 1))[: len(low)]
    low[: len(high)] ^= high
    # z^(k+1) = 1 folded; the coefficient of z^k is that of every power, as z^k = 1 + ... + z^(k-1).
    if int(low[k // 64]) >> (k % 64) & 1:
        low = ~low
    return _cut(low, 0, m)
