"""Who the two ends of a test say they are."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.config import Config
from common.protocol.session import Identity
from common.protocol.transitions import Role
from common.randomness import USES, Randomness, RandomnessClass, documents

Said = dict[str, dict[str, dict[str, str]]]


def sources(role: str, grade: RandomnessClass = "computational") -> dict[str, Randomness]:
    """Every use of a role from one class of source."""
    return {use: Randomness(grade, f"the {use} of a test") for use in USES[role]}


def identity_of(
    config: Config,
    signer: Ed25519PrivateKey | None = None,
    *,
    simulated: bool = True,
    grade: RandomnessClass = "computational",
) -> Identity:
    """This end of a test link."""
    uses = sources(config.role, grade)
    return Identity(Role(config.role), "test", config.agreed(), simulated, signer, uses)


def both_sources() -> Said:
    """The randomness section of a test's certificates."""
    return {role: documents(sources(role)) for role in USES}
