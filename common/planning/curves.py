"""The data behind the paper's figures, from the node's own arithmetic; drawing is in `figures.py`.

A curve is a name and two columns. Weak coherent pulses enter with their finite-key decoy proof where it is installed,
else with infinitely many decoy states and an infinite block (which flatters them); the name says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.planning.link_model import DECOY, EXPECTED_F_EC, ReceiverRules
from common.planning.optimise import optimise, refined
from common.planning.paper import BUDGET, FIELD_PRESET
from common.planning.presets import PRESETS
from common.planning.rate import Task, evaluate
from common.security import finite_key
from common.security.rates import (
    boundary_g2,
    coherent_asymptotic,
    coherent_limit,
    single_photon_asymptotic,
)
from common.units import transmittance_from_db

BLOCK = 100_000_000
FIELD = PRESETS[FIELD_PRESET]
LOSSES_DB = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
FIELD_LOSSES_DB = (0.0, 5.0, 10.0, 14.6, 20.0)
LOWEST = -5.0
G2_MIN = 10.0**LOWEST
HALVINGS = 16

Tell = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line: *(n,)* x and y, ``loss_db`` where it is one of a family."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    loss_db: float | None = None


def has_decoy_proof() -> bool:
    """Is the finite-key proof for weak coherent pulses installed?"""
    return DECOY in finite_key.PROTOCOLS


def limit_boundaries(losses_db: Iterable[float] = LOSSES_DB) -> list[Curve]:
    """Figure 1: (<n>, g2) at which equations (1) and (2) are equal, for each end-to-end loss."""
    curves = []
    for loss_db in losses_db:
        eta = transmittance_from_db(loss_db)
        means = 1.0 / math.e + (1.0 - 1.0 / math.e) * np.linspace(0.0, 1.0, 400) ** 2
        g2 = [boundary_g2(eta, float(mean)) for mean in means]
        points = [(float(n), g) for n, g in zip(means, g2, strict=True) if g is not None and g > 0.0]
        curves.append(Curve(f"{loss_db:g} dB", *_columns(points), loss_db))
    return curves


def asymptotic_boundaries(losses_db: Iterable[float] = FIELD_LOSSES_DB) -> list[Curve]:
    """Figure 4b: the same with the field's errors, darks and receiver, for infinite blocks; by channel loss."""
    darks, error = FIELD.dark_probability, FIELD.misalignment
    curves = []
    for loss_db in losses_db:
        eta = replace(FIELD, loss_db=loss_db).transmittance
        goal = coherent_asymptotic(eta, error, darks, EXPECTED_F_EC)

        def rate(n: float, g2: float, eta: float = eta) -> float:
            return single_photon_asymptotic(eta, n, g2, error, darks, EXPECTED_F_EC)

        curves.append(_boundary(f"{loss_db:g} dB", loss_db, rate, goal, 120))
    return curves


def finite_boundaries(
    losses_db: Sequence[float] = FIELD_LOSSES_DB, protocol: str = "bb84", tell: Tell = lambda part: None
) -> list[Curve]:
    """Figure 4a: the same for finite blocks of 1e8 detections, composable."""
    curves = []
    for done, loss_db in enumerate(losses_db):
        goal = coherent_rates([loss_db])[0]
        link = replace(FIELD, loss_db=loss_db)
        start = optimise(Task(link, protocol, BLOCK, BUDGET), {"attenuation_db": 0.0}, second_opinion=False).best
        p_z = start.settings.p_z_alice

        def rate(n: float, g2: float, task: Task = start.task, p_z: float = p_z) -> float:
            if n - g2 * n * n < 0.0 or n - g2 * n * n / 2.0 > 1.0:
                return -1.0
            varied = replace(task, link=replace(task.link, mean_photon_number=n, g2=g2))
            return max(evaluate(varied, varied.settings(p)).merit for p in _around(p_z))

        curves.append(_boundary(f"{loss_db:g} dB", loss_db, rate, goal, 30))
        tell((done + 1) / len(losses_db))
    return curves


def coherent_rates(losses_db: Sequence[float], tell: Tell = lambda part: None) -> list[float]:
    """Secret bits per pulse of weak coherent pulses in the field's receiver, for each channel loss."""
    if not has_decoy_proof():
        links = [replace(FIELD, loss_db=loss_db) for loss_db in losses_db]
        return [
            coherent_asymptotic(one.transmittance, one.misalignment, one.dark_probability, EXPECTED_F_EC)
            for one in links
        ]
    return finite_rates(losses_db, DECOY, tell)


def finite_rates(losses_db: Sequence[float], protocol: str, tell: Tell = lambda part: None) -> list[float]:
    """Secret bits per pulse at the best settings, blocks of 1e8, composable, for each channel loss."""
    rates: list[float] = []
    best = None
    for done, loss_db in enumerate(losses_db):
        rules = ReceiverRules(passive=protocol != DECOY)  # a splitter would make bright pulses pay for their brightness
        task = Task(replace(FIELD, loss_db=loss_db), protocol, BLOCK, BUDGET, rules=rules)
        best = optimise(task, second_opinion=False).best if best is None else refined(task, best)
        rates.append(best.bits_per_pulse)
        tell((done + 1) / len(losses_db))
    return rates


def rate_curves(tell: Tell = lambda part: None) -> list[Curve]:
    """Figure 3: rate against channel loss for both sources."""
    losses = [float(loss) for loss in np.arange(0.0, 26.0, 1.0)]
    etas = [replace(FIELD, loss_db=loss).transmittance for loss in losses]
    darks, error = FIELD.dark_probability, FIELD.misalignment
    n, g2 = FIELD.mean_photon_number, FIELD.g2
    curves = [
        Curve("single photons, three states", tuple(losses), tuple(finite_rates(losses, "three-state", tell))),
        Curve("single photons, four states", tuple(losses), tuple(finite_rates(losses, "bb84", tell))),
    ]
    if has_decoy_proof():
        curves.append(Curve("laser pulses, two decoys", tuple(losses), tuple(finite_rates(losses, DECOY, tell))))
    infinite = tuple(coherent_asymptotic(eta, error, darks, EXPECTED_F_EC) for eta in etas)
    asymptotic = tuple(single_photon_asymptotic(eta, n, g2, error, darks, EXPECTED_F_EC) for eta in etas)
    curves.append(Curve("single photons, infinite block", tuple(losses), asymptotic))
    curves.append(Curve("laser pulses, infinite block and decoys", tuple(losses), infinite))
    curves.append(Curve("laser pulses, limit η/e", tuple(losses), tuple(coherent_limit(eta) for eta in etas)))
    return curves


def _around(p_z: float) -> tuple[float, ...]:
    """Basis probabilities near one: the optimum is flat, and moves little with the source."""
    return tuple(1.0 - (1.0 - p_z) * factor for factor in (0.7, 1.0, 1.4, 2.0))


def _boundary(name: str, loss_db: float, rate: Callable[[float, float], float], goal: float, points: int) -> Curve:
    """Largest g2 that reaches the goal for each <n>; from its maximum on, pre-attenuation holds it.

    ``rate(n, g2)`` rises with <n> while g2 is negligible, and falls with g2.
    """
    first = _last_good(lambda n: rate(1.0 - n, G2_MIN) >= goal, 0.0, 1.0)
    if first is None:
        return Curve(name, (), (), loss_db)
    first = 1.0 - first
    means = first + (1.0 - first) * np.linspace(0.0, 1.0, points) ** 2
    found: list[tuple[float, float]] = []
    for n in means:
        exponent = _last_good(lambda x, n=float(n): rate(n, 10.0**x) >= goal, LOWEST, 0.0)  # type: ignore[misc]
        g2 = 10.0**exponent if exponent is not None else 0.0
        if found and g2 < found[-1][1]:
            return Curve(name, *_columns([*found, (1.0, found[-1][1])]), loss_db)
        if g2 > 0.0:
            found.append((float(n), g2))
    return Curve(name, *_columns(found), loss_db)


def _last_good(good: Callable[[float], bool], low: float, high: float) -> float | None:
    """Where a condition that holds from ``low`` on ends (bisection); None if it never holds."""
    if not good(low):
        return None
    if good(high):
        return high
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def _columns(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(x for x, _ in points), tuple(y for _, y in points)
