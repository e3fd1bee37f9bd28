"""The slow, obviously correct twins of the amplification kernels, and the self-test that a node runs when it starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.errors import LocalProtocolError
from common.kernels.additive_fft import COEFFICIENT_BITS, Coefficients, Elements, MiddleProduct
from common.kernels.clmul import Path
from common.kernels.toeplitz import Engine, field_degree


def carryless_product(left: int, right: int) -> int:
    """Product in GF(2)[x], coefficients as bits."""
    product = 0
    while right:
        low = right & -right
        product ^= left * low
        right ^= low
    return product


def middle_product(x: Coefficients, s: Coefficients) -> Elements:
    """``y_j = sum_i x_i s_(i+j)``, bit by bit of ``x``."""
    y = np.zeros(len(s) - len(x) + 1, np.uint64)
    for i in np.flatnonzero(x):
        for bit in range(COEFFICIENT_BITS):
            if x[i] >> bit & 1:
                y ^= s[i : i + len(y)].astype(np.uint64) << np.uint64(bit)
    return y


def universal_hash(family: str, x: NDArray[np.int64], s: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    """One bit per element: the families' definitions, matrices written out, the field divided out."""
    n = len(x)
    if family == "toeplitz":
        return _toeplitz(x, s, m)
    if family == "modified-toeplitz":
        return (x[:m] + _toeplitz(x[m:], s, m)) % 2
    if m in (0, n):
        return x[:m]
    k = field_degree(n, m)
    product = carryless_product(_number(s), _number(x[m:]))
    all_ones = (1 << k + 1) - 1
    while product.bit_length() > k:
        product ^= all_ones << product.bit_length() - (k + 1)
    return np.array([(int(x[i]) + (product >> i)) & 1 for i in range(m)], np.int64)


def _toeplitz(x: NDArray[np.int64], s: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    n = len(x)
    matrix = np.array([[s[n - 1 + j - i] for i in range(n)] for j in range(m)], np.int64)
    return matrix.reshape(m, n) @ x % 2


def _number(bits: NDArray[np.int64]) -> int:
    return sum(int(bit) << i for i, bit in enumerate(bits))


def self_test(path: Path) -> None:
    """Compile what a path needs and compare it with the definition: short rows, long rows, odd lengths of bits.

    Raises
    ------
    LocalProtocolError : it differs: compiled code that is older than the program, or a fault of the machine.
    """
    good = True
    if path != "fft":
        for n_x, n_y in ((40, 700), (3, 1 << 18)):
            x, s = _pattern(n_x), _pattern(n_x + n_y - 1)
            good &= bool(np.array_equal(MiddleProduct(n_x, n_y, path)(x, s), middle_product(x, s)))
    n, m = 1001, 333
    x, s = _pattern(32), _pattern(42)
    x[-1] &= (1 << n - 32 * 31) - 1
    window = Engine(path).window(x.view(np.uint8)[: (n + 7) // 8], n, s.view(np.uint8)[: (n + m + 6) // 8], m)
    product = carryless_product(_whole(s) & (1 << n + m - 1) - 1, _whole(x))
    good &= int.from_bytes(window.tobytes(), "little") == product >> n - 1 & (1 << m) - 1
    if not good:
        raise LocalProtocolError(
            f"privacy amplification by {path} fails its self-test",
            remedy="Delete numba's compiled files (*.nbi, *.nbc); if it fails again, do not trust this machine.",
        )


def _pattern(count: int) -> Coefficients:
    """Coefficients without pattern but always the same (Knuth's multiplicative hashing)."""
    return (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype("<u4")


def _whole(words: Coefficients) -> int:
    return int.from_bytes(words.tobytes(), "little")
