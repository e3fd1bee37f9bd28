"""Ctrl-C and SIGTERM at any moment of a start: the documented exit code, never a traceback, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from common.cli.demo import Daemon, running
from tests.integration.nodes import good_blocks, pair, wait_until

pytestmark = pytest.mark.timeout(120)
AT_IMPORT = """
import importlib.abc, os, sys

class Signaller(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Signaller())
sys.argv = [{program!r}, *{arguments!r}]
from {package} import main
main()
"""


def interrupted_at(module: str, number: int, package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = AT_IMPORT.format(
        module=module, number=int(number), package=package, program=package.split(".")[0], arguments=list(arguments)
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", ["common.cli.main", "common.node.node", "numba", "common.config"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_daemon_stopped_while_it_is_imported(module: str, number: int, tmp_path: Path) -> None:
    done = interrupted_at(module, number, "alice.__main__", "run", "--config", str(tmp_path / "none.toml"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_check_that_was_interrupted_did_not_pass() -> None:
    done = interrupted_at("numba", signal.SIGTERM, "bob.__main__", "check")
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demonstration_stopped_while_it_is_imported(number: int) -> None:
    done = interrupted_at("common.cli.demo_keys", number, "common.cli.main", "demo")
    assert (done.returncode, done.stderr.split()) == (130, ["interrupted"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demonstration_stopped_at_work_leaves_nothing(number: int, tmp_path: Path) -> None:
    program = "from common.cli.main import main; main()"
    command = [sys.executable, "-c", program, "demo", "--keep", str(tmp_path / "kept"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        daemons = [Daemon(role, tmp_path / "kept") for role in ("alice", "bob")]
        wait_until(lambda: all("process_id" in daemon.status() for daemon in daemons))
        processes = [int(daemon.status()["process_id"]) for daemon in daemons]
        demo.send_signal(number)
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, out, "Traceback" in err) == (130, "", False)
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_daemon_asked_to_stop_twice_while_it_starts(number: int, tmp_path: Path) -> None:
    alice, _ = pair(tmp_path)
    alice.start()
    wait_until(lambda: "process_id" in alice.status())
    assert alice.process is not None
    alice.process.send_signal(number)
    while alice.process.poll() is None:
        alice.process.send_signal(number)
    assert (alice.process.returncode, "Traceback" in alice.log.read_text()) == (0, False)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_node_lets_it_say_goodbye(number: int, tmp_path: Path) -> None:
    """Ctrl-C in a terminal, and a service manager that signals the whole group."""
    alice, bob = pair(tmp_path)
    bob.launcher = ("setsid",)
    with running(alice, bob):
        wait_until(lambda: good_blocks(alice, bob) >= 1, alice, bob)
        assert bob.process is not None
        children = psutil.Process(bob.process.pid).children()
        assert children
        for child in children:
            child.send_signal(number)
        os.killpg(bob.process.pid, number)
        assert bob.process.wait(30) == 0
        wait_until(lambda: "the peer stopped in good order" in " ".join(alice.log.read_text().split()), alice)
        assert not any(child.is_running() for child in children)
    assert "Traceback" not in bob.log.read_text()
