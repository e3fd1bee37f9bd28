"""`qkd reproduce`: the five links of the source paper end to end, time tags to delivered keys, beside its numbers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from common.cli.demo import run_link
from common.cli.link_options import block_size_option, presets_option, protocol_option, seed_option
from common.cli.output import emit, json_option, machine, progress_console, quiet_option, table
from common.files import write_file
from common.planning.paper import MEASURED
from common.planning.presets import PRESETS

QUICK_BLOCK_SIZE = 1_000_000
BLOCK_SIZE = 100_000_000
"""The paper's: as many detections as it takes for its rates."""
RESULTS = Path("reproduce.json")
PAPER_EPS_TOTAL = 1e-10
"""The paper's rates are for this security parameter; a node's own default is stricter."""


def row(document: dict[str, Any], seed: int | None) -> dict[str, Any]:
    """One link's line of the table: delivered key over sent slots, of all blocks together.

    ``seconds_after_last_detection``: of the slowest block; ``memory_peak_bytes``: of the larger daemon.
    """
    blocks, preset = document["blocks"], document["preset"]
    slots, secret = (sum(block[name] for block in blocks) for name in ("slots", "secret_bits"))
    n_z = sum(block["n_z"] for block in blocks)
    return {
        "preset": preset,
        "protocol": document["protocol"],
        "loss_db": PRESETS[preset].loss_db,
        "bits_per_pulse": secret / slots,
        "paper_bits_per_pulse": MEASURED[preset][1],
        "block_size": document["block_size"],
        "real_time_factor": document["real_time_factor"],
        "accounting": "composable",
        "blocks": len(blocks),
        "qber": sum(block["qber"] * block["n_z"] for block in blocks) / n_z,
        "f_ec": sum(block["f_ec"] * block["n_z"] for block in blocks) / n_z,
        "frames": sum(block["frames"] for block in blocks),
        "frames_failed": sum(block["frames_failed"] for block in blocks),
        "secret_bits": secret,
        "slots": slots,
        "seconds_after_last_detection": max(block["seconds_after_last_detection"] for block in blocks),
        "memory_peak_bytes": document["memory_peak_bytes"],
        "seed": seed,
        "keys_equal": bool(document["keys_equal"] and document["keys_compared"]),
    }


def report(rows: list[dict[str, Any]], console: Console) -> None:
    """The table for people."""
    size = rows[0]["block_size"]
    comparable = size == BLOCK_SIZE
    lines = [
        (
            one["preset"],
            f"{one['bits_per_pulse']:.3e}",
            f"{one['paper_bits_per_pulse']:.3e}",
            f"{one['bits_per_pulse'] / one['paper_bits_per_pulse']:.2f}" if comparable else "-",
            f"{100 * one['qber']:.2f}%",
            f"{one['f_ec']:.3f}",
            f"{one['real_time_factor']:.2f}",
            f"{one['seconds_after_last_detection']:.1f}",
            f"{one['memory_peak_bytes'] / 1e6:.0f}",
            "equal" if one["keys_equal"] else "DIFFERENT",
        )
        for one in rows
    ]
    columns = ("link", "bits/pulse", "paper", "ratio", "QBER", "f_EC", "x real", "s after", "MB", "keys")
    seed = "no seed" if rows[0]["seed"] is None else f"seed {rows[0]['seed']}"
    title = f"{rows[0]['protocol']}, blocks of {rows[0]['block_size']} detections, composable, simulated light, {seed}"
    console.print(table(title, columns, lines, padding=0))
    console.print("x real: seconds of light in one of this machine; s after: last detection to key", highlight=False)
    if not comparable:
        console.print(f"not comparable with the paper: blocks of {size} detections, not {BLOCK_SIZE}", highlight=False)


@click.command("reproduce")
@click.option("--quick", is_flag=True, help=f"Blocks of {QUICK_BLOCK_SIZE} detections: a check, not the paper's rates.")
@protocol_option(weak_pulses=False)
@block_size_option(None, f"Detections a block [default: {BLOCK_SIZE}, as in the paper].")
@click.option("--blocks", type=click.IntRange(1), default=1, show_default=True, help="Blocks with key a link.")
@presets_option
@seed_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True,
              help="File for the results, as JSON.")  # fmt: skip
@json_option
@quiet_option
def command(
    quick: bool,
    protocol: str,
    block_size: int | None,
    blocks: int,
    presets: tuple[str, ...],
    seed: int | None,
    out: Path,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run the five links of the source paper end to end and write the results beside its numbers.

    `qkd figures --results reproduce.json` draws them. A block of 100000000 detections, as in the paper, is 11 s of
    light at 0.17 dB and 346 s at 15.16 dB; how long the five take: docs/reproduction.md.

    Example: qkd reproduce --protocol bb84 --out reproduce.json
    """
    console = progress_console(quiet)
    size = block_size or (QUICK_BLOCK_SIZE if quick else BLOCK_SIZE)
    rows: list[dict[str, Any]] = []
    document: dict[str, Any] = {"machine": machine(), "rows": rows}
    for preset in presets or tuple(PRESETS):
        console.print(f"{preset}, {protocol}, blocks of {size} detections, {blocks} with key", highlight=False)
        begin = time.monotonic()
        done, _ = run_link(preset, protocol, size, blocks, seed, console, eps_total=PAPER_EPS_TOTAL)
        rows.append({**row(done, seed), "duration_s": round(time.monotonic() - begin, 1)})
        write_file(out, json.dumps(document, indent=2, allow_nan=False))
    emit(document, as_json, lambda target: report(rows, target))
    return 0 if all(one["keys_equal"] for one in rows) else 1
