"""Where messages, jobs and devices change hands, their types are said: no `Any`, and one Protocol for each role."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args, get_overloads, get_type_hints

import pytest

from hardware import interfaces
from hardware.randomness import ROLE
from hardware.registry import open_device
from hardware.slow_control import ROLES

ROOT = Path(__file__).parents[2]
JOBS = "what a job takes and returns is known to the story that asks for it"
ALLOWED = {
    "common/protocol/effects.py": JOBS,
    "common/protocol/story.py": JOBS,
    "common/protocol/frames.py": JOBS,
    "common/protocol/block.py": "a story says and refuses for the block of its own role",
    "common/protocol/session.py": "each role keeps blocks of its own kind",
    "common/protocol/messages.py": "the values of a message, whose types its layout says",
}
"""File with an `Any` -> why."""
TYPED = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("common/protocol/*.py"),
        *(ROOT / "alice/session.py", ROOT / "bob/session.py", ROOT / "common/node/runtime.py"),
        *(ROOT / "hardware/registry.py", ROOT / "hardware/interfaces.py"),
    )
)


@pytest.mark.parametrize("path", TYPED)
def test_any_has_a_reason(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "Any"]
    assert bool(lines) == (path in ALLOWED), f"lines {lines}"


def test_every_role_of_a_device_has_its_protocol() -> None:
    promised = {
        role: hints["return"]
        for hints in map(get_type_hints, get_overloads(open_device))
        for role in get_args(hints["role"])
    }
    assert set(promised) == {ROLE, "random_source.seed", "modulator", "time_tagger", *ROLES}
    own = [kind for kind in vars(interfaces).values() if getattr(kind, "__module__", "") == interfaces.__name__]
    protocols = {kind for kind in own if getattr(kind, "_is_protocol", False)}
    assert set(promised.values()) == protocols - {interfaces.Device}
