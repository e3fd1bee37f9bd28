"""The figures' data is the arithmetic it claims to be; the files are there, complete and repeatable."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.cli.main import cli
from common.errors import InputError
from common.planning import curves, figures
from common.planning.curves import Curve
from common.planning.link_model import EXPECTED_F_EC
from common.planning.paper import MEASURED
from common.planning.presets import PRESETS
from common.planning.rate import Task, evaluate
from common.security.rates import coherent_asymptotic, coherent_limit, single_photon_asymptotic, single_photon_limit
from common.units import transmittance_from_db

FIELD = PRESETS["field-14.6dB"]


def test_figure_1_solves_its_equation_at_every_loss() -> None:
    family = curves.limit_boundaries(range(31))
    assert len(family) == 31
    for curve in family:
        assert curve.loss_db is not None
        eta = transmittance_from_db(curve.loss_db)
        for mean, g2 in zip(curve.x, curve.y, strict=True):
            assert single_photon_limit(eta, mean, g2) == pytest.approx(coherent_limit(eta), rel=1e-9)
    assert family[0].y[-1] == pytest.approx(math.e / 4, rel=1e-12)
    assert family[0].x[0] == pytest.approx(1 / math.e, abs=1e-4)


def test_figure_4b_solves_its_equation() -> None:
    (curve,) = curves.asymptotic_boundaries([10.0])
    eta = replace(FIELD, loss_db=10.0).transmittance
    errors = (FIELD.misalignment, FIELD.dark_probability, EXPECTED_F_EC)
    goal = coherent_asymptotic(eta, *errors)
    assert len(curve.x) > 20
    for mean, g2 in zip(curve.x, curve.y, strict=True):
        assert single_photon_asymptotic(eta, mean, g2, *errors) == pytest.approx(goal, rel=1e-3)


def test_figure_4a_solves_its_equation() -> None:
    (curve,) = curves.finite_boundaries([10.0])
    goal = curves.coherent_rates([10.0])[0]
    assert len(curve.x) > 5
    mean, g2 = curve.x[len(curve.x) // 2], curve.y[len(curve.y) // 2]
    task = Task(replace(FIELD, loss_db=10.0, mean_photon_number=mean, g2=g2), "bb84", curves.BLOCK)
    best = max(evaluate(task, task.settings(1 - x / 1000)).bits_per_pulse for x in range(5, 60, 5))
    assert best == pytest.approx(goal, rel=0.01)
    assert list(curve.y) == sorted(curve.y)


def test_a_goal_out_of_reach_has_no_boundary() -> None:
    assert curves._boundary("none", 0.0, lambda n, g2: n - g2, 2.0, 10).x == ()


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "DPI", 40)
    line = Curve("single photons, three states", (0.0, 5.0, 40.0), (0.06, 0.02, 0.0))
    monkeypatch.setattr(curves, "rate_curves", lambda tell: [line])
    family = [Curve("0 dB", (0.3, 1.0), (1e-4, 0.3), 0.0), Curve("90 dB", (), (), 90.0)]
    monkeypatch.setattr(curves, "finite_boundaries", lambda tell: family)
    monkeypatch.setattr(curves, "asymptotic_boundaries", lambda: family)


def test_every_file_is_written_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    results = {"rows": [{"preset": "lab-5.11dB", "protocol": "bb84", "loss_db": 5.11, "bits_per_pulse": 0.019}]}
    out = tmp_path / "figures"
    out.mkdir()
    (out / "reproduce.json").write_text(json.dumps(results))
    outcome = CliRunner().invoke(cli, ["figures", "--out", str(out), "--json", "--quiet"], catch_exceptions=False)
    files = [Path(name) for name in json.loads(outcome.stdout)["files"]]
    assert [path.suffix for path in files] == [".png", ".svg", ".csv"] * 4
    assert all(path.stat().st_size > 40 for path in files)
    rows = list(csv.reader((out / "fig3_rate_against_loss.csv").read_text().splitlines()))
    assert rows[0] == ["curve", "channel_loss_db", "bits_per_pulse"]
    assert ["end to end, bb84", "5.11", "0.019"] in rows
    assert sum(row[0].startswith("paper, ") for row in rows) == len(MEASURED)
    again = figures.make_figures(tmp_path / "again", figures.read_results(out / "reproduce.json"))
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": [{}]}', '{"rows": [{"protocol": "x", "loss_db": NaN, "bits_per_pulse": 1}]}']
)
def test_a_results_file_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match="results"):
        figures.read_results(tmp_path / "results.json")
