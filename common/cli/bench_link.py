"""`qkd bench link`: the speed of every stage from light to key on one core, and both daemons end to end.

Stages are contributed by entry points (`qkd_node.link_stages`), since `common` may import neither a role nor hardware.
All of them get the same :class:`Workload`: symbols and the clicks that they cause, made here from the link's numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from common.cli import benchmark
from common.cli.benchmark import Row, one_core, plot_option, save_plot
from common.cli.demo import run_link
from common.cli.link_options import block_size_option, presets_option, protocol_option, seed_option
from common.cli.output import emit, json_option, progress_console, quiet_option, table
from common.datatypes import Detections, Symbols, TimeTags
from common.errors import LocalProtocolError
from common.files import write_file
from common.node.compute import amplification_path
from common.planning.presets import PRESETS, LinkParameters
from common.postprocessing.amplification import amplify, draw_seed, seed_bits
from common.postprocessing.offline import reconcile_pair
from common.postprocessing.sifting import alice_sift, bob_sift, decode_announcement, encode_announcement
from common.postprocessing.verification import POINT_BYTES, verification_tag, verified_key
from common.preamble import EPOCH_SLOTS, PREAMBLE_SLOTS, preamble
from common.units import PS_PER_S

STAGES = "qkd_node.link_stages"
BATCH_SLOTS = 1 << 20
LEAD_SLOTS = 1 << 23
"""Slots before the preamble: the receiver finds the frequency in 50 ms of light."""
MEASURED_SLOTS = 1 << 23
CHUNK_DETECTIONS = 1 << 16
P_Z_ALICE = 58982
RUNS = 7
#: Stage -> least rate to reach on one core, in the stage's unit, at the presets that have one.
GOALS = {
    ("symbols, plentiful", "lab-0.17dB"): 1e9,
    ("twin: clicks", "lab-0.17dB"): 100e6,
    ("twin: clicks", "field-14.6dB"): 1.5e9,
    ("Bob, all of it", "lab-0.17dB"): 100e6,
    ("post-processing", "lab-0.17dB"): 15e6,
}
SIFTED_BITS = 1 << 22
SECRET_SHARE = 0.55
"""Of the sifted bits, at the QBER and losses of the presets: how much the benchmark's amplification keeps."""
HIGHEST_F_EC = 1.13


@dataclass(frozen=True, slots=True)
class Workload:
    """Light that every stage works on: a lead, a preamble and a stretch of key slots.

    Parameters
    ----------
    link : physics of the preset. symbols : all slots from ``first_slot``. batches : the clicks, by batches of slots.
    measured : number of batches at the end that hold key slots alone; those before are for synchronisation.
    """

    preset: str
    link: LinkParameters
    symbols: Symbols
    batches: list[TimeTags]
    measured: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: ``work(prepare())`` handles ``amount`` units; ``per_second``: units of one second of this link."""

    name: str
    unit: str
    amount: float
    per_second: float
    prepare: Callable[[], Any]
    work: Callable[[Any], object]


def make_workload(preset: str) -> Workload:
    """Symbols with a preamble, and the clicks of an ideal receiver without darks, from the link's numbers."""
    link = PRESETS[preset]
    rng = np.random.default_rng(2406_02045)
    first_slot = EPOCH_SLOTS - LEAD_SLOTS
    n_words = (LEAD_SLOTS + BATCH_SLOTS + MEASURED_SLOTS) // 64
    basis, bit = rng.integers(0, 1 << 64, (2, n_words), dtype=np.uint64)
    for _ in range(2):  # an eighth of X
        basis &= rng.integers(0, 1 << 64, n_words, dtype=np.uint64)
    at = LEAD_SLOTS // 64
    basis[at : at + PREAMBLE_SLOTS // 64], bit[at : at + PREAMBLE_SLOTS // 64] = 0, preamble(1)
    symbols = Symbols(
        first_slot, basis, bit & ~basis, np.zeros((0, n_words), np.uint64), np.zeros((0, n_words), np.uint64)
    )
    times, channels = _clicks(rng, link, symbols)
    period_ps = PS_PER_S / link.clock_rate_hz
    ends = [round((i + 1) * BATCH_SLOTS * period_ps) for i in range(symbols.n_slots // BATCH_SLOTS)]
    cuts = [0, *np.searchsorted(times, ends).tolist()]
    batches = [TimeTags(times[a:b], channels[a:b], end) for a, b, end in zip(cuts, cuts[1:], ends, strict=False)]
    return Workload(preset, link, symbols, batches, MEASURED_SLOTS // BATCH_SLOTS)


def _clicks(
    rng: np.random.Generator, link: LinkParameters, symbols: Symbols
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    detected = np.flatnonzero(rng.random(symbols.n_slots) < link.detection_probability)
    prepared = [
        np.unpackbits(plane.view(np.uint8), bitorder="little")[detected] for plane in (symbols.basis, symbols.bit)
    ]
    in_x = (rng.random(detected.size) >= link.p_z_bob).astype(np.uint8)
    wrong = rng.random(detected.size) < np.where(in_x == prepared[0], link.misalignment, 0.5)
    times = detected * (PS_PER_S / link.clock_rate_hz) + 6_000.0 + rng.normal(0.0, link.jitter_ps, detected.size)
    return times.astype(np.int64), 2 * in_x + (prepared[1] ^ wrong.astype(np.uint8))


def sifting_stages(workload: Workload) -> list[Stage]:
    """What both ends do with a chunk of detections."""
    rng = np.random.default_rng(1)
    n = CHUNK_DETECTIONS
    slots = EPOCH_SLOTS + PREAMBLE_SLOTS + np.cumsum(rng.geometric(workload.link.detection_probability, n))
    bases = (rng.random(n) >= workload.link.p_z_bob).astype(np.uint8)
    detections = Detections(slots, bases, rng.integers(0, 2, n, dtype=np.uint8), 0, int(slots[-1]) + 1)
    announced = encode_announcement(detections)
    prepared = (rng.random(n) < 0.1).astype(np.uint8), rng.integers(0, 2, n, dtype=np.uint8)
    x_bits = detections.bits[bases == 1]
    reply, _ = alice_sift(bases, x_bits, *prepared)
    rate = workload.link.clock_rate_hz * workload.link.detection_probability

    def stage(name: str, work: Callable[[], object]) -> Stage:
        return Stage(name, "detections", n, rate, lambda: None, lambda _: work())

    return [
        stage("announcement, Bob", lambda: encode_announcement(detections)),
        stage("announcement, Alice", lambda: decode_announcement(announced, 0, detections.to_slot, "discard")),
        stage("sifting, Alice", lambda: alice_sift(bases, x_bits, *prepared)),
        stage("sifting, Bob", lambda: bob_sift(detections, reply)),
    ]


def post_processing_stage(link: LinkParameters) -> Stage:
    """Sifted bits to secret key, both ends' work: error correction where the decoder is short of time, verification,
    amplification. The keys are checked: equal, and no more disclosed than ``HIGHEST_F_EC`` allows."""
    amplification_path()  # an override from the environment is measured like the fastest path
    rng = np.random.default_rng(2)
    alice = rng.integers(0, 256, SIFTED_BITS // 8, dtype=np.uint8)
    flips = np.packbits(rng.random(SIFTED_BITS) < link.misalignment, bitorder="little")
    bob, point = alice ^ flips, rng.bytes(POINT_BYTES)
    secret_bits = int(SECRET_SHARE * SIFTED_BITS) // 8 * 8
    seed = draw_seed(seed_bits("toeplitz", SIFTED_BITS, secret_bits), lambda n: rng.integers(0, 256, n, np.uint8))

    def work(_: object) -> None:
        pair = reconcile_pair(alice, bob, SIFTED_BITS, efficiency="fast", qber=link.misalignment)
        tags = [verification_tag(key, pair.kept, point) for key in (pair.alice, pair.bob)]
        needed = seed_bits("toeplitz", pair.kept, secret_bits)
        keys = [
            amplify(verified_key(pair.reconciled(key)), seed[: (needed + 7) // 8], secret_bits, "toeplitz", True)
            for key in (pair.alice, pair.bob)
        ]
        first, second = (key.bits.take() for key in keys)
        if pair.frames_failed or tags[0] != tags[1] or (first != second).any():
            raise LocalProtocolError("the benchmark's keys differ after error correction")
        if (pair.f_ec or 0.0) > HIGHEST_F_EC:
            raise LocalProtocolError(f"error correction disclosed {pair.f_ec:.3f} times the limit in the benchmark")

    sifted = link.clock_rate_hz * link.detection_probability * P_Z_ALICE / (1 << 16) * link.p_z_bob
    return Stage("post-processing", "bits", SIFTED_BITS, sifted, lambda: None, work)


def measure(workload: Workload) -> list[Row]:
    """Every stage on this core: units a second, and the core share that this link takes in real time."""
    stages: list[Stage] = []
    for point in sorted(entry_points(group=STAGES), key=lambda point: point.name):
        stages += point.load()(workload)
    rows = [_row(workload, stage, _rates(stage)) for stage in [*stages, *sifting_stages(workload)]]
    post_processing = post_processing_stage(workload.link)
    rows.append(_together(workload, rows))
    rows.append(_row(workload, post_processing, _rates(post_processing)))
    return rows


def _rates(stage: Stage) -> list[float]:
    found = []
    for run in range(RUNS + 1):
        ready = stage.prepare()
        begin = time.perf_counter()
        stage.work(ready)
        if run:  # the first warms up
            found.append(stage.amount / (time.perf_counter() - begin))
    return found


def _row(workload: Workload, stage: Stage, rates: list[float]) -> Row:
    detections = workload.link.clock_rate_hz * workload.link.detection_probability
    parameters = {"preset": workload.preset, "detections_per_s": round(detections), "kind": "stage"}
    row = Row(stage.name, parameters, rates, f"{stage.unit}/s")
    goal = GOALS.get((stage.name, workload.preset))
    row.extra = {"core_share": stage.per_second / row.median} | ({"goal": goal} if goal else {})
    return row


def _together(workload: Workload, rows: list[Row]) -> Row:
    """Tags a second through clock, gate, double clicks, announcement and sifting at Bob's end, from the medians."""
    parts = [row for row in rows if row.name == "ingest" or row.name.endswith(", Bob")]
    rate = 1.0 / sum(1.0 / row.median for row in parts)
    stage = Stage("Bob, all of it", "tags", 0, rows[0].parameters["detections_per_s"], lambda: None, lambda _: None)
    return _row(workload, stage, [rate])


def end_to_end(preset: str, protocol: str, block_size: int, blocks: int, seed: int | None, console: Console) -> Row:
    """Both daemons on this machine: link seconds a second, and each stage's processor seconds a link second."""
    document, statuses = run_link(preset, protocol, block_size, blocks, seed, console)
    link = PRESETS[preset]
    row = Row("end to end", {"preset": preset, "kind": "link"}, [document["real_time_factor"]], "link seconds/s")
    row.parameters |= {"detections_per_s": round(link.clock_rate_hz * link.detection_probability)}
    row.parameters |= {"block_size": block_size, "protocol": protocol}
    shares = {}
    for role, status in statuses.items():
        done_s = status["real_time_factor"] and status["link_s"]
        shares[role] = {name: spent / done_s for name, spent in status["load"]["cpu_s"].items()} if done_s else {}
    row.extra = {
        "cpu_s_per_link_s": shares,
        "loop_lag_ms": {role: status["load"]["loop_lag_ms"] for role, status in statuses.items()},
        "keys_equal": document["keys_equal"],
    }
    return row


def report(rows: list[Row], console: Console) -> None:
    """The tables for people."""
    for kind, title in (("stage", "stages, one core"), ("link", "both daemons on this machine")):
        chosen = [row for row in rows if row.parameters["kind"] == kind]
        lines = []
        for row in chosen:
            share = row.extra.get("core_share")
            goal = row.extra.get("goal")
            verdict = "" if goal is None else ("reached" if row.median >= goal else f"MISSED ({goal / 1e6:.0f} M)")
            scale = 1e6 if kind == "stage" else 1.0
            rate = f"{row.median / scale:.2f}"
            unit = ("M " if kind == "stage" else "") + row.unit
            lines.append((row.parameters["preset"], row.name, rate, unit, f"{share:.3f}" if share else "", verdict))
        if lines:
            console.print(table(title, ("link", "what", "median", "unit", "core", "goal"), lines))
    shares = {
        row.parameters["preset"]: row.extra["cpu_s_per_link_s"] for row in rows if row.parameters["kind"] == "link"
    }
    if shares:
        names = dict.fromkeys((role, name) for link in shares.values() for role in link for name in link[role])
        cells = [(*name, *(f"{shares[link][name[0]].get(name[1], 0.0):.3f}" for link in shares)) for name in names]
        title = "processor seconds per second of light, both daemons (all: start-up too)"
        console.print(table(title, ("end", "stage", *shares), cells))


def draw(figure: Any, rows: list[Row]) -> None:
    """Core share of every stage over the detection rate; beside it the end-to-end real-time factor, where measured."""
    links = sorted((row.parameters["detections_per_s"], row.median) for row in rows if row.parameters["kind"] == "link")
    left, *more = figure.subplots(1, 2 if links else 1, squeeze=False).flat
    stages = [row for row in rows if row.parameters["kind"] == "stage"]
    for i, name in enumerate(dict.fromkeys(row.name for row in stages)):
        ours = sorted(
            (row.parameters["detections_per_s"], row.extra["core_share"]) for row in stages if row.name == name
        )
        left.loglog(
            *zip(*ours, strict=True), marker="o", color=f"C{i % 10}", linestyle="-" if i < 10 else "--", label=name
        )
    left.set(xlabel="detections / s", ylabel="share of one core in real time")
    left.legend(fontsize="x-small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)  # above, not over the data
    for right in more:
        right.loglog(*zip(*links, strict=True), marker="o")
        right.axhline(1.0, color="grey", linewidth=0.8)
        right.set(xlabel="detections / s", ylabel="real-time factor, end to end")


@click.command("link")
@presets_option
@protocol_option(weak_pulses=False)
@block_size_option(3_000_000)
@click.option("--blocks", type=click.IntRange(2), default=4, show_default=True, help="Blocks of each end-to-end run.")
@click.option("--stages-only", is_flag=True, help="Do not run the daemons.")
@click.option("--quick", is_flag=True, help="Two links, no daemons.")
@seed_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON document here too.")
@plot_option
@json_option
@quiet_option
def command(
    presets: tuple[str, ...],
    protocol: str,
    block_size: int,
    blocks: int,
    stages_only: bool,
    quick: bool,
    seed: int | None,
    out: Path | None,
    plot_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure every stage from random bits to sifted bits on one core, and both daemons end to end.

    Example: qkd bench link --plot link.png --out link.json
    """
    console = progress_console(quiet)
    chosen = presets or (("lab-0.17dB", "field-14.6dB") if quick else tuple(PRESETS))
    rows: list[Row] = []
    with one_core():
        for preset in chosen:
            console.print(f"{preset}: stages")
            rows += measure(make_workload(preset))
    if not (stages_only or quick):
        for preset in chosen:
            console.print(f"{preset}: both daemons")
            rows.append(end_to_end(preset, protocol, block_size, blocks, seed, console))
    document = benchmark.document(rows)
    if out is not None:
        write_file(out, json.dumps(document, indent=2, allow_nan=False))
    if plot_path is not None:
        save_plot(plot_path, lambda figure: draw(figure, rows), (12.0, 5.0))
    emit(document, as_json, lambda target: report(rows, target))
    return 0
