"""Polarisation feedback against a fibre that turns light anywhere, with the noise of real counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bob.polarisation import SEARCH, START, Feedback, Reading
from hardware.twin.weather import controller_rotation, random_rotation, rotation

ERROR = 0.0254
PERFECT = 1.0 - 2.0 * ERROR
CLICKS = 2000
LOCKS_ABOVE = 0.35


def counts(rng: np.random.Generator, contrast: float) -> tuple[int, int]:
    right = int(rng.binomial(CLICKS, 0.5 * (1.0 + contrast)))
    return right, CLICKS - right


def follow(seed: int, readings: int, drift: float = 0.0, n_axes: int = 4) -> tuple[list[float], Feedback]:
    """Errors (mean of both bases) reading by reading; without enough Z contrast there is no lock."""
    rng = np.random.default_rng(seed)
    fibre, feedback, errors = random_rotation(rng), Feedback(n_axes, CLICKS), []
    axes = feedback.axes
    for _ in range(readings):
        if drift:
            fibre = rotation((0.6, 0.0, 0.8), drift * rng.standard_normal()) @ fibre
        whole = controller_rotation(axes) @ fibre
        z, x = PERFECT * whole[2, 2], PERFECT * whole[0, 0]
        errors.append(0.5 - 0.25 * (z + x))
        if z < LOCKS_ABOVE:
            answer = feedback.without_lock(feedback.patience_s)
        else:
            answer = feedback.add(Reading(*counts(rng, z), *counts(rng, x)))
        axes = feedback.axes
        assert answer is None or np.array_equal(answer, axes)
        assert np.all((axes >= 0.0) & (axes < 1.0))
    return errors, feedback


@pytest.mark.parametrize("seed", range(40))
def test_it_arrives_from_anywhere(seed: int) -> None:
    errors, _ = follow(seed, 250)
    assert np.mean(errors[-50:]) < ERROR + 0.012


def test_it_follows_a_drift() -> None:
    errors, _ = follow(1, 1000, drift=0.01)
    assert np.mean(errors[200:]) < ERROR + 0.012


def test_without_it_the_same_drift_ruins_the_key() -> None:
    """The test above can fail: half a radian is gone after 1000 readings."""
    rng, fibre = np.random.default_rng(1), np.eye(3)
    for _ in range(1000):
        fibre = rotation((0.6, 0.0, 0.8), 0.01 * rng.standard_normal()) @ fibre
    assert math.acos(min(1.0, (np.trace(fibre) - 1.0) / 2.0)) > 0.1


def test_at_rest_it_only_watches() -> None:
    _, feedback = follow(3, 250)
    assert feedback.state == "watching"
    before = feedback.axes.copy()
    assert feedback.add(Reading(1949, 51, 1949, 51)) is None
    np.testing.assert_array_equal(before, feedback.axes)


def test_from_wherever_the_z_axis_has_gone_a_search_position_shows_it() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        fibre = random_rotation(rng)
        best = max((controller_rotation(START + place) @ fibre)[2, 2] for place in SEARCH)
        assert best > 1.0 / math.sqrt(3.0) - 1e-9


def test_a_controller_with_three_axes_is_steered_too() -> None:
    errors, _ = follow(2, 300, n_axes=3)
    assert np.mean(errors[-50:]) < ERROR + 0.02


def test_few_clicks_decide_nothing() -> None:
    feedback = Feedback(4, CLICKS)
    assert feedback.add(Reading(CLICKS - 1, 0, 10 * CLICKS, 0)) is None
    assert feedback.add(Reading(1, 0, 0, 0)) is not None
    assert feedback.without_lock(feedback.patience_s / 2.0) is None
