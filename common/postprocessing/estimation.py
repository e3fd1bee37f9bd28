"""Parameter estimation: from a configuration and a block's integers to its ledger. Both ends run this; Bob judges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.config import PZ_DENOMINATOR, Config
from common.postprocessing.verification import leak_verify_bits
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.tallies import ProtocolSettings, SourceBounds, Tallies


def estimate(
    config: Config,
    *,
    slots_sent: int,
    n_z: NDArray[np.int64],
    n_z_kept: int,
    x_counts: NDArray[np.int64],
    leak_ec_bits: int,
) -> Ledger:
    """The ledger of a block.

    Parameters
    ----------
    n_z : *(intensities,) int64*.
    x_counts : *(intensities, 4, 2) int64*, by symbol (H, V, R, L) and outcome (R, L).
    """
    tallies = Tallies(
        slots_sent,
        tuple(int(count) for count in n_z),
        n_z_kept,
        tuple(tuple((int(a), int(b)) for a, b in level) for level in x_counts),
    )
    link, source, security = config.link, config.source, config.security
    return key_length(
        tallies,
        ProtocolSettings(
            link.protocol, link.p_z_numerator / PZ_DENOMINATOR, link.p_z_bob, link.intensities, link.p_intensities
        ),
        SourceBounds(source.mean_photon_number_upper, source.g2_upper, source.eps_source),
        EpsilonBudget(**security.model_dump()),
        leak_ec_bits,
        leak_verify_bits,
    )
