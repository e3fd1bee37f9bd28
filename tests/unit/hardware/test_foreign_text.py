"""Text of other programs: order of the columns, what the times count, lines before the first tag."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from common.errors import InputError
from hardware.formats.convert import command
from hardware.formats.files import read_tags


def convert(folder: Path, text: str, *options: str) -> tuple[list[int], list[int]]:
    (folder / "in.csv").write_text(text)
    out = folder / "out.parquet"
    result = CliRunner().invoke(
        command, [str(folder / "in.csv"), str(out), "--force", *options], standalone_mode=False
    )
    if result.exception is not None:
        raise result.exception
    with read_tags(out) as tags:
        batches = list(tags)
    times = np.concatenate([batch.times_ps for batch in batches])
    return times.tolist(), np.concatenate([batch.channels for batch in batches]).tolist()


@pytest.mark.parametrize(
    ("text", "options", "times", "channels"),
    [
        ("1,100\n2,200\n", ("--columns", "channel,time"), [100, 200], [1, 2]),
        ("100\t1\n200\t2\n", ("--tick-ps", "81"), [8100, 16200], [1, 2]),
        ("9;100;7;1\n9;200;7;2\n", ("--columns", "-,time,-,channel"), [100, 200], [1, 2]),
        ("made by X\n12 34\ntime channel\n100 1\n# x\n\n200 2\n", ("--skip-lines", "3"), [100, 200], [1, 2]),
        ("0.1 1\n0.25 2\n", ("--tick-ps", "1e3"), [100, 250], [1, 2]),
        ("1 0\n2 0\n3 0\n", ("--tick-ps", "10000/3"), [3333, 6667, 10_000], [0, 0, 0]),
    ],
)
def test_what_is_said_of_the_file_is_followed(
    tmp_path: Path, text: str, options: tuple[str, ...], times: list[int], channels: list[int]
) -> None:
    assert convert(tmp_path, text, *options) == (times, channels)


def test_a_year_of_ticks_is_exact(tmp_path: Path) -> None:
    assert convert(tmp_path, "1234567890123456 3\n", "--tick-ps", "1562.5")[0] == [1929012328317900000]


@pytest.mark.parametrize(
    ("text", "options", "fault"),
    [
        ("1 2\n", ("--columns", "time,time"), "one time and one channel"),
        ("1 2\n", ("--columns", "time"), "one time and one channel"),
        ("1 2\n", ("--tick-ps", "0"), "is none"),
        ("1 2\n", ("--tick-ps", "nan"), "is none"),
        ("1 2\n", ("--tick-ps", "1e999999999"), "is none"),
        ("title\n1 2\n", ("--tick-ps", "2"), "line 1 has no"),
        ("1 2\n3\n", ("--tick-ps", "2"), "line 2 has no"),
        ("1 2.5\n", ("--tick-ps", "2"), "line 1 has no"),
        ("1 256\n", ("--tick-ps", "2"), "channel 256"),
        ("9999999999999999999 1\n", ("--tick-ps", "9"), "beyond all measure"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, options: tuple[str, ...], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        convert(tmp_path, text, *options)
