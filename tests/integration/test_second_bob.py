"""A second Bob from a copied folder: it is turned away and told of, and the running link makes key all the time."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from common.cli.demo import Daemon, free_ports, running
from tests.integration.nodes import good_blocks, pair, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_a_second_bob_from_a_copied_folder_does_not_stop_the_link(tmp_path: Path) -> None:
    alice, bob = pair(tmp_path)
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        second = copy_of(bob, tmp_path / "copy")
        second.start()
        try:
            wait_until(lambda: any("copy" in text for text in alice.status()["alarms"]), alice, bob, second)
            assert alice.status()["channel"]["rivals"] >= 1
            made = good_blocks(alice, bob)
            wait_until(lambda: good_blocks(alice, bob) >= made + 3, alice, bob, second)
            assert second.good == []
            assert bob.status()["alarms"] == []
        finally:
            second.stop()
        made = good_blocks(alice, bob)
        wait_until(lambda: good_blocks(alice, bob) >= made + 3, alice, bob)
        bob.stop()
        alice.stop()


def copy_of(bob: Daemon, folder: Path) -> Daemon:
    """Bob's folder on another machine: only its own key delivery is at another address."""
    shutil.copytree(bob.directory / "bob", folder / "bob", ignore=shutil.ignore_patterns("status*", "log", "*.jsonl"))
    text = re.sub(r'listen = "127.0.0.1:\d+"', f'listen = "127.0.0.1:{free_ports(1)[0]}"', bob.config.read_text())
    (folder / "bob.toml").write_text(text)
    return Daemon("bob", folder)
