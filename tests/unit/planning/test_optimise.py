"""The optimum is one: against a fine grid, against other settings, and for the links and blocks that demos use."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from common.cli.init import template
from common.config import PZ_DENOMINATOR
from common.errors import InputError
from common.planning.link_model import DECOY, ReceiverRules
from common.planning.optimise import block_sizes, optimise, recommended_p_z_alice, recommended_settings, refined
from common.planning.presets import PRESETS
from common.planning.rate import Task, evaluate
from common.planning.what_if import PARAMETERS, changed, sweep
from common.security import finite_key
from common.security.finite_key import EpsilonBudget
from common.security.tallies import SourceBounds

FIELD = PRESETS["field-14.6dB"]


@pytest.mark.parametrize("protocol", ["three-state", "bb84"])
def test_the_field_optimum_is_within_half_a_per_cent_of_a_fine_grid(protocol: str) -> None:
    task = Task(FIELD, protocol, 100_000_000)
    best = optimise(task)
    grid = [
        evaluate(task, task.settings(p_z), attenuation).bits_per_pulse
        for p_z in np.arange(0.8, 0.996, 0.004)
        for attenuation in (0.0, 0.1, 0.3, 1.0, 3.0)
    ]
    assert best.best.bits_per_pulse >= 0.995 * max(grid)
    assert max(grid) <= best.best.bits_per_pulse * 1.0005, "the grid found what the searches did not"
    assert best.disagreement < 0.001


def test_a_bright_source_on_a_long_link_is_attenuated() -> None:
    task = Task(replace(FIELD, loss_db=22.0, g2=0.02), "bb84", 100_000_000)
    best = optimise(task).best
    grid = [
        (evaluate(task, task.settings(p_z), attenuation).bits_per_pulse, attenuation)
        for p_z in np.arange(0.9, 0.99, 0.01)
        for attenuation in np.arange(0.0, 12.0, 0.5)
    ]
    assert best.attenuation_db == pytest.approx(max(grid)[1], abs=0.6)
    assert best.attenuation_db > 1.0
    assert best.bits_per_pulse >= 0.999 * max(grid)[0]


@pytest.mark.parametrize("block", [100_000, 1_000_000])
def test_recommended_is_as_good_as_the_optimum(block: int) -> None:
    task = Task(FIELD, "bb84", block)
    chosen = evaluate(task, recommended_settings(FIELD, block, "bb84"))
    assert chosen.merit >= optimise(task).best.merit * (1 - 1e-3)
    numerator = recommended_p_z_alice(FIELD, block, "bb84") * PZ_DENOMINATOR
    assert numerator == round(numerator)


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_the_templates_hold_a_good_choice(role: str) -> None:
    link = tomllib.loads(template(role))["link"]
    block = tomllib.loads(template("bob"))["blocks"]["block_size_detections"]
    task = Task(FIELD, link["protocol"], block)
    chosen = evaluate(task, task.settings(link["p_z_alice"]))
    assert chosen.merit >= 0.995 * evaluate(task, recommended_settings(FIELD, block, link["protocol"])).merit


def test_what_is_given_is_not_searched() -> None:
    task = Task(FIELD, "three-state", 1_000_000)
    given = optimise(task, {"p_z_alice": 0.75, "attenuation_db": 0.0})
    assert given.evaluations == 1
    assert given.best.settings.p_z_alice == 0.75
    assert optimise(task, {"p_z_alice": 0.75}, second_opinion=False).best.settings.p_z_alice == 0.75
    with pytest.raises(InputError, match="cannot fix"):
        optimise(task, {"colour": 1.0})


def test_the_same_question_gets_the_same_answer() -> None:
    task = Task(PRESETS["lab-10.15dB"], "bb84", 1_000_000)
    once, again = (optimise(task, second_opinion=False, generations=5) for _ in range(2))
    assert once.best == again.best


def test_no_key_is_an_answer() -> None:
    best = optimise(Task(replace(FIELD, loss_db=40.0), "three-state", 1_000_000), second_opinion=False).best
    assert best.ledger.ell_bits == 0
    assert best.ledger.refusal
    assert best.document()["secret_bits"] == 0


def test_progress_is_told_up_to_the_end() -> None:
    parts: list[float] = []
    optimise(Task(FIELD, "bb84", 100_000), generations=3, progress=lambda what, part: parts.append(part))
    assert parts[-1] == 1.0
    assert parts == sorted(parts)


def test_bounds_of_the_source_cost_key_and_follow_the_attenuator() -> None:
    plain = Task(FIELD, "bb84", 1_000_000)
    bounded = replace(plain, source=SourceBounds(0.3, 0.01, 1e-12))
    at = plain.settings(0.9)
    assert evaluate(bounded, at).bits_per_pulse < evaluate(plain, at).bits_per_pulse
    half = evaluate(bounded, at, 10 * math.log10(2)).ledger.source
    assert half.mean_photon_number_upper == pytest.approx(0.15)
    assert half.g2_upper == 0.01


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_what_if_goes_the_way_it_must(parameter: str) -> None:
    task = Task(FIELD, "bb84", 1_000_000)
    base = optimise(task, second_opinion=False, generations=10).best
    found = sweep(task, base, parameter)
    rates = [rate.merit for rate in found.rates]
    assert len(rates) >= 3
    assert list(found.values) == sorted(found.values)
    expected = sorted(rates) if parameter in ("mean-photon-number", "block-size") else sorted(rates, reverse=True)
    assert rates == pytest.approx(expected, rel=1e-4)
    assert rates[0] != rates[-1]


def test_a_sweep_finds_the_optimum_of_each_value() -> None:
    task = Task(FIELD, "bb84", 1_000_000)
    base = optimise(task, second_opinion=False).best
    far = sweep(task, base, "loss", (5.0,)).rates[0]
    assert far.merit >= optimise(changed(task, "loss", 5.0)).best.merit * (1 - 1e-3)
    with pytest.raises(InputError, match="unknown parameter"):
        sweep(task, base, "colour")
    with pytest.raises(InputError, match="g2"):
        sweep(task, base, "g2", (-1.0,))


def test_block_sizes_end_at_the_largest() -> None:
    assert list(block_sizes(30_000)) == [10_000, 20_000, 30_000]
    assert list(block_sizes(10_000)) == [10_000]
    assert list(block_sizes(100_000_000))[-2:] == [50_000_000, 100_000_000]


NONSENSE = [
    ({"link": replace(FIELD, loss_db=-1.0)}, "loss_db"),
    ({"link": replace(FIELD, loss_db=math.nan)}, "loss_db"),
    ({"link": replace(FIELD, mean_photon_number=0.9, g2=1.5)}, "distribution"),
    ({"link": replace(FIELD, mean_photon_number=0.0, dark_rate_cps=0.0)}, "nothing"),
    ({"link": replace(FIELD, misalignment=0.6)}, "misalignment"),
    ({"link": replace(FIELD, dark_rate_cps=1e10)}, "darks"),
    ({"link": replace(FIELD, p_z_bob=1.0)}, "p_z_bob"),
    ({"block_size": 0}, "block size"),
    ({"f_ec": 0.9}, "f_EC"),
    ({"f_ec": math.nan}, "f_EC"),
    ({"budget": EpsilonBudget(eps_total=0.0)}, "epsilon"),
    ({"protocol": "b92"}, "b92"),
    ({"rules": ReceiverRules(10**17)}, "dead time"),
]


@pytest.mark.parametrize(("changes", "fault"), NONSENSE)
def test_nonsense_is_refused_by_name(changes: dict[str, object], fault: str) -> None:
    task = replace(Task(FIELD, "three-state", 1_000_000), **changes)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=fault):
        evaluate(task, task.settings(0.9))


@pytest.mark.parametrize("p_z", [0.0, 1.0, -0.1, math.nan])
def test_impossible_basis_probabilities(p_z: float) -> None:
    with pytest.raises(InputError, match="p_z_alice"):
        evaluate(Task(FIELD), Task(FIELD).settings(p_z))
    with pytest.raises(InputError, match="attenuation"):
        evaluate(Task(FIELD), Task(FIELD).settings(0.9), -1.0)


def test_decoy_settings_are_exact_and_near_their_optimum() -> None:
    task = Task(FIELD, DECOY, 1_000_000)
    best = optimise(task)
    assert best.disagreement < 0.005
    assert sum(best.best.settings.p_intensities) == 1.0
    assert all((p * PZ_DENOMINATOR).is_integer() for p in best.best.settings.p_intensities)
    assert evaluate(task, recommended_settings(FIELD, 1_000_000, DECOY)).merit >= 0.995 * best.best.merit
    assert refined(task, best.best).merit >= best.best.merit


def test_without_a_proof_there_is_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(finite_key.PROTOCOLS, DECOY)
    with pytest.raises(InputError, match="no finite-key proof"):
        optimise(Task(FIELD, DECOY, 1_000_000))
