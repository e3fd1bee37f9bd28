"""`status` is cheap, and written for people; logs off a terminal are one line a record."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.cli import role as role_module
from common.cli.init import initialise
from common.cli.output import progress_console
from common.cli.status import SHOWN, shown, status_command
from common.node.status import StatusBoard

HEAVY = ("numpy", "numba", "pydantic", "rich", "aiohttp", "scipy", "cryptography", "zmq", "sqlite3")


def running_node(folder: Path) -> Path:
    """A configuration whose node runs, as its status file says."""
    initialise(folder)
    board = StatusBoard("alice", "example", 76.13e6)
    board.state = "running"
    board.alarm("peer", "silent")
    document = board.document() | {"qber": 0.0253412345678901, "secret_key_rate_bps": 123456.78901234567}
    (folder / "alice" / "status.json").write_text(json.dumps(document | {"process_id": os.getpid()}))
    return folder / "alice.toml"


def test_beside_a_running_node_it_imports_nothing_heavy(tmp_path: Path) -> None:
    config = running_node(tmp_path)
    program = (
        f"import sys; sys.argv = ['alice', 'status', '--json', '--config', {str(config)!r}]\n"
        "import atexit; atexit.register(lambda: print('|', *sys.modules))\n"
        "from alice.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    document, _, modules = done.stdout.rpartition("|")
    assert json.loads(document)["running"] is True
    assert set(HEAVY) & set(modules.split()) == set()


def test_people_read_units_and_four_digits(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        status_command("alice"), ["--config", str(running_node(tmp_path))], standalone_mode=False
    )
    lines = dict(re.split(r"  +", line, maxsplit=1) for line in result.output.splitlines() if "  " in line)
    assert lines["QBER"] == "2.534 %"
    assert lines["secret key"] == "123,457 bit/s"
    assert lines["for applications"] == "0 bit"
    assert "alarm peer: silent" in result.output
    assert not re.search(r"\d\.\d{6,}", result.output)


def test_every_number_of_the_status_has_its_words() -> None:
    document = StatusBoard("alice", "x", 1e6).document()
    assert {name for name, value in document.items() if not isinstance(value, dict | list)} <= set(SHOWN)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(True, "", "yes"), (0.0, "bit/s", "0 bit/s"), (1.234567e-13, "", "1.235e-13"), (1234567, "bit", "1,234,567 bit"),
     (2345678.9, "s", "2,345,679 s"), ("up", "", "up"), (12, "", "12")],
)  # fmt: skip
def test_numbers_as_people_read_them(value: object, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_off_a_terminal_a_record_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        role_module._log_to(progress_console(), False, "bob")
        log = logging.getLogger("qkd.node")
        log.info("x" * 200)
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.exception("a defect")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    first, second = capsys.readouterr().err.splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
    assert re.fullmatch(rf"{stamp} INFO bob qkd\.node: x{{200}}", first)
    assert re.match(rf"{stamp} ERROR bob qkd\.node: a defect\\nTraceback", second)
    assert second.endswith(r"two\nlines")
