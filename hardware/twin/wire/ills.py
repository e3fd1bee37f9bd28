"""What can be wrong with a served instrument, by the names of `qkd hil serve --fault ROLE=FAULT`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from hardware.twin.wire.server import Faults

SLOW_LAG = 50
"""Readings until a setting is reached: about a second with the drivers' polling."""


@dataclass
class Ill:
    """The faults of one instrument's wire, and how many readings it takes to settle."""

    faults: Faults = field(default_factory=Faults)
    lag: int = 0


#: Name -> (what a user sees, how it comes about).
KINDS: dict[str, tuple[str, Callable[[Ill], None]]] = {
    "timeout": ("takes everything, answers nothing", lambda ill: setattr(ill.faults, "silent", True)),
    "half-open": ("closes the connection instead of answering", lambda ill: setattr(ill.faults, "half_open", True)),
    "garbage": ("answers noise", lambda ill: setattr(ill.faults, "garbage", True)),
    "error": (
        "refuses the first command, by its error queue",
        lambda ill: setattr(ill.faults, "error", '-222,"Data out of range"'),
    ),
    "firmware": (
        "is another instrument, with another firmware",
        lambda ill: setattr(ill.faults, "identity", "ACME,Toaster,TWIN9999,0.1"),
    ),
    "slow": ("takes long to reach a setting (attenuators, polarisation)", lambda ill: setattr(ill, "lag", SLOW_LAG)),
}


def fault_option(function: Any) -> Any:
    """`--fault`, repeatable; its help lists every kind."""
    kinds = "; ".join(f"{name}: {meaning}" for name, (meaning, _) in KINDS.items())
    text = f"Give an instrument a fault (repeatable). {kinds}."
    return click.option("--fault", multiple=True, metavar="ROLE=FAULT", help=text)(function)


def parse_ills(given: Sequence[str]) -> dict[str, Ill]:
    """Role -> what is wrong with it."""
    made: dict[str, Ill] = {}
    for one in given:
        role, equals, kind = one.partition("=")
        if not equals or kind not in KINDS:
            raise click.UsageError(f"--fault {one!r} is not ROLE=FAULT with FAULT one of {', '.join(KINDS)}")
        KINDS[kind][1](made.setdefault(role, Ill()))
    return made
