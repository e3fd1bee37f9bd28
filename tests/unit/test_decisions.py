"""The records of decisions: a file each, numbered once, with date and status; index and references hold.

``python -m tests.unit.test_decisions`` writes the index again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "decisions"
INDEX = FOLDER / "README.md"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
HEAD = re.compile(
    r"# (?P<number>\d+)\. (?P<title>\S.*)\n\nDate: (?P<date>\d{4}-\d\d-\d\d)\. "
    r"Status: (?P<status>accepted|(?:partly )?superseded by \[.*\))\.\n\n\S"
)
BY = re.compile(r"\[(\d+)\]\(([^)]+)\)")
REFERENCE = re.compile(r"\b[dD]ecisions?\s(\d+(?:, \d+)*(?:,? and \d+)?)")
TEXT = """# Decisions

Surprising choices and their reasons, a file each. A number is given once and never again.
Code and documents name a decision by its number ("decision 57"). A new one takes the next free number, its date and
the status `accepted`; what it replaces says so in its own status.
`python -m tests.unit.test_decisions` writes this table.

| number | title | date | status |
|---|---|---|---|
"""


def heads() -> list[tuple[Path, dict[str, str]]]:
    """What each record says of itself."""
    found = [(path, HEAD.match(path.read_text(encoding="utf-8"))) for path in RECORDS]
    assert [path.name for path, head in found if head is None] == [], "number, title, date or status is missing"
    return [(path, head.groupdict()) for path, head in found if head is not None]


def index() -> str:
    """The table of all records, as it must stand in the folder."""
    rows = [f"| {h['number']} | [{h['title']}]({p.name}) | {h['date']} | {h['status']} |\n" for p, h in heads()]
    return TEXT + "".join(rows)


def references(text: str) -> Iterator[int]:
    """The numbers of decisions that a text names."""
    for numbers in REFERENCE.findall(text):
        yield from map(int, re.findall(r"\d+", numbers))


def test_every_record_has_a_number_of_its_own_a_date_and_a_status() -> None:
    numbers = [int(head["number"]) for _, head in heads()]
    assert len(numbers) > 100
    assert sorted(set(numbers)) == numbers
    assert [path.name[:4] for path in RECORDS] == [f"{number:04d}" for number in numbers]


def test_what_supersedes_exists_under_its_number_and_came_later_or_on_the_same_day() -> None:
    dates = {path.name: head["date"] for path, head in heads()}
    for path, head in heads():
        assert ("superseded" in head["status"]) == bool(BY.findall(head["status"])), path.name
        for number, name in BY.findall(head["status"]):
            assert name in dates, f"{path.name}: {name} is no record"
            assert name.startswith(f"{int(number):04d}-"), path.name
            assert dates[name] >= head["date"], path.name


def test_the_index_is_complete_and_in_order() -> None:
    assert INDEX.read_text(encoding="utf-8") == index(), "python -m tests.unit.test_decisions writes it"


def test_every_decision_that_code_and_documents_name_exists() -> None:
    known = {int(path.name[:4]) for path in RECORDS}
    skipped = {".git", ".venv", "build"}
    sources = [
        path
        for kind in ("*.py", "*.md", "*.toml")
        for path in ROOT.rglob(kind)
        if not skipped & set(path.relative_to(ROOT).parts)
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in sources if path != Path(__file__)}
    named = {number: path for path, text in texts.items() for number in references(text)}
    assert len(named) > 20, "the search finds nothing"
    assert {number: str(path) for number, path in named.items() if number not in known} == {}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("ours, decision 64.", [64]),
        ("decisions 60 and 61)", [60, 61]),
        ("ours, decision\n43;", [43]),
        ("decisions 3, 4 and 5", [3, 4, 5]),
        ("no 5", []),
    ],
)
def test_the_search_for_references_can_fail(text: str, numbers: list[int]) -> None:
    assert list(references(text)) == numbers


if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")
