"""`qkd doctor --hardware` on a bench behind wires: a healthy one is all good, every planted fault is named."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
from click.testing import CliRunner

from common.cli.doctor import command
from common.datatypes import TimeTags
from common.errors import DeviceError
from hardware.interfaces import DeviceInfo
from hardware.twin.clicks import record
from hardware.twin.instruments import AttenuatorTwin
from hardware.twin.wire.scpi import ScpiDialogue, attenuator
from hardware.twin.wire.server import WireServer
from hardware.twin.wire.tags import HEARTBEAT, OVERFLOW, UNLOCKED, tag_stream
from tests.clicks import RATE_HZ, Link, batches, make

LINK = Link(signal_cps=400_000.0, dark_cps=100.0, offset_ppm=7.0, first_slot=(1 << 26) - 300_000)
SECONDS = 0.4
LIGHT_S = 0.9


class Script:
    """Plays batches; from then on, nothing clicks."""

    info = DeviceInfo("time tagger", "script", simulated=True)
    resolution_ps = 42.0

    def __init__(self, tags: TimeTags, locked: bool | None) -> None:
        self._batches, self.reference_locked = iter(batches(tags, 0.05)), locked
        self._until_ps = 0

    def read(self, timeout_s: float) -> TimeTags | None:
        batch = next(self._batches, None)
        if batch is None:
            threading.Event().wait(0.01)
            batch = TimeTags(np.zeros(0, np.int64), np.zeros(0, np.uint8), self._until_ps + 50_000_000_000)
        self._until_ps = batch.until_ps
        return batch

    def close(self) -> None:
        pass


@dataclass
class Bench:
    """What stands on the bench, and what is said about it."""

    tags: TimeTags
    locked: bool | None = True
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    link: dict[str, Any] = field(default_factory=dict)
    receiver: dict[str, Any] = field(default_factory=dict)
    twin: AttenuatorTwin = field(default_factory=AttenuatorTwin)


@contextmanager
def served(bench: Bench, path: Path) -> Iterator[Path]:
    with WireServer() as server:
        port = server.stream(lambda reader, writer: tag_stream(Script(bench.tags, bench.locked), writer))
        scpi = server.tcp(lambda: ScpiDialogue(attenuator(bench.twin)))
        marks = {"heartbeat_channel": HEARTBEAT, "overflow_channel": OVERFLOW, "unlocked_channel": UNLOCKED}
        tagger = {"driver": "tcp-tags", "host": "127.0.0.1", "port": port, "simulated": True, **marks}
        voa = {"driver": "keysight-attenuator", "resource": f"TCPIP::127.0.0.1::{scpi}::SOCKET", "timeout_s": 1.0}
        standard: dict[str, dict[str, Any]] = {"time_tagger": tagger, "attenuator": voa}
        made = {role: {**standard.get(role, {}), **bench.devices.get(role, {})} for role in standard | bench.devices}
        document = {"role": "bob", "link": bench.link, "receiver": bench.receiver, "devices": made}
        path.write_text(tomlkit.dumps(document))
        yield path


def looked(bench: Bench, directory: Path, *options: str) -> tuple[int, dict[str, Any]]:
    with served(bench, directory / "bench.toml") as path:
        arguments = ["--hardware", str(path), "--json", "--seconds", str(SECONDS), *options]
        result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), json.loads(result.stdout)


def faults(document: dict[str, Any]) -> dict[str, str]:
    """Step -> finding and remedy of what is to fix."""
    rows = [row for row in document["rows"] if row["verdict"] == "to fix"]
    assert all(row["remedy"] for row in rows)
    assert len({row["step"] for row in rows}) == len(rows)
    return {row["step"]: f"{row['what']}: {row['finding']} -> {row['remedy']}" for row in rows}


@pytest.fixture(scope="module")
def tags() -> TimeTags:
    return make(np.random.default_rng(5), LINK, LIGHT_S)[0]


def with_channels(tags: TimeTags, table: list[int]) -> TimeTags:
    return replace(tags, channels=np.array(table, np.uint8)[tags.channels])


def delayed(tags: TimeTags, channel: int, by_ps: int) -> TimeTags:
    times = tags.times_ps + by_ps * (tags.channels == channel)
    order = np.argsort(times, kind="stable")
    return replace(tags, times_ps=times[order], channels=tags.channels[order])


def without(tags: TimeTags, channel: int) -> TimeTags:
    keep = tags.channels != channel
    return replace(tags, times_ps=tags.times_ps[keep], channels=tags.channels[keep])


def with_darks(tags: TimeTags, channel: int, cps: float) -> TimeTags:
    more = np.random.default_rng(6).integers(int(tags.times_ps[0]), tags.until_ps, int(cps * LIGHT_S))
    times = np.concatenate([tags.times_ps, more])
    channels = np.concatenate([tags.channels, np.full(more.size, channel, np.uint8)])
    order = np.argsort(times, kind="stable")
    return replace(tags, times_ps=times[order], channels=channels[order])


def slow(tags: TimeTags, recovery_ps: int) -> TimeTags:
    """Each detector is blind for so long after its own click."""
    times, channels = np.empty(len(tags), np.int64), np.empty(len(tags), np.uint8)
    n = record(tags.times_ps, tags.channels, recovery_ps, np.full(4, -(10**12)), 0, 1.0, times, channels)
    return replace(tags, times_ps=times[:n], channels=channels[:n])


def pulsing(tags: TimeTags, channel: int, share: float) -> TimeTags:
    """A share of the clicks of one detector comes twice, four slots later."""
    mine = np.flatnonzero(tags.channels == channel)[:: round(1.0 / share)]
    times = np.concatenate([tags.times_ps, tags.times_ps[mine] + round(4e12 / RATE_HZ)])
    channels = np.concatenate([tags.channels, tags.channels[mine]])
    order = np.argsort(times, kind="stable")
    return replace(tags, times_ps=times[order], channels=channels[order])


def test_a_healthy_bench_is_all_good(tags: TimeTags, tmp_path: Path) -> None:
    code, document = looked(Bench(tags), tmp_path)
    assert code == 0
    assert document["ok"]
    assert faults(document) == {}
    steps = {row["step"]: row["verdict"] for row in document["rows"] if row["verdict"] == "good"}
    wanted = ["identity", "reading", "clock lock", "time tags", "count rates", "comb", "skew", "dark counts"]
    assert [step for step in [*wanted, "recovery", "channels", "basis contrast"] if step not in steps] == []
    assert document["measured"]["clock_offset_ppm"] == pytest.approx(-7.0, abs=0.05)
    assert document["measured"]["error_z"] == pytest.approx(LINK.qber, abs=0.02)


def test_devices_are_left_safe(tags: TimeTags, tmp_path: Path) -> None:
    bench = Bench(tags)
    bench.twin.open = True
    bench.twin.set_db(3.0)
    looked(bench, tmp_path)
    assert not bench.twin.open
    assert bench.twin.attenuation.target == 60.0


Fault = Callable[[TimeTags], Bench]
PLANTED: dict[str, tuple[Fault, str, str]] = {
    "dead channel": (lambda tags: Bench(without(tags, 1)), "count rates", r"none from V.*Detector V: bias on"),
    "hot detector": (lambda tags: Bench(with_darks(tags, 3, 20_000.0)), "dark counts", r"L has \d+ times.*bias"),
    "wrong rate": (
        lambda tags: Bench(tags, link={"clock_rate_hz": RATE_HZ * 1.002}),
        "comb",
        rf"no line within 30 ppm.*Set link.clock_rate_hz = {RATE_HZ / 1e6 * 10:.0f}",
    ),
    "half the rate": (
        lambda tags: Bench(tags, link={"clock_rate_hz": RATE_HZ * 2.0}, receiver={"gate_ps": 1700.0}),
        "comb",
        r"only every second slot.*Set link.clock_rate_hz = 7612",
    ),
    "skewed": (
        lambda tags: Bench(delayed(tags, 2, 900)),
        "skew",
        r"R \+\d+ ps.*channel_skew_ps = \[0, -?\d, (89|90)\d,",
    ),
    "skewed by slots": (
        lambda tags: Bench(delayed(tags, 1, 27_000)),
        "skew",
        r"V \+2[67]\d{3} ps.*channel_skew_ps = \[0, 2(69|70)\d\d, -?\d+, -?\d+\]",
    ),
    "wrongly corrected": (
        lambda tags: Bench(tags, receiver={"channel_skew_ps": [0, 0, 0, 700]}),
        "skew",
        r"L -\d+ ps.*channel_skew_ps = \[0, -?\d, -?\d+, -?\d+\]",
    ),
    "slow recovery": (
        lambda tags: Bench(slow(tags, 40_000)),
        "recovery",
        r"H 39 ns, V 39 ns; too few pairs of clicks in R, L; the dead time is 0 ns.*dead_time_ps = 46000$",
    ),
    "afterpulses": (lambda tags: Bench(pulsing(tags, 1, 0.02)), "recovery", r"H 0 ns, V 53 ns.*dead_time_ps = 60000$"),
    "H and V swapped": (lambda tags: Bench(with_channels(tags, [1, 0, 2, 3])), "channels", r"order of.* V, H, R, L"),
    "H and R swapped": (lambda tags: Bench(with_channels(tags, [2, 1, 0, 3])), "channels", r"order of.* R, V, H, L"),
    "bases swapped": (lambda tags: Bench(with_channels(tags, [2, 3, 0, 1])), "channels", r"order of.* R, L, H, V"),
    "reference unlocked": (lambda tags: Bench(tags, locked=False), "clock lock", r"not locked.*10 MHz"),
    "wrong firmware": (
        lambda tags: Bench(tags, devices={"attenuator": {"expect": "9.99"}}),
        "identity",
        r"1\.025.*expected 9\.99.*`expect`",
    ),
    "unreachable": (
        lambda tags: Bench(
            tags, devices={"power_meter": {"driver": "oz-attenuator", "port": "/dev/no", "simulated": True}}
        ),
        "reachability",
        r"power_meter.*cannot be opened.*cable",
    ),
    "unknown driver": (
        lambda tags: Bench(tags, devices={"power_meter": {"driver": "thorlabs-pm10"}}),
        "manifest",
        r"did you mean 'thorlabs-pm100'",
    ),
}


ALSO = {"reference unlocked": {"time tags"}, "real detectors, no dead time": {"statements", "randomness"}}
"""What a planted fault is besides."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named_with_its_remedy(name: str, tags: TimeTags, tmp_path: Path) -> None:
    plant, step, pattern = PLANTED[name]
    code, document = looked(plant(tags), tmp_path)
    found = faults(document)
    assert code == 1
    assert step in found, found
    assert re.search(pattern, found[step]), found[step]
    expected = {step, *ALSO.get(name, ())}
    assert set(found) == expected, found


def test_without_light_the_comb_is_to_fix_and_darks_are_counted(tmp_path: Path) -> None:
    dark, _ = make(np.random.default_rng(5), replace(LINK, signal_cps=0.0, dark_cps=2000.0), LIGHT_S)
    code, document = looked(Bench(dark), tmp_path)
    assert code == 1
    found = faults(document)
    assert set(found) == {"comb"}
    assert "no light -> Is Alice sending?" in found["comb"]
    assert sum(document["measured"]["dark_counts_cps"]) == pytest.approx(2000.0, rel=0.2)


def test_light_behind_the_shutter_is_told(tags: TimeTags, tmp_path: Path) -> None:
    long, _ = make(np.random.default_rng(5), LINK, 4.0)
    _, document = looked(Bench(long), tmp_path, "--darken")
    assert "not in this light's path" in faults(document)["dark counts"]


def test_darks_are_counted_behind_the_shutter(tmp_path: Path) -> None:
    light, _ = make(np.random.default_rng(5), replace(LINK, dark_spans=[(0.6, 2.0)]), 2.0)
    code, document = looked(Bench(light), tmp_path, "--darken")
    assert code == 0, faults(document)
    shut = [row for row in document["rows"] if row["what"] == "shutter closed"]
    assert [row["verdict"] for row in shut] == ["good"]


def test_a_held_state_gives_the_contrast_of_its_basis(tmp_path: Path) -> None:
    link = replace(LINK, p_z=0.0, q_z=0.5, first_slot=1 << 20)  # R in every slot, and no preamble
    held, _ = make(np.random.default_rng(5), link, LIGHT_S)
    code, document = looked(Bench(held), tmp_path, "--prepared", "R")
    assert code == 0, faults(document)
    assert document["measured"]["error_x"] == pytest.approx(LINK.qber, abs=0.01)
    code, document = looked(Bench(held), tmp_path, "--prepared", "L")
    assert set(faults(document)) == {"channels", "basis contrast"}


def test_people_see_rows_and_remedies(tags: TimeTags, tmp_path: Path) -> None:
    with served(Bench(without(tags, 1)), tmp_path / "bench.toml") as path:
        result = CliRunner().invoke(command, ["--hardware", str(path), "--seconds", "0.4"], standalone_mode=False)
    assert result.return_value == 1
    assert "TO FIX" in result.stdout
    assert "1. count rates, time_tagger: Detector V" in result.stdout
    assert "1 to fix" in result.stdout


def thinned(tags: TimeTags, keep: Any) -> TimeTags:
    return replace(tags, times_ps=tags.times_ps[keep], channels=tags.channels[keep])


def test_pulses_of_alternating_height_are_no_dark_slots(tags: TimeTags, tmp_path: Path) -> None:
    slot_ps = 1e12 / RATE_HZ * (1.0 + 7e-6)
    odd = np.floor(tags.times_ps / slot_ps + 0.25).astype(np.int64) % 2 == 1
    keep = ~odd | (np.random.default_rng(1).random(len(tags)) < 2.0 / 3.0)
    _, document = looked(Bench(thinned(tags, keep)), tmp_path)
    found = faults(document)
    assert "comb" not in found, found
    assert re.search(r"pulse heights alternate (39|40|41):", found["pulse heights"]), found


def test_darks_are_not_judged_from_light_that_went_out(tags: TimeTags, tmp_path: Path) -> None:
    start_ps = int(tags.times_ps[0])
    dark = (tags.times_ps > start_ps + 60_000_000_000) & (np.arange(len(tags)) % 1000 > 0)
    _, document = looked(Bench(thinned(tags, ~dark)), tmp_path)
    assert "of 0.4 s asked for" in faults(document)["light"]
    (row,) = [row for row in document["rows"] if row["step"] == "dark counts"]
    assert row["verdict"] == "not looked at"
    assert "asked for" in row["finding"]


def test_it_does_not_look_beside_a_running_daemon(tags: TimeTags, tmp_path: Path) -> None:
    status = {"role": "bob", "state": "locked", "process_id": os.getpid()}
    (tmp_path / "status.json").write_text(json.dumps(status))
    with pytest.raises(DeviceError, match="bob is running"):
        looked(Bench(tags), tmp_path)


def test_alices_bench(tmp_path: Path) -> None:
    path = tmp_path / "alice.toml"
    devices = {"random_source": {"driver": "software-random"}, "modulator": {"driver": "replay-modulator"}}
    slow = {"clock_rate_hz": 1e6}  # the random bytes of this rate come also on a busy machine
    path.write_text(tomlkit.dumps({"role": "alice", "link": slow, "devices": devices}))
    result = CliRunner().invoke(command, ["--hardware", str(path), "--json"], standalone_mode=False)
    assert result.return_value == 0, result.stdout
    rows = {(row["step"], row["what"]): row["finding"] for row in json.loads(result.stdout)["rows"]}
    assert "Mbit/s" in rows["reading", "random_source"]
    assert "(simulated)" in rows["identity", "modulator"]


def test_real_detectors_are_measured_and_the_line_is_printed(tags: TimeTags, tmp_path: Path) -> None:
    _, document = looked(Bench(slow(tags, 40_000), devices={"time_tagger": {"simulated": False}}), tmp_path)
    (row,) = [row for row in document["rows"] if row["step"] == "recovery"]
    assert row["verdict"] == "to fix"
    assert "no dead time is configured, and real detectors need one" in row["finding"]
    assert row["remedy"].endswith("[receiver] dead_time_ps = 46000")
    assert document["measured"]["dead_time_ps"] == 46_000
