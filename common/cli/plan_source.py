"""`qkd plan g2` and `qkd plan source`: bounds of the source from measurements, into a calibration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from common.calibration_file import load_calibration, update_calibration
from common.cli.output import emit, json_option, table
from common.errors import InputError
from common.planning.g2 import REACH_SLOTS, HbtMeasurement, measure_g2
from common.planning.presets import PRESETS
from common.planning.tag_files import read_tags
from common.security.source import mean_photon_number_bounds

FIELD = PRESETS["field-14.6dB"]
EPS = 1e-11


def _pair(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not two channels A,B") from None
    return first, second


def _check_eps(eps: float) -> None:
    if not 0.0 < eps < 1.0:
        raise InputError(f"--eps {eps} is not strictly between 0 and 1", remedy="Give --eps such as 1e-11.")


out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the bounds into this calibration file (TOML); other measurements in it stay.",
)


@click.command("g2")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--clock-rate-hz", type=float, default=FIELD.clock_rate_hz, show_default=True,
              help="Pulses of the source per second.")  # fmt: skip
@click.option("--gate-ps", type=float, default=FIELD.gate_ps, show_default=True, help="Full width around a pulse.")
@click.option("--channels", "detectors", callback=_pair, metavar="A,B", help="The two detectors [default: all two].")
@click.option("--delay-ps", type=int, default=0, show_default=True, help="How much later detector B reports.")
@click.option("--eps", type=float, default=EPS, show_default=True, help="Probability that the bound is wrong.")
@click.option("--keep-background", is_flag=True, help="Do not take the background off.")
@click.option("--format", "file_format", help="Reader to use [default: by the file's suffix].")
@out_option
@json_option
def g2_command(
    file: Path,
    clock_rate_hz: float,
    gate_ps: float,
    detectors: tuple[int, int] | None,
    delay_ps: int,
    eps: float,
    keep_background: bool,
    file_format: str | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Measure g2(0) from the time tags of two detectors behind a beam splitter, with an upper bound.

    Example: qkd plan g2 hbt.npz --clock-rate-hz 76130000 --out source.toml
    """
    _check_eps(eps)
    times, channels = read_tags(file, file_format)
    try:
        found = measure_g2(times, channels, clock_rate_hz, gate_ps, eps, detectors, delay_ps)
    except InputError as error:
        raise InputError(f"{file}: {error}", remedy=error.remedy) from None
    used = found.raw if keep_background else found.corrected
    document: dict[str, Any] = {
        "g2": used.estimate,
        "g2_upper": used.upper,
        "eps": eps,
        "background_subtracted": not keep_background,
        "g2_uncorrected": found.raw.estimate,
        "g2_uncorrected_upper": found.raw.upper,
        "slots": found.counts.slots,
        "clicks": list(found.counts.clicks),
        "coincidences": found.counts.coincidences,
        "background_cps": list(found.background_cps),
        "side_peaks": found.side_peaks,
        "frequency_offset_ppm": found.frequency_offset_ppm,
        "dip_slots": found.dip_slots,
        "histogram": {
            "distance_slots": list(range(-REACH_SLOTS, REACH_SLOTS + 1)),
            "coincidences": [int(count) for count in found.coincidences],
        },
    }
    if found.dip_slots:
        click.echo(
            f"warning: the dip lies {found.dip_slots} slots from zero: give "
            f"--delay-ps {round(delay_ps + found.dip_slots * 1e12 / clock_rate_hz)}",
            err=True,
        )
    if out is not None:
        details = {name: document[name] for name in ("slots", "clicks", "coincidences", "background_subtracted")}
        update_calibration(out, "g2", details, g2=used.estimate, g2_upper=used.upper, eps_g2=eps)
    emit(document, as_json, lambda console: _render_g2(console, found, used.estimate, used.upper, eps))
    return 1 if found.dip_slots else 0


@click.command("source")
@click.option("--clicks", type=int, required=True, help="Slots with a click of the calibrated detector.")
@click.option("--slots", type=int, required=True, help="Number of slots that were watched.")
@click.option("--efficiency", nargs=2, type=float, required=True, metavar="LOW HIGH", help="Alice's exit to click.")
@click.option("--g2-upper", type=float, help="Bound of g2(0) [default: from --out].")
@click.option("--dark-clicks", type=int, default=0, show_default=True, help="The same with the light blocked.")
@click.option("--dark-slots", type=int, default=0, show_default=True,
              help="Number of slots that were watched in the dark.")  # fmt: skip
@click.option("--eps", type=float, default=EPS, show_default=True, help="Probability that a bound is wrong.")
@click.option("--eps-efficiency", type=float, default=0.0, show_default=True,
              help="Probability that the efficiency is wrong.")  # fmt: skip
@out_option
@json_option
def source_command(
    clicks: int,
    slots: int,
    efficiency: tuple[float, float],
    g2_upper: float | None,
    dark_clicks: int,
    dark_slots: int,
    eps: float,
    eps_efficiency: float,
    out: Path | None,
    as_json: bool,
) -> int:
    """Bound <n> at Alice's exit from the clicks of a detector with a known efficiency.

    Example: qkd plan source --clicks 8900000 --slots 76130000 --efficiency 0.39 0.41 --out source.toml
    """
    _check_eps(eps)
    if not 0.0 <= eps_efficiency < 1.0:
        raise InputError(f"--eps-efficiency {eps_efficiency} is not in 0 .. 1", remedy="Correct --eps-efficiency.")
    if g2_upper is None and out is not None and out.exists():
        g2_upper = load_calibration(out).g2_upper
    if g2_upper is None:
        raise InputError("a bound of g2 is needed", remedy="Give --g2-upper, or run `qkd plan g2 --out` first.")
    if slots < 1 or not 0 <= clicks <= slots or dark_slots < 0 or not 0 <= dark_clicks <= dark_slots:
        raise InputError("clicks must lie between 0 and their slots", remedy="Correct the counts.")
    try:
        found = mean_photon_number_bounds(clicks, slots, efficiency, g2_upper, eps, dark_clicks, dark_slots)
    except ValueError as error:
        raise InputError(str(error), remedy="Correct the named number.") from None
    document = {
        "mean_photon_number": found.estimate,
        "mean_photon_number_lower": found.lower,
        "mean_photon_number_upper": found.upper,
        "eps": eps + eps_efficiency,
    }
    if out is not None:
        details = {"clicks": clicks, "slots": slots, "dark_clicks": dark_clicks, "dark_slots": dark_slots}
        fields = {name: document[name] for name in document if name != "eps"}
        how = details | {"efficiency": list(efficiency)}
        update_calibration(out, "mean_photon_number", how, **fields, eps_mean_photon_number=eps + eps_efficiency)
    rows = [(name, f"{value:.6g}") for name, value in document.items()]
    emit(document, as_json, lambda console: console.print(table("source", ("quantity", "value"), rows)))
    return 0


def _render_g2(console: Console, found: HbtMeasurement, g2: float, upper: float, eps: float) -> None:
    clicks, darks = found.counts.clicks, found.background_cps
    rows = [
        ("g2(0)", f"{g2:.5f}"),
        ("upper bound", f"{upper:.5f}, wrong with probability {eps:g}"),
        ("without background correction", f"{found.raw.estimate:.5f}, at most {found.raw.upper:.5f}"),
        ("coincidences", f"{found.counts.coincidences:,} in {found.counts.slots:,} slots"),
        ("clicks in the gate", f"{clicks[0]:,} and {clicks[1]:,}"),
        ("background", f"{darks[0]:.1f} and {darks[1]:.1f} cps"),
        ("side peaks over independent", f"{found.side_peaks:.3f}"),
        ("comb", f"{found.frequency_offset_ppm:+.3f} ppm"),
    ]
    console.print(table("Hanbury Brown-Twiss", ("quantity", "value"), rows))
