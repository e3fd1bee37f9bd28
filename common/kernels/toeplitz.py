"""Three exactly universal hash families on packed bits, by one middle product in GF(2)[x] each.

*Toeplitz*: ``y_j = XOR_i x_i s_(n-1+j-i)``. With polynomials ``x(z)`` and ``s(z)`` this is coefficient ``n - 1 + j`` of
their product: a window of it.

*Modified Toeplitz* ``[I | T]``: ``y = x[:m] + T x[m:]``, a Toeplitz hash of the rest added to the first bits; a seed of
``n - 1`` bits. Source: Hayashi and Tsurumaru 2016.

*GF(2^k)*: ``y`` = first ``m`` bits of ``x1 + a x2`` with ``x1 = x[:m]``, ``x2 = x[m:]``. The field is ``F2[z] / (1 + z
+ ... + z^k)``, a field if ``k + 1`` is prime and 2 generates its residues; ``k`` is the least such number with ``k >=
m`` and ``k >= n - m``. Two inputs that differ in ``x2`` meet with probability ``2^-m``, since ``a x2`` is uniform; two
that differ in ``x1`` alone never do, since ``x1`` is not longer than what is kept. With ``m = k`` this is the family of
Hayashi and Tsurumaru 2016. As ``z^(k+1) = 1``, multiplication by ``a`` is cyclic, so a Toeplitz hash whose seed is
``a`` and a zero, over and over; then the coefficient of ``z^k = 1 + ... + z^(k-1)`` is added to every other.

Without carry-less multiplication the windows come from floating-point transforms of tiles of 2^20 bits. They are exact:
by Higham, *Accuracy and Stability of Numerical Algorithms*, theorem 24.2, a transform of length 2^21 has a relative
error in the 2-norm of at most e = 2e-14 (21 levels of at most 7 units of 2^-53). With tiles of norm at most 2^10 and
2^10.5 the two transforms forth move a coefficient of their product by at most 2 e 2^20.5 < 1e-7. The product of T pairs
of tiles added up has norm at most T 2^30.5, so the transform back adds at most e T 2^30.5 < 3.1e-5 T. T <= 2^10 is
enforced: together below 0.04, where rounding goes wrong only from 1/2 on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray

from common.errors import InputError
from common.kernels.additive_fft import COEFFICIENT_BITS, Coefficients, MiddleProduct
from common.kernels.clmul import Path, active_path

Bits = NDArray[np.uint8]
Family = Literal["toeplitz", "modified-toeplitz", "gf2m"]
FAMILIES: tuple[Family, ...] = ("toeplitz", "modified-toeplitz", "gf2m")

_TILE = 1 << 20
_GROUP = 8
_MOST_TILES = 1 << 10

_compile: Callable[..., Callable[..., Callable[..., object]]] = njit


@_compile(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def _copy_bits(source, first, out, at, count):  # type: ignore[no-untyped-def]
    """Add bits ``first .. first + count - 1`` of packed bytes to bits ``at ..`` of others, eight at a time."""
    shift = (first - at) & 7
    begin, end = at >> 3, (at + count + 7) >> 3
    # Byte b of the result holds what stands in the source from bit 8 b + first - at on.
    offset = (first - at - shift) >> 3
    low, high = max(begin + 1, -offset), min(end - 1, source.size - 1 - offset)
    high = max(low, high)
    lower, upper, inner = source[low + offset : high + offset], source[low + offset + 1 :], out[low:high]
    for i in range(inner.size):
        inner[i] ^= np.uint8(lower[i] >> shift | upper[i] << 8 - shift)
    for b in range(begin, end):
        if low <= b < high:
            continue
        j = b + offset
        here = np.int64(source[j]) if 0 <= j < source.size else 0
        after = np.int64(source[j + 1]) if 0 <= j + 1 < source.size else 0
        value = here >> shift | after << 8 - shift
        if b == begin:
            value &= 255 << (at & 7)
        if b == end - 1 and (at + count) & 7:
            value &= (1 << ((at + count) & 7)) - 1
        out[b] ^= np.uint8(value & 255)


def cut(packed: Bits, first: int, count: int) -> Bits:
    """Bits of a packed string as a string of their own, unused bits zero."""
    out = np.zeros((count + 7) // 8, np.uint8)
    _copy_bits(packed, first, out, 0, count)
    return out


def _coefficients(packed: Bits) -> Coefficients:
    """Packed bytes as coefficients, padded with zeros."""
    out = np.zeros(-(-len(packed) // 4), "<u4")
    out.view(np.uint8)[: len(packed)] = packed
    return out.astype(np.uint32, copy=False)


@dataclass(frozen=True)
class Engine:
    """How windows of products are made: the path, and where to run.

    Parameters
    ----------
    path : see :mod:`common.kernels.clmul`; None takes the active one.
    executor, parts : threads to share one product; None runs in the caller's.
    """

    path: Path | None = None
    executor: Executor | None = None
    parts: int = 1

    def window(self, x: Bits, n: int, s: Bits, m: int) -> Bits:
        """``y_j = XOR_i x_i s_(n-1+j-i)``, *(ceil(m / 8),) uint8*, of n bits by n + m - 1 bits, both at least one."""
        path = self.path or active_path()
        if path == "fft":
            return _window_by_fft(x, n, s, m)
        # Coefficient c of the product of the factors, cut into coefficients, reaches into bits 32 c .. 32 c + 62. The
        # window begins in coefficient n_x - 1, so one before is needed: s is preceded by a zero.
        n_x = -(-n // COEFFICIENT_BITS)
        n_y = (n + m - 2) // COEFFICIENT_BITS + 3 - n_x
        padded = np.zeros(n_x + n_y - 1, np.uint32)
        padded[1:] = _coefficients(s)
        y = MiddleProduct(n_x, n_y, path, self.executor, self.parts)(_coefficients(x)[::-1], padded)
        halves = y[1:].astype("<u4")
        halves ^= (y[:-1] >> COEFFICIENT_BITS).astype("<u4")
        return cut(halves.view(np.uint8), (n - 1) % COEFFICIENT_BITS, m)


def _window_by_fft(x: Bits, n: int, s: Bits, m: int) -> Bits:
    """The same by floating-point transforms, tile by tile."""
    a, b = np.unpackbits(x, count=n, bitorder="little"), np.unpackbits(s, count=n + m - 1, bitorder="little")
    length = min(_TILE, 1 << (max(n, m) - 1).bit_length())
    tiles = -(-n // length)
    if tiles > _MOST_TILES:
        raise InputError(f"{n} bits are beyond {_TILE * _MOST_TILES}", remedy="Use smaller blocks.")
    out = np.zeros(m, np.uint8)

    def spectrum(of: Bits, begin: int, end: int) -> NDArray[np.complex128]:
        part = np.zeros(2 * length)
        low, high = max(begin, 0), min(end, len(of))
        if high > low:
            part[low - begin : high - begin] = of[low:high]
        found: NDArray[np.complex128] = scipy.fft.rfft(part)
        return found

    for group in range(0, m, _GROUP * length):
        begins = range(group, min(group + _GROUP * length, m), length)
        sums = [np.zeros(length + 1, np.complex128) for _ in begins]
        seen: dict[int, NDArray[np.complex128]] = {}
        for i in range(tiles):
            tile = spectrum(a, i * length, (i + 1) * length)
            for j, begin in enumerate(begins):
                # Output begin + k needs s from n - 1 + begin + k - (tile's last bit) on.
                at = n + begin - (i + 1) * length
                if at not in seen:
                    seen[at] = spectrum(b, at, at + 2 * length)
                sums[j] += tile * seen[at]
            # The next tile reads the same places but the last, and one new one.
            seen.pop(n + begins[-1] - (i + 1) * length)
        for j, begin in enumerate(begins):
            count = min(length, m - begin)
            values = scipy.fft.irfft(sums[j], 2 * length)[length - 1 : length - 1 + count]
            out[begin : begin + count] = np.rint(values).astype(np.int64) & 1
    return np.packbits(out, bitorder="little")


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
    bits, seed : *(ceil(n / 8),)* and *(ceil(seed_bits(family, n, m) / 8),) uint8*, packed, bit i is bit ``i % 8`` of
        byte ``i // 8``, unused bits zero.
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
    if known == "toeplitz":
        return engine.window(bits, n, seed, m)
    head = cut(bits, 0, m)
    if n == m:
        return head
    rest = cut(bits, m, n - m)
    if known == "modified-toeplitz":
        head ^= engine.window(rest, n - m, seed, m)
    else:
        head ^= _times_in_field(engine, rest, n - m, seed, m, field_degree(n, m))
    rest.fill(0)
    return head


def _times_in_field(engine: Engine, x: Bits, n: int, a: Bits, m: int, k: int) -> Bits:
    """First m bits of ``a x`` modulo ``1 + z + ... + z^k``."""
    # With period k + 1: a's last n places (the last of all is the zero), then its first m. The window's first bit is
    # the coefficient of z^-1 = z^k.
    cycle = np.zeros((n + m + 7) // 8, np.uint8)
    _copy_bits(a, k + 1 - n, cycle, 0, n)
    _copy_bits(a, 0, cycle, n, m)
    window = engine.window(x, n, cycle, m + 1)
    out = cut(window, 1, m)
    if window[0] & 1:
        out ^= 255
        out[-1] &= 255 >> -m % 8
    return out
