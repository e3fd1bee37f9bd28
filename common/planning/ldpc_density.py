"""Density evolution of the decoder that the node runs, and degree distributions optimised with it.

The densities are those of :func:`common.kernels.ldpc.decode`: int8 messages in the same units, the same box-plus with
its integer correction, the same scale and cap driven by the unsatisfied fraction, wide posteriors. Two simplifications:
all inputs of a check are independent, and its least input is equally likely to be any of them. Source: density
evolution, Richardson and Urbanke 2001; optimisation by linear programming around the present trajectory, Chung 2000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import linprog

from common.postprocessing.ldpc_decoder import KNEE, UNITS_PER_NAT, scale_tables
from common.security.bounds import binary_entropy

Float = NDArray[np.float64]
#: Edge fraction of the columns by degree.
Distribution = dict[int, float]

MOST = 127
_FFT = 1 << 13


@njit(cache=True)
def _boxplus(total_a, signed_a, total_b, signed_b, knee, total, signed):  # type: ignore[no-untyped-def]
    """Densities *(128,)* of the magnitude (and with its sign) of ``a boxplus b``, added to ``total``, ``signed``."""
    for i in range(128):
        if total_a[i] < 1e-18:
            continue
        for j in range(128):
            k = min(i, j) - (max(knee - abs(i - j), 0) - max(knee - (i + j), 0)) // 4
            total[k] += total_a[i] * total_b[j]
            signed[k] += signed_a[i] * signed_b[j]


@njit(cache=True)
def _with_own(rest_total, rest_signed, own, knee, total, signed):  # type: ignore[no-untyped-def]
    """What an edge hears: the box-plus of the others with its own input, or the others alone if its own is less."""
    for i in range(128):
        if rest_total[i] < 1e-18:
            continue
        for j in range(128):
            k = i if j < i else i - (max(knee - (j - i), 0) - max(knee - (i + j), 0)) // 4
            total[k] += rest_total[i] * own[j]
            signed[k] += rest_signed[i] * own[j]


def _check_output(total: Float, signed: Float, degree: int) -> tuple[Float, Float]:
    """Densities of what a check sends, before scale and cap."""
    rest_total, rest_signed = total, signed
    for _ in range(degree - 2):
        out_total, out_signed = np.zeros(MOST + 1), np.zeros(MOST + 1)
        _boxplus(rest_total, rest_signed, total, signed, KNEE, out_total, out_signed)
        rest_total, rest_signed = out_total, out_signed
    out_total, out_signed = np.zeros(MOST + 1), np.zeros(MOST + 1)
    _with_own(rest_total, rest_signed, total, KNEE, out_total, out_signed)
    return out_total, out_signed


@dataclass(frozen=True)
class Evolution:
    """One run of density evolution.

    Parameters
    ----------
    iterations : done; the error rate fell below the target if ``converged``.
    errors : *(iterations + 1,) float64*, error rate of the variables' messages, from the channel's on.
    by_degree : *(iterations, degrees) float64*, the same for each degree of column asked for.
    """

    converged: bool
    iterations: int
    errors: Float
    by_degree: Float


def _check_degrees(mean: float) -> list[tuple[int, float]]:
    """Edge fractions of the two neighbouring integer degrees."""
    low = math.floor(mean)
    part = mean - low
    return [(d, w) for d, w in ((low, (1 - part) * low / mean), (low + 1, part * (low + 1) / mean)) if w > 1e-9]


def evolve(
    qber: float, columns: Distribution, check_degree: float, degrees: tuple[int, ...] = (), limit: int = 200,
    target: float = 1e-4,
) -> Evolution:  # fmt: skip
    """Run density evolution.

    Parameters
    ----------
    qber : of the binary symmetric channel.
    columns : edge fractions by column degree.
    check_degree : mean degree of the (concentrated) checks.
    degrees : column degrees to be recorded one by one.
    """
    scales, caps = scale_tables()
    bins = len(scales)
    level = round(UNITS_PER_NAT * math.log((1 - qber) / qber))
    size = min(level, MOST)
    total: Float = np.zeros(MOST + 1)
    signed: Float = np.zeros(MOST + 1)
    total[size], signed[size] = 1.0, 1 - 2 * qber
    checks = _check_degrees(check_degree)
    factor, cap = 64, max(1, round(2 * math.atanh((1 - 2 * qber) ** (check_degree - 1)) * UNITS_PER_NAT))
    errors, by_degree = [qber], []
    magnitude = np.arange(MOST + 1)
    present = np.array(sorted(columns))
    for iteration in range(limit):
        out_total, out_signed = np.zeros(MOST + 1), np.zeros(MOST + 1)
        for degree, weight in checks:
            a, b = _check_output(total, signed, degree)
            to = np.minimum((magnitude * factor + 32) // 64, cap)
            out_total += weight * np.bincount(to, a, MOST + 1)
            out_signed += weight * np.bincount(to, b, MOST + 1)
        density = np.zeros(_FFT)
        plus, minus = (out_total + out_signed) / 2, (out_total - out_signed) / 2
        density[: MOST + 1] += plus
        density[-magnitude] += minus
        spectrum = np.fft.rfft(density)
        mixture, after = np.zeros_like(spectrum), np.zeros_like(spectrum)
        for d in present:
            mixture += columns[int(d)] * spectrum ** (d - 1)
            after += columns[int(d)] * spectrum**d
        message = _with_channel(mixture, level, qber)
        posterior = _error(_with_channel(after, level, qber))
        by_degree.append([_error(_with_channel(spectrum ** (d - 1), level, qber)) for d in degrees])
        folded = np.maximum(message, 0)
        right: Float = np.asarray(np.bincount(_CLIPPED, folded * _POSITIVE, MOST + 1), np.float64)
        wrong: Float = np.asarray(np.bincount(_CLIPPED, folded * _NEGATIVE, MOST + 1), np.float64)
        total, signed = right + wrong, right - wrong
        total, signed = total / total.sum(), signed / total.sum()
        errors.append(_error(message))
        unsatisfied = (1 - (1 - 2 * posterior) ** check_degree) / 2
        at = min(int((bins - 1) * math.sqrt(2 * unsatisfied)), bins - 1)
        factor, cap = int(scales[at]), int(caps[at])
        if errors[-1] < target:
            return Evolution(True, iteration + 1, np.array(errors), np.array(by_degree))
        if iteration > 20 and errors[-1] > errors[-4] * 0.99995:
            break
    return Evolution(False, len(errors) - 1, np.array(errors), np.array(by_degree))


_SIGNED = np.where(np.arange(_FFT) < _FFT // 2, np.arange(_FFT), np.arange(_FFT) - _FFT)
_POSITIVE = np.where(_SIGNED > 0, 1.0, np.where(_SIGNED == 0, 0.5, 0.0))
_NEGATIVE = 1.0 - _POSITIVE
_CLIPPED = np.minimum(np.abs(_SIGNED), MOST)


def _with_channel(spectrum: NDArray[np.complex128], level: int, qber: float) -> Float:
    density: Float = np.fft.irfft(spectrum, _FFT)
    return (1 - qber) * np.roll(density, level) + qber * np.roll(density, -level)


def _error(density: Float) -> float:
    return float(np.dot(np.maximum(density, 0), _NEGATIVE))


def efficiency(qber: float, columns: Distribution, check_degree: float) -> float:
    """Syndrome bits over n h(qber) of an ensemble."""
    return 1 / (check_degree * sum(w / d for d, w in columns.items())) / binary_entropy(qber)


def optimise(
    qber: float, check_degree: float, degrees: tuple[int, ...], start: Distribution, steps: int = 30, limit: int = 150,
    stability: float = 0.95,
) -> Distribution | None:  # fmt: skip
    """The distribution of highest rate that still converges at ``qber``, near a local optimum; None if ``start`` fails.

    Each step solves a linear programme: with the densities of the present trajectory, every iteration must still lower
    the error rate by a part of what it lowers now.
    """
    present, trust, best = start, 0.5, None
    for _ in range(steps):
        run = evolve(qber, present, check_degree, degrees, limit)
        if not run.converged:
            if best is None:
                return None
            present, trust = best, trust / 2
            if trust < 0.02:
                break
            run = evolve(qber, present, check_degree, degrees, limit)
        better = best is None or efficiency(qber, present, check_degree) < efficiency(qber, best, check_degree) - 1e-6
        if not better and trust < 0.05:
            break
        best = present if better else best
        before, rows = run.errors[: len(run.by_degree)], run.by_degree
        now = np.array([sum(present.get(d, 0.0) * rows[i, k] for k, d in enumerate(degrees)) for i in range(len(rows))])
        bound = now + trust * np.maximum(before - now, 0)
        limits = [(0.0, 1.0)] * len(degrees)
        if 2 in degrees:
            most = stability / (2 * math.sqrt(qber * (1 - qber)) * (check_degree - 1))
            limits[degrees.index(2)] = (0.0, most)
        solved = linprog(
            [-1.0 / d for d in degrees], A_ub=rows / before[:, None], b_ub=bound / before,
            A_eq=[[1.0] * len(degrees)], b_eq=[1.0], bounds=limits, method="highs",
        )  # fmt: skip
        if solved.status != 0:
            trust /= 2
            continue
        present = {d: float(w) for d, w in zip(degrees, solved.x, strict=True) if w > 1e-6}
    return best
