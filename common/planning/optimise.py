"""The settings with the longest expected key: a genetic search, cross-checked by a search of another kind.

scipy's differential evolution (decision 45) looks everywhere; the DIRECT algorithm, which divides boxes and draws
nothing, looks again from scratch; the simplex of Nelder and Mead finishes both. Both answers are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import PZ_DENOMINATOR
from common.errors import InputError
from common.planning.link_model import DECOY, check_link
from common.planning.presets import LinkParameters
from common.planning.rate import Rate, Task, evaluate, require_proof
from common.security.tallies import ProtocolSettings

Floats = NDArray[np.float64]
Progress = Callable[[str, float], None]
"""``progress(what, part)``: what is being done, and which part (0..1) of all is done."""

#: What may vary: name -> (lowest, highest). Intensities as ratios, so that every point of the box has a meaning.
BOUNDS = {
    "p_z_alice": (0.1, 0.998),
    "attenuation_db": (0.0, 15.0),
    "signal": (0.05, 1.0),
    "decoy_ratio": (0.02, 0.9),
    "p_signal": (0.02, 0.98),
    "p_decoy_share": (0.02, 0.98),
}
POPULATION = 12
GENERATIONS = 60
QUICK_GENERATIONS = 15
SPREAD_TOLERANCE = 1e-5
DIRECT_EVALUATIONS = 200
SIMPLEX_EVALUATIONS = 80
SECOND_OPINION_TOLERANCE = 0.005
ATTENUATION_DIGITS = 3
SEED = 45


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best settings found, by two searches that share nothing but the question.

    Parameters
    ----------
    best : the better of the two. methods : name of each search -> its merit (bits per pulse, unrounded).
    evaluations : key lengths computed.
    """

    best: Rate
    methods: dict[str, float]
    evaluations: int

    @property
    def disagreement(self) -> float:
        """Relative difference of the two searches; above ``SECOND_OPINION_TOLERANCE`` something is wrong."""
        values = list(self.methods.values())
        top = max(values)
        return (top - min(values)) / abs(top) if top else 0.0


class Space:
    """The free settings of a task as a box, and the way from a point of the box to settings.

    Parameters
    ----------
    task : what does not vary. fixed : name in ``BOUNDS`` -> value that is given and not searched.
    """

    def __init__(self, task: Task, fixed: dict[str, float]) -> None:
        unknown = set(fixed) - set(BOUNDS)
        if unknown:
            raise InputError(f"cannot fix {sorted(unknown)}", remedy="Known: " + ", ".join(BOUNDS))
        decoy = task.protocol == DECOY
        names = [name for name in BOUNDS if name == "p_z_alice" or (name == "attenuation_db") != decoy]
        self.task, self._fixed = task, {"attenuation_db": 0.0, **fixed}
        self.free = [name for name in names if name not in fixed]
        self.box = np.array([BOUNDS[name] for name in self.free]).reshape(-1, 2)
        self.evaluations = 0

    def rate(self, point: Floats) -> Rate:
        """The key at one point; probabilities become the exact fractions that a node can use."""
        values = {**self._fixed, **dict(zip(self.free, (float(x) for x in point), strict=True))}
        self.evaluations += 1
        return evaluate(self.task, self._settings(values), round(values["attenuation_db"], ATTENUATION_DIGITS))

    def _settings(self, values: dict[str, float]) -> ProtocolSettings:
        p_z = _fraction(values["p_z_alice"])
        if self.task.protocol != DECOY:
            return self.task.settings(p_z)
        signal = values["signal"]
        p_signal = _fraction(values["p_signal"])
        p_decoy = _fraction((1.0 - p_signal) * values["p_decoy_share"])
        p_vacuum = 1.0 - p_signal - p_decoy
        if p_vacuum < 1.0 / PZ_DENOMINATOR:
            p_decoy, p_vacuum = p_decoy - 1.0 / PZ_DENOMINATOR, p_vacuum + 1.0 / PZ_DENOMINATOR
        return self.task.settings(p_z, (signal, signal * values["decoy_ratio"], 0.0), (p_signal, p_decoy, p_vacuum))


def optimise(
    task: Task,
    fixed: dict[str, float] | None = None,
    *,
    second_opinion: bool = True,
    generations: int = GENERATIONS,
    progress: Progress | None = None,
) -> Optimum:
    """Search the settings with the most secret bits per pulse.

    Parameters
    ----------
    task : link, protocol, block size, budget.
    fixed : settings that are given, by their name in ``BOUNDS``.
    second_opinion : search again by DIRECT. generations : of the genetic search, at most.
    progress : told after every generation.

    Raises
    ------
    InputError
        The task has a number without meaning, or there is no proof for its protocol.

    Notes
    -----
    About 1000 key lengths for three states, 1 ms each; 4000 for decoy states. The same task gives the same answer.
    """
    require_proof(task.protocol)
    check_link(task.link)
    space = Space(task, fixed or {})
    tell = progress or (lambda what, part: None)
    if not space.free:
        rate = space.rate(np.zeros(0))
        return Optimum(rate, {"given": rate.merit}, 1)
    share = 0.6 if second_opinion else 1.0
    found = {"differential evolution": _evolve(space, generations, lambda what, part: tell(what, share * part))}
    if second_opinion:
        found["DIRECT and simplex"] = _divide(space, lambda what, part: tell(what, share + (1.0 - share) * part))
    tell("done", 1.0)
    best = max(found.values(), key=lambda rate: rate.merit)
    return Optimum(best, {name: rate.merit for name, rate in found.items()}, space.evaluations)


def recommended_settings(link: LinkParameters, block_size: int, protocol: str = "three-state") -> ProtocolSettings:
    """Basis probability and intensities with the longest expected key, without an attenuator.

    What `qkd demo` sets and the templates of `qkd init` hold; `qkd plan` is the same search with the attenuator free.
    """
    return _recommended(link, block_size, protocol)


def recommended_p_z_alice(link: LinkParameters, block_size: int, protocol: str = "three-state") -> float:
    """Alice's basis probability of :func:`recommended_settings`; a multiple of 2^-16."""
    return recommended_settings(link, block_size, protocol).p_z_alice


def block_sizes(largest: int) -> Iterator[int]:
    """1, 2, 5 times a power of ten from 1e4 up to the largest, which is the last."""
    for exponent in range(4, 9):
        for step in (1, 2, 5):
            if step * 10**exponent < largest:
                yield step * 10**exponent
    yield largest


def refined(task: Task, start: Rate) -> Rate:
    """The optimum near that of a similar task (simplex from there): for sweeps and curves."""
    space = Space(task, {})
    return _simplex(space, _point(space, start))


def _evolve(space: Space, generations: int, tell: Progress) -> Rate:
    from scipy.optimize import differential_evolution

    generation = 0

    def step(intermediate_result: Any) -> None:
        nonlocal generation
        generation += 1
        tell("genetic search", generation / generations)

    found = differential_evolution(
        lambda point: -space.rate(point).merit,
        [tuple(side) for side in space.box],
        popsize=POPULATION,
        maxiter=generations,
        tol=SPREAD_TOLERANCE,
        atol=0.0,
        rng=SEED,
        init="sobol",
        polish=False,
        callback=step,
    )
    return _simplex(space, np.asarray(found.x))


def _divide(space: Space, tell: Progress) -> Rate:
    from scipy.optimize import direct

    limit = DIRECT_EVALUATIONS * len(space.free) ** 2

    def merit(point: Floats) -> float:
        return -space.rate(point).merit

    start = space.evaluations
    found = direct(
        merit,
        [tuple(side) for side in space.box],
        maxfun=limit,
        maxiter=limit,
        locally_biased=True,
        callback=lambda _: tell("second search", min((space.evaluations - start) / limit, 1.0)),
    )
    return _simplex(space, np.asarray(found.x))


def _simplex(space: Space, start: Floats) -> Rate:
    """Nelder and Mead inside the box; the start itself if nothing near it is better."""
    from scipy.optimize import minimize

    low, high = space.box[:, 0], space.box[:, 1]
    steps = 0.03 * (high - low) * np.where(start - low > 0.5 * (high - low), -1.0, 1.0)
    corners = np.vstack([start, start + np.diag(steps)])
    found = minimize(
        lambda point: -space.rate(point).merit,
        start,
        method="Nelder-Mead",
        bounds=[tuple(side) for side in space.box],
        options={
            "initial_simplex": corners,
            "maxfev": SIMPLEX_EVALUATIONS * len(start),
            "xatol": 1e-5,
            "fatol": 1e-9 * abs(space.rate(start).merit),
        },
    )
    rates = (space.rate(start), space.rate(np.asarray(found.x)))
    return max(rates, key=lambda rate: rate.merit)


def _point(space: Space, rate: Rate) -> Floats:
    settings = rate.settings
    values = {"p_z_alice": settings.p_z_alice, "attenuation_db": rate.attenuation_db}
    if settings.intensities:
        signal, decoy, _ = settings.intensities
        p_signal, p_decoy, _ = settings.p_intensities
        values |= {"signal": signal, "decoy_ratio": decoy / signal, "p_signal": p_signal}
        values |= {"p_decoy_share": p_decoy / (1.0 - p_signal)}
    return np.clip([values[name] for name in space.free], space.box[:, 0], space.box[:, 1])


def _fraction(probability: float) -> float:
    return min(max(round(probability * PZ_DENOMINATOR), 1), PZ_DENOMINATOR - 1) / PZ_DENOMINATOR


@lru_cache(maxsize=256)
def _recommended(link: LinkParameters, block_size: int, protocol: str) -> ProtocolSettings:
    fixed = {} if protocol == DECOY else {"attenuation_db": 0.0}
    return optimise(
        Task(link, protocol, block_size), fixed, second_opinion=False, generations=QUICK_GENERATIONS
    ).best.settings
