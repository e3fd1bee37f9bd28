"""The stored codes and distributions are what the design programme gives."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from common.planning.ldpc_density import evolve
from common.planning.ldpc_design import SIZES, check_counts, design_code, pair_count, stored_distributions
from common.planning.ldpc_peg import draw_quota
from common.postprocessing.ldpc_codes import DATA_FILE


@pytest.mark.parametrize("number", [5, 60])
def test_a_stored_code_is_designed_again(number: int) -> None:
    """The shortest codes, which are the first of the file; the others come from the same function."""
    size = min(SIZES)
    columns, checks = check_counts(size)[number]
    graph = design_code(size, columns, checks)
    with resources.files("common.postprocessing").joinpath(DATA_FILE).open("rb") as file, np.load(file) as data:
        heads, all_shifts, degrees = data["heads"], data["shifts"], data["row_degrees"]
    first_edge, first_row = int(heads[:number, 4].sum()), int(heads[:number, 2].sum())
    edges, rows = int(heads[number, 4]), int(heads[number, 2])
    assert heads[number].tolist() == [graph.lifting, columns, len(graph.row_start) - 1, pair_count(checks), edges]
    np.testing.assert_array_equal(all_shifts[first_edge : first_edge + edges], graph.shifts)
    np.testing.assert_array_equal(degrees[first_row : first_row + rows], np.diff(graph.row_start))


def test_rows_get_their_edges() -> None:
    """Rows are equally long, light columns even, heavy ones to one half by the share asked for, and none is lost."""
    degrees = np.repeat([2, 3, 7, 20, 26], [140, 180, 120, 20, 12])
    quota = draw_quota(degrees, 90, heavy=17, share=0.65, seed=1)
    assert quota.sum(axis=1).tolist() == [280, 540, 840, 400, 312]
    assert set(quota.sum(axis=0).tolist()) == {26, 27}
    assert set(quota[0].tolist()) == {3, 4}
    heavy = np.sort(quota[3:].sum(axis=0))
    assert np.sum(heavy[45:]) > 0.65 * 712
    assert np.var(quota[1]) > 3.0


def test_density_evolution_has_a_threshold() -> None:
    """The ensemble for 2.5 %: it converges a little below its threshold (f = 1.066) and stops above."""
    _, columns = min(stored_distributions(), key=lambda design: abs(design[0] - 0.17))
    degree = 1 / sum(w / d for d, w in columns.items()) / 0.18
    assert evolve(0.0245, columns, degree).converged
    assert not evolve(0.0262, columns, degree).converged
