"""The flight recording's file: order kept, sealed, bounded, readable up to where it was cut."""

from __future__ import annotations

import errno
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.cli.init import initialise
from common.config import Config
from common.config_file import load_config, parse_config
from common.errors import ConfigurationError, InputError
from common.node import flight
from common.node.check import check_recorder
from common.node.flight import FlightWriter, Record, read_flight, read_key_file
from common.node.recorder import FlightRecorder, Recorder, open_recorder

KEY = bytes(range(32))
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def silent(reason: str) -> None:
    raise AssertionError(reason)


def written(path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch | None = None) -> Path:
    if monkeypatch is not None:
        monkeypatch.setattr(flight, "CHUNK_BYTES", 200)  # many chunks
    path.unlink(missing_ok=True)
    writer = FlightWriter(path, KEY, 1 << 30, silent)
    for record in records:
        writer.put(record)
    writer.close()
    writer.close()
    return path


def some(n: int) -> list[Record]:
    return [Record("message", {"now_ns": i, "sealed": i % 2 == 0}, bytes([i % 256]) * (i % 90)) for i in range(n)]


def test_records_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "x.flight", some(100), monkeypatch)
    assert list(read_flight(path, KEY)) == [*some(100), Record("end", {"reason": "closed"})]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_thread_keeps_its_order(tmp_path: Path) -> None:
    writer = FlightWriter(tmp_path / "x", KEY, 1 << 30, silent)

    def work(name: int) -> None:
        for i in range(300):
            writer.put(Record("note", {"by": name, "i": i}))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    records = list(read_flight(tmp_path / "x", KEY))[:-1]
    for name in range(3):
        assert [r.facts["i"] for r in records if r.facts["by"] == name] == list(range(300))


def test_nothing_of_it_is_in_the_clear(tmp_path: Path) -> None:
    raw = written(tmp_path / "x", [Record("answer", {"what": "random"}, b"secret bits " * 9)]).read_bytes()
    assert b"secret" not in raw
    assert b"random" not in raw
    assert "secret" not in repr(Record("answer", {}, b"secret"))


@QUIET
@given(data=st.data())
def test_cut_anywhere_it_is_a_prefix(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "cut.flight", some(30), monkeypatch)
    raw = path.read_bytes()
    path.write_bytes(raw[: data.draw(st.integers(40, len(raw) - 1))])
    found = list(read_flight(path, KEY))
    assert found == some(30)[: len(found)]


@QUIET
@given(data=st.data())
def test_a_changed_byte_is_never_believed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "bitten.flight", some(30), monkeypatch)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(raw))
    found: list[Record] = []
    try:
        found.extend(read_flight(path, KEY))
    except InputError as error:
        assert "chunk" in str(error) or "no flight recording" in str(error)  # noqa: PT017
    assert found == some(30)[: len(found)]


def test_another_key_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"chunk 0 \(byte 40\) cannot be opened"):
        list(read_flight(written(tmp_path / "x", some(3)), bytes(32)))
    (tmp_path / "y").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="no flight recording"):
        list(read_flight(tmp_path / "y", KEY))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_flight(tmp_path / "z", KEY))


def test_a_full_recording_ends_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "CHUNK_BYTES", 1000)
    told: list[str] = []
    writer = FlightWriter(tmp_path / "x", KEY, 20_000, told.append)
    for record in [Record("tags", {}, bytes(500))] * 200:
        writer.put(record)
    writer.close()
    assert len(told) == 1
    assert "full" in told[0]
    assert (tmp_path / "x").stat().st_size <= 20_000
    *tags, end = read_flight(tmp_path / "x", KEY)
    assert (end.kind, "full" in end.facts["reason"]) == ("end", True)
    assert 10 < len(tags) < 40
    writer.put(Record("tags"))  # forgotten, not an error
    assert not writer.recording


def test_a_disk_that_refuses_ends_the_recording_not_the_run(tmp_path: Path) -> None:
    told: list[str] = []
    writer = FlightWriter(tmp_path / "x", KEY, 1 << 30, told.append)

    class Refusing:
        def write(self, raw: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    writer._file.close()
    writer._file = Refusing()  # type: ignore[assignment]
    writer.put(Record("tags"))
    writer.close()
    assert told == ["the disk refuses (No space left on device): recording has ended, the run goes on"]


def test_a_disk_that_falls_behind_ends_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight, "MOST_WAITING_BYTES", 1000)
    told: list[str] = []
    writer = FlightWriter(tmp_path / "x", KEY, 1 << 30, told.append)
    writer.put(Record("tags", {}, bytes(1001)))
    writer.close()
    assert told == ["the disk is too slow: recording has ended, the run goes on"]
    assert [r.kind for r in read_flight(tmp_path / "x", KEY)] == ["end"]


def configuration(folder: Path, text: str) -> Config:
    return parse_config('role = "bob"\n' + text, folder)


def test_a_folder_that_cannot_be_had_ends_the_recording_not_the_run(tmp_path: Path) -> None:
    """A file stands where the folder should be: told, and the node starts without a recorder."""
    initialise(tmp_path, {"alice": {"record": {"enabled": True, "directory": "alice.toml"}}})
    told: list[str] = []
    recorder = open_recorder(load_config(tmp_path / "alice.toml"), told.append)
    assert type(recorder) is Recorder
    assert len(told) == 1
    assert "the run goes on" in told[0]


def test_off_by_default_and_then_nothing_is_touched(tmp_path: Path) -> None:
    recorder = open_recorder(configuration(tmp_path, ""), silent)
    assert type(recorder) is Recorder
    part = object()
    for hand_back in (recorder.session, recorder.receiver, recorder.source, recorder.modulator):
        assert hand_back(part) is part
    assert recorder.store(part) is recorder.symbols(part) is part  # type: ignore[arg-type]
    assert recorder.random(bytes) is recorder.coins(bytes) is recorder.requests(bytes) is bytes  # type: ignore[arg-type]
    assert recorder.answer("refill", int) is int
    assert recorder.status() == {}
    recorder.close()
    assert list(tmp_path.iterdir()) == []


def test_one_word_switches_it_on(tmp_path: Path) -> None:
    first, second = (open_recorder(configuration(tmp_path, "record = true"), silent) for _ in range(2))
    assert isinstance(first, FlightRecorder)
    assert first.path != second.path
    for recorder in (first, second):
        recorder.close()
        assert recorder.path is not None
        assert recorder.path.name.endswith("-bob.flight") or "-bob-" in recorder.path.name
    key_file = tmp_path / "secrets" / "record.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert len(read_key_file(key_file)) == 32


def test_all_recordings_together_stay_within_the_bound(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "old.flight").write_bytes(bytes(70_000))
    told: list[str] = []
    recorder = open_recorder(configuration(tmp_path, "[record]\nenabled = true\nmax_bytes = 70001"), told.append)
    recorder.note("status", {"x": 1})
    recorder.close()
    assert len(told) == 1
    assert "full" in told[0]


def test_a_missing_or_short_key_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_key_file(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="5 bytes instead of 32"):
        read_key_file(tmp_path / "short")


def test_check_speaks_of_the_recorder_only_where_it_is_on(tmp_path: Path) -> None:
    assert check_recorder(configuration(tmp_path, "")) == []
    little = configuration(tmp_path, "[record]\nenabled = true\nmax_bytes = 65536")
    assert check_recorder(little)[0][:2] == ("flight recorder", True)
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "old.flight").write_bytes(bytes(70_000))
    ((_, good, finding),) = check_recorder(little)
    assert not good
    assert finding.startswith("70000 bytes recorded, -4464 to go")
