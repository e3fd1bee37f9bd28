"""Every setting is used: a field of the configuration that nothing reads is believed and has no effect."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import common.config
from bob.receiver import Receiver
from common.config import Config, Section
from common.security.tallies import ReceiverBounds

ROOT = Path(common.config.__file__).parents[1]
PACKAGES = ("alice", "bob", "common", "classical_channel", "hardware")
OWN = ROOT / "common" / "config.py"
CHECKS = {"_consistent", "agreed", "digest", "check_intensities"}
"""Methods of the configuration that compare fields: reading one there is no use of it."""

UNREAD = {"source.calibration": "with_calibration takes it from the file's table before the models see it"}
"""Field -> why nothing reads it from the model."""

WHOLE = {"receiver", "detectors"}
"""Sections that are handed on whole, as arguments that must all be taken."""

Fields = set[tuple[str, str]]


def sections() -> dict[str, type[BaseModel]]:
    """Section -> its model; "" is the file itself."""
    annotations = {name: field.annotation for name, field in Config.model_fields.items()}
    return {
        "": Config,
        **{name: kind for name, kind in annotations.items() if isinstance(kind, type) and issubclass(kind, Section)},
    }


def all_fields() -> Fields:
    models = sections()
    own = {("", name) for name in Config.model_fields if name not in models}
    return own | {(section, name) for section in models if section for name in models[section].model_fields}


class Reads(ast.NodeVisitor):
    """The (section, attribute) pairs that one module reads.

    A section is known by its name (`config.link`), by a variable or attribute that was assigned from one, and by a
    parameter that is annotated with its model, under whatever name the model was imported.
    """

    def __init__(self, tree: ast.AST, models: dict[str, type[BaseModel]]) -> None:
        self.found: Fields = set()
        self._names = {model.__name__: section for section, model in models.items()}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == common.config.__name__:
                self._names |= {n.asname: self._names[n.name] for n in node.names if n.asname and n.name in self._names}
        self._models = models
        self._aliases: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            for target, value in assignments(node):
                section = self.section_of(value)
                if section is not None:
                    self._aliases.setdefault(target, set()).add(section)
            if isinstance(node, ast.arg) and node.annotation is not None:
                kind = ast.unparse(node.annotation).split(".")[-1].split(" ")[0]
                if kind in self._names:
                    self._aliases.setdefault(node.arg, set()).add(self._names[kind])
        for _ in range(2):  # what holds what a parameter or variable held
            for node in ast.walk(tree):
                for target, value in assignments(node):
                    self._aliases.setdefault(target, set()).update(self._aliases.get(name_of(value), set()))
        self.visit(tree)

    def section_of(self, node: ast.AST) -> str | None:
        """The section that an expression is by its name, such as `self._config.link`."""
        return node.attr if isinstance(node, ast.Attribute) and node.attr in self._models else None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value
        named = self.section_of(owner)
        alias = name_of(owner)
        for section in {named} if named else self._aliases.get(alias, set()):
            self.found.add((section, node.attr))
        if "config" in alias.lower() or alias == "self":
            self.found.add(("", node.attr))
        self.generic_visit(node)


def name_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(name of the target, value) of an assignment; of a tuple, one by one."""
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        pairs = zip(target.elts, node.value.elts, strict=False) if both else [(target, node.value)]  # type: ignore[attr-defined]
        for one, value in pairs:
            if isinstance(one, ast.Name):
                yield one.id, value
            elif isinstance(one, ast.Attribute):
                yield one.attr, value


def unused(fields: Fields, texts: Iterable[str], own: str) -> Fields:
    """The fields that no text reads, directly, by a method of its model, or by `model_dump` handed on as arguments."""
    models = sections()
    read: Fields = set()
    for text in texts:
        read |= Reads(ast.parse(text), models).found
    by_model = {model.__name__: section for section, model in models.items()}
    for node in ast.walk(ast.parse(own)):
        if not isinstance(node, ast.ClassDef) or node.name not in by_model:
            continue
        section = by_model[node.name]
        for method in node.body:
            used = isinstance(method, ast.FunctionDef) and method.name not in CHECKS and (section, method.name) in read
            if used:
                read |= {(section, part.attr) for part in ast.walk(method) if isinstance(part, ast.Attribute)}
    whole = {section for section, name in read if name == "model_dump"} & WHOLE
    return {(section, name) for section, name in fields if (section, name) not in read and section not in whole}


@cache
def product() -> tuple[str, ...]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path != OWN)
    return tuple(path.read_text(encoding="utf-8") for path in paths)


def test_every_setting_is_read_outside_the_configuration() -> None:
    missing = {f"{section}.{name}".lstrip(".") for section, name in unused(all_fields(), product(), OWN.read_text())}
    assert missing == set(UNREAD)


def test_a_planted_field_is_found_and_each_way_to_read_it_counts() -> None:
    planted: Any = ("link", "planted")
    ways = [
        "x = config.link.planted",
        "def f(config):\n    link, source = config.link, config.source\n    return link.planted",
        "def f(wanted: Link):\n    return wanted.planted",
        "class A:\n    def f(self, config):\n        self._m = config.link\n        return self._m.planted",
        "class A:\n    def f(self, one: Link):\n        self._m = one\n        return self._m.planted",
        "class A:\n    def f(self, one: Link):\n        self._m = one\n        x = self._m\n        return x.planted",
    ]
    assert unused({planted}, product(), OWN.read_text()) == {planted}
    for way in ways:
        assert unused({planted}, [way], OWN.read_text()) == set(), way
    for no_way in ("x = other.planted", "x = config.source.planted", "config.linked.planted"):
        assert unused({planted}, [no_way], OWN.read_text()) == {planted}, no_way


def test_who_is_handed_a_whole_section_takes_all_of_it() -> None:
    takers = {"receiver": Receiver.__init__, "detectors": ReceiverBounds.__init__}
    assert set(takers) == WHOLE
    for section, taker in takers.items():
        assert set(sections()[section].model_fields) - {"calibration"} <= set(inspect.signature(taker).parameters)
