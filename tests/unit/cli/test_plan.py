"""`qkd plan` as scripts use it: one JSON document, the fields of the contract, exit code 2 with the fault's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from common.calibration_file import load_calibration
from common.cli.main import cli
from common.errors import InputError, QkdError

FIELDS = (
    "bits_per_pulse",
    "secret_bits",
    "phase_error_upper",
    "n_u_lower",
    "n_z",
    "qber",
    "p_z_alice",
    "attenuation_db",
    "intensities",
    "terms",
)


def qkd(*words: object) -> dict[str, Any]:
    outcome = CliRunner().invoke(cli, [*map(str, words), "--json"], catch_exceptions=False)
    assert outcome.exit_code == 0
    document: dict[str, Any] = json.loads(outcome.stdout)
    return document


def test_the_default_command_searches_and_says_all() -> None:
    found = qkd("plan", "--block-size", 200_000, "--protocol", "bb84", "--what-if", "loss=10,12", "--quiet")
    assert set(FIELDS) <= set(found)
    assert found["block_size"] == 200_000
    assert found["block_size_for_95_percent"] <= 200_000
    assert len(found["methods"]) == 2
    assert found["disagreement"] < 0.005
    assert [row["block_size"] for row in found["block_sizes"]][-1] == 200_000
    (loss,) = found["what_if"]
    assert loss["values"] == [10.0, 12.0]
    assert loss["rates"][0]["bits_per_pulse"] > loss["rates"][1]["bits_per_pulse"] > found["bits_per_pulse"]


def test_a_description_in_a_file_and_a_table_for_people(tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.write_text('protocol = "bb84"\nloss_db = 9.0\nblock_seconds_max = 0.2\n')
    outcome = CliRunner().invoke(cli, ["plan", str(link), "--what-if", "darks", "--quiet"], catch_exceptions=False)
    assert outcome.exit_code == 0
    assert "p_z_alice = 0." in outcome.stdout
    assert "what if: darks" in outcome.stdout


@pytest.mark.parametrize(("loss", "rate"), [(0.17, 5.90e-2), (14.6, 1.37e-3)])
def test_plan_rate_meets_the_specified_numbers(loss: float, rate: float) -> None:
    found = qkd("plan", "rate", "--loss-db", loss)
    assert set(FIELDS) <= set(found)
    assert found["bits_per_pulse"] == pytest.approx(rate, rel=0.02)
    again = qkd("plan", "rate", "--loss-db", loss, "--p-z-alice", found["p_z_alice"])
    assert again == found


def test_plan_rate_evaluates_what_is_given() -> None:
    contract = {
        "protocol": "bb84",
        "loss-db": 8.0,
        "mean-photon-number": 0.25,
        "g2": 0.01,
        "p-z-alice": 0.8,
        "p-z-bob": 0.7,
        "block-size": 1_000_000,
        "f-ec": 1.1,
        "misalignment": 0.02,
        "dark-probability": 1e-6,
        "accounting": "paper",
    }
    words = [word for name, value in contract.items() for word in (f"--{name}", value)]
    found = qkd("plan", "rate", *words)
    assert found["p_z_alice"] == 0.8
    assert found["block_size"] == 1_000_000
    assert found["n_z"] == pytest.approx(1_000_000 * 0.8 * 0.7, rel=0.01)
    assert found["qber"] == pytest.approx(0.02, rel=0.03)
    composable = qkd("plan", "rate", *words[:-2])
    assert composable["secret_bits"] < found["secret_bits"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--loss-db", "-1"), "loss_db"),
        (("--loss-db", "nan"), "loss_db"),
        (("--p-z-alice", "0"), "p_z_alice"),
        (("--p-z-alice", "1"), "p_z_alice"),
        (("--p-z-alice", "nan"), "p_z_alice"),
        (("--p-z-bob", "1", "--p-z-alice", "0.9"), "p_z_bob"),
        (("--mean-photon-number", "0"), "emits nothing"),
        (("--mean-photon-number", "-0.1"), "mean_photon_number"),
        (("--g2", "nan"), "g2"),
        (("--block-size", "0"), "block"),
        (("--f-ec", "0.9"), "f_EC"),
        (("--misalignment", "0.7"), "misalignment"),
        (("--dark-probability", "1.5"), "dark"),
        (("--attenuation-db", "-3"), "attenuation"),
        (("--eps-total", "0"), "epsilon"),
        (("--dead-time-ps", "-3"), "dead time"),
        (("--intensities", "0.5,0.1,0"), "intensities"),
    ],
)
def test_plan_rate_refuses_nonsense_by_name(words: tuple[str, ...], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        CliRunner().invoke(cli, ["plan", "rate", *words], catch_exceptions=False)


@pytest.mark.parametrize(
    "words", [("--what-if", "colour"), ("--what-if", "loss=red"), ("--protocol", "b92"), ("--preset", "nowhere")]
)
def test_plan_refuses_wrong_options(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(cli, ["plan", *words]).exit_code == 2


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(QkdError, match="cannot be read"):
        CliRunner().invoke(cli, ["plan", "nowhere.toml"], catch_exceptions=False)


def test_from_tags_to_a_calibration(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    slots = np.flatnonzero(rng.random(2_000_000) < 0.1)
    channels = rng.integers(0, 2, slots.size).astype(np.uint8)
    np.savez(tmp_path / "hbt.npz", times_ps=(slots * (1e12 / 76.13e6)).astype(np.int64), channels=channels)
    out = tmp_path / "source.toml"
    found = qkd("plan", "g2", tmp_path / "hbt.npz", "--out", out, "--eps", 1e-9)
    assert found["coincidences"] == 0
    assert found["g2"] == 0.0
    assert found["g2_upper"] == pytest.approx(np.log(7e9) / 2e6 / 0.05**2, rel=0.1)
    assert len(found["histogram"]["coincidences"]) == len(found["histogram"]["distance_slots"]) == 41
    source = qkd("plan", "source", "--clicks", 200_000, "--slots", 2_000_000, "--efficiency", 0.35, 0.36, "--out", out)
    written = load_calibration(out)
    assert written.g2_upper == found["g2_upper"]
    assert written.mean_photon_number_upper == source["mean_photon_number_upper"]
    assert source["mean_photon_number_lower"] < 0.1 / 0.355 < source["mean_photon_number_upper"]


def test_a_shifted_dip_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    slots = np.flatnonzero(rng.random(2_000_000) < 0.2)
    channels = rng.integers(0, 2, slots.size)
    times = ((slots + 2 * channels) * (1e12 / 76.13e6)).astype(np.int64)
    order = np.argsort(times)
    np.savez(tmp_path / "hbt.npz", times_ps=times[order], channels=channels[order].astype(np.uint8))
    outcome = CliRunner().invoke(cli, ["plan", "g2", str(tmp_path / "hbt.npz")], catch_exceptions=False)
    assert "--delay-ps 26271" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--clicks", "5", "--slots", "2", "--efficiency", "0.4", "0.5", "--g2-upper", "0"), "clicks"),
        (("--clicks", "5", "--slots", "20", "--efficiency", "0.5", "0.4", "--g2-upper", "0"), "efficiency"),
        (("--clicks", "5", "--slots", "20", "--efficiency", "0.4", "0.5"), "g2"),
        (("--clicks", "5", "--slots", "20", "--efficiency", "0.4", "0.5", "--g2-upper", "0", "--eps", "0"), "eps"),
    ],
)
def test_plan_source_refuses_nonsense(words: tuple[str, ...], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        CliRunner().invoke(cli, ["plan", "source", *words], catch_exceptions=False)
