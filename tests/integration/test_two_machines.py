"""Two network namespaces stand for two machines: `qkd init` with their addresses, and nothing else is different."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.cli.demo import Daemon, running
from common.cli.init import command
from tests.integration.nodes import good_blocks, wait_until

ALICE, BOB = "10.47.0.1", "10.47.0.2"
FETCH = (
    "import sys, pathlib; from common.cli.demo_keys import fetch_and_compare as f; print(f(pathlib.Path(sys.argv[1])))"
)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[dict[str, tuple[str, ...]]]:
    """Role -> what starts a command on its machine; the machines know each other by one cable alone."""
    names = {role: f"qkd-{role}-{os.getpid()}" for role in ("alice", "bob")}
    wires = {role: f"q{role[0]}{os.getpid()}" for role in names}
    try:
        try:
            for name in names.values():
                ip("netns", "add", name)
            ip("link", "add", wires["alice"], "type", "veth", "peer", "name", wires["bob"])
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces need root and iproute2: {getattr(error, 'stderr', error)}")
        for role, address in (("alice", ALICE), ("bob", BOB)):
            ip("link", "set", wires[role], "netns", names[role])
            ip("-n", names[role], "address", "add", f"{address}/24", "dev", wires[role])
            ip("-n", names[role], "link", "set", wires[role], "up")
            ip("-n", names[role], "link", "set", "lo", "up")
        yield {role: ("ip", "netns", "exec", name) for role, name in names.items()}
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_two_machines_differ_in_addresses_alone(tmp_path: Path, machines: dict[str, tuple[str, ...]]) -> None:
    made = CliRunner().invoke(command, [str(tmp_path), "--alice-host", ALICE, "--bob-host", BOB])
    assert made.exit_code == 0, made.output
    alice, bob = (Daemon(role, tmp_path, launcher=machines[role]) for role in ("alice", "bob"))
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        fetched = subprocess.run(
            [*machines["bob"], sys.executable, "-c", FETCH, str(tmp_path)], capture_output=True, text=True, check=True
        )
    assert fetched.stdout.strip() == "(8, True)"
