"""Certificates for tests: good ones of every protocol, and ways to make them wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.keys.certificate import (
    Amplification,
    Provenance,
    Reconciliation,
    Transcript,
    certificate,
    signed_bytes,
)
from common.keys.life import Life
from common.postprocessing.reconciliation.exchange import MIN_TAIL_BITS
from common.randomness import assumptions, documents
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from tests.golden.cases import GOOD, SINGLE
from tests.identities import sources

KEYS = {role: Ed25519PrivateKey.from_private_bytes(bytes([i] * 32)) for i, role in enumerate(("alice", "bob"))}
SIGNERS = {role: key.public_key().public_bytes_raw().hex() for role, key in KEYS.items()}
PROTOCOLS = sorted(GOOD)
RANDOM = {role: sources(role, "physical") for role in KEYS}
FRAME_BITS = 1 << 16
Body = dict[str, Any]


def ledger_of(protocol: str, **changes: Any) -> Ledger:
    """The ledger of a golden case with a receiver that is known within bounds; ``changes`` replace whole inputs."""
    case = GOOD[protocol]
    settings = ProtocolSettings(**case["settings"])
    inputs = {
        "tallies": Tallies(**{**case["tallies"], "n_z": tuple(map(int, case["tallies"]["n_z"]))}),
        "settings": settings,
        "source": SourceBounds(**{**SINGLE, **case.get("source", {})}),
        "receiver": ReceiverBounds(settings.p_z_bob - 0.001, settings.p_z_bob + 0.001, 0.01, 0.0),
        "budget": EpsilonBudget(),
        "leak_ec_bits": case["leak_ec_bits"],
        "leak_verify_bits": 128,
        "assumes": assumptions(RANDOM),
        **changes,
    }
    return key_length(**inputs)


def certified(
    ledger: Ledger, block_id: int = 7, role: str = "alice", *, simulated: bool = False, qber: float = 1 / 60
) -> Body:
    """A certificate whose other sections fit a ledger."""
    n, seen = ledger.tallies.n_z_kept, ledger.tallies.z_detections + ledger.tallies.x_detections
    failed = int(sum(ledger.tallies.n_z) - n >= MIN_TAIL_BITS)
    return dict(
        json.loads(
            certificate(
                Provenance("qkd-node 1.2", "field", role, block_id, simulated),
                ledger,
                Reconciliation(seen, -(-n // FRAME_BITS) + failed, failed, round(qber * n)),
                Amplification("toeplitz", n, ledger.ell_bits, n + ledger.ell_bits - 1, f"{block_id:064x}"),
                8192,
                Transcript(f"{block_id + 1:064x}", f"{block_id + 2:064x}"),
                {end: documents(uses) for end, uses in RANDOM.items()},
                Life(3, 40, min(1.0, 3 * ledger.eps_spent)),
                KEYS[role],
            )
        )
    )


def made(protocol: str = "bb84", block_id: int = 7, role: str = "alice") -> Body:
    """A good certificate."""
    return certified(ledger_of(protocol), block_id, role)


def signed(body: Body) -> Body:
    """The same words, signed again by a node that lies."""
    return {**body, "signature": KEYS[body["role"]].sign(signed_bytes(body)).hex()}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path
    for name, part in items:
        yield from leaves(part, (*path, name))


def altered(body: Body, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Body:
    """A copy with one value changed."""
    wrong = copy.deepcopy(body)
    place = wrong
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = change(place[path[-1]])
    return wrong


def another(value: Any) -> Any:
    """Some other value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.001 if value else 1e-12
    if isinstance(value, str) and value:
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    return "x"
