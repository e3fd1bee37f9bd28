"""Bad inputs for every command: a few of each kind of `tests/trials/fuzz.py`, and all that was once met badly."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.node.flight import Record
from common.planning import figures
from tests.trials import fuzz, material
from tests.trials.cases import KINDS, Case
from tests.trials.fuzz import GOOD, judge, run_here
from tests.trials.material import Material
from tests.trials.mutations import toml
from tests.trials.programs import invoke

OF_EACH_KIND = 4
LONG = "x" * 300
COUNTS = ["qkd", "plan", "source", "--clicks", "8900000", "--slots", "76130000", "--efficiency", "0.39", "0.41",
          "--g2-upper", "0.01", "--out", "x.toml"]  # fmt: skip


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return material.make(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("number", range(OF_EACH_KIND))
@pytest.mark.parametrize("kind", KINDS)
def test_some_of_each_kind(
    where: Material, tmp_path: Path, kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "make_figures", fuzz.few_figures)
    verdict = run_here(kind, number, where, 0, tmp_path)
    assert verdict.word == GOOD, verdict.text


def test_the_judge_finds_what_is_wrong() -> None:
    asked = Case(["qkd", "x", "--json"], {0, 2}, ("run.ptu",))
    for code, said, out, word in (
        (None, "", "", "traceback"),
        (2, "Traceback (most recent call last):", "", "traceback"),
        (1, "no", "{}", "exit code 1"),
        (2, "", "", "silent"),
        (2, "a fault", "", "the file is not named"),
        (0, "", "{} {}", "not one JSON document"),
        (2, "run.ptu: a fault", "", GOOD),
    ):
        assert judge(asked, fuzz.Seen(code, said, out)) == word


# -- what was once met with a traceback, without an end, or with the wrong code ---------------------------------------


def npz(content: bytes) -> Callable[[Path, Material], list[str]]:
    def make(folder: Path, where: Material) -> list[str]:
        (folder / "run.npz").write_bytes(content)
        return ["qkd", "plan", "g2", "run.npz"]

    return make


def claimed(folder: Path, where: Material) -> list[str]:
    """An array whose header says a terabyte."""
    np.save(folder / "key.npy", np.zeros(16, np.uint8))
    raw = (folder / "key.npy").read_bytes()
    (folder / "key.npy").write_bytes(raw.replace(b"(16,)", b"(1099511627776,)"))
    return ["qkd", "distil", "--alice", "key.npy", "--bob", "key.npy"]


def device_table(folder: Path, where: Material) -> list[str]:
    """Lists in lists, deeper than any serialisation goes."""
    link, document = where.copy_link(folder), where.config("bob")
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    document["devices"]["attenuator"] = {"driver": "oz-attenuator", "port": deep}
    document["devices"]["other"] = {"driver": "twin-attenuator", "x": deep}
    (link / "bob.toml").write_text(toml(document))
    return ["bob", "check", "--config", str(link / "bob.toml")]


def application(name: str) -> Callable[[Path, Material], list[str]]:
    """A file's name is made of it."""

    def make(folder: Path, where: Material) -> list[str]:
        link, document = where.copy_link(folder), where.config("bob")
        document["etsi014"]["saes"] = {name: "kme-bob", "sae-alice": "kme-alice"}
        (link / "bob.toml").write_text(toml(document))
        return ["qkd", "init", str(link)]

    return make


def pipe(name: str) -> Callable[[Path, Material], list[str]]:
    """SQLite waits for its writer."""

    def make(folder: Path, where: Material) -> list[str]:
        home = where.copy_link(folder) / "alice"
        (home / name).unlink(missing_ok=True)
        os.mkfifo(home / name)
        return ["alice", "check", "--json", "--config", str(home.with_suffix(".toml"))]

    return make


def onto(content: bytes) -> Callable[[Path, Material], list[str]]:
    """A calibration goes into a file that is none."""

    def make(folder: Path, where: Material) -> list[str]:
        (folder / "x.toml").write_bytes(content)
        return COUNTS

    return make


def configuration(content: bytes) -> Callable[[Path, Material], list[str]]:
    def make(folder: Path, where: Material) -> list[str]:
        (folder / "alice.toml").write_bytes(content)
        return ["qkd", "init", str(folder)]

    return make


def recording(verb: str, change: Callable[[Record], Record]) -> Callable[[Path, Material], list[str]]:
    """Sealed as it should be, and written by another version."""

    def make(folder: Path, where: Material) -> list[str]:
        records = material.flight_records(where.flights[0])
        material.rewrite_flight(folder / "x.flight", [change(record) for record in records])
        return ["qkd", verb, "x.flight", "--key-file", str(where.folder / "flights" / "record.key")]

    return make


def without(name: str) -> Callable[[Record], Record]:
    return lambda record: Record(
        record.kind, {key: fact for key, fact in record.facts.items() if key != name}, record.raw
    )


def to_itself(folder: Path, where: Material) -> list[str]:
    """A calibration goes where a symbolic link leads to itself."""
    (folder / "x.toml").symlink_to("x.toml")
    return COUNTS


def of_another_type(folder: Path, where: Material) -> list[str]:
    """SQLite keeps a text in a column of numbers."""
    link = where.copy_link(folder)
    with contextlib.closing(sqlite3.connect(link / "alice" / "keys.sqlite")) as database, database:
        database.execute("UPDATE blocks SET n_bytes = '[1' || n_bytes")
    return ["qkd", "keys", "--json", "--config", str(link / "alice.toml")]


def words(*command: str) -> Callable[[Path, Material], list[str]]:
    return lambda folder, where: list(command)


MUSEUM: dict[str, tuple[Callable[[Path, Material], list[str]], set[int], str]] = {
    "an empty .npz": (npz(b""), {2}, "run.npz"),
    "a .npz of noise": (npz(b"\x93NUMPX" * 9), {2}, "run.npz"),
    "half a .npz": (npz(b"PK\x03\x04" + bytes(60)), {2}, "run.npz"),
    "an array of a terabyte": (claimed, {2}, "key.npy"),
    "devices in lists in lists": (device_table, {2}, "devices"),
    "an application in another folder": (application("../../x"), {2}, "saes"),
    "an application of 65 characters": (application("x" * 65), {2}, "saes"),
    "an application that no certificate can name": (application(""), {2}, "saes"),
    "a pipe as key store": (pipe("keys.sqlite"), {2, 3}, "no ordinary file"),
    "a pipe as write-ahead log": (pipe("keys.sqlite-wal"), {3}, "no ordinary file"),
    "a pipe as lock": (pipe("keys.sqlite.lock"), {3}, "no ordinary file"),
    "a calibration that is not UTF-8": (onto(b"\xbe\xff"), {2}, "x.toml"),
    "a calibration that is not TOML": (onto(b"a = = 3"), {2}, "x.toml"),
    "a configuration that is not UTF-8": (configuration(b"\xbe\xff"), {2}, "alice.toml"),
    "a configuration that is not TOML": (configuration(b"a = = 3"), {2}, "alice.toml"),
    "a configuration without tables": (configuration(b'role = "alice"'), {0}, ""),
    "a calibration onto a link to itself": (to_itself, {2}, "x.toml"),
    "a recording without a role": (recording("replay", without("config")), {2}, "recording"),
    "a recording without an identity": (recording("replay", without("identity")), {2}, "recording"),
    "a recording without jobs": (recording("replay", without("job")), {1, 2}, "recording"),
    "a recording without a start": (recording("record", without("started")), {2}, "x.flight"),
    "a key store with texts for numbers": (of_another_type, {3}, "cannot be read"),
    "figures where no folder can be": (words("qkd", "figures", "--out", "/dev/null/x"), {2}, "/dev/null/x"),
    "a link where no folder can be": (words("qkd", "init", "/dev/null/x"), {2}, "/dev/null/x"),
    "figures with a long name": (words("qkd", "figures", "--out", LONG), {2}, LONG),
    "a link with a long name": (words("qkd", "init", LONG), {2}, LONG),
    "a recording with a long name": (words("qkd", "convert", LONG, "x.ptu"), {2}, LONG),
}


@pytest.mark.parametrize("name", MUSEUM)
def test_what_was_once_met_badly(name: str, where: Material, tmp_path: Path) -> None:
    make, codes, said = MUSEUM[name]
    command = make(tmp_path, where)
    with contextlib.chdir(tmp_path):
        seen = invoke(command)
    assert seen.code in codes, seen.said
    assert said in seen.said + seen.stdout
