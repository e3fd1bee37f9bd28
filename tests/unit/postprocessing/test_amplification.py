"""Universal hashing: every family on every path against the definition, bit for bit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.fft
from numba import njit

from common.errors import ConfigurationError, InputError, LocalProtocolError
from common.kernels import additive_basis, clmul
from common.kernels import reference_amplification as reference
from common.kernels.additive_basis import cantor_basis, field_product
from common.kernels.additive_fft import MiddleProduct
from common.kernels.clmul import (
    NARROW,
    WIDE,
    active_path,
    available_paths,
    force_path,
    lanes,
    load,
    multiply,
    store,
)
from common.kernels.toeplitz import FAMILIES, Engine, field_degree, is_field_degree, seed_bits, universal_hash
from common.node.compute import make_pinned_executor

PATHS = available_paths()
FAST_PATHS = [path for path in PATHS if path != "fft"]
#: The wide kernels run wherever the narrow ones do; without the wide instruction only their speed is not there.
WIDTHS = ["clmul128", "clmul512"] if FAST_PATHS else []
TAGS = [NARROW, WIDE] if FAST_PATHS else []
SHAPES = [
    (0, 0), (1, 0), (1, 1), (2, 1), (63, 63), (64, 1), (64, 64), (65, 64), (65, 32), (127, 65), (128, 127), (129, 3),
    (1000, 999), (1001, 0), (4099, 2050), (5000, 17),
]  # fmt: skip


@njit
def multiply_all(tag, a, b):  # type: ignore[no-untyped-def]
    for i in range(0, a.size, lanes(tag)):
        store(a, i, multiply(load(tag, a, i), load(tag, b, i)))


def pack(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits.astype(np.uint8), bitorder="little")


def unpack(packed: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(packed, count=n, bitorder="little")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_every_family_and_path_equals_the_definition(
    rng: np.random.Generator, path: Any, family: Any, n: int, m: int
) -> None:
    x, s = rng.integers(0, 2, n), rng.integers(0, 2, seed_bits(family, n, m))
    out = universal_hash(family, pack(x), n, pack(s), m, Engine(path))
    assert out.size == (m + 7) // 8
    np.testing.assert_array_equal(unpack(out, m), reference.universal_hash(family, x, s, m))


@pytest.mark.parametrize("path", WIDTHS)
@pytest.mark.parametrize(
    ("n_x", "n_y"), [(1, 1), (3, 700), (600, 500), (5, 1019), (1030, 9), (90_000, 3), (7, 300_000), (140_001, 200_000)]
)
def test_middle_products_equal_the_definition(rng: np.random.Generator, path: str, n_x: int, n_y: int) -> None:
    """Sizes on both sides of every change of plan: short rows, long rows, how many."""
    x, s = (rng.integers(0, 1 << 32, size, dtype=np.uint32) for size in (n_x, n_x + n_y - 1))
    # Long products are too slow by the definition: the input has few ones then, but everywhere.
    if n_x > 2000:
        x[~np.isin(np.arange(n_x), [0, 1, n_x // 3, n_x - 1, *rng.integers(0, n_x, 8)])] = 0
    np.testing.assert_array_equal(MiddleProduct(n_x, n_y, path)(x, s), reference.middle_product(x, s))


@pytest.mark.parametrize("path", FAST_PATHS)
def test_two_threads_give_the_same_bits(rng: np.random.Generator, path: Any) -> None:
    n, m = 9_000_001, 4_000_003
    x, s = pack(rng.integers(0, 2, n)), pack(rng.integers(0, 2, n + m - 1))
    one = universal_hash("toeplitz", x, n, s, m, Engine(path))
    with make_pinned_executor(2) as executor:
        two = universal_hash("toeplitz", x, n, s, m, Engine(path, executor, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("path", FAST_PATHS)
def test_ten_million_bits_equal_scipy(rng: np.random.Generator, path: Any) -> None:
    n, m = 10_000_000, 5_000_000
    x, s = rng.integers(0, 2, n, dtype=np.uint8), rng.integers(0, 2, n + m - 1, dtype=np.uint8)
    size = scipy.fft.next_fast_len(n + m - 1, real=True)
    product = scipy.fft.irfft(scipy.fft.rfft(x.astype(float), size) * scipy.fft.rfft(s.astype(float), size), size)
    want = np.rint(product[n - 1 : n - 1 + m]).astype(np.int64) & 1
    got = universal_hash("toeplitz", pack(x), n, pack(s), m, Engine(path))
    np.testing.assert_array_equal(unpack(got, m), want)


@pytest.mark.parametrize("family", FAMILIES)
def test_slow_path_over_many_tiles(rng: np.random.Generator, family: Any) -> None:
    """The portable path agrees with the fast one where it works on tiles."""
    n, m = 3_300_001, 1_200_007
    x, s = pack(rng.integers(0, 2, n)), pack(rng.integers(0, 2, seed_bits(family, n, m)))
    slow = universal_hash(family, x, n, s, m, Engine("fft"))
    for path in FAST_PATHS:
        np.testing.assert_array_equal(universal_hash(family, x, n, s, m, Engine(path)), slow)


def test_hashes_are_linear_and_universal(rng: np.random.Generator) -> None:
    """Every pair of inputs meets for at most 2^-m of all seeds: counted over all seeds of small shapes."""
    for family in FAMILIES:
        for n, m in ((4, 2), (5, 3), (6, 2)):
            size = seed_bits(family, n, m)
            meet = np.zeros(1 << n, np.int64)
            for seed in range(1 << size):
                s = np.array([seed >> i & 1 for i in range(size)])
                for difference in range(1, 1 << n):
                    x = np.array([difference >> i & 1 for i in range(n)])
                    meet[difference] += not reference.universal_hash(family, x, s, m).any()
            assert meet.max() <= (1 << size) / (1 << m), family


def test_field_degrees() -> None:
    """1 + z + ... + z^k is irreducible exactly for these k (OEIS A071642 is k for the primes with root 2)."""
    assert [k for k in range(2, 70) if is_field_degree(k)] == [2, 4, 10, 12, 18, 28, 36, 52, 58, 60, 66]
    k = field_degree(10**8, 5 * 10**7)
    assert 0 <= k - 5 * 10**7 < 1000
    assert is_field_degree(k)


def test_field_and_basis() -> None:
    basis = cantor_basis(24)
    assert basis[0] == 1
    for low, high in pairwise(basis):
        assert field_product(high, high) ^ high == low
    assert field_product(1 << 63, 2) == 0x1B


def test_the_polynomial_is_irreducible() -> None:
    """x^(2^64) = x, and x^(2^32) + x is a unit (Rabin's test: 2 is the only prime factor of 64)."""
    power = 2
    for _ in range(32):
        power = field_product(power, power)
    a, b = additive_basis.POLYNOMIAL, power ^ 2
    for _ in range(32):
        power = field_product(power, power)
    assert power == 2
    while b:
        while a.bit_length() >= b.bit_length():
            a ^= b << a.bit_length() - b.bit_length()
        a, b = b, a
    assert a == 1


@pytest.mark.parametrize("tag", TAGS)
def test_multiplication_equals_the_definition(rng: np.random.Generator, tag: Any) -> None:
    a, b = (rng.integers(0, 1 << 64, 64, dtype=np.uint64) for _ in range(2))
    a[:8], b[:4] = (1 << 64) - 1, (1 << 64) - 1
    want = [field_product(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    multiply_all(tag, a, b)
    assert a.tolist() == want


def run(steps: list[Any], values: list[int]) -> list[int]:
    out = list(values)
    for to, begin, factor in steps:
        out[to] ^= field_product(out[begin], additive_basis.point(factor))
    return out


def elements(rng: np.random.Generator, count: int) -> list[int]:
    return [int.from_bytes(rng.bytes(8), "little") for _ in range(count)]


@pytest.mark.parametrize("log_size", [1, 2, 3, 5])
def test_conversion_and_evaluation_give_the_values_of_the_polynomial(rng: np.random.Generator, log_size: int) -> None:
    """By Horner's rule at every point."""
    coefficients = elements(rng, 1 << log_size)
    novel = list(coefficients)
    for to, begin, count in additive_basis.conversion(log_size):
        for i in range(count):
            novel[to + i] ^= novel[begin + i]
    for index, value in enumerate(run(additive_basis.evaluation(log_size), novel)):
        want = 0
        for coefficient in reversed(coefficients):
            want = field_product(want, additive_basis.point(index)) ^ coefficient
        assert value == want


@pytest.mark.parametrize("log_size", [1, 3, 5])
def test_interpolation_undoes_evaluation(rng: np.random.Generator, log_size: int) -> None:
    """From any number of values, with zero coefficients after them."""
    size = 1 << log_size
    for known in range(1, size + 1):
        coefficients = elements(rng, known) + [0] * (size - known)
        values = run(additive_basis.evaluation(log_size), coefficients)
        work = values[:known] + [0] * (size - known)
        assert run(additive_basis.interpolation(log_size, known), work) == coefficients


def test_transposed_and_pruned_steps(rng: np.random.Generator) -> None:
    """<u, M v> = <M^T u, v>; pruning keeps what is read."""
    size, given, wanted = 16, 11, 6
    steps = additive_basis.evaluation(4)
    v, u = elements(rng, given) + [0] * (size - given), elements(rng, wanted) + [0] * (size - wanted)

    def inner(a: list[int], b: list[int]) -> int:
        total = 0
        for x, y in zip(a, b, strict=True):
            total ^= field_product(x, y)
        return total

    assert inner(u, run(steps, v)) == inner(run(additive_basis.transposed(steps), u), v)
    kept = additive_basis.pruned(steps, given, wanted)
    assert len(kept) < len(steps)
    assert run(kept, v)[:wanted] == run(steps, v)[:wanted]


@pytest.mark.parametrize("path", PATHS)
def test_the_self_test_passes_and_can_fail(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reference.self_test(path)
    window = Engine.window
    monkeypatch.setattr(Engine, "window", lambda *given: window(*given) ^ 1)
    with pytest.raises(LocalProtocolError, match="self-test"):
        reference.self_test(path)


def test_wrong_inputs_are_named() -> None:
    key, seed = np.zeros(2, np.uint8), np.zeros(3, np.uint8)
    universal_hash("toeplitz", key, 16, seed, 8)
    for arguments, words in (
        (("toeplitz", key, 16, seed, 17), "cannot be hashed"),
        (("toeplitz", key, 16, seed[:2], 8), "the seed has 2 bytes"),
        (("toeplitz", key, 17, seed, 8), "the input has 2 bytes"),
        (("toeplitz", key.astype(np.int16), 16, seed, 8), "int16"),
        (("toeplitz", key, 16, seed.reshape(1, 3), 8), "2 dimensions"),
        (("toeplitz", key, 15, seed | 255, 8), "ones beyond"),
        (("powers", key, 16, seed, 8), "not known"),
    ):
        with pytest.raises(InputError, match=words):
            universal_hash(*arguments)  # type: ignore[arg-type]


def test_the_path_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clmul, "_forced", None)
    for path in PATHS:
        force_path(path)
        assert active_path() == path
    with pytest.raises(ConfigurationError, match="no such path"):
        force_path("gpu")
    monkeypatch.setattr(clmul, "compiled_for", lambda: {"sse2": True, "pclmul": True})
    assert available_paths() == ("clmul128", "fft")
    monkeypatch.setattr(clmul, "compiled_for", dict)
    assert active_path() == "fft"
    with pytest.raises(ConfigurationError, match="cannot run it"):
        force_path("clmul512")
