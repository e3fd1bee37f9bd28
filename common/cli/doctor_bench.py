"""`qkd doctor --hardware`: walks through a bench and says what to fix.

Parts do the looking (entry points `qkd_node.bench_examination`, functions of one :class:`Examination`, in the order of
their names): the devices first, then what the light tells. Devices are only read, unless asked otherwise.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from common.cli.output import emit, machine, table
from common.config import Config
from common.config_file import load_config
from common.datatypes import TimeTags
from common.errors import DeviceError
from common.node.statusfile import running

GROUP = "qkd_node.bench_examination"
Verdict = Literal["good", "to fix", "not looked at"]
DETECTORS = ("H", "V", "R", "L")
_STYLES = {"good": "[green]good[/]", "to fix": "[bold red]TO FIX[/]", "not looked at": "[yellow]not looked at[/]"}


@dataclass(frozen=True, slots=True)
class Row:
    """One step on one device: ``finding`` says what was seen, or why nothing could be; ``remedy`` what to do."""

    step: str
    what: str
    verdict: Verdict
    finding: str
    remedy: str = ""


@dataclass
class Examination:
    """What is wanted, and what has been found so far.

    Parameters
    ----------
    seconds : of light to record. darken : close the attenuator's shutter and count darks. bias : switch the detectors
        on first. prepared : the state (H, V, R or L) that Alice's modulator holds, if it holds one.
    """

    config: Config
    seconds: float = 2.0
    darken: bool = False
    bias: bool = False
    prepared: str | None = None
    rows: list[Row] = field(default_factory=list)
    tags: TimeTags | None = None
    """Of one uninterrupted stretch of time, with whatever light there is."""
    simulated: bool = False
    """Whether the tags come from a simulated tagger."""
    dark_tags: TimeTags | None = None
    """The same behind the closed shutter."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Numbers for whoever reads JSON; units in the names, lists in the order H, V, R, L."""

    def good(self, step: str, what: str, finding: str) -> None:
        """A step that needs nothing."""
        self.rows.append(Row(step, what, "good", finding))

    def to_fix(self, step: str, what: str, finding: str, remedy: str) -> None:
        """A step that failed, and what to do."""
        self.rows.append(Row(step, what, "to fix", finding, remedy))

    def not_looked_at(self, step: str, what: str, why: str) -> None:
        """A step that could not be taken."""
        self.rows.append(Row(step, what, "not looked at", why))


def examine(examination: Examination) -> Examination:
    """Let every installed part look."""
    refuse_beside_daemon(examination.config)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        point.load()(examination)
    return examination


def refuse_beside_daemon(config: Config) -> None:
    """Most instruments allow one connection, and closing one puts it into its safe state: not beside a daemon."""
    if running(config):
        message = f"{config.role} is running and holds these devices"
        raise DeviceError(message, remedy="Stop it first; its `status` helps.")


def answer(path: Path, as_json: bool, **wishes: Any) -> int:
    """Examine the bench of a manifest and print the rows; the exit code."""
    found = examine(Examination(load_config(path), **wishes))
    counts = Counter(row.verdict for row in found.rows)
    document = {
        "ok": not counts["to fix"],
        "machine": machine(),
        "measured": found.measured,
        "rows": [asdict(row) for row in found.rows],
    }

    def render(console: Console) -> None:
        shown = [(row.step, row.what, _STYLES[row.verdict], row.finding) for row in found.rows]
        console.print(table(f"bench of {path}", ("step", "what", "", "finding"), shown))
        faults = [row for row in found.rows if row.verdict == "to fix"]
        for number, row in enumerate(faults, 1):
            console.print(f"\n{number}. [bold]{row.step}, {row.what}[/]: {row.remedy}", highlight=False)
        unseen = f", {counts['not looked at']} not looked at" if counts["not looked at"] else ""
        console.print(f"\n{counts['good']} good, {counts['to fix']} to fix{unseen}", highlight=False)

    emit(document, as_json, render)
    return 0 if document["ok"] else 1
