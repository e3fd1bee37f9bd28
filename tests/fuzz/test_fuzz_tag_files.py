"""Whatever the bytes, a reader gives ascending tags or one InputError; nothing else, and in bounded time."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.datatypes import TimeTags
from common.errors import InputError
from hardware.formats import files, read_tags, write_tags

NAMES = sorted(files.FORMATS)
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


def examine(path: Path, name: str, faults: files.Faults) -> None:
    last = -(1 << 62)
    with contextlib.suppress(InputError):
        for batch in read_tags(path, name, faults=faults, chunk_tags=7):
            assert batch.times_ps.dtype == np.int64
            assert batch.channels.dtype == np.uint8
            assert batch.times_ps.size == batch.channels.size
            assert (np.diff(batch.times_ps) >= 0).all()
            if len(batch):
                assert batch.times_ps[0] >= last
                last = int(batch.times_ps[-1])
            assert batch.until_ps >= last


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.integers(0, 1 << 27, 40))
    tags = TimeTags(times, rng.integers(1, 4, 40, dtype=np.uint8), int(times[-1]))
    found = {}
    for name in NAMES:
        write_tags(folder / name, [tags], name)
        found[name] = (folder / name).read_bytes()
    return found


@pytest.mark.parametrize("name", NAMES)
@QUIET
@given(raw=st.binary(max_size=400), faults=st.sampled_from(["raise", "void"]))
def test_any_bytes(tmp_path: Path, name: str, raw: bytes, faults: files.Faults) -> None:
    path = tmp_path / "x"
    path.write_bytes(files.FORMATS[name].magic + raw)
    examine(path, name, faults)


@pytest.mark.parametrize("name", NAMES)
@QUIET
@given(data=st.data(), faults=st.sampled_from(["raise", "void"]))
def test_a_good_file_bitten(
    tmp_path: Path, good: dict[str, bytes], name: str, data: st.DataObject, faults: files.Faults
) -> None:
    raw = bytearray(good[name])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        bite = data.draw(st.binary(min_size=1, max_size=9))
        raw[at : at + len(bite)] = bite
    path = tmp_path / "x"
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw))
    examine(path, name, faults)
