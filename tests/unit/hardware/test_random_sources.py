"""Recorded bits are used once, whatever happens; expansion says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import Config
from common.config_file import parse_config
from common.errors import ConfigurationError, DeviceError
from hardware.drivers.random_drbg import DrbgExpansion
from hardware.drivers.random_file import RandomFile
from hardware.randomness import open_random_source

CONFIG = Config(role="alice")


@pytest.fixture
def recording(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "bits"
    path.write_bytes(rng.bytes(100_000))
    return path


def opened(path: Path, **more: Any) -> RandomFile:
    return RandomFile({"path": path, "origin": "test 2026", **more}, CONFIG)


def test_a_clean_stop_continues_at_the_next_byte(recording: Path) -> None:
    first = opened(recording)
    one = first.read(1000).tobytes()
    first.close()
    first.close()
    second = opened(recording)
    two = second.read(500).tobytes()
    second.close()
    assert one + two == recording.read_bytes()[:1500]


def test_a_crash_skips_the_reservation_and_repeats_nothing(recording: Path) -> None:
    first = opened(recording, reserve_bytes=4096)
    first.read(100)
    first._release()  # as a killed process: the lock goes, the position stays as it was last written
    second = opened(recording, reserve_bytes=4096)
    assert second.read(10).tobytes() == recording.read_bytes()[4096:4106]
    second.close()


def test_used_up_is_an_error_and_stays_one(recording: Path) -> None:
    source = opened(recording)
    source.read(99_999)
    for _ in range(2):
        with pytest.raises(DeviceError, match="used up"):
            source.read(2)
    source.close()


def test_two_readers_are_refused(recording: Path) -> None:
    first = opened(recording)
    with pytest.raises(DeviceError, match="in use"):
        opened(recording)
    first.close()


@pytest.mark.parametrize("text", ["{}", "nonsense", '{"used_bytes": 0, "size": 1, "head": ""}'])
def test_a_foreign_position_file_is_refused(recording: Path, text: str) -> None:
    recording.with_name("bits.position").write_text(text)
    with pytest.raises(DeviceError, match="another recording"):
        opened(recording)


def test_a_stuck_recording_raises_the_health_alarm(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(4096))
    section = f'driver = "random-file"\npath = "{tmp_path}/zeros"\norigin = "test"\n'
    text = f'role = "alice"\n[devices.random_source]\n{section}'
    with pytest.raises(DeviceError, match="equal bytes"):
        open_random_source(parse_config(text, Path()), lambda _: None)


def test_expansion_must_be_accepted_and_says_what_it_is() -> None:
    seed = {"driver": "software-random", "seed": 1}
    with pytest.raises(ConfigurationError, match="computational"):
        DrbgExpansion({"seed": seed}, CONFIG)
    source = DrbgExpansion({"seed": seed, "accept_computational": True}, CONFIG)
    said = source.info.as_randomness()
    assert said.grade == "computational"
    assert "AES-256-CTR expansion of software" in said.source
    assert "(computational)" in said.source  # the seed's class
    assert source.info.simulated
    source.close()


def test_expansion_gives_the_same_stream_in_any_pieces_and_reseeds() -> None:
    def source() -> DrbgExpansion:
        seed = {"driver": "software-random", "seed": 1}
        return DrbgExpansion({"seed": seed, "accept_computational": True, "reseed_bytes": 1024}, CONFIG)

    whole = source().read(5000)
    pieces = source()
    assert np.array_equal(np.concatenate([pieces.read(n) for n in (1, 1023, 2000, 1976)]), whole)
    assert not np.array_equal(whole[:1024], whole[1024:2048])


def test_the_seed_of_an_expansion_is_watched_as_any_other_source(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "seed").write_bytes(rng.bytes(4 * 32) + bytes(64))
    seed = {"driver": "random-file", "path": str(tmp_path / "seed"), "origin": "test", "reserve_bytes": 1}
    source = DrbgExpansion({"seed": seed, "accept_computational": True, "reseed_bytes": 1024}, CONFIG)
    source.read(4 * 1024)
    with pytest.raises(DeviceError, match="equal bytes"):
        source.read(1024)
    source.close()
