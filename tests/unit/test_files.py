"""Files are whole or as they were; nobody in the product writes another way without a stated reason."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import InputError
from common.files import SECRET, replacing, write_file

ROOT = Path(__file__).parents[2]
PACKAGES = ("alice", "bob", "common", "classical_channel", "hardware")
WRITERS = {"write_text", "write_bytes", "savefig", "savez", "savez_compressed", "save", "tofile", "to_csv"}
EXCUSED = {
    ("common/files.py", "open"): "the one writer",
    ("common/node/flight.py", "open"): "grows while the run lasts, every record sealed; never an existing file",
    ("common/node/keystore.py", "open"): "makes an empty database; SQLite has a journal of its own",
    ("common/node/storefile.py", "open"): "the lock of the database, which must stay the same file",
    ("common/node/credentials.py", "open"): "secrets are never overwritten: O_EXCL, then fsync",
    ("common/cli/demo.py", "open"): "the output of a running daemon in a temporary folder",
    ("hardware/formats/format.py", "open"): "writes where its caller says: a temporary sibling, or a growing spool",
    ("hardware/formats/text.py", "open"): "the same",
    ("hardware/drivers/random_file.py", "open"): "one record that is overwritten in place and made durable each time",
    ("hardware/drivers/picoquant.py", "write_text"): "a temporary folder of the vendor's library",
}


def writes(source: str) -> Iterator[str]:
    """Names of the calls in a module that write to a file of their own choice."""
    inside: list[tuple[int, int]] = []
    calls: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.With) and any("replacing(" in ast.unparse(item.context_expr) for item in node.items):
            inside.append((node.lineno, node.end_lineno or node.lineno))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            opens = name == "open" and ("O_CREAT" in ast.unparse(node) or any(m[:1] in ("w", "a", "x") for m in modes))
            if name in WRITERS or opens:
                calls.append((node.lineno, name))
    yield from (name for line, name in calls if not any(first <= line <= last for first, last in inside))


def test_every_writer_of_the_product_replaces_whole_files() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in writes(path.read_text(encoding="utf-8"))
    }
    assert found - EXCUSED.keys() == set(), "use common.files, or say here why not"
    assert EXCUSED.keys() - found == set(), "these excuses are for nobody"


def test_the_search_for_writers_can_fail() -> None:
    assert list(writes("path.write_text('x')\nopen(path, 'w')\nos.open(p, os.O_CREAT)\nopen(p)")) == [
        "write_text",
        "open",
        "open",
    ]
    assert list(writes("with replacing(path) as new:\n    new.write_text('x')")) == []


def test_a_failure_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    write_file(path, "old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the ne")
            assert path.read_text() == "old"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["recording"]


def test_a_new_file_appears_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with replacing(path, SECRET) as temporary:
        temporary.write_bytes(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "x"


@pytest.mark.parametrize("where", ["missing/file", "/dev/null", ""])
def test_what_cannot_be_written_is_named(tmp_path: Path, where: str) -> None:
    with pytest.raises(InputError, match=r"was not written|no ordinary file"):
        write_file(tmp_path / where, "x")


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status"
    write_file(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_file(path, "new")
    assert path.read_text() == "old"
