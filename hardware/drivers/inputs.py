"""A tagger's inputs as the manifest names them, and the detectors behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigurationError

NO_DETECTOR = 255
"""Of an input that is none of H, V, R, L: markers, overflows, other inputs."""


def detectors_of_inputs(channels: Sequence[int], n_inputs: int, driver: str) -> NDArray[np.uint8]:
    """*(256,) uint8*: the detector 0..3 (H, V, R, L) of each input, ``NO_DETECTOR`` of all others.

    Parameters
    ----------
    channels : the inputs of H, V, R, L. n_inputs : inputs are 0 to below it. driver : its manifest name.

    Raises
    ------
    ConfigurationError
        They are not four different inputs of the instrument.
    """
    if len(set(channels)) != 4 or not all(0 <= channel < n_inputs for channel in channels):
        raise ConfigurationError(
            f"driver {driver!r}: channels {tuple(channels)} are not four different inputs 0..{n_inputs - 1}"
        )
    table = np.full(256, NO_DETECTOR, np.uint8)
    table[list(channels)] = np.arange(4)
    return table
