"""Judge key certificates: signature, shape, the length computed again, sums, and claims that cannot be true.

Every fault found is one sentence; no faults means valid. Nothing here trusts a number that it can compute.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.keys.certificate import (
    FORMAT,
    TAG_BITS,
    VERSION,
    Amplification,
    Provenance,
    Reconciliation,
    Transcript,
    authentication,
    signed_bytes,
)
from common.keys.life import Life
from common.randomness import assumptions, read_uses
from common.security.finite_key import LEDGER_VERSION, EpsilonBudget, Ledger, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies, Term

ROLES = ("alice", "bob")
TOLERANCE = 1e-9
"""Relative difference of two machines' arithmetic."""
EPS_VERIFY_PER_128_BITS = 8.0 / 2.0**106
SEED_BITS: dict[str, Callable[[int, int], int]] = {
    "toeplitz": lambda n, m: n + m - 1,
    "modified-toeplitz": lambda n, m: n - 1,
}
_SECTIONS: dict[str, type] = {
    "reconciliation": Reconciliation,
    "amplification": Amplification,
    "transcript": Transcript,
    "life": Life,
}
_LEDGER_SECTIONS: dict[str, type] = {
    "tallies": Tallies,
    "settings": ProtocolSettings,
    "source": SourceBounds,
    "receiver": ReceiverBounds,
    "budget": EpsilonBudget,
}


def parse(text: str) -> dict[str, Any]:
    """Read a certificate's JSON.

    Raises
    ------
    ValueError
        It is not one JSON object, or a name occurs twice in one.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a field occurs twice")
        return made

    body = json.loads(text, object_pairs_hook=unique)
    if not isinstance(body, dict):
        raise ValueError("it is not a JSON object")
    return body


def faults(body: Mapping[str, Any], signer: str | None = None) -> list[str]:
    """Everything that is wrong with one certificate.

    Parameters
    ----------
    signer : public key (hex) that must have signed; None accepts the key that the certificate names.
    """
    if body.get("format") != FORMAT:
        return ["this is not a key certificate"]
    if body.get("version") != VERSION or type(body["version"]) is not int:
        return [f"unknown version {body.get('version')!r}: this software knows {VERSION}"]
    found = [*_signature_faults(body, signer), *_shape_faults(body)]
    if found:
        return found
    try:
        return list(_claims(body))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return [f"a field has no sensible value ({type(error).__name__})"]


def faults_between(bodies: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong between certificates that are good alone: a block used twice, two ends that disagree."""
    found: list[str] = []
    seen: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for body in bodies:
        block = (body["link"], body["block_id"])
        if (*block, body["role"]) in seen:
            found.append(f"block {body['block_id']} of {body['role']} on link {body['link']!r} is used twice")
        seen[*block, body["role"]] = body
        peer = seen.get((*block, ROLES[1 - ROLES.index(body["role"])]))
        for name in _shared(body, peer) if peer is not None else ():
            found.append(f"block {body['block_id']}: the two ends differ in {name}")
    for name in ("seed_sha256", "alice_to_bob_sha256"):
        blocks: dict[str, Any] = {}
        for body in bodies:
            digest = {**body["amplification"], **body["transcript"]}[name]
            if blocks.setdefault(digest, (body["link"], body["block_id"])) != (body["link"], body["block_id"]):
                found.append(f"block {body['block_id']} has the {name} of another block")
    return found


def _shared(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for name in ("simulated", "amplification", "authentication", "transcript", "randomness"):
        if a[name] != b[name]:
            yield name
    for name in ("detections", "frames", "frames_failed"):  # the end that does not decode knows errors only roughly
        if a["reconciliation"][name] != b["reconciliation"][name]:
            yield name
    for name in ("tallies", "settings", "source", "receiver", "budget", "leak_ec_bits", "monitors", "assumes"):
        if a["ledger"][name] != b["ledger"][name]:
            yield name


def _signature_faults(body: Mapping[str, Any], signer: str | None) -> Iterator[str]:
    if not body.get("signature") or not body.get("public_key"):
        yield "it is not signed"
        return
    if signer is not None and body["public_key"] != signer:
        yield "it is signed by another key than the one given"
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(body["public_key"]))
        key.verify(bytes.fromhex(body["signature"]), signed_bytes(body))
    except (InvalidSignature, ValueError, TypeError):
        yield "wrong signature: a field was altered, or another key signed"


def _shape_faults(body: Mapping[str, Any]) -> Iterator[str]:
    top = {"format", "version", "ledger", "authentication", "randomness", "public_key", "signature", *_SECTIONS}
    shapes = [("", body, top | _names(Provenance)), ("ledger", body.get("ledger"), _names(Ledger))]
    ledger = body["ledger"] if isinstance(body.get("ledger"), dict) else {}
    shapes += [(name, body.get(name), _names(kind)) for name, kind in _SECTIONS.items()]
    shapes += [(f"ledger.{name}", ledger.get(name), _names(kind)) for name, kind in _LEDGER_SECTIONS.items()]
    shapes.append(("authentication", body.get("authentication"), set(authentication(0, 0))))
    shapes.append(("randomness", body.get("randomness"), set(ROLES)))
    for where, table, names in shapes:
        if not isinstance(table, dict) or set(table) != names:
            yield f"{where or 'the certificate'} has not the fields of version {VERSION}"
            return
    counts = {name: table[name] for name, kind in _COUNTS.items() for table in [_at(body, kind)]}
    for name, value in counts.items():
        if type(value) is not int or value < 0:
            yield f"{name} is not a count"
    if body["role"] not in ROLES or body["block_id"] == 0 or type(body["simulated"]) is not bool:
        yield "role, block_id or simulated has no such value"
    digests = (body["amplification"]["seed_sha256"], *body["transcript"].values())
    if not all(isinstance(d, str) and len(d) == 64 and set(d) <= set("0123456789abcdef") for d in digests):
        yield "a digest is not 64 hexadecimal digits"
    if not all(isinstance(sentence, str) and sentence for sentence in ledger["assumes"] or [None]):
        yield "an assumption of the ledger is not a sentence"
    try:
        stated = assumptions({role: read_uses(body["randomness"][role], role) for role in ROLES})
        if not set(stated) <= set(ledger["assumes"]):
            yield "the ledger does not assume what the randomness is"
    except (TypeError, ValueError) as error:
        yield f"the sources of randomness are not stated: {error}"
    if not all(isinstance(body[name], str) and body[name] for name in ("software", "link")):
        yield "software and link are not named"


_COUNTS = {
    **dict.fromkeys(("detections", "frames", "frames_failed", "errors_corrected"), "reconciliation"),
    **dict.fromkeys(("input_bits", "secret_bits", "seed_bits"), "amplification"),
    **dict.fromkeys(("tags", "bits_spent", "bits_earned", "application_bits"), "authentication"),
    **dict.fromkeys(("ell_bits", "leak_ec_bits", "leak_verify_bits", "leak_monitor_bits"), "ledger"),
    "block_id": "",
}


def _at(body: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    return dict(body[section]) if section else body


def _names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


def recompute(claimed: Mapping[str, Any]) -> Ledger:
    """The ledger that the tallies, settings, bounds and leaks of a ledger document give."""
    counts = claimed["tallies"]
    cells = tuple(tuple((a, b) for a, b in level) for level in counts["x_counts"])
    tallies = Tallies(**{**counts, "n_z": tuple(counts["n_z"]), "x_counts": cells})
    settings = claimed["settings"]
    light = tuple(settings["intensities"]), tuple(settings["p_intensities"])
    return key_length(
        tallies,
        ProtocolSettings(settings["protocol"], settings["p_z_alice"], settings["p_z_bob"], *light),
        SourceBounds(**claimed["source"]),
        ReceiverBounds(**claimed["receiver"]),
        EpsilonBudget(**claimed["budget"]),
        claimed["leak_ec_bits"],
        claimed["leak_verify_bits"],
        tuple(claimed["assumes"]),
    )


def _claims(body: Mapping[str, Any]) -> Iterator[str]:
    claimed, amplified, reconciled = body["ledger"], body["amplification"], body["reconciliation"]
    if claimed["version"] != LEDGER_VERSION:
        yield f"unknown version {claimed['version']!r} of the ledger: this software knows {LEDGER_VERSION}"
        return
    ours = recompute(claimed)
    yield from _ledger_faults(claimed, ours)
    kept, errors = ours.tallies.n_z_kept, reconciled["errors_corrected"]
    if errors > kept or counting_bound_bits(kept, errors) > ours.leak_ec_bits:
        yield f"leak_ec_bits is below log2 C({kept}, {errors}), what {errors} errors must disclose"
    if ours.leak_verify_bits != TAG_BITS or ours.budget.eps_cor < EPS_VERIFY_PER_128_BITS * math.ceil(kept / 128):
        yield "verification by one 128-bit tag does not give eps_cor"
    if reconciled["detections"] != ours.tallies.z_detections + ours.tallies.x_detections or reconciled["frames"] == 0:
        yield "there are fewer detections or frames than were counted"
    if not ours.eps_spent * (1.0 - TOLERANCE) <= body["life"]["eps_life"] <= 1.0 or body["life"]["blocks"] < 1:
        yield "the life of the link does not cover this block"
    if amplified["input_bits"] != kept:
        yield "the hash's input is not the kept key"
    if amplified["secret_bits"] > min(ours.ell_bits, claimed["ell_bits"]) or amplified["secret_bits"] % 8:
        yield f"{amplified['secret_bits']} secret bits are more than the {ours.ell_bits} that the tallies allow"
    if amplified["secret_bits"] == 0:
        yield "there is no key to certify"
    yield from _seed_faults(amplified)
    spent = body["authentication"]
    if spent != authentication(amplified["secret_bits"], spent["bits_earned"]) or spent["application_bits"] < 0:
        yield "the sums of authentication and net key do not hold"


def _ledger_faults(claimed: Mapping[str, Any], ours: Ledger) -> Iterator[str]:
    if ours.refusal is not None:
        yield f"these tallies give no key: {ours.refusal}"
        return
    if claimed["refusal"] is not None:
        yield "a refused ledger certifies nothing"
    if claimed["phi_upper"] < ours.phi_upper * (1.0 - TOLERANCE):
        yield f"the phase error rate {claimed['phi_upper']} is below what the tallies allow, {ours.phi_upper}"
    if claimed["n_u_lower"] > ours.n_u_lower * (1.0 + TOLERANCE):
        yield f"{claimed['n_u_lower']} untagged events are more than the tallies allow, {ours.n_u_lower}"
    if claimed["ell_bits"] > ours.ell_bits + 8:
        yield f"the length {claimed['ell_bits']} is above what the tallies allow, {ours.ell_bits}"
    named = ("n_u_lower", "phi_upper", "pa_cost_bits", "eps_spent")
    pairs = [(name, claimed[name], getattr(ours, name)) for name in named]
    for i, term in enumerate(ours.terms):
        theirs = claimed["terms"][i] if i < len(claimed["terms"]) else {}
        if set(theirs) != _names(Term) or theirs["name"] != term.name:
            yield f"term {term.name!r} is not in its place"
            return
        pairs += [
            (f"term {term.name!r}", theirs["value"], term.value),
            (f"eps of {term.name!r}", theirs["eps"], term.eps),
        ]
    for name, theirs, own in pairs:
        if not math.isclose(theirs, own, rel_tol=TOLERANCE, abs_tol=0.0):
            yield f"{name} is {theirs}, computed {own}"
    if abs(claimed["ell_bits"] - ours.ell_bits) > 8 or len(claimed["terms"]) != len(ours.terms):
        yield "the ledger's sums do not hold"
    if claimed["leak_monitor_bits"] != ours.leak_monitor_bits:
        yield f"leak_monitor_bits is {claimed['leak_monitor_bits']}, computed {ours.leak_monitor_bits}"
    if claimed["monitors"] != [asdict(monitor) for monitor in ours.monitors]:
        yield "the monitors are not those of these tallies"
    if claimed["assumes"] != list(ours.assumes):
        yield "an assumption of the ledger is missing or given twice"


def _seed_faults(amplified: Mapping[str, Any]) -> Iterator[str]:
    family, n, m = amplified["family"], amplified["input_bits"], amplified["secret_bits"]
    if family == "gf2m":
        if not n <= amplified["seed_bits"] <= 2 * n + 1000:
            yield f"a seed of {amplified['seed_bits']} bits is not one of a field of at least {n} bits"
    elif family not in SEED_BITS:
        yield f"unknown hash family {family!r}"
    elif amplified["seed_bits"] != SEED_BITS[family](n, m):
        yield f"a seed of {amplified['seed_bits']} bits is not one of {family} from {n} to {m} bits"


def counting_bound_bits(n: int, errors: int) -> float:
    """log2 C(n, e): no error correction tells e errors among n bits apart with less, however it works."""
    return (math.lgamma(n + 1) - math.lgamma(errors + 1) - math.lgamma(n - errors + 1)) / math.log(2.0)
