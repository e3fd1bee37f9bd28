"""What `run` refuses, `check` refuses with the same words and exit code: each thing that can be wrong, alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from click.testing import CliRunner

from alice.check import STEPS as ALICE
from alice.daemon import run as run_alice
from bob.check import STEPS as BOB
from bob.daemon import run as run_bob
from common.cli.role import role_command
from common.config_file import load_config
from common.errors import QkdError, exit_code
from common.node.keystore import KeyStore, examine_store
from tests.stores import add_block

COMMANDS = {"alice": role_command("alice", run_alice, ALICE), "bob": role_command("bob", run_bob, BOB)}
Break = Callable[[Path, str], Any]


def answer(folder: Path, role: str, verb: str) -> tuple[int, str]:
    """(exit code, what it says) of one of the daemons' commands, run in this process."""
    result = CliRunner().invoke(
        COMMANDS[role], [verb, "--config", str(folder / f"{role}.toml"), *(["--json"] if verb == "check" else [])],
        standalone_mode=False,
    )
    if isinstance(result.exception, QkdError):
        return exit_code(result.exception), str(result.exception)
    assert result.exception is None, result.exception
    return int(result.return_value or 0), result.output


def path_of(folder: Path, role: str, field: str) -> Path:
    config = load_config(folder / f"{role}.toml")
    section, _, name = field.partition(".")
    return config.path(getattr(getattr(config, section), name) if name else getattr(config, section))


def write(field: str, content: bytes | None) -> Break:
    """Another content of the file that a field names, or none."""

    def act(folder: Path, role: str) -> None:
        path = path_of(folder, role, field)
        path.unlink()
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)

    return act


def setting(field: str, value: Any) -> Break:
    """Another value of a field; None takes it away."""

    def act(folder: Path, role: str) -> None:
        path = folder / f"{role}.toml"
        document: Any = tomlkit.parse(path.read_text())
        *sections, name = field.split(".")
        table = document
        for section in sections:
            table = table.setdefault(section, tomlkit.table())
        if value is None:
            del table[name]
        else:
            table[name] = value
        path.write_text(tomlkit.dumps(document))

    return act


def other_pair(folder: Path, role: str) -> None:
    """The key of another certificate."""
    certificates = path_of(folder, role, "etsi014.private_key").parent
    spare = next(path for path in certificates.glob("*.key") if path.name.startswith("sae"))
    path_of(folder, role, "etsi014.private_key").write_bytes(spare.read_bytes())


def taken(field: str) -> Break:
    """Somebody listens at the address of a field."""

    def act(folder: Path, role: str) -> socket.socket:
        section, _, name = field.partition(".")
        value = getattr(getattr(load_config(folder / f"{role}.toml"), section), name)
        host, _, port = value.removeprefix("tcp://").rpartition(":")
        return socket.create_server((host, int(port)))

    return act


def readable(folder: Path, role: str) -> None:
    path_of(folder, role, "channel.link_secret_file").chmod(0o644)


def open_folder(folder: Path, role: str) -> None:
    path_of(folder, role, "keys.key_file").parent.chmod(0o777)


def damaged_store(folder: Path, role: str) -> None:
    database = path_of(folder, role, "keys.database")
    with KeyStore.open(database, path_of(folder, role, "keys.key_file")):
        pass
    database.write_bytes(os.urandom(20_000))


def stored(folder: Path, role: str, *, blocks: int = 0) -> Path:
    """A store that was closed in good order; its database."""
    database = path_of(folder, role, "keys.database")
    with KeyStore.open(database, path_of(folder, role, "keys.key_file")) as store:
        store.advance({"position": b"1"})
        for block_id in range(1, blocks + 1):
            add_block(store, block_id, 100_000)
    return database


def rotten_page(folder: Path, role: str) -> None:
    """One byte of a sealed page is another: SQLite does not notice."""
    with sqlite3.connect(stored(folder, role, blocks=3)) as database:
        database.execute("UPDATE pages SET sealed = sealed || x'00' WHERE block_id = 2 AND number = 3")
    database.close()


def rotten_record(folder: Path, role: str) -> None:
    with sqlite3.connect(stored(folder, role, blocks=3)) as database:
        database.execute("UPDATE blocks SET record = '{' WHERE block_id = 2")
    database.close()


def set_back(folder: Path, role: str) -> None:
    """The counter is ahead of the store."""
    database = stored(folder, role)
    database.with_name(database.name + ".counter").write_text("17\n")


def counter_alone(folder: Path, role: str) -> None:
    """A store that was made and counted is gone."""
    set_back(folder, role)
    path_of(folder, role, "keys.database").unlink()


def lost_log(folder: Path, role: str) -> None:
    """The last process was killed, and its write-ahead log was deleted."""
    database = stored(folder, role)
    Path(f"{database}.lock").write_bytes(b"in use\n")
    Path(f"{database}-wal").unlink(missing_ok=True)


def another_version(folder: Path, role: str) -> None:
    with sqlite3.connect(stored(folder, role)) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def used_secret(folder: Path, role: str) -> None:
    from classical_channel.link import begin_anew_with

    secret = path_of(folder, role, "channel.link_secret_file").read_bytes()
    with KeyStore.open(path_of(folder, role, "keys.database"), path_of(folder, role, "keys.key_file")) as store:
        begin_anew_with(secret, store)
        begin_anew_with(os.urandom(1 << 16), store)


ONES: dict[str, tuple[str, int, Any]] = {
    # name: (role, exit code, what breaks it)
    "no KME certificate": ("alice", 2, write("etsi014.certificate", None)),
    "no KME certificate is one": ("bob", 2, write("etsi014.certificate", b"no certificate")),
    "no KME key": ("bob", 2, write("etsi014.private_key", None)),
    "empty KME key": ("alice", 2, write("etsi014.private_key", b"")),
    "KME key of another certificate": ("alice", 2, other_pair),
    "no CA": ("alice", 2, write("etsi014.ca_certificate", None)),
    "empty CA": ("bob", 2, write("etsi014.ca_certificate", b"")),
    "corrupt CA": ("bob", 2, write("etsi014.ca_certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n")),
    "no certificate.key": ("alice", 2, write("keys.certificate_key_file", None)),
    "corrupt certificate.key": ("bob", 2, write("keys.certificate_key_file", b"\xff" * 100)),
    "no store.key": ("alice", 3, write("keys.key_file", None)),
    "empty store.key": ("bob", 3, write("keys.key_file", b"")),
    "zeros for a store.key": ("alice", 2, write("keys.key_file", bytes(32))),
    "a secrets folder of everybody": ("bob", 2, open_folder),
    "damaged store": ("bob", 3, damaged_store),
    "store: a rotten page": ("alice", 3, rotten_page),
    "store: a rotten record": ("bob", 3, rotten_record),
    "store: set back": ("alice", 3, set_back),
    "store: gone, its counter is there": ("bob", 3, counter_alone),
    "store: its log was deleted": ("alice", 3, lost_log),
    "store: of another version": ("bob", 3, another_version),
    "no link secret": ("alice", 2, write("channel.link_secret_file", None)),
    "short link secret": ("bob", 2, write("channel.link_secret_file", bytes(range(100)))),
    "zeros for a link secret": ("bob", 2, write("channel.link_secret_file", bytes(1 << 16))),
    "used link secret": ("alice", 2, used_secret),
    "readable secret": ("alice", 2, readable),
    "no CURVE key": ("bob", 2, write("channel.curve_secret_file", None)),
    "corrupt CURVE key": ("alice", 2, write("channel.peer_curve_public_file", b"x" * 39)),
    "listen: no port": ("alice", 2, setting("etsi014.listen", "127.0.0.1")),
    "listen: port 0": ("alice", 2, setting("etsi014.listen", "127.0.0.1:0")),
    "listen: port 65536": ("bob", 2, setting("etsi014.listen", "127.0.0.1:65536")),
    "listen: huge port": ("bob", 2, setting("etsi014.listen", "127.0.0.1:" + "9" * 5000)),
    "listen: not ASCII": ("bob", 2, setting("etsi014.listen", "schlüssel.example:47700")),
    "listen: long label": ("bob", 2, setting("etsi014.listen", "a" * 100 + ".example:47700")),
    "listen: empty label": ("alice", 2, setting("etsi014.listen", "a..b:47700")),
    "listen: of another machine": ("bob", 3, setting("etsi014.listen", "192.0.2.7:47700")),
    "listen: taken": ("alice", 3, taken("etsi014.listen")),
    "endpoint: taken": ("alice", 3, taken("channel.endpoint")),
    "endpoint: no scheme": ("bob", 2, setting("channel.endpoint", "127.0.0.1:47600")),
    "endpoint: other scheme": ("alice", 2, setting("channel.endpoint", "udp://127.0.0.1:47600")),
    "endpoint: port 70000": ("alice", 2, setting("channel.endpoint", "tcp://127.0.0.1:70000")),
    "endpoint: negative port": ("bob", 2, setting("channel.endpoint", "tcp://127.0.0.1:-1")),
    "endpoint: not ASCII": ("bob", 2, setting("channel.endpoint", "tcp://münchen.example:47600")),
    "endpoint: of another machine": ("alice", 3, setting("channel.endpoint", "tcp://192.0.2.7:47600")),
    "endpoint: long ipc": ("alice", 2, setting("channel.endpoint", "ipc:///tmp/" + "x" * 200)),
    "no CA of the broker": ("bob", 2, setting("mqtt", {"enabled": True, "ca_certificate": "missing"})),
    "no password for the broker": ("alice", 2, setting("mqtt", {"enabled": True, "password_file": "missing"})),
    "no eps_auth": ("bob", 2, setting("security.eps_auth", 1e-30)),
    "gate beside the clock": ("bob", 2, setting("receiver.gate_ps", 13_000.0)),
    "gate of nothing": ("bob", 2, setting("receiver.gate_ps", float("inf"))),
    "heartbeat for ever": ("alice", 2, setting("channel.heartbeat_s", float("inf"))),
    "heartbeat too large": ("bob", 2, setting("channel.heartbeat_s", 1e300)),
    "no time-out": ("bob", 2, setting("channel.peer_timeout_s", float("nan"))),
    "skew of ages": ("bob", 2, setting("receiver.channel_skew_ps", [0, 0, 0, 1 << 62])),
    "no modulator": ("alice", 2, setting("devices.modulator", None)),
    "no random source": ("alice", 2, setting("devices.random_source", None)),
    "no tagger": ("bob", 2, setting("devices.time_tagger", None)),
    "no devices": ("bob", 2, setting("devices", None)),
    "unknown driver": ("bob", 2, setting("devices.time_tagger.driver", "twin-time-taggr")),
    "unknown parameter": ("alice", 2, setting("devices.modulator.fiber", "tcp://127.0.0.1:1")),
    "fibre: port 99999": ("alice", 2, setting("devices.modulator.fibre", "tcp://127.0.0.1:99999")),
    "feedback of nothing": ("bob", 2, setting("polarisation.feedback", True)),
    "status file: no folder": ("alice", 2, setting("status_file", "missing/status.json")),
    "status file: a folder": ("alice", 2, setting("status_file", ".")),
    "status file: /dev/null": ("bob", 2, setting("status_file", "/dev/null")),
    "status file: below /dev/null": ("bob", 2, setting("status_file", "/dev/null/status.json")),
    "status file: /proc": ("bob", 3, setting("status_file", "/proc/status.json")),
    "status file: NUL": ("bob", 2, setting("status_file", "a\0b")),
    "status file: long name": ("alice", 2, setting("status_file", "n" * 300)),
    "database: /proc": ("alice", 3, setting("keys.database", "/proc/keys.sqlite")),
    "database: /dev/null": ("bob", 2, setting("keys.database", "/dev/null")),
    "database: NUL": ("alice", 2, setting("keys.database", "\0")),
    "database: long path": ("bob", 2, setting("keys.database", "/tmp/" + "d/" * 5000)),
    "calibration: an empty file": ("alice", 2, setting("source.calibration", "/dev/null")),
    "calibration: NUL": ("alice", 2, setting("source.calibration", "\0")),
    "calibration: a folder": ("bob", 2, setting("detectors.calibration", "/proc")),
    "calibration: long name": ("bob", 2, setting("detectors.calibration", "c" * 5000)),
}


@pytest.mark.parametrize("name", ONES)
def test_whatever_run_refuses_check_refuses_with_the_same_words(folder: Path, name: str) -> None:
    role, code, destroy = ONES[name]
    held = destroy(folder, role)
    with held if held is not None else contextlib.nullcontext():
        agree(folder, role, code)


def agree(folder: Path, role: str, code: int) -> str:
    """Both refuse alike, whichever is asked first; what they say."""
    before = answer(folder, role, "check")
    ran, sentence = answer(folder, role, "run")
    for checked, said in (before, answer(folder, role, "check")):
        assert (ran, checked) == (code, code), (sentence, said)
        if said.startswith("{"):
            rows = [row for row in json.loads(said)["checks"] if not row["ok"]]
            assert sentence in [row["message"] for row in rows], rows
            assert all(row["remedy"] for row in rows)
        else:
            assert said == sentence
    return sentence


def test_a_store_in_use_that_counts_on_is_no_fault(folder: Path) -> None:
    config = load_config(folder / "alice.toml")
    assert examine_store(config) == "not made yet"
    with KeyStore.open(path_of(folder, "alice", "keys.database"), path_of(folder, "alice", "keys.key_file")) as store:
        add_block(store, 1, 100_000)
        store.advance({"position": b"2"})
        assert examine_store(config) == "800000 bits for applications"
        store.advance({"position": b"3"})  # the look beside it has left the files alone
    assert examine_store(config) == "800000 bits for applications"


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 30, 4096))
    assert "4096 bytes are free" in agree(folder, role, 3)


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_a_fresh_link_passes(folder: Path, role: str) -> None:
    code, said = answer(folder, role, "check")
    assert (code, json.loads(said)["ok"]) == (0, True), said


def test_what_is_in_use_says_which_key_names_it(folder: Path) -> None:
    for field in ("etsi014.listen", "channel.endpoint"):
        with taken(field)(folder, "alice"):
            assert field in agree(folder, "alice", 3)


def test_a_running_node_holds_its_own_addresses(folder: Path) -> None:
    """`check` beside the daemon does not blame it."""
    status = {"role": "alice", "link": "x", "state": "running", "alarms": [], "process_id": os.getpid()}
    path_of(folder, "alice", "status_file").write_text(json.dumps(status))
    with taken("etsi014.listen")(folder, "alice"):
        code, said = answer(folder, "alice", "check")
    assert code == 0, said


def test_the_steps_open_no_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any) -> Any:
        raise AssertionError("a device was opened")

    monkeypatch.setattr("hardware.registry.open_device", opened)
    monkeypatch.setattr("hardware.twin.devices.TwinModulator.__init__", opened)
    assert answer(folder, "alice", "check")[0] == 0
