"""The auditor's intervals hold the exact number, so that no length is called good by rounding."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.auditor import verify_certificate
from common.auditor.verify_certificate import Interval, counting_bound, entropy_upper, exp, key_length, ln, sqrt
from tests.certificates import PROTOCOLS, ledger_of

NUMBERS = st.floats(-1e12, 1e12).filter(lambda x: x == 0.0 or abs(x) > 1e-12)
POSITIVE = st.floats(1e-12, 1e12)


def around(a: float, b: float) -> tuple[Interval, list[Fraction]]:
    """An interval and three numbers of it."""
    low, high = sorted((a, b))
    return Interval(Decimal(low), Decimal(high)), [Fraction(low), (Fraction(low) + Fraction(high)) / 2, Fraction(high)]


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_sums_products_and_quotients_are_held(a: float, b: float, c: float, d: float) -> None:
    (x, in_x), (y, in_y) = around(a, b), around(c, d)
    made: list[tuple[Interval, Callable[[Fraction, Fraction], Fraction]]] = [
        (x + y, lambda p, q: p + q),
        (x - y, lambda p, q: p - q),
        (x * y, lambda p, q: p * q),
    ]
    if y.low > 0 or y.high < 0:
        made.append((x / y, lambda p, q: p / q))
    else:
        with pytest.raises(ZeroDivisionError):
            x / y
    for found, operation in made:
        for exact in (operation(p, q) for p in in_x for q in in_y):
            assert Fraction(found.low) <= exact <= Fraction(found.high)


@given(POSITIVE, st.floats(-100, 100))
def test_functions_are_held(x: float, y: float) -> None:
    with mpmath.workdps(80):
        for found, exact in ((ln(x), mpmath.log(x)), (sqrt(Interval.of(x)), mpmath.sqrt(x)), (exp(y), mpmath.exp(y))):
            assert mpmath.mpf(str(found.low)) <= exact <= mpmath.mpf(str(found.high))
            assert (found.high - found.low) <= abs(found.high) * Decimal("1e-47")


@given(st.floats(0, 0.5))
def test_entropy_is_bounded_from_above(p: float) -> None:
    with mpmath.workdps(80):
        q = mpmath.mpf(p)
        exact = -q * mpmath.log(q, 2) - (1 - q) * mpmath.log(1 - q, 2) if p else 0
        assert exact <= mpmath.mpf(str(entropy_upper(Interval.of(p)).high)) <= exact + mpmath.mpf("1e-45")


@pytest.mark.parametrize(("n", "errors"), [(4, 2), (100, 0), (100, 100), (700, 301), (10**8, 2_600_000)])
def test_the_counting_bound(n: int, errors: int) -> None:
    with mpmath.workdps(60):
        exact = (mpmath.loggamma(n + 1) - mpmath.loggamma(errors + 1) - mpmath.loggamma(n - errors + 1)) / mpmath.log(2)
        found = counting_bound(n, errors)
        assert mpmath.mpf(str(found.low)) <= exact + mpmath.mpf("1e-50")
        assert exact <= mpmath.mpf(str(found.high)) + mpmath.mpf("1e-50")
        assert float(found.high - found.low) < 1e-12


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    def use(digits: int) -> None:
        for name, rounding in (("DOWN", ROUND_FLOOR), ("UP", ROUND_CEILING)):
            monkeypatch.setattr(verify_certificate, name, Context(prec=digits, rounding=rounding))
        verify_certificate.exponents.cache_clear()

    yield use
    monkeypatch.undo()
    verify_certificate.exponents.cache_clear()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_worse_arithmetic_worsens_the_bounds_and_never_lengthens_a_key(
    few_digits: Callable[[int], None], protocol: str
) -> None:
    stated = json.loads(ledger_of(protocol).to_json())
    best = key_length(stated)
    assert best.bits >= stated["ell_bits"] > 0
    for digits, most in ((28, 8), (16, 64), (12, math.inf)):
        few_digits(digits)
        found = key_length(stated)
        assert best.bits - most <= found.bits <= best.bits
        assert found.untagged.low < best.untagged.low
        assert found.phi.high > best.phi.high
        assert found.eps_spent.high > best.eps_spent.high
