"""Wrong versions of the proof: one sign, ratio, constant, index, comparison or function changed in its source."""

from __future__ import annotations

import ast
import copy
import functools
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType

import common.security
import common.security.finite_key

FOLDER = Path(common.security.__file__).parent
MODULES = (
    "bounds",
    "anytime",
    "budget",
    "tallies",
    "phase_errors",
    "arrivals",
    "monitors",
    "assumes",
    "three_state",
    "bb84",
    "decoy",
    "finite_key",
)
"""In the order of their imports."""
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
NAMES = {
    "steepest": "price",
    "more": "flip",
    "flip": "more",
    "wrong": "right",
    "right": "wrong",
    "p_z_lower": "p_z_upper",
    "p_z_upper": "p_z_lower",
    "mean_upper": "mean_lower",
    "mean_lower": "mean_upper",
    "p_z": "q_z",
    "q_z": "p_z",
    "p_x": "q_x",
    "q_x": "p_x",
    "H": "R",
    "V": "L",
    "R": "L",
    "L": "R",
    "SIGNAL": "DECOY",
    "DECOY": "VACUUM",
    "VACUUM": "DECOY",
    "min": "max",
    "max": "min",
    "floor": "ceil",
    "ceil": "floor",
}
UNTOUCHED = {"frozen", "slots", "sort_keys", "allow_nan", "eps", "accounting", "eps_total", "eps_cor", "eps_auth"}
"""Keyword arguments and defaults of dataclasses that are form, not arithmetic."""
_BOOL_OPS: dict[type[ast.boolop], type[ast.boolop]] = {ast.And: ast.Or, ast.Or: ast.And}


def _changed(node: ast.AST) -> ast.AST | None:
    """The node with one thing wrong, or None."""
    wrong = copy.deepcopy(node)
    if isinstance(wrong, ast.BinOp) and type(wrong.op) in OPERATORS:
        wrong.op = OPERATORS[type(wrong.op)]()
    elif isinstance(wrong, ast.UnaryOp) and isinstance(wrong.op, ast.USub | ast.Not):
        return wrong.operand
    elif isinstance(wrong, ast.Compare) and len(wrong.ops) == 1 and type(wrong.ops[0]) in COMPARISONS:
        wrong.ops = [COMPARISONS[type(wrong.ops[0])]()]
    elif isinstance(wrong, ast.BoolOp):
        wrong.op = _BOOL_OPS[type(wrong.op)]()
    elif isinstance(wrong, ast.Constant) and isinstance(wrong.value, bool):
        wrong.value = not wrong.value
    elif isinstance(wrong, ast.Constant) and isinstance(wrong.value, int | float):
        wrong.value = wrong.value + 1 if isinstance(wrong.value, int) else wrong.value * 1.25 + (wrong.value == 0.0)
    elif isinstance(wrong, ast.Name) and isinstance(wrong.ctx, ast.Load) and wrong.id in NAMES:
        wrong.id = NAMES[wrong.id]
    elif isinstance(wrong, ast.Attribute) and wrong.attr in NAMES:
        wrong.attr = NAMES[wrong.attr]
    else:
        return None
    return wrong


def _targets(tree: ast.Module) -> list[ast.AST]:
    form = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in UNTOUCHED}
    form |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and _name(node) in UNTOUCHED}
    return [node for node in ast.walk(tree) if id(node) not in form and _changed(node) is not None]


def _name(node: ast.AnnAssign) -> str:
    return node.target.id if isinstance(node.target, ast.Name) else ""


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, wrong: ast.AST) -> None:
        self._target, self._wrong = target, wrong

    def visit(self, node: ast.AST) -> ast.AST:
        return self._wrong if node is self._target else self.generic_visit(node)


def mutants(module: str) -> Iterator[tuple[str, ast.Module]]:
    """("module: line: what it was -> what it is", tree) of every wrong version of a module."""
    source = (FOLDER / f"{module}.py").read_text()
    lines, tree = source.splitlines(), ast.parse(source)
    chosen = {id(node) for node in _targets(tree)}
    numbers = [number for number, node in enumerate(ast.walk(tree)) if id(node) in chosen]
    for number in numbers:
        tree = ast.parse(source)
        target = next(itertools.islice(ast.walk(tree), number, None))
        wrong = _changed(target)
        assert wrong is not None
        line = lines[getattr(target, "lineno", 1) - 1].strip()
        label = f"{module}: {line}: {ast.unparse(target)} -> {ast.unparse(wrong)}"
        yield label, ast.fix_missing_locations(_Replace(target, ast.copy_location(wrong, target)).visit(tree))


@functools.cache
def _code(name: str) -> CodeType:
    path = FOLDER / f"{name}.py"
    return compile(path.read_text(), str(path), "exec")


def real() -> dict[str, ModuleType]:
    """The proof as it is: name -> module."""
    return {name: sys.modules[f"common.security.{name}"] for name in MODULES}


def load(module: str, tree: ast.Module) -> dict[str, ModuleType]:
    """The proof as it would be with ``tree`` in the place of a module; nothing of the real package changes."""
    first = MODULES.index(module)
    package = sys.modules["common.security"]
    names = [f"common.security.{name}" for name in MODULES[first:]]
    saved = {name: sys.modules.pop(name) for name in names}
    attributes = {name: getattr(package, name) for name in MODULES[first:]}
    try:
        for name in MODULES[first:]:
            made = ModuleType(f"common.security.{name}")
            sys.modules[made.__name__] = made
            setattr(package, name, made)
            exec(compile(tree, name, "exec") if name == module else _code(name), made.__dict__)
        return real()
    finally:
        sys.modules.update(saved)
        for name, value in attributes.items():
            setattr(package, name, value)
