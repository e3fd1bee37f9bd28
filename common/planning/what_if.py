"""What if the loss, the source, the darks, the misalignment or the block were different? The optimum for each value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from common.errors import InputError
from common.planning.optimise import block_sizes, refined
from common.planning.rate import Rate, Task

PARAMETERS = ("loss", "g2", "mean-photon-number", "darks", "misalignment", "mismatch", "block-size")
_FIELDS = {
    "loss": "loss_db",
    "g2": "g2",
    "mean-photon-number": "mean_photon_number",
    "darks": "dark_rate_cps",
    "misalignment": "misalignment",
}
_UNITS = {"loss": "dB", "darks": "cps", "block-size": "detections"}


@dataclass(frozen=True, slots=True)
class Sweep:
    """One parameter, its values in ascending order, and the optimum of each."""

    parameter: str
    unit: str
    values: tuple[float, ...]
    rates: tuple[Rate, ...]


def sweep(
    task: Task, best: Rate, parameter: str, values: tuple[float, ...] = (), tell: Callable[[float], None] | None = None
) -> Sweep:
    """Vary one parameter, with all settings chosen anew for each value; from the present value outwards.

    Parameters
    ----------
    task, best : the present link and its optimum. parameter : one of ``PARAMETERS``.
    values : to try; empty: a range around the present value. tell : told the part done.
    """
    if parameter not in PARAMETERS:
        raise InputError(f"unknown parameter {parameter!r}", remedy="Known: " + ", ".join(PARAMETERS))
    chosen = sorted(values or _default_values(task, parameter))
    rates: dict[float, Rate] = {}
    above = [value for value in chosen if value >= _present(task, parameter)]
    for chain in (above, chosen[: len(chosen) - len(above)][::-1]):
        start = best
        for value in chain:
            rates[value] = start = refined(changed(task, parameter, value), start)
            if tell is not None:
                tell(len(rates) / len(chosen))
    return Sweep(parameter, _UNITS.get(parameter, ""), tuple(chosen), tuple(rates[value] for value in chosen))


def changed(task: Task, parameter: str, value: float) -> Task:
    """The task with another value; bounds of the source keep their distance to the source's own numbers."""
    if parameter == "block-size":
        return replace(task, block_size=round(value))
    if parameter == "mismatch":
        return replace(task, receiver=replace(task.bounds, mismatch=value))
    field: dict[str, Any] = {_FIELDS[parameter]: value}
    link = replace(task.link, **field)
    source = task.source
    if source is not None and parameter == "g2" and task.link.g2 > 0.0:
        source = replace(source, g2_upper=source.g2_upper * value / task.link.g2)
    if source is not None and parameter == "mean-photon-number":
        scale = value / task.link.mean_photon_number
        source = replace(source, mean_photon_number_upper=source.mean_photon_number_upper * scale)
    return replace(task, link=link, source=source)


def _present(task: Task, parameter: str) -> float:
    if parameter == "mismatch":
        return task.bounds.mismatch
    return float(task.block_size if parameter == "block-size" else getattr(task.link, _FIELDS[parameter]))


def _default_values(task: Task, parameter: str) -> list[float]:
    if parameter == "block-size":
        return [float(size) for size in block_sizes(task.block_size)]
    present = _present(task, parameter)
    if parameter == "mismatch":
        return sorted({present, 0.0, 0.01, 0.02, 0.05, 0.1})
    if parameter == "loss":
        return [max(present + step, 0.0) for step in (-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0) if present + step >= 0.0]
    factors = {"darks": (0.1, 1.0, 10.0, 100.0), "mean-photon-number": (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)}
    steps = factors.get(parameter, (0.25, 0.5, 1.0, 1.5, 2.0, 3.0))
    return [present * step for step in steps if parameter != "mean-photon-number" or present * step <= 1.0]
