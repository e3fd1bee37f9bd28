"""Calibration files complete `[source]`, never contradict it, and never differ silently between the ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.calibration import BOUNDS
from common.calibration_file import load_calibration, update_calibration
from common.config_file import load_config
from common.errors import ConfigurationError

CONFIG = 'role = "alice"\n[source]\ncalibration = "source.toml"\n'


def write(path: Path, **extra: str) -> None:
    update_calibration(path, "g2", {"slots": 5}, g2=0.006, g2_upper=0.009, eps_g2=1e-11)
    update_calibration(
        path,
        "mean_photon_number",
        {"clicks": 7},
        mean_photon_number=0.29,
        mean_photon_number_lower=0.28,
        mean_photon_number_upper=0.30,
        eps_mean_photon_number=2e-11,
    )


def test_a_configuration_takes_its_bounds_from_the_file(tmp_path: Path) -> None:
    write(tmp_path / "source.toml")
    (tmp_path / "alice.toml").write_text(CONFIG)
    source = load_config(tmp_path / "alice.toml").source
    assert source.mean_photon_number_upper == 0.30
    assert source.g2_upper == 0.009
    assert source.eps_source == pytest.approx(3e-11)


def test_the_receiver_s_bounds_come_from_a_file_as_well(tmp_path: Path) -> None:
    measured = {"p_z_lower": 0.898, "p_z_upper": 0.902, "mismatch": 0.04, "eps_detectors": 1e-16}
    update_calibration(tmp_path / "detectors.toml", "detectors", {}, **measured)
    (tmp_path / "bob.toml").write_text('role = "bob"\n[detectors]\ncalibration = "detectors.toml"\n')
    found = load_config(tmp_path / "bob.toml").detectors
    assert (found.p_z_lower, found.p_z_upper, found.mismatch, found.eps) == tuple(measured.values())
    (tmp_path / "bob.toml").write_text('role = "bob"\n[detectors]\np_z_lower = 0.95\n')
    with pytest.raises(ConfigurationError, match="p_z_bob is not between"):
        load_config(tmp_path / "bob.toml")


def test_both_measurements_stay_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "source.toml"
    write(path)
    update_calibration(path, "g2", {"slots": 6}, g2=0.005, g2_upper=0.008, eps_g2=1e-11)
    found = load_calibration(path)
    assert found.g2_upper == 0.008
    assert found.mean_photon_number_upper == 0.30
    assert found.measurement == {"g2": {"slots": 6}, "mean_photon_number": {"clicks": 7}}


def test_the_handshake_compares_the_values_and_not_the_file(tmp_path: Path) -> None:
    write(tmp_path / "source.toml")
    (tmp_path / "alice.toml").write_text(CONFIG)
    values = "mean_photon_number_upper = 0.3\ng2_upper = 0.009\neps_source = 3e-11\n"
    (tmp_path / "bob.toml").write_text(f'role = "bob"\n[source]\n{values}')
    by_file, by_hand = load_config(tmp_path / "alice.toml"), load_config(tmp_path / "bob.toml")
    assert by_file.agreed() == by_hand.agreed()
    update_calibration(tmp_path / "source.toml", "g2", {}, g2_upper=0.01)
    assert load_config(tmp_path / "alice.toml").digest() != by_hand.digest()


def test_a_value_given_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "source.toml")
    (tmp_path / "alice.toml").write_text(CONFIG + "g2_upper = 0.001\n")
    with pytest.raises(ConfigurationError, match=r"source\.g2_upper is given"):
        load_config(tmp_path / "alice.toml")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("g2_uper = 0.1\n", "g2_uper"),
        ("g2_upper = -0.1\n", "g2_upper"),
        ("g2_upper = nan\n", "g2_upper"),
        ("eps_g2 = 1.0\n", "eps_g2"),
        ("mean_photon_number_lower = 0.4\nmean_photon_number_upper = 0.3\n", "above"),
        ("g2_upper = \n", "cannot be read"),
    ],
)
def test_bad_calibrations_are_refused_by_name(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "source.toml").write_text(text)
    (tmp_path / "alice.toml").write_text(CONFIG)
    with pytest.raises(ConfigurationError, match=fault):
        load_config(tmp_path / "alice.toml")


def test_a_missing_calibration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alice.toml").write_text(CONFIG)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(tmp_path / "alice.toml")


@pytest.mark.parametrize("section", BOUNDS)
def test_a_file_without_all_bounds_of_its_section_is_refused_whatever_the_devices(section: str, tmp_path: Path) -> None:
    (tmp_path / "alice.toml").write_text(f'role = "alice"\n[{section}]\ncalibration = "c.toml"\n')
    values = dict.fromkeys(BOUNDS[section], 0.2) | {"p_z_upper": 0.99}
    for left_out in (*BOUNDS[section], None):
        given = {name: values[name] for name in BOUNDS[section] if name != left_out}
        (tmp_path / "c.toml").write_text("".join(f"{name} = {value}\n" for name, value in given.items()))
        if left_out is None:
            assert load_config(tmp_path / "alice.toml", "alice").role == "alice"
            continue
        with pytest.raises(ConfigurationError, match=f"does not give {left_out}$"):
            load_config(tmp_path / "alice.toml")
    (tmp_path / "c.toml").write_text("")
    with pytest.raises(ConfigurationError, match=f"does not give {', '.join(BOUNDS[section])}"):
        load_config(tmp_path / "alice.toml")
