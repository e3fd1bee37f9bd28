"""Nonsense in files, paths and settings: every command names the fault and ends with its code, without a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from click.testing import CliRunner

from common.cli.amplify import command as amplify
from common.cli.distil import command as distil
from common.cli.doctor import command as doctor
from common.cli.figures import command as figures
from common.cli.keys import command as keys
from common.cli.plan import optimum_command as plan
from common.cli.plan_source import g2_command as g2
from common.cli.replay import command as replay
from common.cli.verify_certificate import command as verify_certificate
from common.errors import QkdError, exit_code
from hardware.formats.convert import command as convert
from tests.integration.test_check_is_run import COMMANDS

STATUS_FILES: dict[str, bytes] = {
    "empty": b"",
    "a list": b"[]",
    "a number": b"7",
    "not UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "other types": b'{"state": 5, "alarms": 7, "process_id": "x"}',
    "alarms of numbers": b'{"state": "running", "alarms": [1, null], "process_id": 1e99}',
    "huge process": b'{"state": "running", "alarms": [], "process_id": 99999999999999999999999}',
    "negative process": b'{"state": "running", "alarms": [], "process_id": -1}',
    "huge number": b'{"state": "running", "process_id": ' + b"9" * 5000 + b"}",
    "truncated": b'{"state": "runn',
    "NUL": bytes(100),
}
SETTINGS: dict[str, Any] = {
    "status_file": ["\0", "n" * 300, "/dev/null", "/proc", "/proc/self/mem", "/dev/zero"],
    "keys.database": ["\0", "/dev/null", "/proc/x", "d/" * 3000, "/dev/zero"],
    "etsi014.listen": ["x:99999", "é:1", ":", "[::1", "127.0.0.1:-1"],
    "channel.heartbeat_s": [float("inf"), float("nan"), 1e308],
    "channel.endpoint": ["tcp://é:5", "tcp://x:99999", "", "\0"],
    "mqtt.host": ["é.example", "\0", "a b"],
    "devices": [5, {}, {"time_tagger": 5}, {"time_tagger": {}}],
}
CASES = [(field, value) for field, values in SETTINGS.items() for value in values]


def code_of(command: Any, *arguments: str) -> int:
    """Its exit code; anything but an expected fault is raised."""
    result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if result.exception is None:
        return int(result.return_value or 0)
    if not isinstance(result.exception, QkdError):
        raise result.exception
    return exit_code(result.exception)


def codes(config: Path) -> dict[str, int]:
    """What every command that takes a configuration makes of it (the daemon itself apart: `check` speaks for it)."""
    bob = COMMANDS["bob"]
    named = {verb: code_of(bob, verb, "--config", str(config), "--json") for verb in ("check", "status")}
    return named | {"keys": code_of(keys, "--config", str(config), "--json")}


@pytest.mark.parametrize("name", STATUS_FILES)
def test_what_stands_in_a_status_file(folder: Path, name: str) -> None:
    document: Any = tomlkit.parse((folder / "bob.toml").read_text())
    (folder / str(document.get("status_file", "status.json"))).write_bytes(STATUS_FILES[name])
    assert codes(folder / "bob.toml")["check"] == 0
    assert codes(folder / "bob.toml")["status"] == 1


@pytest.mark.parametrize(("field", "value"), CASES, ids=[f"{field}-{n}" for n, (field, _) in enumerate(CASES)])
def test_settings_that_no_machine_can_follow(folder: Path, field: str, value: Any) -> None:
    path = folder / "bob.toml"
    document: Any = tomlkit.parse(path.read_text())
    *sections, name = field.split(".")
    table = document
    for section in sections:
        table = table.setdefault(section, tomlkit.table())
    table[name] = value
    path.write_text(tomlkit.dumps(document))
    found = codes(path)
    assert found["check"] in (2, 3), found
    assert set(found.values()) <= {0, 1, 2, 3}


def test_doctor_tells_what_check_tells_and_ends_with_1(folder: Path) -> None:
    """It asks the daemon's own command; a file that is no configuration is refused by both."""
    path = folder / "bob.toml"
    path.write_text(path.read_text().replace('role = "bob"', 'role = "bob"\nqkd = 1', 1))
    assert code_of(doctor, "--config", str(path), "--json") == 2
    path.write_text(path.read_text().replace("\nqkd = 1", "", 1))
    (folder / "bob" / "secrets" / "link.key").unlink()
    assert code_of(doctor, "--config", str(path), "--json") == 1


@pytest.mark.parametrize("path", ["/proc", "/dev/null", "/proc/self/mem", "x" * 300, "x/" * 3000, "/dev/null/x"])
def test_paths_that_are_no_configuration(path: str) -> None:
    assert set(codes(Path(path)).values()) == {2}
    assert code_of(plan, path) == 2


def endless(folder: Path) -> list[str]:
    """Names of what never ends, or never begins."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    (folder / "zero.npy").symlink_to("/dev/zero")
    (folder / "zero.feather").symlink_to("/dev/zero")
    return [str(pipe), "/dev/zero", str(folder / "zero.npy"), str(folder / "zero.feather")]


@pytest.mark.timeout(60)
def test_inputs_without_an_end_are_refused_at_once(tmp_path: Path) -> None:
    out, good = str(tmp_path / "out"), str(tmp_path / "good")
    Path(good).write_text("0110")
    for path in endless(tmp_path):
        commands: list[tuple[Any, list[str]]] = [
            (distil, ["--alice", path, "--bob", good]),
            (amplify, ["--family", "toeplitz", "--input", path, "--bits", "80", "--seed", path, "--ell", "8",
                       "--output", out]),
            (plan, [path]),
            (g2, [path]),
            (convert, [path, out + ".csv"]),
            (figures, ["--out", out, "--results", path]),
            (replay, [path, "--key-file", path]),
            (verify_certificate, [path]),
            (doctor, ["--hardware", path]),
        ]  # fmt: skip
        for command, arguments in commands:
            assert code_of(command, *arguments) == 2, (command.name, path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "field",
    ["channel.link_secret_file", "channel.curve_secret_file", "keys.key_file", "keys.certificate_key_file",
     "etsi014.certificate", "etsi014.private_key", "etsi014.ca_certificate", "source.calibration"],
)  # fmt: skip
def test_files_of_a_configuration_without_an_end(folder: Path, field: str) -> None:
    path = folder / "bob.toml"
    document: Any = tomlkit.parse(path.read_text())
    section, _, name = field.partition(".")
    for endless_one in endless(folder)[:2]:
        document[section][name] = endless_one
        path.write_text(tomlkit.dumps(document))
        assert code_of(COMMANDS["bob"], "check", "--config", str(path)) in (2, 3)


@pytest.mark.parametrize(
    "text",
    ["clock_rate_hz = inf", "clock_rate_hz = 1e9", "clock_rate_hz = 1e10", "gate_ps = 1e300", 'calibration = "\\u0000"',
     "loss_db = nan", 'calibration = "/proc"', "preset = 5", "\0"],
)  # fmt: skip
def test_links_that_cannot_be_planned(tmp_path: Path, text: str) -> None:
    (tmp_path / "link.toml").write_text(text)
    assert code_of(plan, str(tmp_path / "link.toml"), "--quiet") == 2
