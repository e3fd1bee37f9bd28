"""Designs the table of codes that the node ships: degree distributions by density evolution, then shifts.

Run ``python -m common.planning.ldpc_design distributions`` (minutes; prints the JSON that lies beside this file), then
``python -m common.planning.ldpc_design codes OUT.npz`` (minutes; the table). Both give the same result again.
"""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.files import replacing
from common.kernels.lanes import LANES
from common.planning.ldpc_density import Distribution, efficiency, evolve, optimise
from common.planning.ldpc_peg import BaseGraph, degree_sequence, draw_quota, grow, split
from common.postprocessing.ldpc_codes import LIFTED_FROM_RATE
from common.security.bounds import binary_entropy

DISTRIBUTIONS_FILE = "ldpc_distributions.json"
#: Error rates for which a degree distribution is optimised; codes in between take the nearest.
DESIGN_QBER = (0.003, 0.0045, 0.0065, 0.009, 0.0125, 0.017, 0.023, 0.030, 0.039, 0.050, 0.063, 0.080, 0.100)
#: Mean column degrees tried: more edges come nearer to the limit and cost more time.
MEAN_DEGREES = (4.0, 4.4, 4.8, 5.2, 5.6, 6.0, 6.4)
#: Where the search starts: a distribution that converges from afar at any rate.
_START: Distribution = {2: 0.09, 3: 0.22, 7: 0.24, 8: 0.12, 14: 0.33}

#: Lowest and highest share of checks to payload bits in the first message, the least step between codes (splitting
#: checks to bridge it costs about a tenth of what it adds), and the share of checks that can be split.
LOWEST_RATE, HIGHEST_RATE, RATE_STEP, SPLIT = 0.030, 0.56, 0.028, 0.12
#: Sizes of a codeword in the file, and the highest share of checks at each; the table lifts the codes to further sizes.
#: Few rows are filled alike, since a heavy column meets nearly all of them, and 2^18 gets a search of its own.
SIZES = {1 << 14: HIGHEST_RATE, 1 << 16: HIGHEST_RATE, 1 << 18: LIFTED_FROM_RATE}
#: Degree from which a column is heavy, and the most of its edges in one half of the rows: measured, decision 16.
HEAVY, SHARE_MOST = 17, 0.65
SEED = 20261124


def column_count(size: int) -> int:
    """Base columns, as far as the circulants allow: in a small base the same mixtures repeat too often."""
    return min(512, size // LANES)


def heavy_share(rate: float) -> float:
    """The fewer the rows, the more of them a heavy column meets anyway."""
    return min(0.5 + 2.5 * (rate - 0.11), SHARE_MOST)


def _start(qber: float, degree: int, degrees: tuple[int, ...], known: Distribution | None) -> Distribution | None:
    """A distribution that converges: a known one with as many edges moved to columns of high degree as it takes."""
    base = known or {d: w for d, w in _START.items() if d in degrees}
    total = sum(base.values())
    for part in np.arange(1.0, -0.01, -0.05):
        mixed = {d: float(part) * w / total for d, w in base.items()}
        for d in degrees[-3:]:
            mixed[d] = mixed.get(d, 0.0) + (1 - float(part)) / 3
        if evolve(qber, mixed, degree, limit=150).converged:
            return mixed
    return None


def design_distribution(qber: float) -> tuple[float, int, Distribution]:
    """``(threshold efficiency, check degree, distribution)`` of the best ensemble found for an error rate."""
    guess = 1.06 * binary_entropy(qber)
    rows = int(guess * column_count(max(SIZES)))
    degrees = tuple(d for d in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 23, 26, 30) if d <= rows)
    best: tuple[float, int, Distribution] | None = None
    for degree in sorted({round(mean / guess) for mean in MEAN_DEGREES}):
        for known in (best[2], None) if best else (None,):
            start = _start(qber, degree, degrees, known)
            found = optimise(qber, degree, degrees, start) if start else None
            if found is not None and (best is None or efficiency(qber, found, degree) < best[0]):
                best = efficiency(qber, found, degree), degree, found
    if best is None:
        raise ValueError(f"no distribution found for an error rate of {qber}")
    return best


def _numbered(qber: float) -> dict[str, object]:
    reached, degree, columns = design_distribution(qber)
    return {
        "qber": qber,
        "check_degree": degree,
        "threshold_efficiency": round(reached, 4),
        "columns": {str(d): round(w, 5) for d, w in columns.items()},
    }


def design_distributions() -> list[dict[str, object]]:
    """Every design error rate, on all cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(_numbered, DESIGN_QBER))


def stored_distributions() -> list[tuple[float, Distribution]]:
    """``(share of checks, distribution)`` of the stored designs, ascending."""
    text = resources.files("common.planning").joinpath(DISTRIBUTIONS_FILE).read_text("utf-8")
    designs = []
    for entry in json.loads(text):
        columns = {int(d): float(w) for d, w in entry["columns"].items()}
        total = sum(columns.values())
        columns = {d: w / total for d, w in columns.items()}
        edges_per_column = 1 / sum(w / d for d, w in columns.items())
        designs.append((edges_per_column / entry["check_degree"], columns))
    return sorted(designs, key=lambda design: design[0])


def pair_count(checks: int) -> int:
    """How many of the checks are cut in halves."""
    return max(1, round(SPLIT * checks))


def check_counts(size: int) -> list[tuple[int, int]]:
    """``(columns, checks)`` of the first message, code by code."""
    counts, rate, columns = [], LOWEST_RATE, column_count(size)
    while rate <= SIZES[size]:
        checks = round(rate * columns)
        counts.append((columns, checks))
        rate = max(rate * (1 + RATE_STEP), (checks + 1) / columns)
    return counts


def design_code(size: int, columns: int, checks: int) -> BaseGraph:
    """Design one code of the table."""
    rate = checks / columns
    _, distribution = min(stored_distributions(), key=lambda design: abs(math.log(design[0] / rate)))
    degrees = degree_sequence(distribution, columns, checks)
    few = rate < LIFTED_FROM_RATE
    quota = None if few else draw_quota(degrees, checks, HEAVY, heavy_share(rate), SEED)
    graph = grow(degrees, checks, size // columns, SEED, quota)
    return split(graph, pair_count(checks), SEED)


def design_codes() -> dict[str, NDArray[np.int64]]:
    """The arrays of the data file."""
    wanted = [(size, columns, checks) for size in SIZES for columns, checks in check_counts(size)]
    with ProcessPoolExecutor() as pool:
        graphs = list(pool.map(design_code, *zip(*wanted, strict=True)))
    heads = [
        (graph.lifting, columns, len(graph.row_start) - 1, pair_count(checks), len(graph.columns))
        for graph, (_, columns, checks) in zip(graphs, wanted, strict=True)
    ]
    return {
        "heads": np.array(heads, np.int32),
        # Columns ascend within a row, so their steps are small.
        "column_steps": np.concatenate([np.diff(graph.columns, prepend=0) for graph in graphs]).astype(np.int16),
        "shifts": np.concatenate([graph.shifts for graph in graphs]).astype(np.int16),
        "row_degrees": np.concatenate([np.diff(graph.row_start) for graph in graphs]).astype(np.int16),
    }


def main(arguments: list[str]) -> int:
    """Command line of this file."""
    if arguments == ["distributions"]:
        print(json.dumps(design_distributions(), indent=1))
        return 0
    if len(arguments) == 2 and arguments[0] == "codes":
        codes = design_codes()
        with replacing(Path(arguments[1])) as new:
            np.savez_compressed(new, allow_pickle=False, **codes)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
