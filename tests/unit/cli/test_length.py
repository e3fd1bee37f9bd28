"""`qkd length`: one's own counts, and the length that the proof allows for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from common.cli.length import command
from common.errors import ConfigurationError, InputError
from common.security.finite_key import EpsilonBudget, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies

PLANNING = Path(__file__).parents[3] / "docs" / "planning.md"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of the documentation."""
    text = re.search(r"## One's own counts.*?```toml\n(.*?)```", PLANNING.read_text(), re.DOTALL)
    assert text is not None
    (tmp_path / "counts.toml").write_text(text.group(1))
    return tmp_path / "counts.toml"


def call(path: Path) -> tuple[int, Any]:
    result = CliRunner().invoke(command, [str(path), "--json"], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), json.loads(result.stdout)


def test_the_documented_decoy_counts_give_the_length_of_the_proof(example: Path) -> None:
    x_counts = (
        ((450_000, 450_000), (450_000, 450_000), (98_000, 2_000), (2_000, 98_000)),
        ((45_000, 45_000), (45_000, 45_000), (9_800, 200), (200, 9_800)),
        ((225, 225), (225, 225), (25, 25), (25, 25)),
    )
    n_z = (16_200_000, 1_620_000, 8_100)
    tallies = Tallies(10**10, n_z, sum(n_z), x_counts, 19_809_000, 2_201_000, 0, 0, 1 << 15)
    ledger = key_length(
        tallies,
        ProtocolSettings("decoy-bb84", round(0.9 * 65536) / 65536, 0.9, (0.5, 0.1, 0.0), (0.5, 0.25, 0.25)),
        SourceBounds(0.292, 0.00698, 0.0, 4),
        ReceiverBounds(0.8999, 0.9001),
        EpsilonBudget("composable", 1e-10, 1e-15, 1e-15, "anytime"),
        3_000_000,
        128,
    )
    code, told = call(example)
    assert told["secret_bits"] == ledger.ell_bits > 0, told["refusal"]
    assert (told["phase_error_upper"], told["n_u_lower"]) == (ledger.phi_upper, ledger.n_u_lower)
    assert code == 0
    assert any("intensities" in sentence for sentence in told["assumes"])


def test_counts_that_leave_no_key_say_why(example: Path) -> None:
    example.write_text(example.read_text().replace("leak_ec_bits = 3_000_000", "leak_ec_bits = 30_000_000"))
    code, told = call(example)
    assert (code, told["secret_bits"]) == (1, 0)
    assert "no key" in told["refusal"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("slots_sent = 10_000_000_000", "", r"tallies\.slots_sent"),
        ("slots_sent =", "slots =", r"tallies\.slots"),
        ("p_z_alice = 0.9", "p_z_alise = 0.9", "did you mean 'p_z_alice'"),
        ("[tallies]", "[tally]", "tallies"),
        ("[[225, 225], [225, 225], [25, 25], [25, 25]],", "[[225, 225]],", r"tallies\.x_counts"),
        ("[link]", "[link", "cannot be read"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(example: Path, old: str, new: str, fault: str) -> None:
    text = example.read_text()
    assert old in text
    example.write_text(text.replace(old, new, 1))
    with pytest.raises((InputError, ConfigurationError), match=fault) as caught:
        call(example)
    assert "One's own counts" in caught.value.remedy
