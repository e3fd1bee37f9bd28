"""With real devices nothing that the proof takes from them has a default, and everybody says so in the same words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from alice.check import STEPS as ALICE_STEPS
from bob.check import STEPS as BOB_STEPS
from common import statements
from common.cli.doctor import findings
from common.cli.doctor_bench import Examination
from common.config import Config
from common.config_file import parse_config
from common.errors import ConfigurationError
from common.node.check import check_statements, judged, surely_simulated, told_apart
from common.randomness import OPERATING_SYSTEM
from hardware import examination
from hardware.interfaces import DeviceInfo

DECOY = """[link]
protocol = "decoy-bb84"
intensities = [0.5, 0.1, 0.0]
p_intensities = [0.5, 0.25, 0.25]
"""
ALICE = """[source]
mean_photon_number_upper = 0.3
g2_upper = 0.01
eps_source = 1e-12
phase_bits = 4
"""
BOB = """[link]
p_z_bob = 0.9
[receiver]
dead_time_ps = 40000
[detectors]
p_z_lower = 0.89
p_z_upper = 0.91
mismatch = 0.05
eps = 1e-12
"""
ACCEPTED = '[security]\nrandomness = "computational"\n'
COMPLETE = {"alice": ALICE + ACCEPTED, "bob": BOB + ACCEPTED}
REAL = {
    "alice": '[devices.modulator]\ndriver = "tektronix-awg"\n',
    "bob": '[devices.time_tagger]\ndriver = "swabian"\n',
}
FIELDS = [
    *(("alice", field) for field in ("mean_photon_number_upper", "g2_upper", "eps_source", "phase_bits")),
    *(("bob", field) for field in ("p_z_bob", "dead_time_ps", "p_z_lower", "p_z_upper", "mismatch", "eps")),
]


def config(role: str, text: str = "", folder: Path | None = None) -> Config:
    return parse_config(f'role = "{role}"\n{text}', folder or Path())


def without(role: str, field: str) -> str:
    return "".join(line + "\n" for line in COMPLETE[role].splitlines() if not line.startswith(field + " "))


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_a_simulated_device_needs_no_statement_and_a_real_one_all(role: str) -> None:
    statements.require(config(role), simulated=True)
    statements.require(config(role, COMPLETE[role]), simulated=False)
    with pytest.raises(ConfigurationError) as caught:
        statements.require(config(role), simulated=False)
    missing = [field for where, field in FIELDS if where == role]
    assert all(field in str(caught.value) for field in missing)
    assert len(statements.needed(config(role))) == len(missing)


@pytest.mark.parametrize(("role", "field"), FIELDS)
def test_each_field_is_needed_and_run_check_and_doctor_say_so_alike(
    role: str, field: str, tmp_path: Path
) -> None:
    text = without(role, field)
    with pytest.raises(ConfigurationError, match=rf"\.{field} is not stated, and the .* is real$") as caught:
        statements.require(config(role, text), simulated=False)
    said = f"{caught.value}: {caught.value.remedy}"
    (tmp_path / "x.toml").write_text(f'role = "{role}"\n{text}{REAL[role]}')
    real = config(role, text + REAL[role], tmp_path)
    rows = [*judged({"alice": ALICE_STEPS, "bob": BOB_STEPS}[role], real), *told_apart(real)]
    assert said in [row.text for row in rows if not row.good]
    assert said in [finding for _, good, finding in findings(tmp_path / "x.toml") if not good]
    found = Examination(real)
    device = type("Real", (), {"info": DeviceInfo("real", "x")})()
    examination._statements(found, {statements.DEVICE_OF[role]: device})
    assert [(row.finding, row.remedy) for row in found.rows] == [(str(caught.value), caught.value.remedy)]


@pytest.mark.parametrize(("role", "weak"), [("alice", "start is computational"), ("bob", "coins are computational")])
def test_weak_randomness_is_told_before_the_start_with_the_same_words(role: str, weak: str, tmp_path: Path) -> None:
    text = {"alice": ALICE, "bob": BOB}[role] + REAL[role]
    (tmp_path / "x.toml").write_text(f'role = "{role}"\n{text}')
    real = config(role, text, tmp_path)
    uses = {"start": statements.start_secret(real)} | ({"coins": OPERATING_SYSTEM} if role == "bob" else {})
    with pytest.raises(ConfigurationError, match=rf"security\.randomness is 'physical', but {weak}") as caught:
        statements.require_randomness(real, False, uses)
    said = f"{caught.value}: {caught.value.remedy}"
    rows = [*judged({"alice": ALICE_STEPS, "bob": BOB_STEPS}[role], real), *told_apart(real)]
    assert said in [row.text for row in rows if not row.good]
    assert said in [finding for _, good, finding in findings(tmp_path / "x.toml") if not good]
    found = Examination(real)
    device = type("Real", (), {"info": DeviceInfo("real", "x")})()
    source = type("Source", (), {"info": DeviceInfo("random source", "urandom", randomness="computational")})()
    examination._statements(found, {statements.DEVICE_OF[role]: device, "random_source": source})
    assert [row.step for row in found.rows] == ["randomness"]
    assert found.rows[0].remedy == caught.value.remedy


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_with_everything_stated_check_is_content(role: str) -> None:
    rows = check_statements(config(role, COMPLETE[role] + REAL[role]))
    assert [good for _, good, _ in rows] == [True]


def test_what_a_calibration_file_gives_is_stated(tmp_path: Path) -> None:
    bounds = "mean_photon_number_upper = 0.3\neps_mean_photon_number = 0.0\ng2_upper = 0.01\neps_g2 = 1e-12\n"
    (tmp_path / "source.toml").write_text(bounds)
    text = '[source]\ncalibration = "source.toml"\nphase_bits = 4\n'
    statements.require(config("alice", text, tmp_path), simulated=False)


def test_the_modulators_fields_are_not_asked_of_bob_nor_single_photon_bounds_of_decoys() -> None:
    statements.require(config("bob", BOB), simulated=False)
    text = DECOY + "[source]\neps_source = 0.0\nphase_bits = 4\n"
    statements.require(config("alice", text), simulated=False)


def test_no_phase_needs_a_statement_about_the_source() -> None:
    none = ALICE.replace("phase_bits = 4", "phase_bits = 0")
    with pytest.raises(ConfigurationError, match="phase_bits is 0"):
        statements.require(config("alice", none), simulated=False)
    statements.require(config("alice", none + 'phase_by = "source"\n'), simulated=False)


def test_a_driver_that_applies_no_phase_serves_only_a_source_with_a_phase_of_its_own() -> None:
    plain, own = config("alice", ALICE), config("alice", ALICE + 'phase_by = "source"\n')
    with pytest.raises(ConfigurationError, match="does not put the random phase onto the light"):
        statements.require_phase(plain, simulated=False, applies_phase=False)
    statements.require_phase(plain, simulated=True, applies_phase=False)
    statements.require_phase(plain, simulated=False, applies_phase=True)
    statements.require_phase(own, simulated=False, applies_phase=False)


@pytest.mark.parametrize("bits", [0, 1, 3])
def test_decoys_with_fewer_than_sixteen_phases_are_refused_at_both_ends(bits: int) -> None:
    few = f"{DECOY}[source]\nphase_bits = {bits}\n"
    for role in ("alice", "bob"):
        with pytest.raises(ConfigurationError, match="at least 16 phases"):
            config(role, few)
        config(role, few + 'phase_by = "source"\n')
        config(role, DECOY + "[source]\nphase_bits = 4\n")


@pytest.mark.parametrize(("mu", "phases"), [(0.5, 2), (0.5, 4), (0.9, 8), (0.5, 16)])
def test_the_phase_correction_is_the_largest_trace_distance(mu: float, phases: int) -> None:
    numbers = np.arange(phases)
    weights = np.array([[mu ** (n + k * phases) / math.factorial(n + k * phases) for k in range(8)] for n in numbers])
    exact = np.sqrt(weights[:, 1:].sum(axis=1) / weights.sum(axis=1)).max()
    assert exact * (1.0 - 1e-12) <= statements.phase_distance(mu, phases) < 1.2 * exact


def test_what_is_taken_as_certain_stands_in_the_assumptions() -> None:
    plain = statements.assumed(config("alice"))
    assert any("source.eps_source is 0" in one for one in plain)
    assert any("detectors.eps is 0" in one for one in plain)
    sure = statements.assumed(config("bob", ALICE + BOB))
    assert not any("certain" in one for one in sure)
    assert any("one of 16 phases" in one for one in sure)
    decoy = statements.assumed(config("bob", DECOY))
    assert any("8.5e-10 (trace distance)" in one for one in decoy)
    own = statements.assumed(config("bob", '[source]\nphase_by = "source"\n'))
    assert any("stated, not watched" in one for one in own)


def test_which_devices_are_surely_simulated_is_told_without_opening_them() -> None:
    def sure(text: str) -> bool:
        return surely_simulated(config("bob", f"[devices.time_tagger]\n{text}").devices["time_tagger"])

    assert sure('driver = "twin-time-tagger"')
    assert sure('driver = "replay-time-tagger"')
    assert sure('driver = "tcp-tags"\nsimulated = true')
    assert not sure('driver = "tcp-tags"\nsimulated = false')
    assert not sure('driver = "swabian"')
    assert not sure('driver = "nobody-knows"')
