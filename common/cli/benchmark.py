"""What all benchmarks share: one pinned core, medians with min and max, peers in the same run, JSON and a plot."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click

from common.cli.output import machine
from common.files import replacing


@dataclass
class Row:
    """One measured figure.

    Parameters
    ----------
    values : of every run, in ``unit``.
    peer, ratio : who it is compared with in the same run, and our median over the peer's (for rates).
    """

    name: str
    parameters: dict[str, Any]
    values: list[float]
    unit: str
    peer: str | None = None
    ratio: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median of the runs."""
        return median(self.values)

    def document(self) -> dict[str, Any]:
        """As in the JSON document of every benchmark."""
        row = asdict(self)
        row.update(row.pop("extra"))
        return row | {"median": self.median, "min": min(self.values), "max": max(self.values)}


def document(rows: list[Row]) -> dict[str, Any]:
    """The JSON document: the machine, the command, every row."""
    return {"machine": machine(), "command": ["qkd", *sys.argv[1:]], "rows": [row.document() for row in rows]}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Pin this process to one core for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def rates(work: Callable[[], object], amount: float, runs: int) -> list[float]:
    """Amount per second of each run, after one that warms up."""
    work()
    found = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        found.append(amount / (time.perf_counter() - begin))
    return found


plot_option = click.option(
    "--plot", "plot_path", type=click.Path(path_type=Path, dir_okay=False), help="Write a plot (PNG, SVG or PDF)."
)


def save_plot(path: Path, draw: Callable[[Any], None], size: tuple[float, float] = (9.0, 4.5)) -> None:
    """Draw on a figure and save it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    with replacing(path) as new:
        figure.savefig(new, dpi=150)
