"""A process that holds keys: no core dump, no debugger, and both before the first secret is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from common.cli import role
from common.cli.init import initialise
from common.errors import ConfigurationError

LOOK = """
import ctypes, resource
from common.node.process import keep_secrets_in_memory, make_room_for_files
seen = lambda: (ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0])
before = seen()[0]
keep_secrets_in_memory()
print(before, *seen(), make_room_for_files(64) >= 64)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_no_core_dump_and_no_debugger() -> None:
    """PR_GET_DUMPABLE is 1 in an ordinary process."""
    told = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["1", "0", "0", "True"]


def test_a_daemon_asks_for_it_before_it_reads_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initialise(tmp_path)
    done: list[str] = []

    def refuse(steps: Any, config: Any) -> None:
        done.append("secrets are looked at")
        raise ConfigurationError("enough")

    monkeypatch.setattr(role, "keep_secrets_in_memory", lambda: done.append("no dumps"))
    monkeypatch.setattr(role, "require", refuse)
    command = role.role_command("alice", lambda config, options: pytest.fail("not to be run"), ())
    CliRunner().invoke(command, ["run", "--config", str(tmp_path / "alice.toml")])
    assert done == ["no dumps", "secrets are looked at"]
