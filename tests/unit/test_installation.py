"""Another distribution that writes over the node's files is named, before anything fails by it."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from common.installation import OURS, intrusion

ROOT = Path(__file__).parents[2]


def install(site: Path, name: str, files: dict[str, str]) -> None:
    """As pip does: over whatever is there, with a list of what was written."""
    rows = []
    for where, content in files.items():
        (site / where).parent.mkdir(parents=True, exist_ok=True)
        (site / where).write_text(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{where},sha256={digest},{len(content)}\n")
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(rows) + f"{info.name}/RECORD,,\n")


def ours(site: Path) -> None:
    install(site, OURS, {f"common/{name}.py": f"# {name} of ours\n" for name in ("config", "errors", "files", "units")})


def test_an_installation_as_it_was_made(tmp_path: Path) -> None:
    ours(tmp_path)
    install(tmp_path, "somebody-else", {"common/other.py": ""})
    assert intrusion([str(tmp_path)]) is None


def test_who_writes_over_a_file_is_named(tmp_path: Path) -> None:
    ours(tmp_path)
    install(tmp_path, "web-common", {"common/config.py": "DEBUG = True\n"})
    assert intrusion([str(tmp_path)]) == (
        "not as qkd-node installed them: common/config.py; web-common installs the same"
    )


def test_what_an_uninstalled_one_has_deleted_is_named(tmp_path: Path) -> None:
    ours(tmp_path)
    for name in ("config", "errors", "files", "units"):
        (tmp_path / "common" / f"{name}.py").unlink()
    said = intrusion([str(tmp_path)])
    assert said == "not as qkd-node installed them: common/config.py, common/errors.py, common/files.py and 1 more"


def test_an_editable_installation_has_nothing_to_compare(tmp_path: Path) -> None:
    install(tmp_path, OURS, {})
    assert intrusion([str(tmp_path)]) is None
    assert intrusion([str(tmp_path / "nothing")]) is None


def site_of_ours(site: Path) -> None:
    """The product itself as if it had been installed there, with its entry points."""
    packages = ("alice", "bob", "common", "classical_channel", "hardware")
    files = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    }
    install(site, OURS, files)


@pytest.mark.parametrize("command", ["alice", "bob", "qkd"])
def test_every_command_names_the_intruder_instead_of_a_traceback(tmp_path: Path, command: str) -> None:
    site_of_ours(tmp_path)
    install(tmp_path, "web-common", {"common/config.py": "DEBUG = True\n"})
    module = {"qkd": "common.cli.main"}.get(command, f"{command}.__main__")
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.argv = ['{command}', 'doctor']; import {module} as m; m.main()"],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "common/config.py; web-common installs the same" in done.stderr
    assert "environment of its own" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_in_the_working_directory_shadows_nothing(tmp_path: Path) -> None:
    """What the node starts as `python -m` looks for its modules where they are installed, not where the user stands."""
    starts = [
        line
        for package in ("alice", "bob", "common", "classical_channel", "hardware")
        for path in (ROOT / package).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "sys.executable," in line
    ]
    assert len(starts) >= 2
    assert [line for line in starts if '"-P"' not in line] == []
