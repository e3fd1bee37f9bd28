"""Two real daemons with the flight recorder on: their runs, replayed, give the same messages and the same keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from alice.replay import replay as replay_alice
from bob.replay import replay as replay_bob
from common.cli.demo import prepare, running
from common.cli.replay import command, record_command
from common.node.flight import read_flight, read_key_file
from tests.integration.nodes import BLOCK_SIZE, blocks_in_store, good_blocks, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_recorded_run_replays_byte_for_byte(tmp_path: Path) -> None:
    alice, bob = prepare(tmp_path, "lab-0.17dB", "three-state", BLOCK_SIZE, 1, record=True)
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 2, alice, bob)
        assert bob.status()["details"]["recording"] is True
    committed = set(blocks_in_store(alice)) & set(blocks_in_store(bob))
    keys = []
    for role, replay in (("alice", replay_alice), ("bob", replay_bob)):
        (path,) = (tmp_path / role / "recordings").glob("*.flight")
        run = replay(read_flight(path, read_key_file(tmp_path / role / "secrets" / "record.key")))
        assert run.report.diverged is None
        assert run.report.complete
        keys.append({number: run.keys[number] for number in committed})
        answer = CliRunner().invoke(command, [str(path), "--json"], standalone_mode=False)
        assert (answer.return_value, json.loads(answer.stdout)["equal"]) == (0, True)
        shown = json.loads(CliRunner().invoke(record_command, [str(path), "--json"], standalone_mode=False).stdout)
        assert (shown["role"], shown["ended"], shown["simulated"]) == (role, "closed", True)
    assert len(committed) >= 2
    assert keys[0] == keys[1]
