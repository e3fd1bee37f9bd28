"""Verdicts and tables of `qkd soak`, `qkd reproduce` and `qkd bench link`, from made-up runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from common.cli import soak
from common.cli.bench_link import LEAD_SLOTS, make_workload, sifting_stages
from common.cli.demo import steady_factor
from common.cli.reproduce import row
from common.planning.paper import MEASURED
from common.planning.presets import PRESETS
from common.preamble import PREAMBLE_SLOTS


def samples(memory: list[float], cold_blocks: int = 0) -> list[dict[str, Any]]:
    status = {
        "load": {"memory_bytes": 0, "loop_lag_ms": {"recent_worst": 2.0}, "jobs_waiting": {"frames": 3, "sift": 1}}
    }
    made = []
    for i, value in enumerate(memory):
        status["load"]["memory_bytes"] = int(value)
        status["blocks_committed"] = soak.WARM_UP_BLOCKS - cold_blocks + i
        made.append(soak.sample("bob", status, i / 100))
    return made


@pytest.mark.parametrize(
    ("memory", "flat"),
    [
        ([100e6] * 40, True),
        ([50e6 + 5e6 * min(i, 10) for i in range(40)], True),  # warms up in the first quarter, then stays
        ([100e6 + 1e6 * i for i in range(40)], False),
        ([100e6 + 20e6 * (i % 2) for i in range(40)], True),  # scatters, does not grow
        ([100e6, 100e6], False),  # nothing can be said
    ],
)
def test_growing_memory_is_told_from_warming_up_and_scatter(memory: list[float], flat: bool) -> None:
    assert soak.memory_verdict(samples(memory))["flat"] is flat


def test_memory_is_not_judged_before_ten_blocks_have_ended() -> None:
    memory = [100e6 + 3e6 * min(i, 26) for i in range(40)]
    assert not soak.memory_verdict(samples(memory))["flat"]
    assert soak.memory_verdict(samples(memory, cold_blocks=28))["flat"]
    assert not soak.memory_verdict(samples([100e6] * 40, cold_blocks=36))["flat"]


def test_the_verdict_says_how_much_growth_it_could_not_see() -> None:
    verdict = soak.memory_verdict(samples([100e6 + 1e5 * i for i in range(400)]))
    assert verdict["growth_bytes_per_hour"] == pytest.approx(1e7)
    assert verdict["growth_bytes"] == pytest.approx(2e7, rel=0.01)
    assert not verdict["flat"]
    hidden = soak.memory_verdict(samples([100e6] * 400))
    assert hidden["unseen_bytes_per_hour"] == pytest.approx(0.05 * 100e6 / 2.0)


def test_two_minutes_are_too_short_for_a_verdict() -> None:
    """138 MB an hour would hide in them."""
    short = samples([300e6 + 1e5 * i for i in range(40)])
    for i, one in enumerate(short):
        one["hours"] = i / 40 * 2 / 60
    verdict = soak.memory_verdict(short)
    assert verdict["flat"] is None
    assert verdict["reason"].startswith("NOT JUDGED")
    both = [one | {"role": role} for one in short for role in soak.ROLES]
    assert soak.conclude(both, 8, True)["memory_flat"] is None


def test_the_soak_document_holds_both_ends_and_the_worst_of_each_queue() -> None:
    record = []
    for i in range(16):
        for role in soak.ROLES:
            status = {"blocks_committed": 10 + i, "load": {"memory_bytes": 10**8, "loop_lag_ms": {"recent_worst": i}}}
            status |= {
                "state": "locked" if i in range(3, 13) else "lost",
                "details": {"blocks_shed": i, "overflows": 2},
            }
            record.append(soak.sample(role, status, i / 10))
    for document in (soak.conclude(record, 8, True), soak.conclude(soak.thinned(record), 8, True)):
        assert document["memory_flat"]
        assert document["loop_lag_ms"]["worst"] == 15
        assert document["blocks_committed"] == {"alice": 25, "bob": 25}
        assert document["queue_worst"]["jobs_waiting"] == 0
        assert document["hours"] == 1.5
        assert document["losses"] == {"blocks_shed": 15, "overflows": 2, "tags_lost": 0, "light_slowed_s": 0}
        assert document["locked_share"] == pytest.approx(10 / 13, abs=0.06)
    assert len(soak.thinned(record)) == 16


class Running:
    """A daemon that is always well."""

    def __init__(self, role: str) -> None:
        self.role, self.blocks = role, 0

    def check(self) -> None:
        self.blocks += 1

    def status(self) -> dict[str, Any]:
        return {"blocks_refused": self.blocks, "load": {"memory_bytes": 1, "loop_lag_ms": {"recent_worst": 1.0}}}

    def store_bytes(self) -> int:
        return 7


def test_a_long_soak_keeps_a_bounded_record_of_its_whole_length(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(soak, "MOST_SAMPLES", 20)
    monkeypatch.setattr(soak.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(soak.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    ends = [Running(role) for role in soak.ROLES]
    record, _, _ = soak.watch(*ends, 36_000.0, 10.0, Console(quiet=True))  # type: ignore[arg-type]
    assert len(record) < 2 * 20
    hours = [one["hours"] for one in record if one["role"] == "bob"]
    assert hours[0] < 1.0
    assert hours[-1] == pytest.approx(10.0)
    assert np.ptp(np.diff(hours)[:-1]) < 1e-9
    assert record[-1]["blocks_refused"] == ends[1].blocks


def test_soak_refuses_two_durations() -> None:
    found = CliRunner().invoke(soak.command, ["--hours", "1", "--minutes", "2"])
    assert found.exit_code == 2
    assert "not both" in found.output


def test_the_steady_factor_leaves_the_start_out() -> None:
    blocks = [{"slots": 1000, "seen_s": 100.0}, {"slots": 2000, "seen_s": 101.0}, {"slots": 4000, "seen_s": 102.0}]
    assert steady_factor(blocks, 1000.0) == pytest.approx(3.0)
    assert steady_factor(blocks[:1], 1000.0) == 0.0
    assert steady_factor([blocks[0], blocks[0]], 1000.0) == 0.0


def test_a_reproduction_row_is_delivered_key_over_sent_slots() -> None:
    block = {"slots": 10**6, "secret_bits": 50_000, "n_z": 80_000, "qber": 0.025, "f_ec": 1.1, "seconds": 0.5}
    block |= {"frames": 3, "frames_failed": 0, "seconds_after_last_detection": 0.2}
    other = block | {"slots": 3 * 10**6, "secret_bits": 30_000, "n_z": 240_000, "qber": 0.029, "frames_failed": 1}
    other |= {"seconds_after_last_detection": 0.1}
    document = {
        "preset": "lab-0.17dB",
        "protocol": "three-state",
        "block_size": 10**6,
        "clock_rate_hz": 76.13e6,
        "blocks": [block, other],
        "keys_compared": 8,
        "keys_equal": True,
        "real_time_factor": 1.5,
        "memory_peak_bytes": 4 * 10**8,
    }
    made = row(document, seed=3)
    assert made["bits_per_pulse"] == 80_000 / (4 * 10**6)
    assert made["qber"] == pytest.approx(0.028)
    assert made["loss_db"] == 0.17
    assert made["seconds_after_last_detection"] == 0.2
    assert (made["frames"], made["frames_failed"]) == (6, 1)
    assert set(MEASURED) == set(PRESETS)
    wanted = [
        "preset",
        "protocol",
        "loss_db",
        "bits_per_pulse",
        "paper_bits_per_pulse",
        "block_size",
        "real_time_factor",
    ]
    assert list(made)[: len(wanted)] == wanted


def test_the_benchmark_light_has_the_links_rate_and_errors() -> None:
    made = make_workload("lab-0.17dB")
    times, channels = (np.concatenate([getattr(b, name) for b in made.batches]) for name in ("times_ps", "channels"))
    n, p = made.symbols.n_slots, made.link.detection_probability
    assert abs(times.size - n * p) < 5 * np.sqrt(n * p * (1 - p))
    assert np.all(np.diff(times) > 0)
    slots = (times * 76.13e6 / 1e12).astype(np.int64)
    in_preamble = (slots >= LEAD_SLOTS) & (slots < LEAD_SLOTS + PREAMBLE_SLOTS) & (channels < 2)
    sent = np.unpackbits(made.symbols.bit.view(np.uint8), bitorder="little")[slots[in_preamble]]
    wrong, total = np.count_nonzero(sent != channels[in_preamble]), in_preamble.sum()
    error = made.link.misalignment
    assert abs(wrong - total * error) < 5 * np.sqrt(total * error * (1 - error))
    assert sifting_stages(made)[0].name == "announcement, Bob"


@pytest.mark.slow
def test_every_stage_of_the_link_runs() -> None:
    from common.cli.bench_link import measure

    rows = measure(make_workload("field-14.6dB"))
    wanted = {"symbols, plentiful", "twin: clicks", "ingest", "Bob, all of it", "post-processing"}
    assert wanted <= {row.name for row in rows}
    assert all(row.median > 0 and row.extra["core_share"] > 0 for row in rows)
