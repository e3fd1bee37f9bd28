"""Blocks whose whole ledger is written down in `ledgers.json`, and blocks that must be refused for a named reason."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).with_name("ledgers.json")
SINGLE = {"mean_photon_number_upper": 0.292, "g2_upper": 0.00698, "eps": 0.0, "phase_bits": 4}
LIGHT = {"intensities": (0.36, 0.135, 0.01), "p_intensities": (0.7, 0.23, 0.07)}
FOUR = (((8_060, 8_040), (8_070, 8_050), (2_760, 80), (90, 2_760)),)
THREE = (((6_500, 6_490), (6_560, 6_540), (8_420, 270), (0, 0)),)
LEVELS = (
    ((111_200, 111_000), (111_150, 111_050), (32_200, 1_000), (990, 32_210)),
    ((13_900, 13_880), (13_910, 13_870), (4_020, 130), (120, 4_030)),
    ((334, 333), (332, 335), (94, 6), (5, 95)),
    ((0, 0), (0, 0), (0, 0), (0, 0)),
)
SEEN = {"cross_clicks": 900, "double_clicks": 700, "z_ones_steps": 32_700}
RECEIVER = {"p_z_lower": 0.9, "p_z_upper": 0.9}
GOOD: dict[str, dict[str, Any]] = {
    "three-state": {
        "tallies": {
            "slots_sent": 60_000_000,
            "n_z": (300_000,),
            "n_z_kept": 298_000,
            "x_counts": THREE,
            "z_detections": 400_100,
            "x_detections": 34_780,
            **SEEN,
        },
        "receiver": {"p_z_lower": 0.92, "p_z_upper": 0.92},
        "settings": {"protocol": "three-state", "p_z_alice": 0.75, "p_z_bob": 0.92},
        "leak_ec_bits": 51_000,
    },
    "bb84": {
        "tallies": {
            "slots_sent": 40_000_000,
            "n_z": (290_000,),
            "n_z_kept": 290_000,
            "x_counts": FOUR,
            "z_detections": 341_000,
            "x_detections": 37_910,
            **SEEN,
        },
        "settings": {"protocol": "bb84", "p_z_alice": 0.85, "p_z_bob": 0.9},
        "leak_ec_bits": 52_000,
    },
    "decoy-bb84": {
        "tallies": {
            "slots_sent": 90_000_000,
            "n_z": (4e6, 5e5, 12_000, 0),
            "n_z_kept": 4_500_000,
            "x_counts": LEVELS,
            "z_detections": 5_186_000,
            "x_detections": 576_194,
            **SEEN,
        },
        "settings": {"protocol": "decoy-bb84", "p_z_alice": 0.87, "p_z_bob": 0.9, **LIGHT},
        "leak_ec_bits": 700_000,
    },
}


def counted(tallies: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Tallies with other counts; the detections of X follow where they are not given, those of Z where too few."""
    made = {**tallies, **changes}
    if "x_counts" in changes and "x_detections" not in changes:
        made["x_detections"] = sum(sum(symbol) for level in made["x_counts"] for symbol in level)
    if "n_z" in changes and "z_detections" not in changes:
        made["z_detections"] = max(made["z_detections"], *(n for n in (sum(made["n_z"]), 0) if n == n))
    return made


SPECIAL: dict[str, dict[str, Any]] = {
    "three-state, lucky": {
        "tallies": counted(GOOD["three-state"]["tallies"], x_counts=(((10, 9), (8, 9), (40_000, 0), (0, 0)),)),
    },
    "three-state, hopeless": {
        "tallies": counted(GOOD["three-state"]["tallies"], x_counts=(((9, 9), (9, 9), (50_000, 50_000), (0, 0)),)),
    },
    "bb84, all tagged": {"source": {"g2_upper": 0.5}},
    "bb84, mostly X": {
        "tallies": counted(
            GOOD["bb84"]["tallies"],
            n_z=(102_000,),
            n_z_kept=102_000,
            x_counts=(((2_800, 2_780), (2_790, 2_810), (12_900, 350), (360, 12_890)),),
        ),
        "settings": {"protocol": "bb84", "p_z_alice": 0.3, "p_z_bob": 0.9},
        "receiver": {"mismatch": 0.02},
    },
    "bb84, tiny": {
        "tallies": {
            "slots_sent": 20_000,
            "n_z": (77,),
            "n_z_kept": 76,
            "x_counts": (((3, 2), (2, 2), (1, 0), (0, 1)),),
            "z_detections": 90,
            "x_detections": 11,
            "cross_clicks": 1,
            "double_clicks": 1,
            "z_ones_steps": 33_000,
        },
    },
    "decoy-bb84, dark": {
        "tallies": counted(
            GOOD["decoy-bb84"]["tallies"],
            slots_sent=900_000_000,
            n_z=(4e6, 900_000, 200_000),
            n_z_kept=5_000_000,
            x_counts=(*LEVELS[:2], ((16_500, 16_500), (16_500, 16_500), (4_000, 1_300), (1_300, 4_000))),
            z_detections=5_862_000,
        ),
        "settings": {**GOOD["decoy-bb84"]["settings"], "intensities": (0.36, 0.2, 0.001)},
    },
    "decoy-bb84, blind": {
        "tallies": counted(GOOD["decoy-bb84"]["tallies"], n_z=(4e6, 5e5, 400_000, 0)),
    },
    "decoy-bb84, faultless decoys": {
        "tallies": counted(
            GOOD["decoy-bb84"]["tallies"],
            x_counts=(LEVELS[0], ((1, 1), (1, 1), (5_000, 0), (0, 5_000)), ((0, 0), (0, 0), (9, 400), (400, 9))),
            n_z=(4e6, 5e5, 12_000),
        ),
    },
}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    ", exact": {"budget": {"tails": "exact"}},
    ", chernoff": {"budget": {"tails": "chernoff"}},
    ", paper": {"budget": {"accounting": "paper"}},
    ", with doubt": {
        "source": {"eps": 1e-11, "phase_bits": 5},
        "budget": {"eps_total": 3e-10, "eps_cor": 1e-14, "eps_auth": 1e-13},
    },
    ", in doubt about the receiver": {
        "receiver": {"p_z_lower": 0.89, "p_z_upper": 0.925, "mismatch": 0.04, "eps": 1e-16}
    },
    ", cross-basis slots kept": {"receiver": {"cross_basis": "random"}},
    ", of ten to the minus ten": {"budget": {"eps_total": 1e-10, "eps_cor": 1e-15, "eps_auth": 3.4e-21}},
    ", dim": {"source": {"g2_upper": 0.03}},
    ", told nothing": {"leak_ec_bits": 0, "verify": 0},
    ", unsure": {"leak_ec_bits": 10_000_000},
}


def call(finite_key: ModuleType, case: dict[str, Any]) -> dict[str, Any]:
    """The ledger of a case by this version of the proof, as plain values."""
    tallies, budget = finite_key.Tallies(**case["tallies"]), finite_key.EpsilonBudget(**case.get("budget", {}))
    settings = finite_key.ProtocolSettings(**case["settings"])
    source = finite_key.SourceBounds(**{**SINGLE, **case.get("source", {})})
    receiver = finite_key.ReceiverBounds(**{**RECEIVER, **case.get("receiver", {})})
    leaks = case["leak_ec_bits"], case.get("verify", 128)
    ledger = finite_key.key_length(tallies, settings, source, receiver, budget, *leaks, tuple(case.get("assumes", ())))
    return {
        **{name: getattr(ledger, name) for name in ("ell_bits", "refusal", "n_u_lower", "phi_upper")},
        **{name: getattr(ledger, name) for name in ("pa_cost_bits", "leak_monitor_bits", "eps_spent", "version")},
        "terms": [asdict(term) for term in ledger.terms],
        "monitors": [asdict(monitor) for monitor in ledger.monitors],
        "assumes": list(ledger.assumes),
    }


def golden_cases() -> dict[str, dict[str, Any]]:
    """Name -> case."""
    special = {name: {**GOOD[name.split(",")[0]], **changes} for name, changes in SPECIAL.items()}
    varied = {
        f"{name}{how}": {**good, **change, "receiver": {**good.get("receiver", {}), **change.get("receiver", {})}}
        for name, good in GOOD.items()
        for how, change in VARIANTS.items()
    }
    return {**varied, **special}


def written() -> dict[str, Any]:
    """What is written down."""
    return dict(json.loads(FILE.read_text()))


def main() -> None:
    """Write all ledgers down anew."""
    from common.security import finite_key

    made = {name: call(finite_key, case) for name, case in golden_cases().items()}
    FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


NAN, INF = float("nan"), float("inf")
HUGE = 10**400
"""More than a floating point number can be."""
FINITE = "not finite"
NEGATIVE = "negative"
EMPTY = (((0, 0), (0, 0), (0, 0), (0, 0)),)
DARK = (*LEVELS[:3], ((0, 0), (0, 0), (1, 0), (0, 0)))
SINGLES = ("three-state", "bb84")
TOTALS = ("eps_total", "eps_cor", "eps_auth")
ALL = (*SINGLES, "decoy-bb84")
NONSENSE: list[tuple[tuple[str, ...], str, dict[str, Any], str]] = [
    *((ALL, "tallies", {name: value}, FINITE) for name in ("slots_sent", "n_z_kept") for value in (NAN, INF, 2**64)),
    *((ALL, "tallies", {name: -1}, NEGATIVE) for name in ("slots_sent", "n_z_kept")),
    (SINGLES, "tallies", {"n_z": (NAN,)}, FINITE),
    (SINGLES, "tallies", {"n_z": (-1,)}, NEGATIVE),
    (SINGLES, "tallies", {"n_z": (0,), "n_z_kept": 0}, "empty"),
    (ALL, "tallies", {"slots_sent": 0}, "empty"),
    (ALL, "tallies", {"n_z": ()}, "shape"),
    (ALL, "tallies", {"n_z": (1, 2)}, "shape"),
    (ALL, "tallies", {"n_z": (), "x_counts": ()}, "shape"),
    (SINGLES, "tallies", {"x_counts": (((0, 0), (0, 0), (5, 1)),)}, "shape"),
    (SINGLES, "tallies", {"x_counts": EMPTY}, "check basis"),
    (SINGLES, "tallies", {"x_counts": (((0, 0), (0, 0), (0, -5), (0, 0)),)}, NEGATIVE),
    (SINGLES, "tallies", {"x_counts": (((0, 0), (0, 0), (0, NAN), (0, 0)),)}, FINITE),
    (("three-state",), "tallies", {"x_counts": (((9, 9), (9, 9), (900, 9), (1, 0)),)}, "never send"),
    (("three-state",), "tallies", {"x_counts": (((9, 9), (9, 9), (900, 9), (0, 1)),)}, "never send"),
    (SINGLES, "tallies", {"n_z_kept": 300_001}, "more bits are kept"),
    (("bb84",), "tallies", {"slots_sent": 350_000}, "more detections than slots"),
    (SINGLES, "tallies", {"n_z": (1, 1), "x_counts": FOUR * 2, "n_z_kept": 2}, "counts of 2 intensities"),
    (SINGLES, "tallies", {"slots_sent": 10**12}, "may be multi-photon"),
    (("three-state",), "tallies", {"x_counts": (((6_500, 6_490), (6_560, 6_540), (5_320, 3_370), (0, 0)),)}, "be 1/2"),
    (("bb84",), "tallies", {"x_counts": (((8_060, 8_040), (8_070, 8_050), (1_660, 1_180), (1_190, 1_660)),)}, "be 1/2"),
    (ALL, "tallies", {"z_detections": 0}, "not those of its detections"),
    (ALL, "tallies", {"x_detections": 0}, "not those of its detections"),
    *((ALL, "tallies", {name: NAN}, FINITE) for name in (*SEEN, "z_detections", "x_detections")),
    *((ALL, "tallies", {name: -1}, NEGATIVE) for name in (*SEEN, "z_detections", "x_detections")),
    *((ALL, "tallies", {name: 10**9}, "clicks than slots") for name in ("cross_clicks", "double_clicks")),
    (ALL, "tallies", {"z_ones_steps": 2**16}, "share above 1"),
    *((ALL, "receiver", {name: v}, "probability") for name in ("p_z_lower", "p_z_upper") for v in (0.0, 1.0, NAN)),
    (ALL, "receiver", {"p_z_lower": 0.93, "p_z_upper": 0.91}, "interval"),
    (ALL, "receiver", {"p_z_lower": 0.93, "p_z_upper": 0.94}, "not in its interval"),
    (ALL, "receiver", {"p_z_lower": 0.88, "p_z_upper": 0.89}, "not in its interval"),
    *((ALL, "receiver", {"mismatch": value}, "mismatch") for value in (-0.1, 1.0, NAN)),
    *((ALL, "receiver", {"eps": value}, "receiver bound is wrong") for value in (-1e-12, 1.1, NAN, INF, HUGE)),
    (ALL, "receiver", {"eps": 1e-9}, "overspent"),
    (ALL, "receiver", {"cross_basis": "guess"}, "no rule"),
    (ALL, "settings", {"protocol": "b92"}, "no proof"),
    *((ALL, "settings", {p: v}, "probability") for p in ("p_z_alice", "p_z_bob") for v in (0.0, 1.0, -0.1, NAN, 1e-17)),
    *((SINGLES, "source", {name: -0.1}, NEGATIVE) for name in ("mean_photon_number_upper", "g2_upper")),
    *((SINGLES, "source", {name: v}, FINITE) for name in ("mean_photon_number_upper", "g2_upper") for v in (NAN, INF)),
    *((SINGLES, "source", {"mean_photon_number_upper": value}, FINITE) for value in (1.1e6, 1e308, HUGE)),
    *((SINGLES, "source", {"g2_upper": value}, FINITE) for value in (1.1e6, 1e308, HUGE)),
    (SINGLES, "source", {"mean_photon_number_upper": 0.0}, "photon number is 0"),
    (SINGLES, "source", {"g2_upper": 0.0}, "g2"),
    (SINGLES, "source", {"g2_upper": 50.0}, "may be multi-photon"),
    (ALL, "source", {"eps": 1e-9}, "overspent"),
    (ALL, "source", {"eps": 1.0}, "overspent"),
    *((ALL, "source", {"eps": value}, "source bound is wrong") for value in (-1e-12, 1.1, NAN, INF, HUGE)),
    *((ALL, "budget", {e: v}, "epsilon") for e in TOTALS for v in (0.0, 1.0, -1e-10, NAN)),
    (ALL, "budget", {"eps_cor": 0.26e-14, "eps_auth": 0.26e-14}, "too little"),
    (ALL, "budget", {"eps_cor": 1e-28}, "eps_cor is below"),
    (ALL, "budget", {"eps_auth": 3.3e-21}, "eps_auth is below"),
    *((("decoy-bb84",), "source", {"phase_bits": bits}, "fewer than 16") for bits in (0, 3)),
    *((ALL, "tallies", {"z_ones_steps": steps}, "detector V is too weak") for steps in (0, 28_000)),
    *((ALL, "tallies", {"z_ones_steps": steps}, "detector H is too weak") for steps in (37_500, 65_535)),
    (("bb84",), "tallies", {"x_counts": (((7_060, 9_040), (7_070, 9_050), (2_760, 80), (90, 2_760)),)}, "detector R"),
    (("bb84",), "tallies", {"x_counts": (((9_060, 7_040), (9_070, 7_050), (2_760, 80), (90, 2_760)),)}, "detector L"),
    (ALL, "tallies", {"z_detections": 10_000_000}, "the X detectors are too weak"),
    (("bb84",), "tallies", {"z_detections": 300_000}, "the Z detectors are too weak"),
    (("bb84",), "tallies", {"x_counts": (((7_460, 7_440), (7_470, 7_450), (3_960, 80), (90, 3_960)),)}, "share of Z"),
    (("bb84",), "tallies", {"x_counts": (((8_660, 8_640), (8_670, 8_650), (1_560, 80), (90, 1_560)),)}, "share of Z"),
    (ALL, "budget", {"accounting": "generous"}, "accounting"),
    (ALL, "budget", {"tails": "short"}, "bounds"),
    (("decoy-bb84",), "tallies", {"x_counts": DARK}, "never sent"),
    (("decoy-bb84",), "tallies", {"n_z": (4e6, 5e5, 12_000, 1)}, "never sent"),
    (("decoy-bb84",), "tallies", {"n_z": (4e6, 5e5, 12_000, 1), "x_counts": DARK}, "never sent"),
    (("decoy-bb84",), "tallies", {"n_z": (4e6, 5e5), "x_counts": LEVELS[:2]}, "not of three"),
    (("decoy-bb84",), "tallies", {"n_z_kept": 400_000}, "may be multi-photon"),
    (("decoy-bb84",), "settings", {"intensities": ()}, "three intensities"),
    (("decoy-bb84",), "settings", {"p_intensities": (0.7, 0.3)}, "three intensities"),
    (("decoy-bb84",), "settings", {"intensities": (0.36, 0.36, 0.0)}, "not brighter"),
    (("decoy-bb84",), "settings", {"intensities": (0.36, 0.3, 0.06)}, "not brighter"),
    (("decoy-bb84",), "settings", {"intensities": (NAN, 0.1, 0.0)}, "absurdly"),
    (("decoy-bb84",), "settings", {"intensities": (0.36, NAN, 0.0)}, "not brighter"),
    (("decoy-bb84",), "settings", {"intensities": (INF, 0.1, 0.0)}, "absurdly"),
    (("decoy-bb84",), "settings", {"intensities": (11.0, 0.1, 0.0)}, "absurdly"),
    *((("decoy-bb84",), "settings", {"intensities": (0.3, *mu)}, "absurdly") for mu in ((HUGE, 0.0), (HUGE, 1e-3))),
    (("decoy-bb84",), "settings", {"intensities": (0.36, 0.1, HUGE)}, "decoy is not brighter"),
    (("decoy-bb84",), "settings", {"intensities": (0.36, 0.0, 0.0)}, "decoy is not brighter"),
    (("decoy-bb84",), "settings", {"intensities": (0.36, 0.1, -0.01)}, "decoy is not brighter"),
    (("decoy-bb84",), "settings", {"p_intensities": (1.0, 0.0, 0.0)}, "probability"),
    (("decoy-bb84",), "settings", {"p_intensities": (0.5, 0.3, 0.21)}, "sum to 1"),
    (("decoy-bb84",), "settings", {"p_intensities": (0.5, 0.3, NAN)}, "probability"),
    (ALL, "leak_ec_bits", {"": -1}, "leak is negative"),
    *((ALL, "leak_ec_bits", {"": value}, "leak is negative") for value in (NAN, INF, HUGE)),
    (ALL, "verify", {"": -1}, "leak is negative"),
]
"""(protocols, what is wrong, its wrong values, a word of the reason)."""

E = 1e-10
EDGES: list[tuple[str, tuple[float, ...], float]] = [
    ("price", (0.5, 2.0, math.log(2)), math.log(4 / 3) / math.log(2)),
    ("steepest", (0.5, 2.0), math.log(5)),
    ("odds", (0.9, 0.0), 4.5),
    ("odds", (0.1, 0.5), 0.55**2 / 0.045),
    ("weakened", (0.5, 0.5), 1 / 3),
    ("weakened", (0.2, 0.1), 0.18 / 0.98),
    ("sigmas", (0.5, 64), 0.5),
    ("sigmas", (0.2, 0), 3.2),
    ("virtual", (0.8,), 2 / 3),
    ("eps_hash", (16,), 2.0**-103),
    ("eps_hash", (17,), 2.0**-102),
    ("eps_verify", (64,), 2.0**-103),
    ("eps_verify", (65,), 2.0**-102),
    *(("relative_entropy_nats", (a, 0.3), -math.log(0.7)) for a in (0.0, -0.5)),
    *(("relative_entropy_nats", (a, 0.3), -math.log(0.3)) for a in (1.0, 1.2)),
    ("relative_entropy_nats", (0.25, 0.5), math.log(2) - 0.25 * math.log(4) - 0.75 * math.log(4 / 3)),
    *(("binary_entropy", (x,), 0.0) for x in (-1.0, 0.0, 1.0, 1.1)),
    ("binary_entropy", (0.25,), 0.5 + 0.75 * math.log2(4 / 3)),
    *((name, args, 0.0) for name in ("binomial_upper", "exact_binomial_upper") for args in ((0, 0.5, E), (9, 0.0, E))),
    *((name, (9, 1.0, E), 9.0) for name in ("binomial_upper", "exact_binomial_upper")),
    *((name, (1, 0.5, E), 1.0) for name in ("binomial_upper", "exact_binomial_upper")),
    ("binomial_upper", (2.5, 0.5, E), 2.5),
    ("exact_binomial_upper", (2.5, 0.5, E), 3.0),
    ("exact_binomial_upper", (4, 0.5, 0.3125), 2.0),
    ("exact_binomial_upper", (4, 0.5, 0.93), 1.0),
    ("exact_binomial_upper", (4, 0.5, 0.94), 0.0),
    *((f"{form}sample_upper", (9, 0.0, E), 0.0) for form in ("", "exact_")),
    *((f"{form}sample_upper", (0, 1.0, E), math.log(1 / E) / math.log(2)) for form in ("", "exact_")),
    *((f"{form}sample_upper", (0, 0.5, E), math.log(1 / E) / math.log(3)) for form in ("", "exact_")),
    ("exact_sample_upper", (1, 0.01, 0.5), 0.186996756257),
    *((f"{form}sample_upper", (0, 0.1, 0.95), math.log(0.95) / math.log(0.1 / 1.1)) for form in ("", "exact_")),
    *(("mean_upper", (n, n, E), float(n)) for n in (0, 1, 7)),
    ("mean_upper", (0, 10, E), 9.0),
    ("mean_upper", (9, 7, E), 7.0),
    *(("mean_lower", (0, n, E), 0.0) for n in (0, 1, 7)),
    ("mean_lower", (1, 10, 0.5), 0.2413482899),
    ("mean_lower", (10, 10, E), 1.0),
    ("mean_lower", (12, 10, E), 1.0),
    *(("anytime_binomial_upper", args, 0.0) for args in ((0, 0.5, E), (9, 0.0, E))),
    *(("anytime_binomial_upper", (n, p, E), n) for n, p in ((9, 1.0), (1, 0.5), (2.5, 0.5))),
    ("anytime_sample_upper", (9, 0.0, E), 0.0),
    ("anytime_sample_upper", (0, 1.0, E), math.log(96 / E) / math.log(2)),
    ("anytime_sample_upper", (0, 1e-9, 0.5), math.log(192) / math.log(1e9)),
    *(("anytime_mean_upper", (n, n, E), float(n)) for n in (0, 1, 7)),
    ("anytime_mean_upper", (0, 10, E), 10 * (1 - (E / 96) ** 0.1)),
    *(("anytime_mean_upper", (k, 7, E), 7.0) for k in (6.999, 9)),
    *(("anytime_mean_lower", (0, n, E), 0.0) for n in (0, 1, 7)),
    ("anytime_mean_lower", (1, 10, 1e-13), 0.0),
    ("anytime_mean_lower", (1, 10, 0.5), 0.002010261772),
    *(("anytime_mean_lower", (k, 10, E), 10 * (E / 96) ** 0.1) for k in (10, 12)),
]
"""(bound, arguments, value): where little was counted or nothing is uncertain; from closed forms where there is one."""
BOUNDS = ("binomial_upper", "sample_upper", "mean_upper", "mean_lower")
BOUNDS = (
    *BOUNDS,
    *(f"anytime_{name}" for name in BOUNDS),
    "exact_binomial_upper",
    "exact_sample_upper",
)
REFUSED = [(9.0, 0.5, eps) for eps in (0.0, 1.0, 1.1, -1.0, NAN)] + [(k, 0.5, E) for k in (-1.0, NAN, INF)]
"""Arguments that every bound refuses with ValueError."""


def nonsense() -> list[tuple[dict[str, Any], str]]:
    """(case, a word of the reason that it must be refused for)."""
    made = []
    for protocols, part, values, word in NONSENSE:
        for good in (GOOD[protocol] for protocol in protocols):
            if part == "tallies":
                wrong = counted(good[part], **values)
            else:
                wrong = values[""] if "" in values else {**good.get(part, {}), **values}
            made.append(({**good, part: wrong}, word))
    return made


if __name__ == "__main__":
    main()
