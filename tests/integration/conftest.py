"""A link that `qkd demo` would run, made once a module, and a copy of it for each test to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.cli.demo import prepare


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("link")
    prepare(folder, "lab-0.17dB", "three-state", 300_000, 1)
    return folder


@pytest.fixture
def folder(link: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(link, tmp_path / "link"))
