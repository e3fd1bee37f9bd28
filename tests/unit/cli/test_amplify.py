"""`qkd amplify` as a user meets it: the documented bit convention, every path, clear words for bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.cli.amplify import command
from common.cli.doctor import _amplification
from common.cli.main import run
from common.kernels import clmul
from common.kernels import reference_amplification as reference
from common.kernels.clmul import OVERRIDE, PATHS, available_paths
from common.kernels.toeplitz import FAMILIES, seed_bits

N, M = 1003, 401


def call(*arguments: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["qkd amplify", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            run(lambda: command, "qkd amplify")
    return int(exit.value.code or 0)


def files(folder: Path, family: Any, rng: np.random.Generator) -> tuple[list[str | Path], np.ndarray, np.ndarray]:
    """Options, and the bits in the files: bit i is bit i % 8 of byte i // 8, written out."""
    x, s = rng.integers(0, 2, N), rng.integers(0, 2, seed_bits(family, N, M))
    for name, bits in (("key", x), ("seed", s)):
        packed = bytearray((len(bits) + 7) // 8)
        for i, bit in enumerate(bits):
            packed[i // 8] |= int(bit) << i % 8
        (folder / name).write_bytes(packed)
    options = ["--family", family, "--input", folder / "key", "--bits", str(N), "--seed", folder / "seed"]
    return [*options, "--ell", str(M), "--output", folder / "secret"], x, s


@pytest.fixture(autouse=True)
def _no_path_stays_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clmul, "_forced", None)


@pytest.mark.parametrize("path", available_paths())
@pytest.mark.parametrize("family", FAMILIES)
def test_files_in_and_out(
    tmp_path: Path, rng: np.random.Generator, family: str, path: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv(OVERRIDE, path)
    options, x, s = files(tmp_path, family, rng)
    assert call(*options, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: report[name] for name in ("n", "m", "path")} == {"n": N, "m": M, "path": path}
    assert report["seconds"] > 0
    secret = (tmp_path / "secret").read_bytes()
    assert len(secret) == (M + 7) // 8
    got = [secret[j // 8] >> j % 8 & 1 for j in range(M)]
    assert got == reference.universal_hash(family, x, s, M).tolist()
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


def test_the_documented_formula(tmp_path: Path, rng: np.random.Generator) -> None:
    """y_j = XOR_i x_i s_(n-1+j-i)."""
    options, x, s = files(tmp_path, "toeplitz", rng)
    assert call(*options) == 0
    secret = (tmp_path / "secret").read_bytes()
    for j in range(M):
        y = 0
        for i in range(N):
            y ^= int(x[i] & s[N - 1 + j - i])
        assert secret[j // 8] >> j % 8 & 1 == y


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--ell": str(N + 1)}, "cannot be hashed out of"),
        ({"--ell": str(M + 8)}, "seed: 176 bytes; 1411 bits need 177"),
        ({"--bits": "1010"}, "key: 126 bytes; 1010 bits need 127"),
        ({"--input": "nowhere"}, "nowhere: No such file"),
        ({"--output": "no/such/folder"}, "no/such/folder: No such file"),
        ({"--family": "powers"}, "'powers' is not one of"),
        ({"--bits": "1001"}, "ones beyond bit 1001"),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, change: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options, _, _ = files(tmp_path, "toeplitz", np.random.default_rng(1))
    (tmp_path / "key").write_bytes(b"\xff" * 125 + b"\x07")
    for name, value in change.items():
        options[options.index(name) + 1] = value
    assert call(*options) == 2
    assert words in capsys.readouterr().err


def elsewhere(arguments: list[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """`qkd amplify` in a process of its own."""
    code = "from common.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "amplify", *map(str, arguments)],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_processor_without_carryless_multiplication(tmp_path: Path, rng: np.random.Generator) -> None:
    """Compiling for a plain processor takes the portable path and gives the same key; forcing the other is refused."""
    options, x, s = files(tmp_path, "toeplitz", rng)
    done = elsewhere([*options, "--json"], NUMBA_CPU_NAME="generic")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "fft"
    secret = np.frombuffer((tmp_path / "secret").read_bytes(), np.uint8)
    want = reference.universal_hash("toeplitz", x, s, M)
    np.testing.assert_array_equal(np.unpackbits(secret, count=M, bitorder="little"), want)
    done = elsewhere(options, NUMBA_CPU_NAME="generic", QKD_CLMUL="clmul128")
    assert done.returncode == 2
    assert "this processor cannot run it" in done.stderr
    assert "Use one of: fft" in done.stderr


def test_paths_and_features_that_are_missing_are_refused_not_tried(tmp_path: Path, rng: np.random.Generator) -> None:
    options, _, _ = files(tmp_path, "toeplitz", rng)
    for path in set(PATHS) - set(available_paths()):
        done = elsewhere(options, QKD_CLMUL=path)
        assert done.returncode == 2
        assert f"{OVERRIDE}={path}" in done.stderr
    done = elsewhere(options, NUMBA_CPU_FEATURES="+no-such-feature")
    assert done.returncode == 2
    assert "no-such-feature, which this processor lacks" in done.stderr


def test_doctor_names_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OVERRIDE, raising=False)
    assert _amplification()[1]
    assert _amplification()[2].startswith(f"{available_paths()[0]}: ")
    monkeypatch.setenv(OVERRIDE, "fft")
    assert "fft (by QKD_CLMUL)" in _amplification()[2]
    monkeypatch.setenv(OVERRIDE, "abacus")
    _, good, text = _amplification()
    assert not good
    assert "no such path" in text


def test_compiled_code_is_kept_apart_by_processor(tmp_path: Path) -> None:
    """What protects us when a folder of compiled code is used on another machine: numba names it by processor."""
    (tmp_path / "kept.py").write_text(
        "from numba import njit\n@njit(cache=True)\ndef f(x):\n    return x + 1\nf(1)\n"
        "print(sum(f.stats.cache_hits.values()))\n"
    )

    def hits(**environment: str) -> int:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")} | environment
        done = subprocess.run(
            [sys.executable, "-c", "import kept"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert [hits(), hits()] == [0, 1]
    assert [hits(NUMBA_CPU_NAME="generic"), hits(NUMBA_CPU_NAME="generic"), hits()] == [0, 1, 1]
    assert hits(NUMBA_CPU_FEATURES="+sse2") == 0
