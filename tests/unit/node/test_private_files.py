"""What `run` refuses before anything is opened: secrets that others can read, a link secret that is none."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest

from classical_channel.check import CHANNEL
from classical_channel.link import read_link_secret
from common.cli.init import initialise
from common.config import Config
from common.config_file import load_config
from common.errors import ConfigurationError
from common.node.check import judged
from common.node.credentials import (
    private_files,
    refuse_guessable,
    refuse_readable,
    refuse_replaceable,
    require_private,
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    initialise(tmp_path, {"alice": {"record": {"enabled": True}}})
    return load_config(tmp_path / "alice.toml")


def test_a_fresh_link_is_accepted(config: Config) -> None:
    require_private(config)
    assert len(set(read_link_secret(config))) == 256


@pytest.mark.parametrize("n_bytes", [2048, 10_000, 1 << 20])
def test_random_bytes_are_taken_for_random(config: Config, n_bytes: int) -> None:
    for seed in range(20 if n_bytes < 1 << 20 else 2):
        config.path(config.channel.link_secret_file).write_bytes(random.Random(seed).randbytes(n_bytes))
        assert len(read_link_secret(config)) == n_bytes


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620])
def test_every_secret_is_looked_at(config: Config, mode: int) -> None:
    files = {field: path for field, path in private_files(config).items() if path.exists()}
    assert len(files) >= 5
    for field, path in files.items():
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"others can read {field} ") as caught:
            refuse_readable(config)
        assert "chmod 600" in caught.value.remedy
        path.chmod(0o600)


RANDOM = random.Random(5).randbytes(40_000)
NOT_RANDOM = {
    "zeros": bytes(1 << 16),
    "words": b"qkd" * 20_000,
    "few values": bytes(range(8)) * 8000,
    "counting": bytes(range(256)) * 256,
    "hexadecimal": RANDOM.hex().encode(),
    "base64": base64.b64encode(RANDOM),
    "twice the same": RANDOM * 2,
    "half a copy": RANDOM[:32_768] + bytes(32_768),
}


@pytest.mark.parametrize("content", NOT_RANDOM.values(), ids=NOT_RANDOM)
def test_a_link_secret_that_is_not_random(config: Config, content: bytes) -> None:
    config.path(config.channel.link_secret_file).write_bytes(content)
    with pytest.raises(ConfigurationError, match="does not hold random bytes"):
        read_link_secret(config)
    assert not next(row.good for row in judged(CHANNEL, config) if row.name == "link secret")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
def test_a_folder_in_which_others_can_replace_secrets(config: Config, mode: int) -> None:
    folder = config.path(config.keys.key_file).parent
    folder.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"others can replace the secrets in .*{folder.name}") as caught:
        refuse_replaceable(config)
    assert "chmod 700" in caught.value.remedy
    for good in (0o700, 0o755, 0o1777):  # in a sticky folder nobody replaces what is not theirs
        folder.chmod(good)
        refuse_replaceable(config)


KEYS = {
    "zeros": bytes(32),
    "hexadecimal": b"00112233445566778899aabbccddeeff",
    "a sentence": b"the quick brown fox jumps over 1",
    "twice the same": RANDOM[:16] * 2,
}


@pytest.mark.parametrize("content", KEYS.values(), ids=KEYS)
def test_a_store_key_that_is_not_random(config: Config, content: bytes) -> None:
    config.path(config.keys.key_file).write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"keys\.key_file .* does not hold random bytes"):
        refuse_guessable(config)


def test_random_store_keys_are_accepted(config: Config) -> None:
    for seed in range(2000):
        config.path(config.keys.key_file).write_bytes(random.Random(seed).randbytes(32))
        refuse_guessable(config)
