"""`qkd plan rate`: the expected key at given settings, from expected tallies, without a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
from rich.console import Console

from common.cli.output import emit, json_option, table
from common.errors import InputError
from common.planning.link_model import DECOY, EXPECTED_F_EC, PROTOCOL_NAMES, ReceiverRules, check_link, receiver_bounds
from common.planning.optimise import optimise
from common.planning.presets import PRESETS, LinkParameters
from common.planning.rate import Rate, Task, evaluate, require_proof
from common.security.budget import TAILS
from common.security.finite_key import EpsilonBudget
from common.security.tallies import SourceBounds

FIELD = PRESETS["field-14.6dB"]
LARGEST_PLANNED_BLOCK = 1_000_000_000_000


def _numbers(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers") from None


@click.command("rate")
@click.option("--protocol", type=click.Choice(PROTOCOL_NAMES), default="three-state", show_default=True,
              help="States and proof of the link.")  # fmt: skip
@click.option("--loss-db", type=float, default=FIELD.loss_db, show_default=True, help="Loss of the channel in dB.")
@click.option("--mean-photon-number", type=float, help="<n> at Alice's exit [default: 0.292]; decoy-bb84: signal.")
@click.option("--g2", type=float, default=FIELD.g2, show_default=True, help="g2(0) of a single-photon source.")
@click.option("--p-z-alice", type=float, help="Probability that Alice prepares Z [default: the best].")
@click.option("--p-z-bob", type=float, default=FIELD.p_z_bob, show_default=True,
              help="Splitting ratio of Bob's receiver.")  # fmt: skip
@click.option("--block-size", type=int, default=100_000_000, show_default=True, help="Received detections of a block.")
@click.option("--f-ec", type=float, default=EXPECTED_F_EC, show_default=True,
              help="Disclosed bits over the Shannon limit.")  # fmt: skip
@click.option("--misalignment", type=float, default=FIELD.misalignment, show_default=True,
              help="Error rate of light without background.")  # fmt: skip
@click.option(
    "--dark-probability", type=float, default=1.47e-7, show_default=True,
    help="Dark clicks per gate, all detectors together.",
)
@click.option("--accounting", type=click.Choice(["composable", "paper"]), default="composable", show_default=True,
              help="Composable, or the paper's for comparison.")  # fmt: skip
@click.option("--attenuation-db", type=float, default=0.0, show_default=True, help="Pre-attenuation at Alice's exit.")
@click.option("--intensities", callback=_numbers, metavar="S,D,V",
              help="Mean photon numbers with decoy-bb84 [default: the best]")  # fmt: skip
@click.option("--p-intensities", callback=_numbers, metavar="S,D,V", help="Their probabilities [default: the best]")
@click.option("--receiver-efficiency", type=float, default=FIELD.receiver_efficiency, show_default=True,
              help="Transmittance of Bob's optics.")  # fmt: skip
@click.option("--detector-efficiency", type=float, default=FIELD.detector_efficiency, show_default=True,
              help="Efficiency of each detector.")  # fmt: skip
@click.option("--dead-time-ps", type=int, default=0, show_default=True, help="Bob's common dead time.")
@click.option("--mean-photon-number-upper", type=float, help="Bound for the proof [default: --mean-photon-number].")
@click.option("--g2-upper", type=float, help="Bound for the proof [default: --g2].")
@click.option("--mismatch", type=float, default=0.0, show_default=True,
              help="Mismatch of the four detectors' efficiencies.")  # fmt: skip
@click.option("--eps-total", type=float, default=1e-14, show_default=True, help="Security parameter of one block.")
@click.option(
    "--tails", type=click.Choice(sorted(TAILS)), default="anytime", show_default=True, help="Form of the tail bounds."
)
@json_option
def command(
    protocol: str,
    mean_photon_number: float | None,
    p_z_alice: float | None,
    intensities: tuple[float, ...],
    p_intensities: tuple[float, ...],
    attenuation_db: float,
    as_json: bool,
    **options: Any,
) -> int:
    """Expected key of one block at these settings; what is marked "the best" is chosen as `qkd plan` would.

    Example: qkd plan rate --loss-db 0.17 --p-z-alice 0.96 --block-size 100000000
    """
    require_proof(protocol)
    task = _task(protocol, mean_photon_number, options)
    rate = _rate(task, mean_photon_number, p_z_alice, intensities, p_intensities, attenuation_db)
    emit(rate.document(), as_json, lambda console: _render(console, rate))
    return 0


def _task(protocol: str, mean_photon_number: float | None, options: dict[str, Any]) -> Task:
    physics = ("loss_db", "g2", "misalignment", "receiver_efficiency", "detector_efficiency", "p_z_bob")
    values = {name: options[name] for name in physics}
    darks = options["dark_probability"]
    if not 0.0 <= darks < 1.0:
        raise InputError(f"dark probability {darks} is not in 0 .. 1", remedy="Correct --dark-probability.")
    if protocol != DECOY and mean_photon_number is not None:
        values["mean_photon_number"] = mean_photon_number
    link: LinkParameters = replace(FIELD, dark_rate_cps=darks / (FIELD.gate_ps * 1e-12), **values)
    check_link(link)
    if not 1 <= options["block_size"] <= LARGEST_PLANNED_BLOCK:
        raise InputError(f"a block of {options['block_size']} detections", remedy="Give --block-size of 1 or more.")
    if link.mean_photon_number == 0.0:
        raise InputError("the source emits nothing: <n> = 0", remedy="Give --mean-photon-number above 0.")
    upper, g2_upper = options["mean_photon_number_upper"], options["g2_upper"]
    source = SourceBounds(
        link.mean_photon_number if upper is None else upper, link.g2 if g2_upper is None else g2_upper
    )
    budget = EpsilonBudget(options["accounting"], options["eps_total"], tails=options["tails"])
    rules = ReceiverRules(options["dead_time_ps"])
    if rules.dead_time_ps < 0:
        raise InputError(f"a dead time of {rules.dead_time_ps} ps", remedy="Give --dead-time-ps of 0 or more.")
    if not 0.0 <= options["mismatch"] < 1.0:
        raise InputError(f"mismatch {options['mismatch']} is not in 0 .. 1", remedy="Correct --mismatch.")
    receiver = replace(receiver_bounds(link, rules), mismatch=options["mismatch"])
    return Task(link, protocol, options["block_size"], budget, options["f_ec"], rules, source, receiver)


def _rate(
    task: Task,
    mean_photon_number: float | None,
    p_z_alice: float | None,
    intensities: tuple[float, ...],
    p_intensities: tuple[float, ...],
    attenuation_db: float,
) -> Rate:
    if task.protocol != DECOY:
        if p_z_alice is not None or intensities or p_intensities:
            settings = task.settings(0.5 if p_z_alice is None else p_z_alice, intensities, p_intensities)
            if p_z_alice is not None:
                return evaluate(task, settings, attenuation_db)
            evaluate(task, settings, attenuation_db)
        return optimise(task, {"attenuation_db": attenuation_db}, second_opinion=False).best
    if attenuation_db:
        raise InputError("decoy-bb84 has intensities, no pre-attenuation", remedy="Leave --attenuation-db out.")
    if p_z_alice is not None and intensities and p_intensities:
        return evaluate(task, task.settings(p_z_alice, intensities, p_intensities))
    return optimise(task, _fixed(mean_photon_number, p_z_alice, intensities, p_intensities), second_opinion=False).best


def _fixed(
    mean_photon_number: float | None,
    p_z_alice: float | None,
    intensities: tuple[float, ...],
    p_intensities: tuple[float, ...],
) -> dict[str, float]:
    """What is given of a decoy source, by the names of the search; the vacuum is then 0."""
    fixed = {} if p_z_alice is None else {"p_z_alice": p_z_alice}
    if mean_photon_number is not None:
        fixed["signal"] = mean_photon_number
    for name, values in (("--intensities", intensities), ("--p-intensities", p_intensities)):
        if values and not (len(values) == 3 and all(0.0 <= value <= 1.0 for value in values) and values[0] > 0.0):
            raise InputError(f"{name} {values}", remedy=f"Give {name} as three numbers in 0 .. 1.")
    if intensities:
        if intensities[2] != 0.0:
            raise InputError("a vacuum above 0 needs all settings", remedy="Give --p-z-alice and --p-intensities too.")
        fixed |= {"signal": intensities[0], "decoy_ratio": intensities[1] / intensities[0]}
    if p_intensities:
        fixed |= {"p_signal": p_intensities[0], "p_decoy_share": p_intensities[1] / max(1.0 - p_intensities[0], 1e-9)}
    return fixed


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _render(console: Console, rate: Rate) -> None:
    document = rate.document()
    terms = document.pop("terms")
    rows = [(name, _text(value)) for name, value in document.items() if value not in (None, [])]
    console.print(table("expected block", ("quantity", "value"), rows))
    console.print(table("terms of the bound", ("term", "value"), [(name, f"{v:.6g}") for name, v in terms.items()]))
