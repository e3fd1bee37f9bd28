"""Draws the paper's figures 1, 3, 4a and 4b from `curves.py`: PNG and SVG for print, CSV for the numbers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import read_file, replacing, write_file
from common.planning import curves
from common.planning.curves import Curve
from common.planning.paper import FIELD_LOSS_UNCERTAINTY_DB, FIELD_PRESET, MEASURED, SOURCE_EFFICIENCY

#: Of Okabe and Ito's palette: distinct for every kind of colour vision.
BLUE, GREEN, VERMILION, BLACK = "#0072B2", "#009E73", "#D55E00", "#000000"
SINGLE_COLUMN_INCHES = (3.6, 2.9)
WIDE_INCHES = (4.6, 3.5)
DPI = 300
STYLE: Any = {
    "font.size": 8.0,
    "axes.labelsize": 9.0,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "lines.linewidth": 1.4,
    "axes.linewidth": 0.7,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "svg.hashsalt": "qkd-node",
    "svg.fonttype": "path",
}
RATE_STYLES = {
    "single photons, three states": (BLUE, "-", 1.8),
    "single photons, four states": (GREEN, "-", 1.8),
    "laser pulses, two decoys": (VERMILION, "-", 1.8),
    "single photons, infinite block": (BLUE, ":", 1.1),
    "laser pulses, infinite block and decoys": (VERMILION, ":", 1.1),
    "laser pulses, limit η/e": (BLACK, "--", 1.0),
}
MARKERS = {"three-state": ("D", BLUE), "bb84": ("s", GREEN), "decoy-bb84": ("^", VERMILION)}
Tell = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Point:
    """One rate of an end-to-end run."""

    protocol: str
    loss_db: float
    bits_per_pulse: float


def read_results(path: Path) -> list[Point]:
    """Points of a `qkd reproduce --json` document.

    Raises
    ------
    InputError
        The file is not such a document.
    """
    try:
        rows = json.loads(read_file(path))["rows"]
        points = [Point(str(r["protocol"]), float(r["loss_db"]), float(r["bits_per_pulse"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a results file: {error!r}", remedy="Give the file that `qkd reproduce --json` printed."
        ) from None
    if not all(math.isfinite(p.loss_db) and math.isfinite(p.bits_per_pulse) for p in points):
        raise InputError(f"{path}: not a results file: a number is not finite", remedy="Run `qkd reproduce` again.")
    return points


def make_figures(out: Path, results: Sequence[Point] = (), tell: Tell = lambda what, part: None) -> list[Path]:
    """Compute and write all figures below ``out``; the files in the order of the figures."""
    out.mkdir(parents=True, exist_ok=True)
    tell("figure 1", 0.0)
    alice = [(curves.FIELD.mean_photon_number, "quantum dot, at Alice's exit")]
    files = _boundaries(
        out / "fig1_boundaries",
        curves.limit_boundaries(),
        "end-to-end loss",
        [(SOURCE_EFFICIENCY, "quantum dot, at the source"), *alice],
    )
    files += _rates(out / "fig3_rate_against_loss", curves.rate_curves(lambda part: tell("figure 3", part)), results)
    finite = curves.finite_boundaries(tell=lambda part: tell("figure 4a", part))
    rival = "laser: two decoys, same block" if curves.has_decoy_proof() else "laser: infinite block and decoys"
    block = "four states, blocks of 1e8"
    files += _boundaries(out / "fig4a_field_boundaries", finite, "channel loss", alice, block, rival)
    asymptotic = curves.asymptotic_boundaries()
    files += _boundaries(out / "fig4b_asymptotic_boundaries", asymptotic, "channel loss", alice, "infinite blocks")
    tell("done", 1.0)
    return files


def _boundaries(stem: Path, family: list[Curve], loss: str, sources: list[tuple[float, str]], *note: str) -> list[Path]:
    """(<n>, g2) plane: below a line, single photons produce more key than laser pulses at that loss."""

    def draw(figure: Any) -> None:
        import matplotlib

        axes = figure.add_subplot()
        shades = matplotlib.colormaps["viridis"]
        drawn = [curve for curve in family if len(curve.x) > 1]
        for index, curve in enumerate(drawn):
            color = shades(0.9 * index / max(len(drawn) - 1, 1))
            axes.plot(curve.x, curve.y, color=color)
            axes.annotate(curve.name, (1.0, curve.y[-1]), (3, 0), "data", "offset points", va="center", fontsize=7)
        for (mean, name), marker in zip(sources, ("*", "o"), strict=False):
            axes.plot(mean, curves.FIELD.g2, marker, color=BLACK, ms=8 if marker == "*" else 4.5, ls="none", label=name)
        axes.set(xlim=(0.1, 1.0), ylim=(1e-4, 1.5), yscale="log")
        axes.set(xlabel=r"mean photon number $\langle n\rangle$", ylabel=r"$g^{(2)}(0)$")
        title = "\n".join(["below a line single photons win", f"{loss} at the right", *note])
        axes.legend(loc="lower right", frameon=False, title=title)
        axes.get_legend().get_title().set_fontsize(6.5)
        axes.get_legend().set_alignment("left")

    rows = [(curve.loss_db, x, y) for curve in family for x, y in zip(curve.x, curve.y, strict=True)]
    return _write(stem, draw, ("loss_db", "mean_photon_number", "g2"), rows, SINGLE_COLUMN_INCHES)


def _rates(stem: Path, lines: list[Curve], results: Sequence[Point]) -> list[Path]:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for curve in lines:
            color, dashes, width = RATE_STYLES[curve.name]
            seen = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y > 0.0]
            axes.plot(*zip(*seen, strict=True), dashes, color=color, lw=width, label=curve.name)
        measured = {name: point for name, point in MEASURED.items() if name != FIELD_PRESET}
        style = {"color": BLACK, "ls": "none", "zorder": 4}
        axes.plot(*zip(*measured.values(), strict=True), "o", ms=4.5, mfc="white", label="paper, laboratory", **style)
        axes.errorbar(
            *MEASURED[FIELD_PRESET],
            xerr=FIELD_LOSS_UNCERTAINTY_DB,
            fmt="*",
            ms=8,
            mfc="white",
            capsize=2,
            elinewidth=0.8,
            label="paper, field",
            color=BLACK,
            zorder=5,
        )
        for protocol, (marker, color) in MARKERS.items():
            ours = [(p.loss_db, p.bits_per_pulse) for p in results if p.protocol == protocol and p.bits_per_pulse > 0]
            if ours:
                label = f"this node, end to end, {protocol}"
                axes.plot(*zip(*ours, strict=True), marker, ms=4, color=color, ls="none", label=label, zorder=6)
        axes.set(xlim=(0.0, 25.0), ylim=(1e-5, 0.3), yscale="log")
        axes.set(xlabel="channel loss (dB)", ylabel="secret key rate (bits per pulse)")
        axes.legend(loc="lower left", frameon=False)

    rows = [(curve.name, x, y) for curve in lines for x, y in zip(curve.x, curve.y, strict=True)]
    rows += [(f"paper, {name}", *point) for name, point in MEASURED.items()]
    rows += [(f"end to end, {point.protocol}", point.loss_db, point.bits_per_pulse) for point in results]
    return _write(stem, draw, ("curve", "channel_loss_db", "bits_per_pulse"), rows, WIDE_INCHES)


def _write(
    stem: Path, draw: Callable[[Any], None], columns: tuple[str, ...], rows: list[Any], size: tuple[float, float]
) -> list[Path]:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = [stem.with_suffix(suffix) for suffix in (".png", ".svg", ".csv")]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        with replacing(files[0]) as png, replacing(files[1]) as svg:
            figure.savefig(png, dpi=DPI)
            figure.savefig(svg, metadata={"Date": None})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in rows)
    write_file(files[2], text.getvalue())
    return files
