"""Files are whole or as they were; nobody in the product writes another way without a stated reason."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import InputError
from common.files import SECRET, decoding, open_file, read_file, replacing, write_file

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
READERS = {"read_text", "read_bytes", "fromfile", "memmap", "memory_map", "load", "open"}
READ_ANYWAY = {
    ("common/files.py", "open"): "the one reader",
    ("common/auditor/verify_certificate.py", "open"): "shares nothing with the node, and looks for itself",
    ("common/installation.py", "read_bytes"): "files of this installation; imports nothing of ours",
    ("common/cli/demo.py", "open"): "the output of its own daemon",
    ("common/cli/demo.py", "read_text"): "what its own daemon writes",
    ("common/cli/output.py", "open"): "the kernel's account of the processor",
    ("common/node/lag.py", "open"): "the kernel's account of the scheduler",
    ("common/node/load.py", "open"): "the kernel's account of this process",
    ("common/cli/init.py", "read_text"): "the templates in the package",
    ("common/planning/ldpc_design.py", "read_text"): "a table in the package",
    ("common/postprocessing/ldpc_codes.py", "open"): "a table in the package",
    ("hardware/formats/arrow.py", "memory_map"): "its caller has opened it as an ordinary file",
    ("hardware/drivers/random_device.py", "open"): "a device, read as far as bits are needed",
}


def reads(source: str) -> Iterator[str]:
    """Names of the calls in a module that read a file by its name."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        of = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        opens = of in ("", "os") or "r" in "".join(texts)[:2] or of.endswith("path") or "joinpath" in of
        written = any(text[:1] in ("w", "a", "x") for text in texts) or "O_WRONLY" in ast.unparse(node)
        of_path = of == "np" and "path" in ast.unparse(node.args[0]) if name == "load" else opens and not written
        if name in READERS and (name not in ("open", "load") or of_path):
            yield name


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


def test_every_reader_of_the_product_takes_ordinary_files_alone() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in reads(path.read_text(encoding="utf-8"))
    }
    assert found - READ_ANYWAY.keys() - EXCUSED.keys() == set(), "use common.files, or say here why not"
    assert READ_ANYWAY.keys() - found == set(), "these excuses are for nobody"


def test_the_search_for_readers_can_fail() -> None:
    source = "path.read_text()\nopen(path)\npath.open('rb')\nnp.load(path)\njson.load(file)\nimage.open()\nopen(p, 'w')"
    assert list(reads(source)) == ["read_text", "open", "open", "load"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", ["/dev/zero", "/dev/null", "fifo", "folder", "large", "missing"])
def test_an_input_is_an_ordinary_file_of_bounded_size(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "large":
        path.write_bytes(bytes(11))
        assert read_file(path, 11) == bytes(11)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"ordinary file|directory|more than 10 bytes|No such file"):
        read_file(path, 10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_open_input_is_read_as_usual(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    with open_file(tmp_path / "x") as file:
        assert (file.read(2), file.read()) == (b"12", b"345")


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


def test_a_bound_is_not_set_aside(tmp_path: Path) -> None:
    """A bound of terabytes costs nothing where the file is short."""
    (tmp_path / "x").write_bytes(b"abc")
    assert read_file(tmp_path / "x", 1 << 50) == b"abc"
    assert read_file(tmp_path / "x", 3) == b"abc"
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_file(tmp_path / "x", 2)


def test_any_error_of_a_decoder_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    for error in (EOFError(), KeyError("x"), MemoryError(), RecursionError("too deep"), OSError(5, "I/O error")):
        with pytest.raises(InputError, match=r"run\.npz: cannot be read as npz: ."), decoding(path, "npz", ""):
            raise error
    with pytest.raises(InputError, match=r"^already told$"), decoding(path, "npz", ""):
        raise InputError("already told")
