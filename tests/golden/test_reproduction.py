"""The page that compares us with the paper cannot rot; the TNO package agrees where it models the same."""

from __future__ import annotations

import numpy as np
import pytest

from common.planning.paper import MEASURED
from common.planning.presets import PRESETS
from tests.golden.reproduction import PAGE, TABLES, detector, expected_run, measured_runs, naive, rate, written


@pytest.mark.parametrize("name", TABLES)
def test_the_page_holds_what_is_calculated_today(name: str) -> None:
    fresh = TABLES[name]()
    assert written(PAGE.read_text(), name) == fresh, "write it anew: python -m tests.golden.reproduction"


@pytest.mark.parametrize("preset", sorted(MEASURED))
def test_mismatched_events_explain_the_paper_s_rates_better_than_errors_of_r_alone(preset: str) -> None:
    measured = MEASURED[preset][1]
    proven, (phi, bits) = rate(preset, "three-state"), naive(preset)
    assert phi < proven.ledger.phi_upper
    assert 0.0 < proven.bits_per_pulse - measured < bits - measured


def test_the_stored_runs_are_whole_and_what_was_to_be_expected() -> None:
    runs = measured_runs()
    assert {(run["preset"], run["protocol"]) for run in runs} == {
        (p, q) for p in MEASURED for q in ("three-state", "bb84")
    }
    for run in runs:
        assert run["block_size"] == 100_000_000
        assert run["keys_equal"]
        assert run["bits_per_pulse"] == run["secret_bits"] / run["slots"]
        assert run["bits_per_pulse"] > MEASURED[run["preset"]][1]
        assert run["bits_per_pulse"] == pytest.approx(expected_run(run), rel=0.03)


def test_the_package_s_finite_rate_is_above_its_own_limit() -> None:
    from tno.quantum.communication.qkd_key_rate.quantum.bb84 import (
        BB84FiniteKeyRateEstimate,
        BB84FullyAsymptoticKeyRateEstimate,
    )

    link = PRESETS["lab-0.17dB"]
    finite = BB84FiniteKeyRateEstimate(detector=detector(link)).compute_rate(
        mu=np.array([0.7057, 0.05016, 5.3e-6]),
        attenuation=link.loss_db,
        probability_basis_X=np.array([0.97730903, 0.01220516, 0.01047903]),
        probability_basis_Z=np.array([2.31e-6, 2.65e-6, 1.82e-6]),
    )
    limit = BB84FullyAsymptoticKeyRateEstimate(detector=detector(link)).compute_rate(
        mu=0.7057, attenuation=link.loss_db
    )
    assert float(np.max(finite)) > 1.2 * limit, "the package was mended: compare finite rates, and say so on the page"
