"""Options of commands that run both daemons over the simulated link: one name and one meaning everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from common.config import ProtocolName
from common.planning.presets import PRESETS

Function = TypeVar("Function", bound=Callable[..., Any])

_PRESETS = click.Choice(sorted(PRESETS))
_BLOCK_SIZE = click.IntRange(10_000, 100_000_000)

preset_option = click.option("--preset", type=_PRESETS, default="field-14.6dB", show_default=True,
                             help="Simulated link: loss, source, detectors.")  # fmt: skip

presets_option = click.option("--preset", "presets", type=_PRESETS, multiple=True, help="Only this link (repeat).")

seed_option = click.option("--seed", type=int, help="Make light and symbols reproducible (never for real keys).")

real_time_option = click.option(
    "--real-time", is_flag=True, help="Real time: the light keeps to the clock [default: as fast as it can]."
)


def protocol_option(*, weak_pulses: bool = True) -> Callable[[Function], Function]:
    """`--protocol`; without ``weak_pulses`` those for the paper's single-photon source alone."""
    names = [name for name in get_args(ProtocolName) if weak_pulses or name != "decoy-bb84"]
    return click.option("--protocol", type=click.Choice(names), default="three-state", show_default=True,
                        help="States and proof of the link.")  # fmt: skip


def block_size_option(default: int | None, text: str = "Detections of a block.") -> Callable[[Function], Function]:
    """`--block-size` in detections; ``text`` explains a default of None."""
    return click.option("--block-size", type=_BLOCK_SIZE, default=default, show_default=default is not None, help=text)
