"""Whatever goes wrong in the proof's source: a key that gets longer by it is rejected by the auditor's file."""

from __future__ import annotations

import functools
import json
from types import ModuleType
from typing import Any

import pytest

from common.auditor import verify_certificate
from common.auditor.verify_certificate import faults, key_length
from common.randomness import assumptions
from tests.certificates import RANDOM, certified
from tests.golden.cases import RECEIVER, SINGLE, golden_cases, nonsense
from tests.mutants import MODULES, load, mutants, real

BROKEN = (ArithmeticError, LookupError, NameError, TypeError, ValueError, AttributeError, RecursionError)
WITHOUT_LENGTH = ("assumes",)
"""Modules whose changes never lengthen a key."""


def cases() -> dict[str, dict[str, Any]]:
    """Every block that is written down, and every one that must be refused."""
    return golden_cases() | {f"nonsense {i}": case for i, (case, _) in enumerate(nonsense())}


def ledger(finite_key: ModuleType, case: dict[str, Any]) -> Any:
    tallies = dict(case["tallies"])
    tallies["n_z"] = tuple(int(n) if n == n and abs(n) < 1e18 else n for n in tallies["n_z"])
    return finite_key.key_length(
        finite_key.Tallies(**tallies),
        finite_key.ProtocolSettings(**case["settings"]),
        finite_key.SourceBounds(**{**SINGLE, **case.get("source", {})}),
        finite_key.ReceiverBounds(**{**RECEIVER, **case.get("receiver", {})}),
        finite_key.EpsilonBudget(**case.get("budget", {})),
        case["leak_ec_bits"],
        case.get("verify", 128),
        assumptions(RANDOM),
    )


def rejected(made: Any) -> list[str]:
    """Faults of a certificate of this ledger; a number that JSON has not makes none."""
    try:
        return faults(certified(made, qber=0.0))
    except ValueError:
        return ["no certificate"]


@pytest.fixture(scope="module")
def honest() -> dict[str, int]:
    """Name of a case -> its length by the proof as it is."""
    return {name: ledger(real()["finite_key"], case).ell_bits for name, case in cases().items()}


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The auditor's length of the same inputs is computed once."""

    @functools.cache
    def of(inputs: str) -> Any:
        return key_length(json.loads(inputs))

    given = ("tallies", "settings", "source", "receiver", "budget", "leak_ec_bits", "leak_verify_bits")

    def length(stated: Any) -> Any:
        return of(json.dumps({name: stated[name] for name in (*given, "leak_monitor_bits")}))

    monkeypatch.setattr(verify_certificate, "key_length", length)


def test_what_the_proof_gives_is_accepted(honest: dict[str, int]) -> None:
    lengths = 0
    for name, case in cases().items():
        refused = {"tails", "accounting"} & set(case.get("budget", {}))
        if honest[name] and not refused:
            found = rejected(ledger(real()["finite_key"], case))
            assert found == [] or name.endswith(", told nothing"), (name, found)
            lengths += 1
    assert lengths > 10


@pytest.mark.parametrize("module", MODULES)
def test_every_wrong_version_that_lengthens_a_key_is_rejected(module: str, honest: dict[str, int]) -> None:
    longer, believed = 0, []
    for label, tree in mutants(module):
        try:
            finite_key = load(module, tree)["finite_key"]
        except BROKEN:
            continue
        for name, case in cases().items():
            try:
                made = ledger(finite_key, case)
                more = made.ell_bits > honest[name]
            except BROKEN:
                continue
            longer += more
            if more and not rejected(made):
                believed.append(f"{label}: {name}: {made.ell_bits} instead of {honest[name]}")
    assert not believed, "\n".join(believed)
    assert bool(longer) == (module not in WITHOUT_LENGTH)
