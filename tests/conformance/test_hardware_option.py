"""`pytest tests/conformance --hardware bench.toml` on a served bench, as docs/hardware.md tells."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit

from common.cli.demo import free_ports
from hardware.twin.wire.hil import serve_bench, serve_tagger
from hardware.twin.wire.server import WireServer
from tests.conformance.streams import shining

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_the_suite_runs_on_every_device_of_a_manifest(tmp_path: Path) -> None:
    fibre = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    with WireServer() as server, shining(fibre):
        devices = serve_bench(server) | {
            "time_tagger": serve_tagger(server, fibre, "lab-0.17dB"),
            "random_source": {"driver": "software-random"},
        }
        bench = tmp_path / "bench.toml"
        bench.write_text(tomlkit.dumps({"role": "bob", "devices": devices}))
        command = [sys.executable, "-m", "pytest", str(TESTS), "-q", "-p", "no:cacheprovider", "-n", "0"]
        ran = subprocess.run([*command, "--hardware", str(bench), "-k", "real-", "-rA"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    passed = {found.split("-", 1)[1] for found in re.findall(r"PASSED .*\[(real-\w+)", ran.stdout)}
    assert passed == set(devices)
