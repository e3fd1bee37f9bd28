"""What the code says of itself is true: every public name is used, and every paragraph names what exists."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ("alice", "bob", "classical_channel", "common", "hardware")

FOR_TESTS = {
    "bob.gating.GateCounts.outside_gate": "the receiver's counts are compared with the light",
    "bob.gating.GateCounts.cross_basis_clicks": "the receiver's counts are compared with the light",
    "classical_channel.memory_transport.Line": "joins two channels without a network",
    "classical_channel.memory_transport.Line.next_arrival_ns": "joins two channels without a network",
    "classical_channel.memory_transport.MemoryPipe": "joins two channels without a network",
    "classical_channel.memory_transport.MemoryPipe.next_arrival_ns": "joins two channels without a network",
    "common.planning.link_model.Expected.cross_probability": "the model is compared with the twin",
    "common.planning.link_model.Expected.double_probability": "the model is compared with the twin",
    "common.planning.link_model.expected_tallies": "golden key lengths are those of expected tallies",
    "common.planning.optimise.recommended_p_z_alice": "golden key lengths are at the recommended p_z",
    "common.planning.paper.CLAIMED_ADVANTAGE_FIELD_DB": "the paper's claim stands beside ours (docs/reproduction.md)",
    "common.planning.paper.CLAIMED_ADVANTAGE_NEAR_ZERO_LOSS_DB": "the paper's claim stands beside ours",
    "common.protocol.messages.message_types": "every type has a golden file, a place in the table and a fuzzer",
    "common.protocol.transitions.ENDED": "no message leads out of an end",
    "common.security.rates.G2_MAX": "the paper's Eq. (3) (docs/reproduction.md)",
    "common.security.rates.advantage_db": "the paper's Eqs. (1) to (3) (docs/reproduction.md)",
    "common.security.rates.best_pre_attenuation": "the paper's Eq. (2) (common/security/README.md)",
    "common.security.rates.boundary_mean_photon_number": "the paper's Eq. (3) (docs/reproduction.md)",
    "common.security.rates.single_photon_limit": "the paper's Eq. (2) (docs/reproduction.md)",
}
"""Name -> why only tests use it."""

BY_NAME = {
    "common.cli.main.LazyGroup": "click calls the methods of its class",
    "common.cli.role.OneLine": "logging calls the methods of its class",
    "common.node.conversation.Conversation": "aiohttp calls the methods of its class",
    "common.keys.certificate": "fields of the certificate, which is a document",
    "common.kernels.clmul._VectorModel": "registered with numba",
    "common.node.replay.Report": "a document (`qkd replay --json`)",
    "common.protocol.block.BlockFacts": "a document (`status`)",
    "classical_channel.zmq_transport.Wire": "a document (`status`)",
    "hardware.drivers": "drivers are called through the Protocols of hardware.interfaces",
    "hardware.replay.ReplayModulator.always_simulated": "read by name (common/node/check.py)",
    "hardware.replay.ReplayTimeTagger.always_simulated": "read by name (common/node/check.py)",
    "hardware.twin.devices.TwinModulator.always_simulated": "read by name (common/node/check.py)",
    "hardware.twin.devices.TwinTimeTagger.always_simulated": "read by name (common/node/check.py)",
    "hardware.twin.devices.TwinTimeTagger.counters": "read by name (bob/daemon.py)",
    "hardware.formats.files.open_writer": "the library's own interface: time tags written while they come",
}
"""Name, or what its names begin with -> who uses it without naming it in an expression."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def modules() -> dict[str, ast.Module]:
    """Module -> its tree, of the whole product."""
    files = [file for root in ROOTS for file in sorted((ROOT / root).rglob("*.py"))]
    named = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    return {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in named.items()}


def names_of(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def definitions() -> Iterator[tuple[str, str, ast.stmt]]:
    """(dotted name, its last part, where it is defined) of every public name: of modules, and of their classes."""
    for module, tree in modules().items():
        for node in tree.body:
            for name in names_of(node):
                if not name.startswith("_"):
                    yield f"{module}.{name}", name, node
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                for name in names_of(member):
                    if not (name.startswith("_") or name == "model_config"):
                        yield f"{module}.{node.name}.{name}", name, member  # type: ignore[union-attr]


def mentions(tree: ast.AST) -> Counter[str]:
    """How often each name is read there: as a name, an attribute, or the name of an argument."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
                found[name] += 1
            case ast.keyword(arg=str(name)):
                found[name] += 1
    return found


def starts(name: str, prefixes: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def entry_points() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["scripts"], *project["entry-points"].values()]
    return {target.replace(":", ".") for group in groups for target in group.values()}


def unused() -> set[str]:
    everywhere: Counter[str] = Counter()
    for tree in modules().values():
        everywhere += mentions(tree)
    return {
        dotted
        for dotted, name, node in definitions()
        if everywhere[name] <= mentions(node)[name] and dotted not in entry_points() and not starts(dotted, BY_NAME)
    }


def test_every_public_name_is_used() -> None:
    assert sorted(unused() - set(FOR_TESTS)) == []


def test_the_exceptions_are_needed() -> None:
    """What is used after all, or is gone, needs no excuse."""
    assert sorted(set(FOR_TESTS) - unused()) == []
    known = {dotted for dotted, _, _ in definitions()} | set(modules())
    assert [name for name in BY_NAME if not any(starts(one, [name]) for one in known | private())] == []


def private() -> set[str]:
    return {f"{module}.{name}" for module, tree in modules().items() for node in tree.body for name in names_of(node)}


@pytest.mark.parametrize("name", sorted(FOR_TESTS))
def test_what_is_for_tests_is_used_by_them(name: str) -> None:
    last = name.rsplit(".", 1)[1]
    files = (file for file in (ROOT / "tests").rglob("*.py") if file.name != Path(__file__).name)
    assert any(re.search(rf"\b{last}\b", file.read_text(encoding="utf-8")) for file in files)


# -- the paragraph of each package -------------------------------------------------------------------------------------


def packages() -> list[str]:
    files = [file for root in ROOTS for file in sorted((ROOT / root).rglob("__init__.py"))]
    return [".".join(file.parent.relative_to(ROOT).parts) for file in files]


def spoken(package: str) -> list[str]:
    """What its paragraph quotes."""
    text = ast.get_docstring(modules()[package]) or ""
    return [quoted.removeprefix(":func:").strip() for quoted in re.findall(r"``?([^`]+)``?", text)]


@pytest.mark.parametrize("package", packages())
def test_every_package_has_a_paragraph_whose_names_exist(package: str) -> None:
    folder = ROOT / package.replace(".", "/")
    groups = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"])
    words = spoken(package)
    assert ast.get_docstring(modules()[package])
    for word in words:
        places = [base / word.replace(".", "/") for base in (folder, folder.parent, ROOT)]
        places += [base / word for base in (folder, ROOT, ROOT / "common")]
        there = any(p.exists() or p.with_suffix(".py").exists() for p in places) or word in groups | {"qkd", "scipy"}
        assert there or word in {name for node in modules()[package].body for name in exported(node)}, word


def exported(node: ast.stmt) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize("package", [name for name in packages() if "." in name and not name.startswith("hardware")])
def test_the_paragraph_names_every_package_that_is_imported(package: str) -> None:
    siblings = {name for name in packages() if name.startswith("common.")} - {package}
    imported = {
        sibling
        for module, tree in modules().items()
        if starts(module, [package])
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for sibling in siblings
        if starts(node.module, [sibling])
    }
    said = {word.split("/")[0].removeprefix("common.") for word in spoken(package)}
    if package != "common.cli":  # it imports everybody
        assert {name.removeprefix("common.") for name in imported} <= said
