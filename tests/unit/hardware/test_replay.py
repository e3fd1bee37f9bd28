"""A recorded run as devices, and Bob's detections made again from recorded tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bob.receiver import Receiver
from bob.replay import TagsAgain
from bob.selection import SelectionCounts
from common.config import Config
from common.config_file import parse_config
from common.datatypes import Symbols, TimeTags
from common.errors import ConfigurationError, DeviceError, InputError
from common.node.events import fingerprint
from common.node.flight import FlightWriter, Record, read_flight
from common.node.recorder import FlightRecorder
from common.node.replay import Diverged
from hardware.formats import write_tags
from hardware.registry import open_device
from hardware.replay import ReplayModulator, ReplayRandomSource, ReplayTimeTagger
from tests.clicks import Link, make

KEY = bytes(32)
SIGNAL_CPS = 200_000.0


def configuration(folder: Path, devices: str = "") -> Config:
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets" / "record.key").write_bytes(KEY)
    return parse_config(f'role = "bob"\n{devices}\n[record]\nlight = true', folder)


def recorder_of(config: Config) -> tuple[FlightRecorder, FlightWriter]:
    path = config.base_dir / "run.flight"
    writer = FlightWriter(path, KEY, 1 << 30, lambda reason: None)
    return FlightRecorder(config, writer, path), writer


def batches(rng: np.random.Generator, **light: Any) -> list[TimeTags]:
    tags, _ = make(rng, Link(SIGNAL_CPS, **{"dark_cps": 5000.0, "offset_ppm": 7.0, **light}), 1.6)
    cuts = np.linspace(tags.times_ps[0], tags.until_ps, 9).astype(np.int64)[1:]
    out, start = [], 0
    for cut in cuts:
        end = int(np.searchsorted(tags.times_ps, cut))
        out.append(TimeTags(tags.times_ps[start:end], tags.channels[start:end], int(cut)))
        start = end
    return out


def receiver(config: Config, coins: Any) -> Receiver:
    return Receiver.configured(config, coins)


def recorded(config: Config, tags: list[TimeTags], rng: np.random.Generator) -> list[Record]:
    """A recorded receiver: its tags, and an event for each of its batches, the first of which was dropped."""
    recorder, writer = recorder_of(config)
    receives = recorder.receiver(receiver(config, recorder.coins(lambda n: rng.integers(0, 2, n, dtype=np.uint8))))
    shed = True
    for batch in tags:
        for made in receives.feed(batch):
            if not shed:
                recorder.put("detections", now_ns=0, batch=recorder.number_of(made), **fingerprint(made))
            shed = False
    writer.close()
    return list(read_flight(config.base_dir / "run.flight", KEY))


@pytest.fixture
def run(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, list[TimeTags], list[Record]]:
    """See :func:`recorded`."""
    tags = batches(rng)
    return tmp_path, tags, recorded(configuration(tmp_path), tags, rng)


def receiver_counts(config: Config, tags: list[TimeTags]) -> SelectionCounts:
    again = receiver(config, lambda n: np.zeros(n, np.uint8))
    for batch in tags:
        again.feed(batch)
    return again.status().selection


def remade(config: Config, records: list[Record]) -> list[int]:
    """Numbers of detections of the batches that are made again and are the recorded ones."""
    again = TagsAgain(config)
    found = []
    for record in records:
        if record.kind == "detections":
            found.append(len(again.detections(record)))
        again.take(record)
    return found


def test_the_same_detections_are_made_again(run: tuple[Path, list[TimeTags], list[Record]]) -> None:
    folder, _, records = run
    assert sum(remade(configuration(folder), records)) > 10_000
    assert any(record.kind == "coins" for record in records)


def test_what_was_selected_is_selected_again(tmp_path: Path, rng: np.random.Generator) -> None:
    """A tenth of a second of background alone: dropped in the run, dropped in the replay, kept without selection."""
    tags = batches(rng, dark_cps=5e4, dark_spans=[(1.2, 1.3)])
    config = configuration(tmp_path, '[receiver]\nselection = "transmittance"')
    records = recorded(config, tags, rng)
    assert sum(remade(config, records)) > 10_000
    assert receiver_counts(config, tags).detections_dropped > 500
    with pytest.raises(Diverged):
        remade(configuration(tmp_path), records)


def test_a_receiver_that_decides_otherwise_is_found(run: tuple[Path, list[TimeTags], list[Record]]) -> None:
    folder, _, records = run
    other = configuration(folder, "[receiver]\ngate_ps = 1000.0")
    first = next(record for record in records if record.kind == "detections")
    with pytest.raises(Diverged, match=rf"slots {first.facts['from_slot']}\.\."):
        remade(other, records)


@pytest.mark.parametrize("name", ["run.flight", "tags.feather", "tags.parquet"])
def test_a_replayed_tagger_gives_the_receiver_what_the_tagger_gave(
    run: tuple[Path, list[TimeTags], list[Record]], name: str
) -> None:
    folder, tags, records = run
    if name != "run.flight":
        write_tags(folder / name, tags)
    config = configuration(folder, f'[devices.time_tagger]\ndriver = "replay-time-tagger"\npath = "{name}"')
    tagger: ReplayTimeTagger = open_device("time_tagger", config.devices["time_tagger"], config)
    assert tagger.info.simulated
    assert tagger.can_wait
    receives = receiver(config, lambda n: np.zeros(n, np.uint8))
    found = []
    while (batch := tagger.read(0.1)) is not None:
        found += [made.slots for made in receives.feed(batch)]
    tagger.close()
    tagger.close()
    expected = [record.facts["n"] for record in records if record.kind == "detections"]
    if name == "run.flight":
        assert [slots.size for slots in found[1:]] == expected
    assert np.concatenate(found[1:]).size >= sum(expected)


def test_channels_are_mapped_and_others_dropped(tmp_path: Path) -> None:
    tags = TimeTags(np.arange(5, dtype=np.int64), np.array([1, 2, 9, 4, 1], np.uint8), 5)
    write_tags(tmp_path / "x.feather", [tags])
    config = configuration(tmp_path)
    given = {"path": tmp_path / "x.feather", "channels": {"1": 0, "2": 1, "4": 3}}
    tagger = ReplayTimeTagger(given, config)
    batch = tagger.read(0.0)
    tagger.close()
    assert batch is not None
    assert (batch.times_ps.tolist(), batch.channels.tolist(), batch.until_ps) == ([0, 1, 3, 4], [0, 1, 3, 0], 5)
    for channels in ({"x": 0}, {"1": 4}, {"300": 0}):
        with pytest.raises(ConfigurationError, match="maps nothing to"):
            ReplayTimeTagger({**given, "channels": channels}, config)


def test_a_tagger_at_the_recorded_speed_gives_what_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In virtual time: a tag is given when its time has come, never before."""
    clock = {"s": 100.0}
    monkeypatch.setattr("hardware.replay.time.monotonic", lambda: clock["s"])
    times = np.arange(0, 10**12, 10**11, dtype=np.int64)
    write_tags(tmp_path / "x.feather", [TimeTags(times, np.zeros(10, np.uint8), 10**12)])
    tagger = ReplayTimeTagger({"path": tmp_path / "x.feather", "speed": 1.0}, configuration(tmp_path))
    assert not tagger.can_wait

    def wait(timeout_s: float) -> bool:
        clock["s"] += timeout_s
        return False

    monkeypatch.setattr(tagger._closed, "wait", wait)
    seen: list[int] = []
    while (batch := tagger.read(0.25)) is not None:
        elapsed_ps = (clock["s"] - 100.0) * 1e12
        assert batch.until_ps <= elapsed_ps + 1e3
        assert all(time < batch.until_ps for time in batch.times_ps.tolist())
        seen += batch.times_ps.tolist()
    assert seen == times.tolist()
    assert clock["s"] == pytest.approx(101.0)


def test_a_fault_of_the_file_voids_and_a_damaged_recording_is_a_device_error(tmp_path: Path) -> None:
    write_tags(tmp_path / "x.qutag", [TimeTags(np.arange(9, dtype=np.int64), np.zeros(9, np.uint8), 9)])
    raw = (tmp_path / "x.qutag").read_bytes()
    (tmp_path / "x.qutag").write_bytes(raw[:-3])
    config = configuration(tmp_path)
    tagger = ReplayTimeTagger({"path": tmp_path / "x.qutag"}, config)
    flags = []
    while (batch := tagger.read(0.0)) is not None:
        flags.append(batch.overflow)
    assert flags[0] is False
    assert any(flags)
    (tmp_path / "y.flight").write_bytes(b"not one")
    with pytest.raises(DeviceError, match="no flight recording"):
        ReplayTimeTagger({"path": tmp_path / "y.flight"}, config).read(0.0)
    with pytest.raises(InputError, match="cannot be read"):
        ReplayTimeTagger({"path": tmp_path / "none.ptu"}, config)


def test_recorded_random_bytes_are_handed_out_once(tmp_path: Path, rng: np.random.Generator) -> None:
    recorder, writer = recorder_of(configuration(tmp_path))
    drawn = [rng.integers(0, 256, n, dtype=np.uint8) for n in (5, 0, 7, 4)]

    class Source:
        def read(self, n_bytes: int) -> np.ndarray:
            return drawn.pop(0)

    source, expected = recorder.source(Source()), np.concatenate(drawn)
    for n in (5, 0, 7, 4):
        source.read(n)
    writer.close()
    config = configuration(tmp_path)
    replayed = ReplayRandomSource({"path": tmp_path / "run.flight"}, config)
    assert replayed.info.simulated
    assert np.concatenate([replayed.read(n) for n in (3, 8, 0, 2)]).tolist() == expected[:13].tolist()
    with pytest.raises(DeviceError, match="1 are missing"):
        replayed.read(4)
    replayed.close()


def test_the_modulator_takes_time_not_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("hardware.replay.time.monotonic", lambda: sum(waited))
    modulator = ReplayModulator({}, configuration(tmp_path))
    monkeypatch.setattr(modulator._closed, "wait", waited.append)
    plane = np.zeros(1000, np.uint64)
    for i in range(3):
        modulator.send(
            Symbols(64_000 * i, plane, plane, np.zeros((0, 1000), np.uint64), np.zeros((4, 1000), np.uint64))
        )
    assert sum(waited) == pytest.approx(3 * 64_000 / 76.13e6)
    assert modulator.info.simulated
    modulator.close()
