"""`qkd bench reconcile` in small: one document with every figure, and a plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.cli.bench_reconcile import command
from common.cli.main import run


def test_one_document_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = tmp_path / "plot.png"
    arguments = ["--qber", "0.03", "--frame-length", "16384", "--megabits", "0.1", "--json", "--quiet"]
    monkeypatch.setattr("sys.argv", ["qkd bench reconcile", *arguments, "--plot", str(plot)])
    with pytest.raises(SystemExit) as exit:
        run(lambda: command, "qkd bench reconcile")
    assert not exit.value.code
    document = json.loads(capsys.readouterr().out)
    rows = document["rows"]
    assert [row["name"] for row in rows] == ["reconcile", "reconcile", "decode one frame"]
    for row in rows[:2]:
        assert {"median", "min", "max", "unit", "peer", "ratio", "parameters"} <= row.keys()
        assert 1.0 < row["f_ec"] < 1.6
        assert row["rounds_max"] <= 4
        assert row["frames"] >= 6
    assert rows[2]["peer"].startswith("ldpc")
    assert rows[2]["ratio"] is None or rows[2]["ratio"] > 10
    assert plot.read_bytes().startswith(b"\x89PNG")
