"""`qkd distil` as a user meets it: any format in, a report and equal keys out, clear words for bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.cli.distil import command
from common.cli.main import run

N_BITS = 60_000


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    alice = rng.integers(0, 2, N_BITS, dtype=np.uint8)
    return alice, alice ^ (rng.random(N_BITS) < 0.02)


def write(path: Path, bits: np.ndarray, kind: str) -> Path:
    if kind == "npy":
        np.save(path.with_suffix(".npy"), bits)
        return path.with_suffix(".npy")
    text = "\n".join("".join(map(str, line)) for line in bits.reshape(-1, 60)).encode()
    path.write_bytes(text if kind == "text" else np.packbits(bits, bitorder="little").tobytes())
    return path


def call(*arguments: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["qkd distil", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            run(lambda: command, "qkd distil")
    return int(exit.value.code or 0)


@pytest.mark.parametrize("kind", ["text", "packed", "npy"])
def test_formats_give_the_same_answer(tmp_path: Path, pair: Any, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / name, bits, kind) for name, bits in zip(("a", "b"), pair, strict=True)]
    out = tmp_path / "out"
    assert call("--alice", paths[0], "--bob", paths[1], "--phase-error", "0.05", "--out", out, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["n"] == N_BITS
    assert report["verified"] is True
    assert report["qber"] == pytest.approx(np.mean(pair[0] != pair[1]))
    assert report["frames_failed"] == 0
    assert report["leak_verify_bits"] == 128
    assert 0 < report["secret_bits"] < N_BITS
    keys = [(out / f"{name}.key").read_bytes() for name in ("alice", "bob")]
    assert keys[0] == keys[1]
    assert 8 * len(keys[0]) == report["secret_bits"]
    assert (out / "alice.reconciled").read_bytes() == np.packbits(pair[0], bitorder="little").tobytes()
    assert os.stat(out / "alice.key").st_mode & 0o077 == 0
    assert json.loads((out / "report.json").read_text())["n"] == N_BITS


def test_a_length_can_be_given(tmp_path: Path, pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / name, bits, "text") for name, bits in zip(("a", "b"), pair, strict=True)]
    assert call("--alice", paths[0], "--bob", paths[1], "--ell", "1000", "--out", tmp_path / "o", "--quiet") == 0
    assert "secret bits" in capsys.readouterr().out
    assert len((tmp_path / "o" / "bob.key").read_bytes()) == 125
    assert call("--alice", paths[0], "--bob", paths[1], "--ell", "60001", "--quiet") == 2
    assert call("--alice", paths[0], "--bob", paths[1], "--ell", "1", "--phase-error", "0.1") == 2


@pytest.mark.parametrize(
    ("alice", "bob", "words"),
    [
        (b"0101", b"010", "different lengths"),
        (b"", b"0101", "is empty"),
        (b"   \n", b"0101", "no bits"),
        (b"01012", b"01010", "neither 0 nor 1"),
        (b"01" * 5000, b"01" * 2500 + b"10" * 2500, "differ in 50.0 %"),
        (b"\x93NUMPY broken", b"0101", "read as .npy"),
    ],
)
def test_bad_keys_are_named(
    tmp_path: Path, alice: bytes, bob: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, raw in (("a", alice), ("b", bob)):
        (tmp_path / name).write_bytes(raw)
    assert call("--alice", tmp_path / "a", "--bob", tmp_path / "b") == 2
    told = capsys.readouterr().err
    assert words in told
    assert "remedy" in told


def test_arrays_of_other_things_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for array in (np.array([0, 1, 2]), np.zeros((2, 2), np.uint8), np.array([0.0, 1.0])):
        np.save(tmp_path / "a.npy", array)
        assert call("--alice", tmp_path / "a.npy", "--bob", tmp_path / "a.npy") == 2
    assert call("--alice", tmp_path / "nothing", "--bob", tmp_path / "nothing") == 2
    assert "No such file" in capsys.readouterr().err


def test_without_a_key_the_exit_code_says_no(tmp_path: Path, rng: np.random.Generator) -> None:
    """Errors in bursts beyond any frame: refused, never wrong."""
    alice = rng.integers(0, 2, 6000, dtype=np.uint8)
    bob = alice ^ (rng.random(6000) < 0.10)
    paths = [write(tmp_path / name, bits, "text") for name, bits in (("a", alice), ("b", bob))]
    assert call("--alice", paths[0], "--bob", paths[1], "--qber", "0.01", "--quiet") == 1
