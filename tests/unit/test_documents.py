"""The documents say what there is: links lead somewhere, commands parse, the front page shows real output."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import struct
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from rich.console import Console

import common.cli.main
from alice.check import STEPS as ALICE_STEPS
from alice.daemon import run as run_alice
from bob.check import STEPS as BOB_STEPS
from bob.daemon import run as run_bob
from common.cli.demo import report
from common.cli.figures import command as figures
from common.cli.plan import DEFAULT, PlanGroup
from common.cli.role import role_command
from common.config import ProtocolName
from common.kernels.click_rule import CrossBasis
from common.protocol import messages
from common.protocol.transitions import TABLE, Role, State
from common.security.finite_key import PROTOCOLS
from common.security.tallies import CROSS_BASIS

ROOT = Path(__file__).parents[2]
PACKAGES = ("alice", "bob", "classical_channel", "common", "hardware")
FOLDERS = (*PACKAGES, "deploy", "docs", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
COMMANDED = [path for path in DOCUMENTS if path.name != "CHANGELOG.md" and path.parent.name != "decisions"]
"""Those whose commands are of today."""
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROTOCOL = (ROOT / "classical_channel" / "PROTOCOL.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def named(path: Path) -> str:
    """The path of a document below the repository."""
    return str(path.relative_to(ROOT))


# -- links ------------------------------------------------------------------------------------------------------------


def links(text: str) -> Iterator[str]:
    """Targets of links and pictures outside code."""
    plain = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    yield from re.findall(r"\]\(([^)\s]+)\)", plain)


def anchors(text: str) -> set[str]:
    """The names that headings have as targets."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in links(path.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{target} leads nowhere"
        assert there.is_relative_to(ROOT), f"{target} leads out of the repository"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"there is no heading {anchor!r} in {name}"


def test_the_search_for_links_can_fail() -> None:
    assert list(links("[a](b.md) `[c](d)` ![e](f.svg)\n```\n[g](h)\n```\n")) == ["b.md", "f.svg"]
    assert anchors("## One's own: `x`\n") == {"ones-own-x"}


# -- commands ---------------------------------------------------------------------------------------------------------

PROGRAMS = {"qkd", "alice", "bob"}


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, click.Group]]:
    """The three commands, from the entry points of the project file: what is installed may be older."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]

    def points(*, group: str) -> EntryPoints:
        return EntryPoints(EntryPoint(name, value, group) for name, value in groups[group].items())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.cli.main, "entry_points", points)
        yield {
            "qkd": common.cli.main.cli,
            "alice": role_command("alice", run_alice, ALICE_STEPS),
            "bob": role_command("bob", run_bob, BOB_STEPS),
        }


def calls(text: str) -> Iterator[list[str]]:
    """Calls of the three programs in code: the words from the program on."""
    lines = []
    for _, language, body in FENCE.findall(text):
        of_block = body.replace("\\\n", " ").splitlines()
        lines += of_block if language == "sh" else [line for line in of_block if line.startswith("$ ")]
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for line in lines:
        for part in re.split(r" *(?:;|&&|[|&>]| #).*?(?=\w)| *(?:[|&>;]| #).*", line.removeprefix("$ ")):
            try:
                words = shlex.split(part)
            except ValueError:
                continue
            if words[:1] == ["ip"]:  # names of network namespaces are no programs
                words = words[4:] if words[1:3] == ["netns", "exec"] else []
            starts = [i for i, word in enumerate(words) if word.rsplit("/", 1)[-1] in PROGRAMS]
            if starts and len(words) > starts[-1] + 1:
                yield [words[starts[-1]].rsplit("/", 1)[-1], *words[starts[-1] + 1 :]]


def fault(program: click.Command, words: list[str]) -> str | None:
    """What is wrong with a call: a command or an option that there is not."""
    context = click.Context(program, info_name=words[0])
    options = {"--help", "-h", "--version"}
    command: click.Command = program
    rest = words[1:]
    while isinstance(command, click.Group):
        options |= {name for param in command.params for name in param.opts}
        known = command.list_commands(context)
        if rest and rest[0] in known:
            chosen = command.get_command(context, rest.pop(0))
        elif isinstance(command, PlanGroup):
            chosen = command.get_command(context, DEFAULT)
        elif command.invoke_without_command or not rest or rest[0] in options:
            break
        else:
            return f"{rest[0]!r} is none of {', '.join(known)}"
        assert chosen is not None
        command = chosen
    options |= {name for param in command.params for name in [*param.opts, *param.secondary_opts]}
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.split("=")[0] not in options]
    return f"there is no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("path", COMMANDED, ids=named)
def test_every_command_of_the_documents_exists_with_its_options(path: Path, programs: dict[str, Any]) -> None:
    faults = [(words, fault(programs[words[0]], words)) for words in calls(path.read_text(encoding="utf-8"))]
    assert [entry for entry in faults if entry[1] is not None] == []


def test_the_search_for_commands_can_fail(programs: dict[str, Any]) -> None:
    text = "`qkd plan --bad 1` and `sudo x /opt/qkd/bin/bob run --config a.toml`\n```sh\nqkd nothing # `\n```\n"
    found = list(calls(text))
    assert ["bob", "run", "--config", "a.toml"] in found
    assert [fault(programs[words[0]], words) is None for words in sorted(found)] == [True, False, False]
    assert len(list(calls(README))) >= 4


# -- the front page ---------------------------------------------------------------------------------------------------


def test_the_front_page_is_short() -> None:
    assert len(README.splitlines()) <= 60


def test_the_session_is_what_the_demonstration_printed() -> None:
    stored = json.loads((ROOT / "tests" / "golden" / "demo.json").read_text(encoding="utf-8"))
    printed = io.StringIO()
    report(stored, Console(file=printed, width=100))
    session = "\n".join(line.rstrip() for line in printed.getvalue().splitlines())
    assert f"```\n$ {stored['command']}\n{session}\n```\n" in README
    assert stored["keys_equal"]
    assert stored["keys_compared"] > 0


def test_the_plot_is_small_and_made_by_the_command_that_it_names(programs: dict[str, Any]) -> None:
    (target,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert 1000 < (ROOT / target).stat().st_size < 200_000
    source = (ROOT / "common" / "planning" / "figures.py").read_text(encoding="utf-8")
    assert f'"{Path(target).stem}"' in source
    assert any(words[:2] == ["qkd", "figures"] for words in calls(README))
    assert figures is programs["qkd"].get_command(click.Context(programs["qkd"]), "figures")


# -- changing ---------------------------------------------------------------------------------------------------------


def test_the_names_of_protocols_are_those_with_a_proof() -> None:
    assert set(get_args(ProtocolName)) == set(PROTOCOLS)


def test_the_proof_knows_every_rule_for_double_clicks() -> None:
    assert get_args(CrossBasis) == CROSS_BASIS


def test_a_block_message_lives_in_as_many_files_as_the_page_says() -> None:
    """What one end says and the other waits for; endings and obligations stand in further places."""
    page = (ROOT / "docs" / "changing.md").read_text(encoding="utf-8").split("### A further message")[1]
    files = set(re.findall(r"\[`([\w/]+\.py)`\]", page.split("That is")[0]))
    core = [path for package in ("alice", "bob", "common") for path in (ROOT / package).rglob("*.py")]
    texts = {named(path): path.read_text(encoding="utf-8") for path in core}
    for kind in ("Announce", "Sift", "BlockEnd", "Propose", "Seed"):
        uses = re.compile(rf"^    {kind},$|import.*\b{kind}\b|^class {kind}\(", re.MULTILINE)
        assert {name for name, text in texts.items() if uses.search(text)} <= files, kind
    assert len(files) == 4


# -- PROTOCOL.md ------------------------------------------------------------------------------------------------------

SPEAKERS = {
    "Alice": {Role.ALICE}, "Bob": {Role.BOB}, "either": set(Role), "both": set(Role),
    "reference end": set(Role), "correcting end": set(Role),
}  # fmt: skip


def message_rows() -> dict[str, tuple[int, str, str, str, str]]:
    """Name -> number, sealing, sender, fixed fields, payload, as section 3 says."""
    section = PROTOCOL.split("## 3. Messages")[1].split("\n## ")[0]
    rows = {}
    for line in re.findall(r"^\| \d+ \|.*", section, re.MULTILINE):
        number, said, sender, fields, payload = [cell.strip() for cell in line.split("|")[1:6]]
        name, _, seal = said.partition(", ")
        rows[name] = (int(number), seal, sender, fields, payload)
    return rows


def kinds() -> dict[str, type[messages.Message]]:
    """The messages by the names of the description."""
    return {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper(): kind for kind in messages.message_types().values()}


def test_the_table_of_messages_is_that_of_the_code() -> None:
    rows = message_rows()
    assert set(rows) == set(kinds())
    for name, kind in kinds().items():
        number, seal, sender, fields, payload = rows[name]
        assert number == kind.TYPE, name
        assert ("sealed" in seal) == kind.SEALED, name
        assert ("held" in seal) == kind.HELD, name
        if fields.startswith("as "):
            fields = rows[fields.split()[1]][3]
        sizes = [int(size) for size in re.findall(r" (\d+)(?: \(signed\))?(?:,|$)", " " + fields)]
        assert sum(sizes) == struct.calcsize("<" + kind.LAYOUT), name
        assert len(sizes) == len([field for field in kind.FIELDS if field != "payload"]), name
        assert bool(payload) == ("payload" in kind.FIELDS), name
        senders: set[Role] = set().union(*(who for (_, of), (who, _) in TABLE.items() if of is kind))
        if senders and name != "WITHDRAW":  # Bob's is an answer after the end of a block, beyond the table
            assert SPEAKERS[sender] == senders, name


def test_the_diagram_is_a_way_through_the_table() -> None:
    diagram = PROTOCOL.split("## 4. The life of a block")[1].split("What survives")[0]
    state = State.FILLING
    said: list[str] = []
    for line in diagram.splitlines():
        arrow = re.match(r"     \|(<?)([-=]*) ?([A-Z_]+)\b.*?([-=]+)(>?)\|(?: +([A-Z]+)\b)?", line)
        if arrow is None:
            continue
        to_bob, before, name, after, to_alice, stated = arrow.groups()
        assert bool(to_bob) != bool(to_alice), line
        kind = kinds()[name]
        senders, state = TABLE[state, kind]  # type: ignore[index]
        assert (Role.ALICE if to_bob else Role.BOB) in senders, line
        assert ("=" in before + after) == kind.SEALED, line
        assert stated is None or State[stated] is state, line
        said.append(name)
    assert state is State.COMMITTED
    in_table = {name for name, kind in kinds().items() if any(of is kind for _, of in TABLE)}
    assert set(said) == in_table - {"REFUSE", "WITHDRAW"}


# -- docstrings -------------------------------------------------------------------------------------------------------


def docstrings(source: str) -> Iterator[tuple[str, str]]:
    """Names and docstrings of a module, its classes and functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            yield getattr(node, "name", "module"), ast.get_docstring(node) or ""


def test_every_docstring_has_four_words_at_least() -> None:
    sources = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    texts = {path: path.read_text(encoding="utf-8") for path in sources}
    assert len(texts) > 100
    stubs = [(named(path), *one) for path, text in texts.items() for one in docstrings(text) if one[1]]
    assert [stub for stub in stubs if len(stub[2].split()) < 4] == []
