"""The tables of `docs/reproduction.md`, calculated afresh; `python -m tests.golden.reproduction` writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.planning.curves import coherent_rates
from common.planning.link_model import EXPECTED_F_EC
from common.planning.optimise import recommended_settings
from common.planning.paper import (
    BUDGET,
    CLAIMED_ADVANTAGE_FIELD_DB,
    CLAIMED_ADVANTAGE_NEAR_ZERO_LOSS_DB,
    MEASURED,
    SOURCE_EFFICIENCY,
)
from common.planning.presets import PRESETS, LinkParameters
from common.planning.rate import Rate, Task, evaluate
from common.security.bounds import binary_entropy
from common.security.budget import EpsilonBudget
from common.security.rates import (
    advantage_db,
    attenuation_threshold,
    boundary_g2,
    boundary_mean_photon_number,
    coherent_asymptotic,
    coherent_limit,
    single_photon_asymptotic,
    single_photon_limit,
)

PAGE = Path(__file__).parents[2] / "docs" / "reproduction.md"
MEASURED_RUNS = Path(__file__).with_name("end_to_end.json")
BLOCK = 100_000_000
PAPER = replace(BUDGET, accounting="paper")
FIELD = PRESETS["field-14.6dB"]
BOUNDS_OF = {"three-state": 5, "bb84": 3, "decoy-bb84": 9}


@lru_cache(maxsize=64)
def rate(preset: str, protocol: str, budget: EpsilonBudget = BUDGET) -> Rate:
    """A block of 1e8 at the best settings of composable accounting."""
    link = PRESETS[preset]
    task = Task(link, protocol, BLOCK, budget)
    return evaluate(task, recommended_settings(link, BLOCK, protocol))


def naive(preset: str) -> tuple[float, float]:
    """(phase error rate, bits per pulse) if |L> were as faultless as |R>: paper accounting, and not a proof."""
    found = rate(preset, "three-state", PAPER)
    ledger, settings = found.ledger, found.settings
    p_z, q_z = settings.p_z_alice, settings.p_z_bob
    errors = ledger.tallies.x_counts[0][2][1]
    ratio = p_z * q_z / ((1.0 - p_z) * (1.0 - q_z))
    phi = PAPER.bounds.sample_upper(errors, ratio, PAPER.eps_term(5)) / ledger.n_u_lower
    spent = ledger.leak_ec_bits + ledger.leak_verify_bits + ledger.pa_cost_bits
    return phi, (ledger.n_u_lower * (1.0 - binary_entropy(phi)) - spent) / ledger.tallies.slots_sent


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [" | ".join(row) for row in (head, ["---"] * len(list(head)), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def percent(ours: float, theirs: float) -> str:
    return f"{100.0 * (ours / theirs - 1.0):+.1f} %"


def difference(ours: float, theirs: float) -> str:
    off = 100.0 * (ours / theirs - 1.0)
    return "below 0.01 %" if abs(off) < 0.01 else f"{off:+.2f} %"


def equations() -> str:
    """Equations (1) to (3)."""
    eta, n, g2 = 0.5, 0.71, 0.00698
    half_g2 = g2 * n * n / 2.0
    rows = [
        ("(1) R_WCP at eta = 1/2", f"{0.5 / math.e:.12f}", f"{coherent_limit(eta):.12f}"),
        (
            "(2) above eta_th: <n> = 0.71, g2 = 0.00698, eta = 1/2",
            f"{eta * n - half_g2 * (eta**2 + 1.0):.12f}",
            f"{single_photon_limit(eta, n, g2):.12f}",
        ),
        (
            "(2) below eta_th: the same source, eta = 0.001",
            f"{1e-6 / (2 * g2 * (1e-6 + 1)):.12f}",
            f"{single_photon_limit(0.001, n, g2):.12f}",
        ),
        (
            "(2) eta_th of the same source",
            f"{(1 - math.sqrt(1 - 4 * g2**2 * n**2)) / (2 * g2 * n):.12f}",
            f"{attenuation_threshold(n, g2):.12f}",
        ),
        ("(3) smallest <n>: 1/e", f"{1 / math.e:.12f}", f"{boundary_mean_photon_number(1.0, 0.0):.12f}"),
        ("(3) largest g2: e/4", f"{math.e / 4:.12f}", f"{boundary_g2(1.0, 1.0):.12f}"),
    ]
    return table(("equation", "as printed", "ours"), rows)


def rates() -> str:
    """The five measured points."""
    rows = []
    for preset, (loss, measured) in MEASURED.items():
        ours = [
            rate(preset, "three-state").bits_per_pulse,
            rate(preset, "three-state", PAPER).bits_per_pulse,
            rate(preset, "bb84").bits_per_pulse,
        ]
        cells = [f"{value:.3e} ({percent(value, measured)})" for value in ours]
        rows.append((f"{loss:g}", f"{measured:.2e}", *cells))
    head = ("loss dB", "measured", "three states, composable", "three states, `paper`")
    return table((*head, "four states, composable"), rows)


def measured_runs() -> list[dict[str, Any]]:
    """Rows of `qkd reproduce --json` of both protocols, as they were measured."""
    return list(json.loads(MEASURED_RUNS.read_text())["rows"])


def end_to_end() -> str:
    """What both daemons delivered: a stored measurement, beside the paper's and what was to be expected of it."""
    rows = []
    for run in measured_runs():
        ours, theirs = run["bits_per_pulse"], run["paper_bits_per_pulse"]
        cells = [f"{theirs:.2e}", f"{ours:.3e} ({percent(ours, theirs)})", f"{expected_run(run):.3e}"]
        cells += [f"{100 * run['qber']:.2f} %", f"{run['f_ec']:.3f}", f"{run['frames_failed']} of {run['frames']}"]
        cells += [f"{run['real_time_factor']:.1f}", f"{run['seconds_after_last_detection']:.1f}"]
        cells += [f"{run['memory_peak_bytes'] / 1e6:.0f}", f"{run['duration_s']:.0f}"]
        rows.append((run["protocol"], f"{run['loss_db']:g}", *cells))
    head = ("protocol", "loss dB", "paper", "delivered", "expected", "error rate", "f_EC", "frames failed")
    return table((*head, "real time", "s after light", "MB", "s in all"), rows)


def expected_run(run: dict[str, Any]) -> float:
    """Bits per pulse that `qkd plan rate` expects at the f_EC and the settings of a run."""
    link, protocol = PRESETS[run["preset"]], run["protocol"]
    task = Task(link, protocol, run["block_size"], BUDGET, f_ec=run["f_ec"])
    return evaluate(task, recommended_settings(link, run["block_size"], protocol)).bits_per_pulse


def phase_errors() -> str:
    """Mismatched events against the errors of |R> alone."""
    rows = []
    for preset, (loss, measured) in MEASURED.items():
        proven = rate(preset, "three-state", PAPER)
        phi, bits = naive(preset)
        rows.append(
            (
                f"{loss:g}",
                f"{100 * proven.expected.qber:.2f} %",
                f"{100 * proven.ledger.phi_upper:.2f} %",
                f"{100 * phi:.2f} %",
                f"{percent(proven.bits_per_pulse, measured)}",
                f"{percent(bits, measured)}",
            )
        )
    head = ("loss dB", "error rate", "phi, mismatched events", "phi, errors of R alone")
    return table((*head, "rate, mismatched", "rate, R alone"), rows)


def advantages() -> str:
    """The advantage over laser pulses."""
    rows = []
    for preset, claim in (
        ("lab-0.17dB", CLAIMED_ADVANTAGE_NEAR_ZERO_LOSS_DB),
        ("field-14.6dB", CLAIMED_ADVANTAGE_FIELD_DB),
    ):
        loss, measured = MEASURED[preset]
        (laser,) = coherent_rates([loss])
        link = PRESETS[preset]
        errors = (link.misalignment, link.dark_probability, EXPECTED_F_EC)
        infinite = single_photon_asymptotic(link.transmittance, link.mean_photon_number, link.g2, *errors)
        found = (
            advantage_db(rate(preset, "three-state").bits_per_pulse, laser),
            advantage_db(rate(preset, "bb84").bits_per_pulse, laser),
            advantage_db(measured, laser),
            advantage_db(infinite, coherent_asymptotic(link.transmittance, *errors)),
        )
        rows.append((f"{loss:g}", f"{claim:.2f}", f"{laser:.3e}", *(f"{value:+.2f}" for value in found)))
    ideal = advantage_db(single_photon_limit(1.0, SOURCE_EFFICIENCY, FIELD.g2), coherent_limit(1.0))
    rows.append(("ideal, <n> = 0.71", "", f"{coherent_limit(1.0):.3e}", "", "", "", f"{ideal:+.2f}"))
    head = ("loss dB", "paper claims, dB", "our laser pulses, bits/pulse", "three states, dB", "four states, dB")
    return table((*head, "measured over our laser pulses, dB", "infinite blocks, dB"), rows)


def epsilons() -> str:
    """What each accounting spends."""
    rows = []
    for protocol, bounds in BOUNDS_OF.items():
        for name, budget in (("composable", BUDGET), ("paper", PAPER)):
            term = budget.eps_term(bounds)
            spent = budget.eps_spent(bounds * term, 0.0)
            cells = (f"{term:.2e}", str(bounds), f"{-math.log(term):.1f}", f"{budget.eps_pa:.2e}")
            rows.append((protocol, f"`{name}`", *cells, f"{budget.pa_cost_bits:.1f}", f"{spent:.2e}"))
    head = ("protocol", "accounting", "eps of a bound", "bounds", "ln(1/eps)", "eps_PA", "2 log2(1/(2 eps_PA))")
    return table((*head, "spent in all"), rows)


def receiver() -> str:
    """What the bounds of Bob's receiver cost, at the best settings of an ideal one."""
    rows = []
    for preset in ("lab-0.17dB", "field-14.6dB"):
        for protocol in BOUNDS_OF:
            ideal = rate(preset, protocol)
            exact = ideal.task.bounds
            several = sum(term.value for term in ideal.ledger.terms if term.name == "several photons in Z, upper")
            cells = [f"{ideal.bits_per_pulse:.3e}", f"{100 * several / sum(ideal.ledger.tallies.n_z):.3f} %"]
            for doubt in (
                replace(exact, p_z_lower=0.899, p_z_upper=0.901),
                *(replace(exact, mismatch=mismatch) for mismatch in (0.01, 0.05, 0.1)),
            ):
                found = evaluate(replace(ideal.task, receiver=doubt), ideal.settings).bits_per_pulse
                cells.append(percent(found, ideal.bits_per_pulse))
            rows.append((f"{ideal.task.link.loss_db:g}", protocol, *cells))
    head = ("loss dB", "protocol", "ideal", "several photons, part of Z", "splitter 0.899 .. 0.901", "mismatch 1 %")
    return table((*head, "5 %", "10 %"), rows)


def detector(link: LinkParameters) -> Any:
    """The link's receiver for the TNO package: its darks are those of one of two detectors."""
    from tno.quantum.communication.qkd_key_rate.quantum import standard_detector

    return standard_detector.customise(
        dark_count_rate=link.dark_probability / 2.0,
        polarization_drift=math.asin(math.sqrt(link.misalignment)),
        efficiency_party=link.receiver_efficiency * link.detector_efficiency,
    )


def package() -> str:
    """Asymptotic rates beside those of the TNO package, f_EC = 1."""
    from scipy.optimize import minimize_scalar
    from tno.quantum.communication.qkd_key_rate.quantum.bb84 import BB84FullyAsymptoticKeyRateEstimate
    from tno.quantum.communication.qkd_key_rate.quantum.bb84_single_photon import BB84SingleAsymptoticKeyRateEstimate

    rows = []
    for preset, (loss, _) in MEASURED.items():
        link = PRESETS[preset]
        laser = BB84FullyAsymptoticKeyRateEstimate(detector=detector(link))
        best = minimize_scalar(lambda mu: -laser.compute_rate(mu=mu, attenuation=loss), (0.3, 0.5, 0.9))  # noqa: B023
        single = BB84SingleAsymptoticKeyRateEstimate(detector=detector(link)).compute_rate(mu=1.0, attenuation=loss)
        errors = (link.misalignment, link.dark_probability, 1.0)
        ours = (
            coherent_asymptotic(link.transmittance, *errors),
            single_photon_asymptotic(link.transmittance, 1.0, 0.0, *errors),
        )
        cells = [f"{-best.fun:.4e}", f"{ours[0]:.4e}", difference(ours[0], -best.fun)]
        cells += [f"{single:.4e}", f"{ours[1]:.4e}", difference(ours[1], single)]
        rows.append((f"{loss:g}", *cells))
    head = ("loss dB", "laser pulses: package", "ours", "difference", "one photon a pulse: package", "ours")
    return table((*head, "difference"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "equations": equations,
    "rates": rates,
    "end to end": end_to_end,
    "phase errors": phase_errors,
    "advantages": advantages,
    "epsilons": epsilons,
    "receiver": receiver,
    "package": package,
}


def mark(name: str) -> tuple[str, str]:
    """What stands before and after a table on the page."""
    return f"<!-- table: {name} -->\n", "\n<!-- end -->"


def written(page: str, name: str) -> str:
    """A table as the page has it."""
    start, end = mark(name)
    return page.split(start, 1)[1].split(end, 1)[0]


def main() -> None:
    """Write all tables into the page."""
    page = PAGE.read_text()
    for name, make in TABLES.items():
        start, end = mark(name)
        before, rest = page.split(start, 1)
        page = before + start + make() + end + rest.split(end, 1)[1]
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
