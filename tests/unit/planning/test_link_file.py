"""A link's description: what it leaves out is the preset's, what it contradicts is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.calibration_file import update_calibration
from common.errors import ConfigurationError, InputError
from common.planning.link_file import load_link, parse_link
from common.planning.presets import PRESETS
from common.security.tallies import ReceiverBounds


def test_an_empty_description_is_the_field_link() -> None:
    task = parse_link({}).task()
    assert task.link == PRESETS["field-14.6dB"]
    assert task.protocol == "three-state"
    assert task.source is not None
    assert task.source.g2_upper == task.link.g2


def test_a_description_changes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "link.toml").write_text(
        'preset = "lab-0.17dB"\nprotocol = "bb84"\nloss_db = 3\ng2 = 0.01\ng2_upper = 0.02\nf_ec = 1.1\n'
        'dark_rate_cps = 100\nreceiver_dead_time_ps = 20000\naccounting = "paper"\nblock_size_max = 50000\n'
    )
    task = load_link(tmp_path / "link.toml").task()
    assert (task.link.loss_db, task.link.g2, task.link.dark_rate_cps) == (3.0, 0.01, 100.0)
    assert task.source is not None
    assert task.source.g2_upper == 0.02
    assert (task.f_ec, task.budget.accounting, task.block_size, task.protocol) == (1.1, "paper", 50_000, "bb84")
    assert task.rules.dead_time_ps == 20_000


def test_a_calibration_gives_estimates_and_bounds(tmp_path: Path) -> None:
    update_calibration(tmp_path / "s.toml", "g2", {}, g2=0.006, g2_upper=0.009, eps_g2=1e-12, mean_photon_number=0.25)
    (tmp_path / "link.toml").write_text('calibration = "s.toml"\n')
    task = load_link(tmp_path / "link.toml").task(tmp_path)
    assert (task.link.g2, task.link.mean_photon_number) == (0.006, 0.25)
    assert task.source is not None
    assert (task.source.g2_upper, task.source.eps) == (0.009, 1e-12)


def test_the_receiver_s_bounds_are_the_proof_s() -> None:
    assert parse_link({}).task().bounds == ReceiverBounds(0.9, 0.9)
    given = {"p_z_lower": 0.89, "p_z_upper": 0.91, "mismatch": 0.03, "eps_detectors": 1e-15, "cross_basis": "random"}
    assert parse_link(given).task().bounds == ReceiverBounds(0.89, 0.91, 0.03, 1e-15, "random")
    with pytest.raises(ConfigurationError, match="p_z_bob is not between"):
        parse_link({"p_z_lower": 0.91, "p_z_upper": 0.92}).task()


def test_a_time_limits_the_block() -> None:
    description = parse_link({"block_seconds_max": 10.0})
    assert description.largest_block(300_000.0) == pytest.approx(3_000_000, rel=0.01)
    assert parse_link({}).largest_block(1.0) == 100_000_000
    with pytest.raises(ConfigurationError, match="smallest block"):
        description.largest_block(10.0)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"los_db": 3.0}, "did you mean 'loss_db'"),
        ({"loss_db": -1.0}, "loss_db"),
        ({"loss_db": float("nan")}, "loss_db"),
        ({"p_z_bob": 1.0}, "p_z_bob"),
        ({"f_ec": 0.5}, "f_ec"),
        ({"block_size_max": 10}, "block_size_max"),
        ({"protocol": "b92"}, "protocol"),
    ],
)
def test_wrong_descriptions_are_refused_by_name(table: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        parse_link(table)


def test_contradictions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'field-14\.6dB'"):
        parse_link({"preset": "field-14.6"}).task()
    with pytest.raises(ConfigurationError, match="below the source's own"):
        parse_link({"g2": 0.01, "g2_upper": 0.001}).task()
    with pytest.raises(InputError, match="distribution"):
        parse_link({"mean_photon_number": 0.9, "g2": 1.9}).task()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_link(Path("nowhere.toml"))
