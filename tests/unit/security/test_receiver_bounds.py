"""Less known of the receiver never produces more key; bright light, dead detectors and a turned splitter give none."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.planning.link_model import expected_qber, expected_tallies, key_leak
from common.planning.presets import PRESETS
from common.security.bounds import exact_sample_upper
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.phase_errors import from_both_bases, price
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from common.security.three_state import coefficients, limit, virtual

LINK = PRESETS["lab-0.17dB"]
SOURCE = SourceBounds(0.292, 0.00698, phase_bits=4)
SETTINGS = {
    "three-state": ProtocolSettings("three-state", 0.86, 0.9),
    "bb84": ProtocolSettings("bb84", 0.9, 0.9),
    "decoy-bb84": ProtocolSettings("decoy-bb84", 0.88, 0.9, (0.36, 0.135, 0.0), (0.74, 0.23, 0.03)),
}
TALLIES = {name: expected_tallies(LINK, settings, 3e6) for name, settings in SETTINGS.items()}
IDEAL = ReceiverBounds(0.9, 0.9)
protocols = pytest.mark.parametrize("protocol", sorted(SETTINGS))


def ledger_of(protocol: str, receiver: ReceiverBounds = IDEAL, tallies: Tallies | None = None) -> Ledger:
    counted = TALLIES[protocol] if tallies is None else tallies
    leak = key_leak(expected_qber(LINK), counted.n_z_kept)
    return key_length(counted, SETTINGS[protocol], SOURCE, receiver, EpsilonBudget(), leak, 128)


@protocols
@given(st.floats(0.8, 0.9), st.floats(0.9, 0.95), st.floats(0.0, 0.2), st.floats(0.0, 0.05), st.floats(0.0, 0.05))
def test_less_known_of_the_receiver_never_gives_more_key(
    protocol: str, low: float, high: float, mismatch: float, wider: float, worse: float
) -> None:
    known = ReceiverBounds(low, high, mismatch)
    for doubt in (
        replace(known, p_z_lower=low - wider),
        replace(known, p_z_upper=high + 0.9 * wider),
        replace(known, mismatch=mismatch + worse),
        replace(known, cross_basis="random"),
    ):
        assert ledger_of(protocol, doubt).ell_bits <= ledger_of(protocol, known).ell_bits


@protocols
@given(st.integers(1, 10_000))
def test_more_cross_basis_clicks_never_give_more_key(protocol: str, more: int) -> None:
    tallies = TALLIES[protocol]
    crossed = replace(tallies, cross_clicks=tallies.cross_clicks + more)
    fewer, ledger = ledger_of(protocol, tallies=crossed), ledger_of(protocol)
    assert fewer.n_u_lower < ledger.n_u_lower
    assert fewer.ell_bits <= ledger.ell_bits


@pytest.mark.parametrize("photons", [2, 3, 6, 15])
def test_whoever_measures_in_z_and_resends_bright_light_leaves_no_key(photons: int) -> None:
    """All kept slots are Z nearly always, right in Z; X outcomes are even, and rare. Cross-basis clicks tell of it."""
    kept, alone_z, alone_x = 3_000_000, 0.9**photons, 0.1**photons
    n_x = math.ceil(kept * alone_x / (alone_x + alone_z))
    quarter = n_x * 7 // 32
    cells = (((quarter, quarter), (quarter, quarter), (n_x - 4 * quarter, 0), (0, 0)),)
    tallies = Tallies(
        slots_sent=10_000_000,
        n_z=(round(0.86 * kept),),
        n_z_kept=round(0.86 * kept),
        x_counts=cells,
        z_detections=kept,
        x_detections=n_x,
        cross_clicks=round(kept * (1.0 - alone_z - alone_x) / alone_z),
        double_clicks=0,
        z_ones_steps=32_768,
    )
    ledger = ledger_of("three-state", tallies=tallies)
    assert ledger.ell_bits == 0
    assert ledger.n_u_lower < 0.01 * kept, "the bound itself, not only a monitor, leaves nothing"


@pytest.mark.parametrize(("dead", "named"), [("R", "R"), ("L", "L"), ("H", "H"), ("V", "V"), ("X", "X"), ("Z", "Z")])
def test_a_dead_or_weak_detector_gives_no_key_and_is_named(dead: str, named: str) -> None:
    tallies = TALLIES["three-state"]
    x = tallies.x_counts[0]
    if dead in "RL":
        lost = "RL".index(dead)
        x = tuple((0, pair[1]) if lost == 0 else (pair[0], 0) for pair in x)  # type: ignore[assignment]
        tallies = replace(tallies, x_counts=(x,), x_detections=sum(map(sum, x)))
    elif dead in "HV":
        tallies = replace(tallies, z_ones_steps=63_000 if dead == "H" else 2_500)
    elif dead == "X":
        tallies = replace(tallies, z_detections=round(1.05 * tallies.z_detections))
    else:
        few = round(0.7 * tallies.n_z[0])
        tallies = replace(tallies, n_z=(few,), n_z_kept=few, z_detections=round(0.7 * tallies.z_detections))
    refusal = ledger_of("three-state", tallies=tallies).refusal
    assert refusal is not None
    assert f"{named} is too weak" in refusal or f"the {named} detectors are too weak" in refusal


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.floats(0.0, 0.3), st.floats(0.01, 1.0))
def test_the_mean_of_every_event_is_one_at_the_worst_splitter_and_less_elsewhere(
    p_z: float, q: float, mismatch: float, part: float
) -> None:
    receiver = ReceiverBounds(0.5 * q, q, mismatch)
    exponent = 0.99 * part * limit(p_z, receiver)
    a, b, m, g = coefficients(exponent, p_z, receiver)
    w, up = virtual(p_z), math.expm1(exponent)
    d = (1.0 - math.sqrt(1.0 - mismatch)) / 2.0
    wrong, right = 1.0 + 4.0 * d, d * d + d / 4.0

    def means(q_z: float, seen: float) -> list[float]:
        down_a, down_b, down_m = (math.expm1(-exponent * x) for x in (a, b, m))
        x = (1.0 - q_z) * seen
        return [
            q_z * w * wrong * up + x * (1.0 - w) * down_a,
            q_z * wrong * up + x * down_b,
            q_z * right * up + x * down_m,
            q_z * w * right * up + x * (w * down_b + (1.0 - w) * math.expm1(exponent * g)),
        ]

    assert means(q, 1.0 - mismatch) == pytest.approx([0.0] * 4, abs=1e-9 * (1.0 + up))
    for q_z in (0.5 * q, 0.9 * q):
        for seen in (1.0 - mismatch, 1.0):
            assert max(means(q_z, seen)) <= 1e-9 * (1.0 + up)
    assert min(a, b, m, g) >= 0.0


@given(st.integers(0, 10**6), st.floats(0.05, 50.0))
def test_four_states_pay_little_more_than_the_binomial_tail(errors: int, ratio: float) -> None:
    found = from_both_bases(errors, 0, ratio, IDEAL, 1e-22)
    assert exact_sample_upper(errors, ratio, 1e-22) <= found
    assert found <= exact_sample_upper(errors, ratio, 1e-22 * math.exp(-9.0)) * 1.02 + 1.0


def test_a_price_is_what_balances_gain_and_loss() -> None:
    x = price(0.9, 0.1, 0.05)
    assert 0.9 * math.expm1(0.05) + 0.1 * math.expm1(-0.05 * x) == pytest.approx(0.0, abs=1e-15)
