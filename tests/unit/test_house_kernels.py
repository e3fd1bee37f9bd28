"""Every compiled function has its siblings in a list: a slow twin, the test that compares them, a goal of speed."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.cli.bench_link import GOALS

ROOT = Path(__file__).parents[2]
ROOTS = ("alice", "bob", "classical_channel", "common", "hardware")

TAGS = "tests/unit/test_tag_kernels.py"
SIFT = "tests/property/test_sifting.py"
SYMBOLS = "tests/unit/alice/test_transmitter.py"
LDPC = "tests/unit/postprocessing/test_reconciliation.py"
DRAWS = "tests/statistical/test_draws.py"
FILES = "tests/unit/hardware/test_tag_decoders.py"
HEALTH = "tests/unit/hardware/test_health.py"
PRODUCTS = "tests/unit/postprocessing/test_amplification.py"
BOB, POST, LIGHT, CLICKS = "Bob, all of it", "post-processing", "symbols, plentiful", "twin: clicks"

IN_TEST = "in the test"
"""The twin stands in the test itself."""
BENCH_FILES = "measured by `qkd bench files`, without a goal: the disk is slower"
BENCH_AMPLIFY = "measured by `qkd bench amplify` against four published programs, without a goal of its own"
SEARCH = "no goal: used while the receiver searches, not for every click"
SCARCE = "no goal: for sources that are slower than the light"
DECOY = "no goal: decoy states alone"
OFF_LINE = "no goal: makes the code table, once"
PART = "no goal: a part of the kernel above"


@dataclass(frozen=True)
class Siblings:
    """What belongs to one compiled function."""

    twin: str
    """Module and function, ``IN_TEST``, or why there is none (more than one word)."""
    test: str
    goal: str
    """A stage of `qkd bench link` that has one, or why there is none."""


R = "common.kernels.reference_tags."
KERNELS = {
    "common.kernels.correlation.down_mix": Siblings(R + "down_mix", TAGS, SEARCH),
    "common.kernels.correlation.fold": Siblings(IN_TEST, TAGS, SEARCH),
    "common.kernels.correlation.score_epochs": Siblings(R + "score", TAGS, SEARCH),
    "common.kernels.correlation.score_starts": Siblings(R + "score", TAGS, SEARCH),
    "common.kernels.coincidences.count_coincidences": Siblings(IN_TEST, "tests/unit/planning/test_g2.py", SEARCH),
    "common.kernels.health.scan": Siblings("common.kernels.reference_health.scan", HEALTH, LIGHT),
    **{
        f"common.kernels.health.{name}": Siblings("part of scan", HEALTH, PART)
        for name in ("_hints", "_edges", "_longest_run", "_holds", "_windows", "_as_first")
    },
    "common.kernels.ldpc.decode": Siblings("`slow_iteration` in the test", LDPC, POST),
    **{
        f"common.kernels.ldpc.{name}": Siblings("compared through the decoder that uses it", LDPC, POST)
        for name in ("expand_signs", "set_posteriors", "hard_decisions", "satisfied", "syndrome")
    },
    "common.kernels.sift.copy_bits": Siblings(R + "copy_bits", TAGS, POST),
    **{
        f"common.kernels.sift.{name}": Siblings("compared with numpy by what both ends agree on", SIFT, BOB)
        for name in ("split_alice", "split_bob", "count_x")
    },
    "common.kernels.bits.deposit_slowly": Siblings("it is the twin of `deposit`", SYMBOLS, SCARCE),
    "common.kernels.symbols._less": Siblings("part of fill_symbols", SYMBOLS, PART),
    "common.kernels.symbols.compare_leading": Siblings(IN_TEST, SYMBOLS, LIGHT),
    "common.kernels.symbols.fill_symbols": Siblings(IN_TEST, SYMBOLS, LIGHT),
    "common.kernels.symbols.fill_symbols_scarce": Siblings("distribution and entropy are tested", SYMBOLS, SCARCE),
    "common.kernels.symbols.fill_intensities": Siblings(
        "its distribution is tested", "tests/property/test_intensities.py", DECOY
    ),
    "common.kernels.symbols.lookup_symbols": Siblings("compared through the ring that uses it", SYMBOLS, BOB),
    "common.kernels.symbols.overwrite_words": Siblings("compared through the ring that uses it", SYMBOLS, LIGHT),
    **{
        f"common.kernels.tags.{name}": Siblings(R + name, TAGS, BOB)
        for name in ("correct_skew", "gate", "intervals", "resolve")
    },
    "common.kernels.tags.irregular": Siblings(
        "its rate of false findings is tested", "tests/unit/bob/test_intervals.py", BOB
    ),
    "common.kernels.tags.read_masks": Siblings(R + "resolve", TAGS, BOB),
    "common.kernels.varint._put": Siblings("part of encode_deltas", TAGS, PART),
    "common.kernels.varint.encode_deltas": Siblings(R + "encode_deltas", TAGS, BOB),
    "common.kernels.varint.announce": Siblings(R + "encode_deltas", TAGS, BOB),
    "common.kernels.varint.decode_deltas": Siblings("the inverse of encode_deltas", TAGS, BOB),
    **{
        f"common.planning.ldpc_density.{name}": Siblings(
            "thresholds are compared with published ones", "tests/unit/planning/test_ldpc_design.py", OFF_LINE
        )
        for name in ("_boxplus", "_with_own")
    },
    **{
        f"common.planning.ldpc_peg.{name}": Siblings(
            "the graph's degrees and cycles are tested", "tests/unit/planning/test_ldpc_design.py", OFF_LINE
        )
        for name in ("_cycle", "_grow")
    },
    "hardware.formats.decoders.encode_hydraharp_t2": Siblings("the inverse of its decoder", FILES, BENCH_FILES),
    "hardware.formats.decoders.records_needed": Siblings("the inverse of its decoder", FILES, BENCH_FILES),
    **{
        f"hardware.formats.decoders.{name}": Siblings(f"hardware.formats.reference_decoders.{name}", FILES, BENCH_FILES)
        for name in ("first_descent", "keep_ascending", "decode_a1", "decode_hydraharp_t2", "decode_picoharp_t2")
    },
    "hardware.twin.draws.mix": Siblings("hardware.twin.reference.mix", DRAWS, CLICKS),
    "hardware.twin.draws.unit": Siblings("part of normal", DRAWS, CLICKS),
    "hardware.twin.draws.rare_normal": Siblings("hardware.twin.reference.normal", DRAWS, CLICKS),
    "hardware.twin.clicks.sample_photons": Siblings(
        "its counts, spectra and error rates are tested", "tests/statistical/test_twin.py", CLICKS
    ),
    "hardware.twin.clicks.put_on_clock": Siblings("hardware.twin.reference.put_on_clock", DRAWS, CLICKS),
    "hardware.twin.clicks.record": Siblings("hardware.twin.reference.record", DRAWS, CLICKS),
}
A = "common.kernels.reference_amplification."
WHOLES = {
    "common.kernels.additive_fft": Siblings(A + "middle_product", PRODUCTS, BENCH_AMPLIFY),
    "common.kernels.clmul": Siblings("`field_product`, and the products that it makes", PRODUCTS, BENCH_AMPLIFY),
    "common.kernels.lanes": Siblings("vector operations inside the LDPC decoder", LDPC, POST),
    "common.kernels.toeplitz": Siblings(A + "universal_hash", PRODUCTS, BENCH_AMPLIFY),
}
"""Modules of small functions that are compiled into one another: compared as a whole."""


def compiled() -> set[str]:
    """Every compiled function by its dotted name; a module of ``WHOLES`` by its own."""
    found = set()
    for file in (file for root in ROOTS for file in sorted((ROOT / root).rglob("*.py"))):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        if not any(isinstance(node, ast.ImportFrom) and node.module == "numba" for node in tree.body):
            continue
        if module in WHOLES:
            found.add(module)
            continue
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        names = {f.name for f in functions if any(ast.unparse(d).startswith("njit") for d in f.decorator_list)}
        assert names, f"{module} imports numba and compiles nothing that is seen here"
        found |= {f"{module}.{name}" for name in names}
    return found


def test_every_compiled_function_is_in_the_list_and_nothing_else() -> None:
    assert compiled() == {*KERNELS, *WHOLES}


@pytest.mark.parametrize("name", sorted({*KERNELS, *WHOLES}))
def test_its_siblings_exist(name: str) -> None:
    siblings = (KERNELS | WHOLES)[name]
    test = (ROOT / siblings.test).read_text(encoding="utf-8")
    twin = siblings.twin
    if " " not in twin:
        module, function = twin.rsplit(".", 1)
        assert callable(getattr(importlib.import_module(module), function))
        assert re.search(rf"\b{function}\b", test), f"{siblings.test} does not call {function}"
    elif twin == IN_TEST:
        assert re.search(rf"\b{name.rsplit('.', 1)[1]}\b", test), f"{siblings.test} does not call it"
    assert siblings.goal in {stage for stage, _ in GOALS} or " " in siblings.goal
