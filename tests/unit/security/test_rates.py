"""Equations (1) to (3) of arXiv:2406.02045 against 50-digit arithmetic, their corners, and the boundary."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.security.rates import (
    G2_MAX,
    MEAN_PHOTON_NUMBER_MIN,
    advantage_db,
    attenuation_threshold,
    best_pre_attenuation,
    boundary_g2,
    boundary_mean_photon_number,
    coherent_asymptotic,
    coherent_limit,
    single_photon_asymptotic,
    single_photon_limit,
)

ETA = st.floats(1e-4, 1.0)
MEAN = st.floats(0.01, 1.0)
G2 = st.floats(1e-6, 1.0)


@given(ETA, MEAN, G2)
def test_equations_to_twelve_digits(eta: float, mean: float, g2: float) -> None:
    with mp.workdps(50):
        e, n, g = mp.mpf(eta), mp.mpf(mean), mp.mpf(g2)
        inside = 1 - 4 * g**2 * n**2
        threshold = (1 - mp.sqrt(inside)) / (2 * g * n) if inside >= 0 else mp.mpf(1)
        direct = e * n - g * n**2 * (e**2 + 1) / 2
        rate = direct if e > threshold else e**2 / (2 * g * (e**2 + 1))
        coherent = e / mp.e
    assert attenuation_threshold(mean, g2) == pytest.approx(float(threshold), rel=1e-12)
    assert coherent_limit(eta) == pytest.approx(float(coherent), rel=1e-12)
    scale = eta * mean
    assert single_photon_limit(eta, mean, g2) == pytest.approx(float(rate), rel=1e-12, abs=1e-13 * scale)


@given(ETA, MEAN, G2)
def test_two_photon_pulses_derive_equation_two(eta: float, mean: float, g2: float) -> None:
    kept = mean * best_pre_attenuation(eta, mean, g2)
    p2 = g2 * kept**2 / 2
    p1 = kept - 2 * p2
    gain = p1 * eta + p2 * (1 - (1 - eta) ** 2)
    assert single_photon_limit(eta, mean, g2) == pytest.approx(gain - p2, rel=1e-9, abs=1e-15)


@given(ETA, MEAN, G2, st.floats(0.01, 1.0))
def test_no_other_attenuation_is_better(eta: float, mean: float, g2: float, t: float) -> None:
    other = eta * t * mean - g2 * (t * mean) ** 2 * (eta**2 + 1) / 2
    assert single_photon_limit(eta, mean, g2) >= other - 1e-15
    assert 0.0 < best_pre_attenuation(eta, mean, g2) <= 1.0


def test_crossing_points_at_zero_loss() -> None:
    assert math.exp(-1) == MEAN_PHOTON_NUMBER_MIN
    assert math.e / 4 == G2_MAX
    assert boundary_mean_photon_number(1.0, 0.0) == pytest.approx(math.exp(-1), rel=1e-15)
    assert boundary_g2(1.0, 1.0) == pytest.approx(math.e / 4, rel=1e-15)
    assert boundary_g2(1.0, math.nextafter(MEAN_PHOTON_NUMBER_MIN, 0.0)) is None
    assert boundary_mean_photon_number(1.0, G2_MAX * (1 + 1e-12)) is None


@given(st.floats(0.0, 30.0), st.floats(1 / math.e + 1e-6, 1.0))
def test_on_the_boundary_both_sources_are_equal(loss_db: float, mean: float) -> None:
    eta = 10 ** (-loss_db / 10)
    g2 = boundary_g2(eta, mean)
    assert g2 is not None
    assert single_photon_limit(eta, mean, g2) == pytest.approx(coherent_limit(eta), rel=1e-9)
    assert single_photon_limit(eta, mean, g2 * 0.99) > coherent_limit(eta) > single_photon_limit(eta, mean, g2 * 1.01)


@given(st.floats(0.0, 30.0), st.floats(1e-9, 0.99))
def test_the_boundary_read_the_other_way(loss_db: float, part: float) -> None:
    eta = 10 ** (-loss_db / 10)
    g2 = part * math.e * eta / (2 * (1 + eta**2))
    mean = boundary_mean_photon_number(eta, g2)
    assert mean is not None
    assert single_photon_limit(eta, mean, g2) == pytest.approx(coherent_limit(eta), rel=1e-9)
    assert boundary_g2(eta, mean) == pytest.approx(g2, rel=1e-6)


@given(ETA, st.floats(0.05, 0.9), st.floats(1e-4, 0.2))
def test_without_errors_the_asymptotic_rates_are_the_limits(eta: float, mean: float, g2: float) -> None:
    ours = single_photon_asymptotic(eta, mean, g2, 0.0, 0.0, 1.0)
    assert ours == pytest.approx(max(single_photon_limit(eta, mean, g2), 0.0), rel=1e-7, abs=1e-12)
    assert coherent_asymptotic(eta, 0.0, 0.0, 1.0) == pytest.approx(coherent_limit(eta), rel=1e-9)


def test_errors_and_darks_cost_key() -> None:
    clean = single_photon_asymptotic(0.01, 0.3, 0.007, 0.0, 0.0, 1.16)
    assert clean > single_photon_asymptotic(0.01, 0.3, 0.007, 0.02, 0.0, 1.16)
    assert clean > single_photon_asymptotic(0.01, 0.3, 0.007, 0.0, 1e-4, 1.16) > 0.0
    assert single_photon_asymptotic(0.01, 0.3, 0.007, 0.12, 0.0, 1.16) == 0.0
    assert coherent_asymptotic(0.01, 0.12, 0.0, 1.16) == 0.0
    assert single_photon_asymptotic(0.01, 0.0, 0.0, 0.0, 0.0, 1.0) == 0.0


@pytest.mark.parametrize("eta", [0.0, -0.1, 1.1, math.nan])
def test_impossible_transmittances(eta: float) -> None:
    for rate in (coherent_limit, lambda x: single_photon_limit(x, 0.3, 0.01), lambda x: boundary_g2(x, 0.5)):
        with pytest.raises(ValueError, match="transmittance"):
            rate(eta)


@pytest.mark.parametrize(("mean", "g2"), [(-0.1, 0.0), (math.nan, 0.0), (0.3, -1e-3), (0.3, math.inf)])
def test_impossible_sources(mean: float, g2: float) -> None:
    with pytest.raises(ValueError, match="<n> and g2"):
        single_photon_limit(0.5, mean, g2)


@pytest.mark.parametrize(("misalignment", "darks", "f_ec"), [(0.6, 0, 1), (-0.1, 0, 1), (0, 1, 1), (0, 0, 0.9)])
def test_impossible_receivers(misalignment: float, darks: float, f_ec: float) -> None:
    with pytest.raises(ValueError, match="misalignment"):
        coherent_asymptotic(0.5, misalignment, darks, f_ec)


def test_an_advantage_needs_two_rates() -> None:
    assert advantage_db(2.0, 1.0) == pytest.approx(3.0103, abs=1e-4)
    with pytest.raises(ValueError, match="positive"):
        advantage_db(0.0, 1.0)
