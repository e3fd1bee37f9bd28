"""Published numbers, an independent calculation of every key length, and proof that a changed proof would be seen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from common.planning.link_model import expected_qber, expected_tallies, key_leak
from common.planning.optimise import recommended_p_z_alice
from common.planning.presets import PRESETS
from common.security.budget import ACCOUNTINGS
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from tests.independent_ledger import key_length_of

BLOCK = 100_000_000
SOURCE = SourceBounds(0.292, 0.00698, phase_bits=4)
RECEIVER = ReceiverBounds(0.9, 0.9)
TEN = EpsilonBudget(eps_total=1e-10)
"""The source paper's total: what its rates are compared with."""
WEAK_PULSES = ((0.36, 0.135, 0.0), (0.74, 0.23, 0.03))


def ledger_of(
    preset: str, protocol: str = "three-state", block: int = BLOCK, budget: EpsilonBudget | None = None
) -> Ledger:
    link = PRESETS[preset]
    if protocol == "decoy-bb84":
        settings = ProtocolSettings(protocol, 0.88, link.p_z_bob, *WEAK_PULSES)
    else:
        settings = ProtocolSettings(protocol, recommended_p_z_alice(link, block, protocol), link.p_z_bob)
    tallies = expected_tallies(link, settings, block)
    leak = key_leak(expected_qber(link), tallies.n_z_kept)
    return key_length(tallies, settings, SOURCE, RECEIVER, budget or EpsilonBudget(), leak, 128)


@pytest.mark.parametrize(
    ("preset", "block", "rate", "phase_error"),
    [
        ("lab-0.17dB", 1e8, 5.931e-2, 0.0370),
        ("field-14.6dB", 1e8, 1.390e-3, 0.0757),
        ("field-14.6dB", 1e6, 7.08e-4, 0.1256),
        ("lab-15.16dB", 3e5, 2.61e-4, 0.1724),
    ],
)
def test_rates_of_the_paper_s_links(preset: str, block: float, rate: float, phase_error: float) -> None:
    ledger = ledger_of(preset, block=int(block), budget=TEN)
    assert ledger.ell_bits / ledger.tallies.slots_sent == pytest.approx(rate, rel=0.01)
    assert ledger.phi_upper == pytest.approx(phase_error, rel=0.03)


@pytest.mark.parametrize(
    ("preset", "block", "added_up", "gain"),
    [
        ("lab-0.17dB", 1e8, 5.90e-2, 0.985),
        ("field-14.6dB", 1e8, 1.37e-3, 0.985),
        ("field-14.6dB", 1e6, 5.656e-4, 1.15),
        ("lab-15.16dB", 3e5, 9.054e-5, 1.5),
    ],
)
def test_one_bound_wherever_the_block_ends_gives_more_than_five_that_were_added_up(
    preset: str, block: float, added_up: float, gain: float
) -> None:
    """``added_up``: best rate of the five bounds of ledger version 2, Chernoff form, cross-basis clicks not counted."""
    ledger = ledger_of(preset, block=int(block), budget=TEN)
    assert ledger.tallies.cross_clicks
    assert ledger.ell_bits / ledger.tallies.slots_sent >= gain * added_up


def test_what_the_receiver_costs() -> None:
    """Splitter known to half a percent of its X share, detectors to 5 %: what `qkd plan` shows as their price."""
    ideal = ledger_of("field-14.6dB", budget=TEN)
    rate = ideal.ell_bits

    def part(**bounds: float) -> float:
        receiver = replace(RECEIVER, **bounds)
        return key_length(ideal.tallies, ideal.settings, SOURCE, receiver, TEN, ideal.leak_ec_bits, 128).ell_bits / rate

    assert part(p_z_upper=0.9005) == pytest.approx(0.9961, abs=2e-4)
    assert part(p_z_lower=0.8995) == pytest.approx(0.9983, abs=2e-4)
    assert part(mismatch=0.05) == pytest.approx(0.8994, abs=1e-3)


@pytest.mark.parametrize("protocol", ["three-state", "bb84", "decoy-bb84"])
@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("block", [1_000_000, BLOCK])
@pytest.mark.parametrize("accounting", ACCOUNTINGS)
@pytest.mark.parametrize("tails", ["chernoff", "anytime"])
def test_an_independent_calculation_agrees(preset: str, protocol: str, block: int, accounting: str, tails: str) -> None:
    ledger = ledger_of(preset, protocol, block, EpsilonBudget(accounting, tails=tails))
    assert ledger.ell_bits > 0
    assert key_length_of(json.loads(ledger.to_json())) == pytest.approx(ledger.ell_bits, abs=16)


@pytest.mark.parametrize("protocol", ["three-state", "bb84", "decoy-bb84"])
@pytest.mark.parametrize("cross_basis", ["discard", "random"])
def test_an_independent_calculation_agrees_about_a_receiver_in_doubt(protocol: str, cross_basis: str) -> None:
    ideal = ledger_of("field-14.6dB", protocol)
    receiver = ReceiverBounds(0.895, 0.903, 0.02, 1e-16, cross_basis)
    ledger = key_length(ideal.tallies, ideal.settings, SOURCE, receiver, TEN, ideal.leak_ec_bits, 128)
    assert 0 < ledger.ell_bits < ideal.ell_bits
    assert key_length_of(json.loads(ledger.to_json())) == pytest.approx(ledger.ell_bits, abs=16)


GOOD = ledger_of("lab-0.17dB", block=1_000_000)
EMPTY_X = (((0, 0), (0, 0), (0, 0), (0, 0)),)


@pytest.mark.parametrize(
    "tallies",
    [
        Tallies(0, (0,), 0, EMPTY_X, 0, 0, 0, 0, 0),
        replace(GOOD.tallies, slots_sent=0),
        replace(GOOD.tallies, slots_sent=-1),
        replace(GOOD.tallies, n_z_kept=-1),
        replace(GOOD.tallies, n_z_kept=GOOD.tallies.n_z[0] + 1),
        replace(GOOD.tallies, n_z=(10**9,)),
        replace(GOOD.tallies, x_counts=(((0, 0), (0, 0), (0, -5), (0, 0)),)),
        replace(GOOD.tallies, x_counts=EMPTY_X),
        replace(GOOD.tallies, slots_sent=10**12),
    ],
)
def test_tallies_that_cannot_be_give_no_key_and_a_reason(tallies: Tallies) -> None:
    ledger = key_length(tallies, GOOD.settings, SOURCE, RECEIVER, EpsilonBudget(), 0, 128)
    assert ledger.ell_bits == 0
    assert ledger.refusal


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
@pytest.mark.parametrize("field", ["p_z_alice", "p_z_bob"])
def test_impossible_probabilities(field: str, value: float) -> None:
    settings = replace(GOOD.settings, **{field: value})
    assert key_length(GOOD.tallies, settings, SOURCE, RECEIVER, EpsilonBudget(), 0, 128).ell_bits == 0


@pytest.mark.parametrize(
    "source",
    [
        SourceBounds(0.0, 0.007),
        SourceBounds(float("nan"), 0.007),
        SourceBounds(0.3, float("inf")),
        SourceBounds(0.3, -1.0),
        SourceBounds(0.3, 0.007, eps=1e-9),
        SourceBounds(0.3, 22.0),
    ],
)
def test_impossible_sources(source: SourceBounds) -> None:
    ledger = key_length(GOOD.tallies, GOOD.settings, source, RECEIVER, EpsilonBudget(), 0, 128)
    assert ledger.ell_bits == 0
    assert ledger.refusal


@pytest.mark.parametrize("eps", [0.0, 1.0, -1e-10, float("nan")])
@pytest.mark.parametrize("field", ["eps_total", "eps_cor", "eps_auth"])
def test_impossible_budgets(field: str, eps: float) -> None:
    budget = replace(EpsilonBudget(), **{field: eps})
    assert key_length(GOOD.tallies, GOOD.settings, SOURCE, RECEIVER, budget, 0, 128).ell_bits == 0


def test_leaks_are_paid_in_full() -> None:
    more = key_length(GOOD.tallies, GOOD.settings, SOURCE, RECEIVER, EpsilonBudget(), GOOD.leak_ec_bits + 8000, 128)
    assert more.ell_bits == GOOD.ell_bits - 8000
    assert key_length(GOOD.tallies, GOOD.settings, SOURCE, RECEIVER, EpsilonBudget(), -1, 128).ell_bits == 0
