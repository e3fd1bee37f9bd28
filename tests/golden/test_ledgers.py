"""Whole ledgers written down; nonsense refused by name; every wrong version of the proof is seen by one of the two."""

from __future__ import annotations

import contextlib
import itertools
import math
from types import ModuleType
from typing import Any

import pytest

from tests.golden.cases import BOUNDS, EDGES, REFUSED, call, golden_cases, nonsense, written
from tests.mutants import MODULES, load, mutants, real

UNKNOWN = {"n_u_lower": 0.0, "phi_upper": 0.5, "pa_cost_bits": 0.0, "eps_spent": 0.0}
"""What a ledger says where nothing could be estimated."""

EQUIVALENT = {
    "how often an interval is halved beyond the last bit": ["bounds: ITERATIONS = 200: 200 -> 201"],
    "only a bracket that holds the root either way": [
        "bounds: return _bisect(possible, k / s, beyond / s)[1] - k: k / s -> k * s",
        "bounds: beyond = k + 1.01 * (needed + math.sqrt(needed * (needed + 2.0 * k))): 1.01 -> 1.2625",
        "bounds: beyond = k + 1.01 * (needed + math.sqrt(needed * (needed + 2.0 * k))): 2.0 -> 2.5",
        "bounds: low, high = -1, int(binomial_upper(n, p, eps)): 1 -> 2",
        "bounds: return _bisect(lambda m: m <= 0.0 or n * relative_entropy_nats(k / n, m / n) > needed, 0.0, k)[0]: "
        "0 -> 1",
    ],
    "the general arithmetic gives the same answer": [
        "bounds: if ratio <= 0.0 or k <= 0.0:: ratio <= 0.0 or k <= 0.0 -> ratio <= 0.0 and k <= 0.0",
        "bounds: if n == 0 or p <= 0.0:: n == 0 or p <= 0.0 -> n == 0 and p <= 0.0",
        "bounds: if p >= 1.0:: 1.0 -> 1.25",
        "anytime: if p >= 1.0:: 1.0 -> 1.25",
        "bounds: if k * relative_entropy_nats(1.0, s) <= needed:: 1.0 -> 1.25",
        "bounds: if other == 0.0:: 0.0 -> 1.0",
        "decoy: return sum(p * math.exp(-mu) * mu**n / math.factorial(n) for mu, p in pairs): "
        "p * math.exp(-mu) * mu ** n / math.factorial(n) -> p * math.exp(-mu) * mu ** n * math.factorial(n)",
    ],
    "refused before or after, with length 0 either way": [
        "tallies: return min(self.g2_upper * self.mean_photon_number_upper**2 / 2.0, 1.0): 1.0 -> 1.25",
        "tallies: return cls(n_u_lower, n_ph_upper / n_u_lower if n_u_lower > 0 else 0.5, terms): 0.5 -> 0.625",
        "tallies: return cls(n_u_lower, n_ph_upper / n_u_lower if n_u_lower > 0 else 0.5, terms): 0 -> 1",
        "finite_key: if not (math.isfinite(n_u) and math.isfinite(phi)):: "
        "math.isfinite(n_u) and math.isfinite(phi) -> math.isfinite(n_u) or math.isfinite(phi)",
        "finite_key: elif n_u <= 0.0:: 0.0 -> 1.0",
        "finite_key: NOTHING = Estimate(0.0, 0.5, ()): 0.5 -> 0.625",
        'finite_key: return ledger(0, "a bound is not finite"): 0 -> 1',
        "decoy: pairs = zip(settings.intensities, settings.p_intensities, strict=True): True -> False",
        "decoy: scale = [math.exp(k) / p for k, p in zip(settings.intensities, settings.p_intensities, strict=True)]: "
        "True -> False",
        "decoy: n_z = list(tallies.n_z[:3]): 3 -> 4",
        "decoy: right = sum(c[R][0] + c[L][1] for c in tallies.x_counts[:3]): 3 -> 4",
        "decoy: errors = [c[R][1] + c[L][0] for c in tallies.x_counts[:3]]: 3 -> 4",
    ],
    "less than the comparison of ledgers sees": [
        "phase_errors: ROUNDING = 1e-12: 1e-12 -> 1.25e-12",
        "phase_errors: return (1.0 + ROUNDING) * (more + needed / exponent) - (1.0 - ROUNDING) * less: "
        "1.0 + ROUNDING -> 1.0 - ROUNDING",
        "phase_errors: return (1.0 + ROUNDING) * (more + needed / exponent) - (1.0 - ROUNDING) * less: "
        "1.0 - ROUNDING -> 1.0 + ROUNDING",
        "three_state: right_lower = max(0.0, c[R][0] - tagged_x.value - several_x.value): 0.0 -> 1.0",
    ],
    "nothing is left of the share either way": [
        "monitors: alone = max(tallies.z_detections + tallies.x_detections - kept, 1): 1 -> 2",
        "monitors: background = min(1.0, 2.0 * wrong / sent_x) if sent_x else 1.0: 1.0 -> 1.25",
    ],
    "a default that every configuration states": ["tallies: phase_bits: int = 0: 0 -> 1"],
    "a threshold far from every real input": [
        "decoy: PROBABILITY_SLACK = 1e-6: 1e-06 -> 1.2499999999999999e-06",
        "tallies: SMALLEST_PROBABILITY = 2.0**-32: 2.0 -> 2.5",
        "tallies: SMALLEST_PROBABILITY = 2.0**-32: 32 -> 33",
    ],
}
"""Why no input can show a change, or none that matters: the changes."""


def same(value: Any, golden: Any) -> bool:
    if isinstance(golden, dict):
        return set(value) == set(golden) and all(same(value[name], golden[name]) for name in golden)
    if isinstance(golden, list):
        return len(value) == len(golden) and all(map(same, value, golden))
    if isinstance(golden, int | float):
        return abs(value - golden) <= 1e-9 * abs(golden) + 1e-300
    return bool(value == golden)


def bound(proof: dict[str, ModuleType], name: str) -> Any:
    return next(getattr(module, name) for module in proof.values() if hasattr(module, name))


def first_difference(proof: dict[str, ModuleType]) -> str | None:
    """The first case that a version of the proof answers otherwise than it must."""
    golden = written()
    for name, case in golden_cases().items():
        if not same(call(proof["finite_key"], case), golden[name]):
            return name
    for name, arguments, value in EDGES:
        if not math.isclose(bound(proof, name)(*arguments), value, rel_tol=1e-6):
            return f"{name}{arguments}"
    for name, arguments in itertools.product(BOUNDS, REFUSED):
        with contextlib.suppress(ValueError):
            bound(proof, name)(*arguments)
            return f"{name}{arguments} is not refused"
    for case, word in nonsense():
        ledger = call(proof["finite_key"], case)
        if ledger["ell_bits"] != 0 or word not in (ledger["refusal"] or ""):
            return f"{case} gives {ledger['ell_bits']} bits, {ledger['refusal']}"
        if ledger["phi_upper"] > 0.5:
            return f"{case} has a phase error rate above 1/2"
        if not ledger["terms"] and [ledger[name] for name in UNKNOWN] != list(UNKNOWN.values()):
            return f"{case} has bounds"
    return None


def test_the_ledgers_are_the_written_ones_and_nonsense_is_refused_with_its_reason() -> None:
    assert first_difference(real()) is None


@pytest.mark.parametrize("module", MODULES)
def test_every_wrong_version_of_the_proof_is_seen(module: str) -> None:
    unseen = []
    for label, tree in mutants(module):
        try:
            seen = first_difference(load(module, tree)) is not None
        except (ArithmeticError, LookupError, NameError, TypeError, ValueError, AttributeError, RecursionError):
            seen = True
        if not seen:
            unseen.append(label)
    defended = set(itertools.chain.from_iterable(EQUIVALENT.values()))
    assert set(unseen) <= defended, "\n".join(sorted(set(unseen) - defended))
