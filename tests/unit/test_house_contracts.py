"""The import contracts find what they are there for: imports that are injected into a copy of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(cache_dir=None))"

CORE = "The core does no input or output, reads no clock and draws no randomness"
SIDES = "Alice and Bob never import each other; channel and hardware never import each other; all stand on common"

IMPURE = {
    "common.auditor": "reads the certificates that it judges",
    "common.calibration_file": "reads and writes files",
    "common.cli": "the operator's tool",
    "common.config_file": "reads files",
    "common.files": "reads and writes files",
    "common.installation": "asks what is installed",
    "common.node": "the shell of the daemons",
    "common.planning": "reads and writes the operator's files",
    "hardware.drivers": "devices",
    "hardware.examination": "the operator's tool",
    "hardware.formats": "reads and writes files of time tags",
    "hardware.twin.wire": "servers of the twins",
}
"""Folder or file -> why it is not of the core, whatever it imports today."""


@cache
def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def contract(name: str) -> dict[str, Any]:
    return next(each for each in settings()["tool"]["importlinter"]["contracts"] if each["name"] == name)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts, to be spoilt."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in settings()["tool"]["importlinter"]["root_packages"]:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    return folder


def broken(folder: Path) -> set[str]:
    """Names of the contracts that are broken there."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "1000"}
    done = subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    summary = done.stdout.split("Contracts: ")[0]
    return {line.removesuffix(" BROKEN") for line in summary.splitlines() if line.endswith(" BROKEN")}


def test_the_tree_breaks_none(copy: Path) -> None:
    assert broken(copy) == set()


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("common/postprocessing/sifting.py", "import os\n\nSEED = os.urandom(8)\n", {CORE}),
        ("bob/selection.py", "from bob.daemon import BobDaemon\n", {CORE, "Inside bob"}),
        ("common/security/bounds.py", "from common import misc\n", {"Inside common"}),
        ("alice/session.py", "from bob.receiver import Receiver\n", {SIDES}),
    ],
    ids=["os.urandom in the core", "the core on a daemon", "security on a new module", "alice on bob"],
)
def test_an_illegal_import_is_found(copy: Path, file: str, line: str, found: set[str]) -> None:
    path, misc = copy / file, copy / "common" / "misc.py"
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(before + line, encoding="utf-8")
        if "misc" in line:
            misc.write_text('"""A place for everything."""\n', encoding="utf-8")
        assert broken(copy) >= found
    finally:
        path.write_text(before, encoding="utf-8")
        misc.unlink(missing_ok=True)


def within(module: str, folders: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{folder}.") for folder in folders)


def test_what_could_be_of_the_core_is_of_the_core() -> None:
    graph = grimp.build_graph(*settings()["tool"]["importlinter"]["root_packages"], include_external_packages=True)
    core, forbidden = contract(CORE)["source_modules"], contract(CORE)["forbidden_modules"]
    outside = [
        module
        for root in ("alice", "bob", "classical_channel", "common", "hardware")
        for module in graph.find_descendants(root)
        if not within(module, core) and not within(module, IMPURE) and not graph.find_children(module)
    ]
    assert [m for m in outside if not graph.find_upstream_modules(m) & set(forbidden)] == []


def test_numpy_random_is_banned_from_the_core() -> None:
    """An attribute is no import: the ban is ruff's, and only the twin, which takes its seeds, is exempt."""
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert ruff is not None, "ruff is not installed"
    for module in contract(CORE)["source_modules"]:
        place = ROOT / module.replace(".", "/")
        name = place / "sample.py" if place.is_dir() else place.with_suffix(".py")
        done = subprocess.run(
            [ruff, "check", "--select", "TID251", "--stdin-filename", str(name), "-"],
            input="import numpy as np\n\nrng = np.random.default_rng()\n",
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ("TID251" in done.stdout) is not module.startswith("hardware.twin."), module
