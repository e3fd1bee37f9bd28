"""Parameter estimation: from a configuration and a block's integers to its ledger. Both ends run this; Bob judges."""

from __future__ import annotations

from common.config import PZ_DENOMINATOR, Config
from common.postprocessing.verification import leak_verify_bits
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.monitors import monitors
from common.security.recent import RecentBlocks
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from common.statements import assumed


def estimate(config: Config, tallies: Tallies, leak_ec_bits: int, assumes: tuple[str, ...] = ()) -> Ledger:
    """The ledger of a block.

    Parameters
    ----------
    assumes : what the length rests on beyond the configuration and the counts, as sentences.
    """
    source, security = config.source, config.security
    return key_length(
        tallies,
        protocol_settings(config),
        SourceBounds(source.mean_photon_number_upper, source.g2_upper, source.eps_source, source.phase_bits),
        receiver_bounds(config),
        EpsilonBudget(security.accounting, security.eps_total, security.eps_cor, security.eps_auth, security.tails),
        leak_ec_bits,
        leak_verify_bits,
        (*assumes, *assumed(config)),
    )


def device_fault(config: Config, tallies: Tallies) -> str | None:
    """Which device is out of tolerance by these counts, as :func:`estimate` judges it; counts of a part will do."""
    if tallies.impossible() is not None:
        return None
    return monitors(tallies, protocol_settings(config), receiver_bounds(config))[1]


def recent_blocks(config: Config) -> RecentBlocks:
    """An empty memory of what blocks say together about the devices, within the same limits."""
    return RecentBlocks(protocol_settings(config), receiver_bounds(config))


def protocol_settings(config: Config) -> ProtocolSettings:
    """The probabilities that both ends have agreed on."""
    link = config.link
    return ProtocolSettings(
        link.protocol, link.p_z_numerator / PZ_DENOMINATOR, link.p_z_bob, link.intensities, link.p_intensities
    )


def receiver_bounds(config: Config) -> ReceiverBounds:
    """The bounds of Bob's receiver as both ends have agreed on them."""
    given = config.detectors.filled(config.link.p_z_bob)
    return ReceiverBounds(**given)
