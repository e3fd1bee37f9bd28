"""`qkd hil serve --fault`: every fault is what a driver and `qkd doctor --hardware` report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomlkit
from click.testing import CliRunner

from common.cli.doctor import command as doctor
from hardware.twin.wire.hil import command as serve
from hardware.twin.wire.hil import serve_bench
from hardware.twin.wire.ills import KINDS, parse_ills
from hardware.twin.wire.server import WireServer

SEEN = {
    "timeout": ("reachability", "not answered"),
    "half-open": ("reachability", "not answered"),
    "garbage": ("reachability", "not answered|no identity"),
    "firmware": ("identity", "Toaster"),
    "error": ("safe state", "-222"),
    "slow": (None, ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_names_the_fault(kind: str, tmp_path: Path) -> None:
    with WireServer() as server:
        devices = serve_bench(server, ills=parse_ills([f"attenuator={kind}"]))
        one = {"attenuator": {**devices["attenuator"], "timeout_s": 0.3}}
        bench = tmp_path / "bench.toml"
        bench.write_text(tomlkit.dumps({"role": "alice", "devices": one}))
        result = CliRunner().invoke(doctor, ["--hardware", str(bench), "--json"], standalone_mode=False)
    rows = [row for row in json.loads(result.stdout)["rows"] if row["verdict"] == "to fix"]
    step, text = SEEN[kind]
    assert [row["step"] for row in rows] == ([step] if step else [])
    assert all(any(part in row["finding"] for part in text.split("|")) and row["remedy"] for row in rows)


@pytest.mark.parametrize("wrong", ["attenuator", "attenuator=nonsense", "toaster=timeout"])
def test_a_wrong_fault_is_refused(wrong: str) -> None:
    result = CliRunner().invoke(serve, ["--fault", wrong])
    assert result.exit_code == 2
    assert "timeout" in result.output or "that can: attenuator" in result.output


def test_help_lists_every_fault() -> None:
    text = " ".join(CliRunner().invoke(serve, ["--help"]).output.split())
    assert all(f"{kind}:" in text for kind in KINDS)
