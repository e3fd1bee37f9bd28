"""`qkd bench reconcile`: efficiency, failures, rounds and speed of reconciliation on one core, with a peer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from common.cli.benchmark import Row, document, one_core, plot_option, save_plot
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.postprocessing.offline import PairResult, reconcile_pair
from common.postprocessing.reconciliation.fitted import Efficiency
from common.postprocessing.reconciliation.frame import CorrectingFrame, ReferenceFrame
from common.postprocessing.reconciliation.rates import choose_code
from common.security.bounds import binary_entropy

QBERS = (0.005, 0.01, 0.025, 0.05, 0.08)
SETTINGS: tuple[Efficiency, ...] = ("efficient", "fast")
SIZES = (1 << 16, 1 << 18, 1 << 20)
PEER = "ldpc.BpDecoder (product_sum)"
PEER_BITS = 1 << 16
RUNS = 3

Bits = NDArray[np.uint8]


@click.command("reconcile")
@click.option("--qber", "qbers", type=click.FloatRange(0.001, 0.11), multiple=True,
              help="Error rate of the keys; may be repeated.")  # fmt: skip
@click.option(
    "--frame-length",
    "sizes",
    type=click.IntRange(1 << 12, 1 << 20),
    multiple=True,
    help="Frame length in bits; repeatable.",
)
@click.option("--megabits", type=click.FloatRange(0.1), default=16.0, show_default=True, help="Sifted bits per figure.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the random keys, for equal runs.")
@click.option("--peer/--no-peer", default=True, show_default=True, help=f"Measure {PEER} in the same run.")
@plot_option
@json_option
@quiet_option
def command(
    qbers: tuple[float, ...], sizes: tuple[int, ...], megabits: float, seed: int, peer: bool, plot_path: Path | None,
    as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Measure reconciliation on one core: independent errors, every disclosed bit counted, both ends' work included.

    Example: qkd bench reconcile --qber 0.025 --plot reconcile.png
    """
    console = progress_console(quiet)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    with one_core():
        for qber in qbers or QBERS:
            for size in sizes or SIZES:
                for setting in SETTINGS:
                    console.print(f"QBER {100 * qber:.1f} %, {size} bits, {setting}", style="dim")
                    rows.append(_measure(rng, qber, size, setting, megabits))
            if peer:
                rows.append(_against_peer(rng, qber, console))
    if plot_path is not None:
        save_plot(plot_path, lambda figure: _draw(figure, rows))
    emit(document(rows), as_json, lambda printer: _render(printer, rows))
    return 0


def _keys(rng: np.random.Generator, n_bits: int, qber: float) -> tuple[Bits, Bits]:
    alice = rng.integers(0, 256, n_bits // 8, dtype=np.uint8)
    return alice, alice ^ np.packbits(rng.random(n_bits) < qber, bitorder="little")


def _measure(rng: np.random.Generator, qber: float, size: int, setting: Efficiency, megabits: float) -> Row:
    frames = max(2, round(megabits * 1e6 / size / RUNS))
    results: list[PairResult] = []
    speeds = []
    for run in range(RUNS + 1):
        # The first run warms up and is short; the last ones count.
        n_bits = (frames if run else 1) * size
        alice, bob = _keys(rng, n_bits, qber)
        begin = time.process_time()
        result = reconcile_pair(alice, bob, n_bits, frame_length_bits=size, efficiency=setting, qber=qber)
        if run:
            speeds.append(n_bits / (time.process_time() - begin) / 1e6)
            results.append(result)
    total = sum(result.frames for result in results)
    failed = sum(result.frames_failed for result in results)
    limit = sum(result.n_bits * binary_entropy(result.qber) for result in results)
    return Row(
        "reconcile",
        {"qber": qber, "frame_length_bits": size, "efficiency": setting, "errors": "independent"},
        speeds,
        "sifted Mbit/s per core",
        extra={
            "f_ec": sum(result.leak_ec_bits for result in results) / limit,
            "frames": total,
            "frames_failed": failed,
            # No failure in N frames: below 3 / N with 95 % confidence.
            "frame_error_rate_upper": (failed + 3.0 + 1.7 * failed**0.5) / total,
            "rounds_mean": sum(result.rounds for result in results) / total,
            "rounds_max": max(result.rounds_max for result in results),
            "iterations_mean": sum(result.iterations for result in results) / total,
        },
    )


def _against_peer(rng: np.random.Generator, qber: float, console: Console) -> Row:
    """One frame of the same code and the same messages, decoded by us and by the peer."""
    console.print(f"QBER {100 * qber:.1f} %, {PEER}", style="dim")
    spec = choose_code(qber, PEER_BITS, "fast")
    ours: list[float] = []
    theirs: list[float] = []
    while len(theirs) < 2:
        alice, bob = _keys(rng, PEER_BITS, qber)
        message = ReferenceFrame(spec, alice).first()
        for name, speeds in (("fast", ours), ("reference", theirs)):
            repeats = 20 if name == "fast" else 1
            begin = time.process_time()
            for _ in range(repeats):
                outcome = CorrectingFrame(spec, bob, name).receive(1, message)  # type: ignore[arg-type]
            speeds.append(repeats * PEER_BITS / (time.process_time() - begin) / 1e6)
            if outcome.status != "decoded":
                speeds.pop()
        if len(ours) > 20:
            break
    f_ec = 8 * len(message) / PEER_BITS / binary_entropy(qber)
    row = Row(
        "decode one frame",
        {"qber": qber, "frame_length_bits": PEER_BITS, "f_ec": f_ec},
        ours,
        "sifted Mbit/s per core",
        peer=PEER,
        extra={"peer_values": theirs},
    )
    row.ratio = row.median / float(np.median(theirs)) if theirs else None
    return row


def _render(console: Console, rows: list[Row]) -> None:
    main = [row for row in rows if row.peer is None]
    cells = [
        (
            f"{100 * row.parameters['qber']:.1f} %", row.parameters["frame_length_bits"], row.parameters["efficiency"],
            f"{row.extra['f_ec']:.4f}", f"{row.extra['frames_failed']}/{row.extra['frames']}",
            f"{row.extra['rounds_mean']:.2f}", row.extra["rounds_max"],
            f"{row.median:.1f} ({min(row.values):.1f}-{max(row.values):.1f})",
        )
        for row in main
    ]  # fmt: skip
    names = ("QBER", "bits", "setting", "f_EC", "failed", "rounds", "most", "Mbit/s")
    console.print(table("reconciliation, one core", names, cells))
    peers = [
        (f"{100 * row.parameters['qber']:.1f} %", f"{row.parameters['f_ec']:.3f}", f"{row.median:.1f}",
         f"{np.median(row.extra['peer_values']):.3f}" if row.extra["peer_values"] else "-",
         f"{row.ratio:.0f}" if row.ratio else "-")
        for row in rows if row.peer is not None
    ]  # fmt: skip
    if peers:
        console.print(table(f"against {PEER}, same code", ("QBER", "f_EC", "Mbit/s", "peer Mbit/s", "ratio"), peers))


def _draw(figure: Any, rows: list[Row]) -> None:
    from matplotlib.ticker import LogFormatter

    left, right = figure.subplots(1, 2)
    main = [row for row in rows if row.peer is None]
    series = sorted({(row.parameters["frame_length_bits"], row.parameters["efficiency"]) for row in main})
    for size, setting in series:
        of = [r for r in main if (r.parameters["frame_length_bits"], r.parameters["efficiency"]) == (size, setting)]
        x = [100 * row.parameters["qber"] for row in of]
        label = f"$2^{{{round(np.log2(size))}}}$ {setting}"
        left.plot(x, [row.extra["f_ec"] for row in of], "o-", label=label)
        right.semilogy(x, [row.median for row in of], "o-", label=label)
    peers = [row for row in rows if row.peer is not None and row.extra["peer_values"]]
    if peers:
        x = [100 * row.parameters["qber"] for row in peers]
        right.semilogy(x, [float(np.median(row.extra["peer_values"])) for row in peers], "s--", label=PEER)
    left.set(xlabel="QBER (%)", ylabel="$f_{EC}$, every disclosed bit")
    right.set(xlabel="QBER (%)", ylabel="sifted Mbit/s, one core")
    right.yaxis.set_major_formatter(LogFormatter())
    right.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
