"""g2 from time tags: comb, gates, coincidences and background, with a free-running clock; files and their faults."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from common.kernels.coincidences import count_coincidences
from common.planning.g2 import REACH_SLOTS, measure_g2
from common.planning.tag_files import read_tags, readers

RATE = 76.13e6
SLOT_PS = 1e12 / RATE
GATE_PS = 3420.0
SECONDS = 0.05
SLOTS = int(SECONDS * RATE)
MEAN, G2, ETA = 0.4, 0.1, 0.3
EPS = 1e-6


def tags(
    rng: np.random.Generator, offset_ppm: float = 12.0, dark_cps: float = 20_000.0, delay_ps: int = 0, walk: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Tags of a source with <n>, g2 behind a beam splitter; the tagger's clock is off by ``offset_ppm`` and walks."""
    p2 = G2 * MEAN**2 / 2
    draw = rng.random(SLOTS)
    photons = (draw < MEAN - p2).astype(int) + (draw < p2)
    slots = np.repeat(np.arange(SLOTS), photons)
    slots = slots[rng.random(slots.size) < ETA]
    channels = rng.integers(0, 2, slots.size)
    times = slots * SLOT_PS + rng.normal(0.0, 60.0, slots.size) + 777.0
    darks = rng.poisson(2 * dark_cps * SECONDS)
    times = np.concatenate([times, rng.random(darks) * SECONDS * 1e12])
    channels = np.concatenate([channels, rng.integers(0, 2, darks)])
    nodes = np.linspace(0.0, SECONDS * 1e12, 200)
    wander = np.cumsum(rng.normal(0.0, walk, nodes.size))
    times = times * (1 + offset_ppm * 1e-6) + np.interp(times, nodes, wander) + channels * delay_ps
    order = np.argsort(times)
    return np.floor(times[order]).astype(np.int64) + 10**12, channels[order].astype(np.uint8)


@pytest.mark.parametrize("offset_ppm", [-28.0, 0.0, 12.0])
def test_g2_of_a_known_source(offset_ppm: float, rng: np.random.Generator) -> None:
    times, channels = tags(rng, offset_ppm)
    found = measure_g2(times, channels, RATE, GATE_PS, EPS)
    sigma = G2 / math.sqrt(found.counts.coincidences)
    assert found.corrected.estimate == pytest.approx(G2, abs=5 * sigma)
    assert found.corrected.estimate < found.raw.estimate
    assert G2 < found.corrected.upper < 3 * G2
    assert found.frequency_offset_ppm == pytest.approx(-offset_ppm, abs=0.05)
    assert found.background_cps == pytest.approx((20_000.0, 20_000.0), rel=0.2)
    assert found.side_peaks == pytest.approx(1.0, abs=0.03)
    assert found.dip_slots == 0
    assert found.counts.slots == pytest.approx(SLOTS, abs=40)


def test_a_walking_clock_is_followed(rng: np.random.Generator) -> None:
    times, channels = tags(rng, walk=800.0)
    found = measure_g2(times, channels, RATE, GATE_PS, EPS)
    assert found.corrected.estimate == pytest.approx(G2, abs=5 * G2 / math.sqrt(found.counts.coincidences))


def test_a_delay_of_whole_slots_is_seen_and_taken(rng: np.random.Generator) -> None:
    times, channels = tags(rng, delay_ps=round(3 * SLOT_PS) + 400)
    assert measure_g2(times, channels, RATE, GATE_PS, EPS).dip_slots == 3
    found = measure_g2(times, channels, RATE, GATE_PS, EPS, delay_ps=round(3 * SLOT_PS))
    assert found.dip_slots == 0
    assert found.corrected.upper < 3 * G2


@pytest.mark.parametrize("slots", [0.25, 0.5, 0.75, -2.5])
def test_cables_that_differ_by_parts_of_a_slot(slots: float, rng: np.random.Generator) -> None:
    """Together the two combs cancel; each alone is as good as ever. The rest of the delay is whole slots."""
    times, channels = tags(rng, delay_ps=round(slots * SLOT_PS))
    order = np.argsort(times, kind="stable")
    found = measure_g2(times[order], channels[order], RATE, GATE_PS, EPS)
    if found.dip_slots:
        assert abs(found.dip_slots - slots) <= 0.6
        delay_ps = round(found.dip_slots * SLOT_PS)
        found = measure_g2(times[order], channels[order], RATE, GATE_PS, EPS, delay_ps=delay_ps)
    assert found.dip_slots == 0
    assert found.corrected.estimate == pytest.approx(G2, abs=5 * G2 / math.sqrt(found.counts.coincidences))


def test_nonsense_is_refused(rng: np.random.Generator) -> None:
    times, channels = tags(rng)
    uniform = np.sort(rng.integers(0, 10**11, 20_000))
    with pytest.raises(InputError, match="comb"):
        measure_g2(uniform, np.arange(20_000, dtype=np.uint8) % 2, RATE, GATE_PS, EPS)
    with pytest.raises(InputError, match="two detectors"):
        measure_g2(times, channels * 0, RATE, GATE_PS, EPS)
    with pytest.raises(InputError, match="two detectors"):
        measure_g2(times, channels, RATE, GATE_PS, EPS, (0, 7))
    with pytest.raises(InputError, match="clicks"):
        measure_g2(times[:100], channels[:100], RATE, GATE_PS, EPS)
    for rate, gate in ((0.0, GATE_PS), (math.nan, GATE_PS), (RATE, 13_000.0), (RATE, 0.0)):
        with pytest.raises(InputError, match="gate"):
            measure_g2(times, channels, rate, gate, EPS)


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (1, 1), (50, 70), (301, 7)])
def test_coincidences_are_those_of_the_slow_twin(sizes: tuple[int, int], rng: np.random.Generator) -> None:
    first, second = (np.sort(rng.choice(400, size, replace=False)).astype(np.int64) for size in sizes)
    counts = np.zeros(2 * REACH_SLOTS + 1, np.int64)
    count_coincidences(first, second, counts)
    slow = [len(set((first + k).tolist()) & set(second.tolist())) for k in range(-REACH_SLOTS, REACH_SLOTS + 1)]
    assert counts.tolist() == slow


TIMES, CHANNELS = np.array([5, 9, 9, 20], np.int64), np.array([0, 1, 0, 1], np.uint8)


def test_three_kinds_of_files_say_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", times_ps=TIMES, channels=CHANNELS)
    np.save(tmp_path / "a.times.npy", TIMES)
    np.save(tmp_path / "a.channels.npy", CHANNELS)
    (tmp_path / "a.csv").write_text("# time_ps, channel\n5,0\n9,1\n9,0\n20,1\n")
    (tmp_path / "a.txt").write_text("5 0\n9 1\n9 0\n20 1\n")
    for name in ("a.npz", "a.times.npy", "a.csv", "a.txt"):
        times, channels = read_tags(tmp_path / name)
        assert times.dtype == np.int64
        assert channels.dtype == np.uint8
        np.testing.assert_array_equal(times, TIMES)
        np.testing.assert_array_equal(channels, CHANNELS)
    assert {"npz", "npy", "csv", "txt"} <= set(readers())


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("goes_back.txt", "5 0\n4 1\n", "go back"),
        ("half_a_ps.txt", "5.5 0\n", "cannot be read"),
        ("three_columns.txt", "1 2 3\n", "3 columns"),
        ("channel_300.txt", "1 300\n", "out of range"),
        ("words.csv", "time,channel\n", "cannot be read"),
        ("unknown.xyz", "", "no reader"),
        ("not_an_archive.npz", "hello", "cannot be read"),
    ],
)
def test_bad_files_are_refused(name: str, content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=fault):
        read_tags(tmp_path / name)


def test_missing_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", times_ps=TIMES)
    with pytest.raises(InputError, match="cannot be read"):
        read_tags(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", times_ps=TIMES, channels=CHANNELS[:2])
    with pytest.raises(InputError, match="channels"):
        read_tags(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", times_ps=TIMES.astype(float), channels=CHANNELS)
    with pytest.raises(InputError, match="whole numbers"):
        read_tags(tmp_path / "c.npz")
    with pytest.raises(InputError, match="cannot be read"):
        read_tags(tmp_path / "none.npz")
