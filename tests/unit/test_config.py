"""The configuration: unknown keys name the nearest one; wrong values name their field."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config_file import parse_config
from common.errors import ConfigurationError

DECOY = """role = 'bob'
[link]
protocol = 'decoy-bb84'
intensities = [0.5, 0.1, 0.0]
p_intensities = [0.5, 0.25, 0.25]
"""


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"link\.p_z_alise.*did you mean 'p_z_alice'"):
        parse_config('role = "alice"\n[link]\np_z_alise = 0.5\n', Path())


def test_unknown_section_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'security'"):
        parse_config('role = "alice"\n[securty]\n', Path())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("role = 'carol'", "role"),
        ("role = 'bob'\n[blocks]\nblock_size_detections = 1", "block_size_detections"),
        ("role = 'bob'\n[link]\nprotocol = 'decoy-bb84'", "intensities"),
        ("role = 'bob'\n[link]\nintensities = [0.5, 0.1, 0.0]", "intensities"),
        ("role = 'bob'\n[source]\nmean_photon_number_lower = 0.9", "mean_photon_number_lower"),
        ("role = 'bob'\n[source]\npower_lower_w = 1e-9", "power_upper_w"),
        ("role = 'bob'\n[source]\npower_lower_w = 2e-9\npower_upper_w = 1e-9", "lower one first"),
        ("role = 'bob'\n[receiver]\nselection = 'brightness'", "receiver.selection"),
        ("role = 'bob'\n[receiver]\nsegment_s = 0.0", "receiver.segment_s"),
        ("role = 'bob'\n[receiver]\nlight_qber = 0.11", "receiver.light_qber"),
        (DECOY + "[receiver]\nselection = 'transmittance'", "single photons"),
        ("role = ", "TOML"),
    ],
)
def test_faults_are_named(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        parse_config(text, Path())


@pytest.mark.parametrize("side", ["alice", "both"])
def test_only_bob_corrects(side: str) -> None:
    """Where Alice does, Bob's bits must have no structure that his detectors put there, and no proof says so."""
    with pytest.raises(ConfigurationError, match=r"decoding_side must be 'bob'.*model of his receiver"):
        parse_config(f'role = "alice"\n[reconciliation]\ndecoding_side = "{side}"\n', Path())


def test_agreed_fields_cover_the_epsilon_budget() -> None:
    agreed = parse_config('role = "bob"', Path()).agreed()
    assert {"security.eps_total", "security.eps_cor", "security.eps_auth", "link.p_z_alice"} <= set(agreed)


def test_selection_is_off_and_bob_decides_alone_about_it() -> None:
    assert parse_config(DECOY, Path()).receiver.selection == "off"
    chosen = parse_config("role = 'bob'\n[receiver]\nselection = 'transmittance'", Path())
    assert chosen.digest() == parse_config("role = 'bob'", Path()).digest()
