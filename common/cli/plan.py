"""`qkd plan [LINK.toml]`: the settings with the longest expected key; the group of the planner's commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from common.cli.main import LazyGroup
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.planning.link_file import LARGEST_BLOCK, SMALLEST_BLOCK, LinkDescription, load_link, parse_link
from common.planning.link_model import DECOY, PROTOCOL_NAMES
from common.planning.optimise import SECOND_OPINION_TOLERANCE, Optimum, optimise
from common.planning.presets import PRESETS
from common.planning.rate import Rate, Task
from common.planning.what_if import PARAMETERS, Sweep, sweep

ENOUGH_OF_THE_BEST = 0.95
DEFAULT = "optimum"


class PlanGroup(LazyGroup):
    """`qkd plan` without the name of a command is `qkd plan optimum`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in front unless a command or help is asked for."""
        if not (args and (args[0] in self.list_commands(ctx) or args[0] in ("-h", "--help"))):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=PlanGroup)
def command() -> None:
    """What rate to expect and what to set.

    `qkd plan [LINK.toml]` searches the best settings (options: `qkd plan optimum --help`).

    Example: qkd plan link.toml --what-if loss --what-if g2
    """


def _sweep_option(ctx: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    chosen: dict[str, tuple[float, ...]] = {}
    for text in given:
        name, _, values = text.partition("=")
        if name == "all":
            chosen |= {parameter: () for parameter in PARAMETERS if parameter not in chosen}
            continue
        if name not in PARAMETERS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(PARAMETERS)}, all")
        try:
            chosen[name] = tuple(float(value) for value in values.split(",")) if values else ()
        except ValueError:
            raise click.BadParameter(f"{values!r} is not a list of numbers") from None
    return chosen


@click.command(DEFAULT)
@click.argument("link", type=click.Path(path_type=Path), required=False)
@click.option("--preset", type=click.Choice(sorted(PRESETS)), help="Start from this link [default: field-14.6dB].")
@click.option("--protocol", type=click.Choice(PROTOCOL_NAMES),
              help="States and proof of the link [default: three-state].")  # fmt: skip
@click.option("--block-size", type=click.IntRange(SMALLEST_BLOCK, LARGEST_BLOCK), help="Largest block in detections.")
@click.option(
    "--what-if",
    "sweeps",
    multiple=True,
    callback=_sweep_option,
    metavar="NAME[=A,B,...]",
    help="Vary one of " + ", ".join(PARAMETERS) + ", or all; the settings are chosen anew for each value.",
)
@json_option
@quiet_option
def optimum_command(
    link: Path | None,
    preset: str | None,
    protocol: str | None,
    block_size: int | None,
    sweeps: dict[str, tuple[float, ...]],
    as_json: bool,
    quiet: bool,
) -> int:
    """Search Alice's basis probability, pre-attenuation or intensities, and the block size with the longest key.

    LINK is a description in TOML; without one, a preset is planned.

    Example: qkd plan link.toml --what-if loss=10,12,14 --json
    """
    description = _description(link, preset=preset, protocol=protocol, block_size_max=block_size)
    task = description.task(link.resolve().parent if link else Path())
    with _progress(progress_console(quiet)) as progress:
        bar = progress.add_task("genetic search", total=1.0)
        found = _search(description, task, lambda what, part: progress.update(bar, completed=part, description=what))
        sizes = _swept(progress, found.best, "block-size", ())
        swept = [_swept(progress, found.best, name, values) for name, values in sweeps.items() if name != "block-size"]
    if found.disagreement > SECOND_OPINION_TOLERANCE:
        click.echo(f"warning: the two searches differ by {100 * found.disagreement:.2f} %", err=True)
    if "block-size" in sweeps:
        wished = sweeps["block-size"]
        swept.append(sweep(found.best.task, found.best, "block-size", wished) if wished else sizes)
    goal = ENOUGH_OF_THE_BEST * found.best.bits_per_pulse
    enough = next((rate for rate in sizes.rates if rate.bits_per_pulse >= goal > 0.0), None)
    document = found.best.document() | {
        "block_size_for_95_percent": enough.task.block_size if enough else None,
        "methods": found.methods,
        "disagreement": found.disagreement,
        "evaluations": found.evaluations,
        "block_sizes": [_short(rate) for rate in sizes.rates],
        "what_if": [
            {"parameter": one.parameter, "unit": one.unit}
            | {"values": list(one.values), "rates": [_short(rate) for rate in one.rates]}
            for one in swept
        ],
    }
    emit(document, as_json, lambda console: _render(console, found, enough, sizes, swept))
    return 0


def _description(link: Path | None, **options: Any) -> LinkDescription:
    given = {name: value for name, value in options.items() if value is not None}
    if link is None:
        return parse_link(given)
    return parse_link(load_link(link).model_dump(exclude_unset=True) | given, str(link))


def _search(description: LinkDescription, task: Task, tell: Any) -> Optimum:
    """The optimum at the largest block; where a time limits the block, by the rate of detections."""
    if description.block_seconds_max is None:
        return optimise(task, progress=tell)
    first = optimise(task, second_opinion=False, progress=tell).best
    per_second = first.expected.detection_probability * task.link.clock_rate_hz
    return optimise(replace(task, block_size=description.largest_block(per_second)), progress=tell)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )


def _swept(progress: Progress, best: Rate, name: str, values: tuple[float, ...]) -> Sweep:
    bar = progress.add_task(name, total=1.0)
    return sweep(best.task, best, name, values, lambda part: progress.update(bar, completed=part))


def _short(rate: Rate) -> dict[str, Any]:
    names = ("block_size", "block_seconds", "bits_per_pulse", "secret_bits", "secret_key_rate_bps", "p_z_alice")
    more = ("attenuation_db", "intensities", "qber", "phase_error_upper")
    return {name: rate.document()[name] for name in (*names, *more)}


def _render(console: Console, found: Optimum, enough: Rate | None, sizes: Sweep, swept: list[Sweep]) -> None:
    best = found.best
    link = best.task.link
    title = f"{best.settings.protocol} over {link.loss_db:g} dB, blocks of {best.task.block_size:,} detections"
    if best.ledger.refusal:
        console.print(f"[bold]{title}: no key: {best.ledger.refusal}[/]")
    rows = [
        ("secret bits per pulse", f"{best.bits_per_pulse:.4e}"),
        ("secret key rate", f"{best.secret_key_rate_bps:,.0f} bit/s"),
        ("secret bits of a block", f"{best.ledger.ell_bits:,} every {best.seconds:.3g} s"),
        ("QBER", f"{100 * best.expected.qber:.2f} %"),
        ("phase error bound", f"{100 * best.ledger.phi_upper:.2f} %"),
        ("p_z_alice", f"{best.settings.p_z_alice:.5f}"),
    ]
    if best.settings.protocol == DECOY:
        rows.append(("intensities", ", ".join(f"{level:.4f}" for level in best.settings.intensities)))
        rows.append(("their probabilities", ", ".join(f"{share:.5f}" for share in best.settings.p_intensities)))
    else:
        rows.append(("pre-attenuation", f"{best.attenuation_db:.3f} dB"))
    if enough is not None:
        rows.append(("95 % of this rate from", f"{enough.task.block_size:,} detections, {enough.seconds:.3g} s"))
    rows += [(f"found by {name}", f"{merit:.6e}") for name, merit in found.methods.items()]
    console.print(table(title, ("quantity", "value"), rows))
    for one in (sizes, *[other for other in swept if other is not sizes]):
        _render_sweep(console, one)
    console.print("in both configurations:\n[link]", markup=False)
    console.print(f"p_z_alice = {best.settings.p_z_alice}")
    if best.settings.protocol == DECOY:
        console.print(f"intensities = {list(best.settings.intensities)}", markup=False)
        console.print(f"p_intensities = {list(best.settings.p_intensities)}", markup=False)


def _render_sweep(console: Console, one: Sweep) -> None:
    columns = (one.parameter + (f" / {one.unit}" if one.unit else ""), "bits/pulse", "bit/s", "p_z", "dB", "phase <=")
    rows = [
        (f"{value:,.6g}" if one.parameter != "block-size" else f"{value:,.0f}", "no key", "", "", "", "")
        if rate.ledger.ell_bits == 0
        else (
            f"{value:,.6g}" if one.parameter != "block-size" else f"{value:,.0f}",
            f"{rate.bits_per_pulse:.3e}",
            f"{rate.secret_key_rate_bps:,.0f}",
            f"{rate.settings.p_z_alice:.4f}",
            f"{rate.attenuation_db:.2f}",
            f"{100 * rate.ledger.phi_upper:.2f} %",
        )
        for value, rate in zip(one.values, one.rates, strict=True)
    ]
    console.print(table(f"what if: {one.parameter}", columns, rows))
