"""The runbook says what the code does: every alarm, every exit code, nothing that there is not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import tomlkit

import common.cli.main
from common import errors
from common.cli.init import template
from common.config_file import parse_config
from common.errors import QkdError, exit_code
from common.node import alarms

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text(encoding="utf-8")
PACKAGES = ("alice", "bob", "common", "classical_channel", "hardware")
CALLS = {"alarm", "_alarm", "_raise_or_clear", "alarm_from_thread"}


def alarm_names(source: str) -> Iterator[str]:
    """Names under which a module raises alarms: the first text of a call, keys of the tables of watches."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="partial"), args=[told, ast.Constant(value=name), *_]):
                if "alarm_from_thread" in ast.unparse(told):
                    yield str(name)
            case ast.Call(func=ast.Attribute(value=of, attr=called), args=[ast.Constant(value=name), *_]):
                if called in CALLS or (called in ("watch", "tell") and ast.unparse(of) == "node"):
                    yield str(name)
            case ast.AnnAssign(target=ast.Attribute(attr="_watches" | "_told"), value=ast.Dict(keys=keys)):
                yield from (key.value for key in keys if isinstance(key, ast.Constant))
            case ast.Subscript(value=ast.Attribute(attr="_faults"), slice=ast.Constant(value=name)):
                yield str(name)
            case ast.For(iter=ast.Tuple(elts=pairs)) if "node.tell" in ast.unparse(node):
                yield from (ast.literal_eval(pair.elts[0]) for pair in pairs if isinstance(pair, ast.Tuple))


def raised() -> set[str]:
    """Every alarm of the product."""
    found = {alarms.NAME}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found |= set(alarm_names(path.read_text(encoding="utf-8")))
    return found


def listed() -> list[str]:
    """First column of the runbook's table of alarms."""
    return [re.match(r"\| `([^`]+)` \|", row).group(1) for row in table()]  # type: ignore[union-attr]


def table() -> list[str]:
    """Its rows."""
    section = RUNBOOK.split("## Alarms")[1].split("What is no alarm")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_every_alarm_stands_in_the_runbook_and_every_entry_is_an_alarm() -> None:
    entries = listed()
    assert sorted(entries) == sorted(set(entries)), "an alarm stands there twice"
    assert set(entries) == raised()


def test_every_entry_says_what_happened_what_to_do_and_how_it_ends() -> None:
    for row in table():
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4, row
        assert all(len(cell) > 10 for cell in cells[1:]), row


def test_the_search_for_alarms_can_fail() -> None:
    source = "self.board.alarm('a', x)\nself._raise_or_clear('b', x)\npartial(node.alarm_from_thread, 'c')"
    source += "\nself._told: dict[str, int] = {'d': 1}\nnode.watch('e', f)\nlog.error('no')\npartial(f, 'no')"
    assert sorted(alarm_names(source)) == ["a", "b", "c", "d", "e"]


# -- exit codes -------------------------------------------------------------------------------------------------------


def codes() -> set[int]:
    """What commands end with: of faults, and what the commands themselves return."""
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, QkdError)]
    faults = {exit_code(kind("x", "y", "z") if kind is errors.HandshakeMismatch else kind("x")) for kind in kinds}
    return {0, 1, 5, 130} | faults


def test_every_exit_code_stands_where_the_contract_is_written() -> None:
    contract = RUNBOOK.split("## Exit codes")[1].split("\n## ")[0]
    listed_codes = {int(code) for code in re.findall(r"^\| (\d+) \|", contract, re.MULTILINE)}
    assert listed_codes == codes()
    told = re.split(r"Exit codes: ", str(common.cli.main.__doc__))[1]
    assert {int(code) for code in re.findall(r"(?:^|; |\n)(\d+) ", told)} == codes()


def test_the_auditors_codes_are_among_them() -> None:
    verdicts = RUNBOOK.split("| verdict | exit code | means |")[1].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"\| (\d) \|", verdicts)} == {0, 1, 2, 5}


# -- installation -----------------------------------------------------------------------------------------------------


def test_the_steps_make_what_the_unit_uses() -> None:
    """User, folders and the file that the unit documents itself by are made by a step."""
    unit = (ROOT / "deploy" / "qkd@.service").read_text(encoding="utf-8")
    steps = RUNBOOK.split("## Install")[1].split("## Two machines")[0]
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert f"--shell /usr/sbin/nologin {settings['User']}" in steps
    for path in settings["ReadWritePaths"].split():
        assert path in steps.split("install -d")[1].split("\n")[0]
    assert settings["Documentation"].removeprefix("file:") in steps
    assert re.search(r"NUMBA_CACHE_DIR=(\S+)", settings["Environment"]).group() in steps  # type: ignore[union-attr]
    assert "systemctl daemon-reload" in steps
    assert 'database = "/var/lib/qkd/keys.sqlite"' in steps


def test_the_places_that_the_runbook_names_are_valid(tmp_path: Path) -> None:
    steps = RUNBOOK.split("## First key")[1].split("## Two machines")[0]
    document = tomlkit.parse(template("alice"))
    document["status_file"] = re.search(r'`status_file = "(.*?)"`', steps).group(1)  # type: ignore[union-attr]
    for section, name in (("keys", "database"), ("record", "directory")):
        value = re.search(rf'\[{section}\] {name} = "(.*?)"', steps).group(1)  # type: ignore[union-attr]
        document[section][name] = value  # type: ignore[index]
    assert parse_config(tomlkit.dumps(document), tmp_path).keys.database == Path("/var/lib/qkd/keys.sqlite")
