"""What people see: the demonstration's table fits a terminal of 80 columns; a status is told right."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.cli.demo import BLOCK_FIELDS, report
from common.cli.status import read_status
from common.config_file import parse_config


def test_the_largest_table_fits_80_columns() -> None:
    block = dict.fromkeys(BLOCK_FIELDS, 0) | {
        "block_id": (1 << 32) + 12345,
        "slots": 150_000_000_000,
        "n_z": 71_479_166,
        "qber": 0.0254,
        "phase_error_upper": 0.1477,
        "f_ec": 1.271,
        "leak_ec_bits": 15_482_256,
        "secret_bits": 10_759_248,
        "bits_per_pulse": 4.63e-4,
        "seconds": 1970.4,
    }
    document = {
        "preset": "field-14.6dB",
        "protocol": "three-state",
        "clock_rate_hz": 76.13e6,
        "blocks": [block],
        "keys_compared": 8,
        "keys_equal": True,
        "real_time_factor": 1.0,
        "losses": {"blocks_shed": 2, "overflows": 0},
    }
    text = io.StringIO()
    report(document, Console(file=text, width=80))
    header, values = text.getvalue().splitlines()[1], text.getvalue().splitlines()[3]
    for column in ("block", "n_z", "QBER", "phase <=", "f_EC", "leak", "secret", "bits/pulse", "x real"):
        assert column in header
    assert values.split() == [
        "1.12345", "71479166", "2.54%", "14.77%", "1.271", "15482256", "10759248", "4.63e-4", "1970.4", "1.00",
    ]  # fmt: skip
    assert "not kept up: blocks_shed 2, overflows 0" in text.getvalue()


def test_a_daemon_of_another_user_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config('role = "bob"\n', tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({"process_id": 1, "state": "locked", "alarms": []}))

    def not_allowed(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_allowed)
    assert read_status(config)["running"] is True
