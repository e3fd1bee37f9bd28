"""A certificate with any field altered is rejected: by its signature, and by its own arithmetic if the signer lies."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.cli.verify_certificate import command, judge
from common.keys.certificate import (
    TAGS_PER_BLOCK,
    Amplification,
    Provenance,
    Reconciliation,
    Transcript,
    certificate,
    signed_bytes,
)
from common.keys.certificate_check import counting_bound_bits, faults
from common.keys.life import Life
from common.node import credentials
from common.protocol.messages import Commit, Committed, Fixed, Prepared, Propose, Seed
from common.randomness import assumptions
from common.security.finite_key import EpsilonBudget, Ledger, key_length
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds, Tallies
from tests.golden.cases import GOOD, RECEIVER, SINGLE
from tests.identities import both_sources, sources

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PROTOCOLS = sorted(GOOD)
Body = dict[str, Any]
ASSUMES = (*assumptions({role: sources(role) for role in ("alice", "bob")}), "the stars stand still")


def ledger_of(protocol: str) -> Ledger:
    case = GOOD[protocol]
    tallies = Tallies(**{**case["tallies"], "n_z": tuple(map(int, case["tallies"]["n_z"]))})
    settings, source = ProtocolSettings(**case["settings"]), SourceBounds(**SINGLE)
    receiver = ReceiverBounds(**{**RECEIVER, **case.get("receiver", {})})
    return key_length(tallies, settings, source, receiver, EpsilonBudget(), case["leak_ec_bits"], 128, ASSUMES)


def made(protocol: str = "bb84", block_id: int = 7, role: str = "alice") -> Body:
    ledger = ledger_of(protocol)
    n = ledger.tallies.n_z_kept
    seed = Amplification("toeplitz", n, ledger.ell_bits, n + ledger.ell_bits - 1, f"{block_id:064x}")
    transcript = Transcript(f"{block_id + 1:064x}", f"{block_id + 2:064x}")
    provenance = Provenance("qkd-node 1.2", "field", role, block_id, True)
    counts = Reconciliation(ledger.tallies.z_detections + ledger.tallies.x_detections, 70, 1, n // 50)
    life = Life(block_id, 5 * block_id, block_id * ledger.eps_spent)
    return dict(json.loads(certificate(provenance, ledger, counts, seed, 8192, transcript, both_sources(), life, KEY)))


def signed(body: Body) -> Body:
    """The same words, signed again by a node that lies."""
    return {**body, "signature": KEY.sign(signed_bytes(body)).hex()}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path
    for name, part in items:
        yield from leaves(part, (*path, name))


def altered(body: Body, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Body:
    wrong = copy.deepcopy(body)
    place = wrong
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = change(place[path[-1]])
    return wrong


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.001 if value else 1e-12
    if isinstance(value, str) and value:
        return value[:-1] + ("0" if value[-1] != "0" else "1")
    return "x"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_made_is_valid(protocol: str) -> None:
    assert faults(made(protocol)) == []
    assert faults(made(protocol), made(protocol)["public_key"]) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_single_field_altered_is_rejected(protocol: str) -> None:
    body = made(protocol)
    paths = list(leaves(body))
    assert len(paths) > 60
    for path in paths:
        assert faults(altered(body, path, another)), path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_field_missing_added_or_of_another_kind_is_rejected_though_signed(protocol: str) -> None:
    body = made(protocol)
    for path in leaves(body):
        if path != ("signature",):
            for nonsense in (None, [], {}, "", -1, float("1e400"), "NaN"):
                if path == ("ledger", "refusal") and nonsense is None:
                    continue
                wrong = altered(body, path, lambda _, nonsense=nonsense: nonsense)
                assert faults(wrong), path
        *outer, last = path
        if outer == ["ledger", "assumes"]:  # any sentence is a sentence
            continue
        shorter, longer = copy.deepcopy(body), copy.deepcopy(body)
        for tree in (shorter, longer):
            place = tree
            for name in outer:
                place = place[name]
            if isinstance(place, dict) and tree is longer:
                place["more"] = 1
            else:
                del place[last]
        assert faults(signed(shorter) if path != ("signature",) else shorter), path
        assert faults(signed(longer)), path


FREE = {"software", "link", "role", "block_id", "simulated", "seed_sha256", "frames", "frames_failed"}
FREE |= {"double_clicks", "phase_bits"}
FREE |= {"alice_to_bob_sha256", "bob_to_alice_sha256", "errors_corrected"}
"""What only the signature holds: words of the signer about itself, digests, and counts that enter no sum exactly."""
CELLS = {
    "three-state": {("x_counts", 0, 2, 1), ("x_counts", 0, 2, 0), ("x_counts", 0, 0, 0), ("x_counts", 0, 1, 0)},
    "bb84": {("x_counts", 0, 2, 1), ("x_counts", 0, 3, 0)},
    "decoy-bb84": {
        ("n_z", 0),
        ("n_z", 1),
        ("n_z", 2),
        ("x_counts", 1, 2, 1),
        ("x_counts", 1, 3, 0),
        ("x_counts", 2, 2, 1),
    },
}
"""Counts that a protocol's proof uses; of the others only the sum is checked."""


def held_by_arithmetic(protocol: str, path: tuple[Any, ...]) -> bool:
    if path[-1] in FREE or path[0] == "life" or "assumes" in path or path in (("public_key",), ("signature",)):
        return False
    if path[:2] == ("ledger", "source"):
        return protocol != "decoy-bb84" or path[-1] == "eps"
    if path[:3] in (("ledger", "tallies", "n_z"), ("ledger", "tallies", "x_counts")):
        return path[2:] in CELLS[protocol]
    return path[-1] != "slots_sent" or protocol != "decoy-bb84"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_signer_who_lies_about_a_number_is_found_by_the_arithmetic(protocol: str) -> None:
    body = made(protocol)
    for path in leaves(body):
        if not held_by_arithmetic(protocol, path):
            continue
        wrong = altered(
            body, path, lambda v: v * 2 + 1 if isinstance(v, int) and not isinstance(v, bool) else another(v)
        )
        assert faults(signed(wrong)), path


@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        (("ledger", "phi_upper"), lambda v: 0.9 * v, "phase error rate"),
        (("ledger", "n_u_lower"), lambda v: 1.1 * v, "untagged events"),
        (("ledger", "ell_bits"), lambda v: v + 800, "length"),
        (("amplification", "secret_bits"), lambda v: v + 800, "more than the"),
        (("ledger", "leak_ec_bits"), lambda v: 1000, "log2 C"),
        (("ledger", "leak_verify_bits"), lambda v: 0, "verification"),
        (("ledger", "budget", "eps_cor"), lambda v: 1e-30, "eps_cor"),
        (("ledger", "tallies", "n_z_kept"), lambda v: 10**9, "give no key"),
        (("ledger", "settings", "protocol"), lambda v: "magic", "no proof"),
        (("ledger", "version"), lambda v: 99, "unknown version"),
        (("version",), lambda v: 1, "unknown version"),
        (("version",), lambda v: True, "unknown version"),
        (("format",), lambda v: "a letter", "not a key certificate"),
        (("amplification", "family"), lambda v: "crc", "hash family"),
        (("amplification", "seed_bits"), lambda v: v - 1, "seed"),
        (("amplification", "input_bits"), lambda v: v + 1, "input"),
        (("randomness", "bob"), lambda v: {**v, "more": v["start"]}, "not stated"),
        (("randomness", "alice", "symbols", "class"), lambda v: "quantum", "does not assume"),
        (("randomness", "bob", "coins", "source"), lambda v: "a fair coin", "does not assume"),
        (("authentication", "bits_spent"), lambda v: 0, "sums"),
        (("authentication", "net_key_bits"), lambda v: v + 1, "sums"),
        (("authentication", "bits_earned"), lambda v: 10**9, "sums"),
        (("reconciliation", "detections"), lambda v: 10, "fewer detections"),
        (("reconciliation", "errors_corrected"), lambda v: 10**9, "log2 C"),
        (("block_id",), lambda v: 0, "block_id"),
        (("ledger", "terms", 0, "value"), lambda v: 0.5 * v, "computed"),
        (("ledger", "terms", 1, "eps"), lambda v: 0.0, "computed"),
        (("ledger", "terms"), lambda v: v[1:], "not in its place"),
        (("ledger", "terms"), lambda v: v + v[:1], "sums"),
        (("ledger", "refusal"), lambda v: "no", "refused"),
        (("ledger", "tallies"), lambda v: {**v, "x_counts": None}, "no sensible value"),
    ],
)
def test_impossible_claims_are_named(path: tuple[Any, ...], change: Callable[[Any], Any], reason: str) -> None:
    found = faults(signed(altered(made(), path, change)))
    assert any(reason in fault for fault in found), found


@pytest.mark.parametrize("life", [{"eps_life": 1e-16}, {"eps_life": 1.5}, {"blocks": 0}])
def test_a_life_that_does_not_cover_its_block_is_found(life: dict[str, Any]) -> None:
    """The sum over all blocks and tags is the node's own word, but never less than this block's part."""
    body = made()
    body["life"] |= life
    assert any("does not cover this block" in fault for fault in faults(signed(body)))


def test_signatures() -> None:
    body, stranger = made(), Ed25519PrivateKey.from_private_bytes(bytes(32))
    other = stranger.public_key().public_bytes_raw().hex()
    assert faults(body, other) == ["it is signed by another key than the one given"]
    forged = {**body, "public_key": other}
    forged["signature"] = stranger.sign(signed_bytes(forged)).hex()
    assert faults(forged) == []
    assert "another key" in faults(forged, body["public_key"])[0]
    assert faults({**body, "signature": ""}) == ["it is not signed"]
    unsigned = json.loads(
        certificate(
            Provenance("a", "b", "bob", 1, False),
            ledger_of("bb84"),
            Reconciliation(1, 1, 0, 0),
            Amplification("toeplitz", 1, 1, 1, ""),
            0,
            Transcript("", ""),
            both_sources(),
            Life(1, 0, 1e-10),
            None,
        )
    )
    assert "it is not signed" in faults(unsigned)


def test_no_block_is_used_twice_and_both_ends_agree() -> None:
    def reasons(*bodies: Body) -> list[str]:
        return judge([("x.json", json.dumps(body)) for body in bodies])[0]

    ours, theirs, next_block = made(), made(role="bob"), made(block_id=8_000)
    assert reasons(ours, theirs, next_block) == []
    assert any("used twice" in reason for reason in reasons(ours, next_block, ours))
    copied = {**next_block, "amplification": ours["amplification"]}
    assert any("seed_sha256 of another block" in reason for reason in reasons(ours, signed(copied)))
    apart = signed(altered(theirs, ("transcript", "alice_to_bob_sha256"), another))
    assert any("differ in transcript" in reason for reason in reasons(ours, apart))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"version": 1, "version": 1}', "[" * 5000, '{"format": NaN}']
)
def test_what_is_no_certificate_is_said_to_be_none(text: str) -> None:
    reasons, good = judge([("x", text)])
    assert good == []
    assert any("not a key certificate" in reason for reason in reasons)


def test_the_command(tmp_path: Path) -> None:
    good, bad, key = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "key.pub"
    good.write_text(json.dumps(made()))
    bad.write_text(json.dumps(altered(made(), ("block_id",), another)))
    key.write_text(made()["public_key"])

    def run(*arguments: object) -> tuple[int, Any]:
        result = CliRunner().invoke(command, [*map(str, arguments), "--json"], standalone_mode=False)
        return result.return_value, json.loads(result.stdout) if result.stdout else result.exception

    code, document = run(good, "--signer", key)
    assert (code, document["valid"], document["reasons"]) == (0, True, [])
    assert document["certificates"][0]["net_key_bits"] == ledger_of("bb84").ell_bits - 4 * 128
    code, document = run(good, bad)
    assert (code, document["valid"]) == (1, False)
    assert "wrong signature" in document["reasons"][0]
    assert "cannot be read" in str(run(tmp_path / "none.json")[1])
    assert "not an Ed25519 public key" in str(run(good, "--signer", bad)[1])
    text = CliRunner().invoke(command, [str(good)], standalone_mode=False).stdout
    assert "valid" in text
    assert "--signer" in text


def test_the_tags_of_a_block_are_its_sealed_messages() -> None:
    assert sum(kind.SEALED for kind in (Propose, Seed, Fixed, Prepared, Commit, Committed)) == TAGS_PER_BLOCK


def test_the_counting_bound() -> None:
    assert counting_bound_bits(4, 2) == pytest.approx(2.584962500721156)
    assert counting_bound_bits(100, 0) == counting_bound_bits(100, 100) == pytest.approx(0.0, abs=1e-9)


def test_keys_of_qkd_init_sign_and_verify(tmp_path: Path) -> None:
    private, public = credentials.certificate_keys()
    (tmp_path / "k").write_bytes(private)
    signer = credentials.read_certificate_key(tmp_path / "k")
    assert credentials.public_key_hex(public) == signer.public_key().public_bytes_raw().hex()
    (tmp_path / "k").write_bytes(public)
    with pytest.raises(Exception, match="not an Ed25519 private key"):
        credentials.read_certificate_key(tmp_path / "k")
    with pytest.raises(Exception, match="cannot be read"):
        credentials.read_certificate_key(tmp_path / "none")
