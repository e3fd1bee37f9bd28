"""A certificate with any field altered is rejected: by its signature, by arithmetic if the signer lies, by policy."""

from __future__ import annotations

import ast
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.auditor import verify_certificate
from common.auditor.verify_certificate import BETWEEN, ONE_OF, Policy, Report, examine, faults, main
from common.cli.verify_certificate import command
from common.config import Reconciliation
from common.keys.certificate import signed_bytes
from common.postprocessing.interleaving import frame_lengths, window_bits
from common.postprocessing.ldpc_codes import code_table
from common.postprocessing.reconciliation.disclosed import RESULT_BITS
from common.postprocessing.reconciliation.exchange import MIN_TAIL_BITS
from common.postprocessing.reconciliation.frame import CHECK_BITS, LONGEST_FRAME_BITS
from common.randomness import CLASSES, USES, RandomnessClass, assumptions, documents
from common.security.assumes import sentences
from common.security.finite_key import EpsilonBudget
from common.security.tallies import ProtocolSettings, ReceiverBounds, SourceBounds
from tests.certificates import (
    KEYS,
    PROTOCOLS,
    SIGNERS,
    Body,
    altered,
    another,
    certified,
    leaves,
    ledger_of,
    made,
    signed,
)
from tests.identities import sources

FILE = Path(verify_certificate.__file__)
POLICY_FILE = FILE.with_name("policy.toml")
POLICY = Policy.read(POLICY_FILE.read_text())
BOTH = tuple(SIGNERS.values())


def verdict(*bodies: Body, policy: Policy | None = POLICY, signers: tuple[str, ...] = BOTH) -> Report:
    return examine([(f"{i}.json", json.dumps(body)) for i, body in enumerate(bodies)], policy, signers)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_was_made_is_valid_under_the_shipped_policy(protocol: str) -> None:
    report = verdict(made(protocol), made(protocol, role="bob"), made(protocol, 8_000))
    assert (report.reasons, report.doubts, report.verdict, report.exit_code) == ([], [], "valid", 0)


@pytest.mark.parametrize(("policy", "signers"), [(None, BOTH), (POLICY, ()), (None, ())])
def test_without_policy_or_signer_nothing_is_valid(policy: Policy | None, signers: tuple[str, ...]) -> None:
    report = verdict(made(), policy=policy, signers=signers)
    assert (report.verdict, report.exit_code) == ("consistent", 5)
    assert len(report.doubts) == (policy is None) + (not signers)
    assert not report.document()["valid"]


def test_nothing_at_all_is_not_valid() -> None:
    assert verdict().verdict == "invalid"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_single_field_altered_is_rejected(protocol: str) -> None:
    body = made(protocol)
    paths = list(leaves(body))
    assert len(paths) > 80
    for path in paths:
        assert faults(altered(body, path, another)), path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_field_missing_added_or_of_another_kind_is_rejected_though_signed(protocol: str) -> None:
    body = made(protocol)
    for path in leaves(body):
        if path != ("signature",):  # an altered signature is another test
            unused = told(path) or (protocol == "decoy-bb84" and path[-1] in ("g2_upper", "mean_photon_number_upper"))
            numbers = () if unused else (-1.5, 1e300)
            for nonsense in (None, [], {}, "", "a\nb", *numbers):
                if path == ("ledger", "refusal") and nonsense is None:
                    continue
                wrong = altered(body, path, lambda _, nonsense=nonsense: nonsense)
                assert faults(signed(wrong) if path != ("role",) else wrong), (path, nonsense)
        *outer, last = path
        shorter, longer = copy.deepcopy(body), copy.deepcopy(body)
        for tree in (shorter, longer):
            place = tree
            for name in outer:
                place = place[name]
            if isinstance(place, dict) and tree is longer:
                place["more"] = 1
            else:
                del place[last]
        if told(path) and isinstance(last, int):
            continue
        assert faults(signed(shorter) if last not in ("signature", "role") else shorter), path
        assert faults(signed(longer)), path


FREE = {"software", "link", "role", "block_id", "simulated", "seed_sha256", "frames", "frames_failed"}
FREE |= {"alice_to_bob_sha256", "bob_to_alice_sha256", "errors_corrected", "double_clicks", "p_z_bob", "phase_bits"}
"""What only the signature holds: words of the signer about itself, digests, and counts that enter no sum exactly."""
def told(path: tuple[Any, ...]) -> bool:
    """How the node explains itself; the verifier computes its own."""
    return len(path) > 1 and path[1] in ("terms", "monitors", "assumes")


def held_by_arithmetic(protocol: str, path: tuple[Any, ...]) -> bool:
    decoy = protocol == "decoy-bb84"
    if path[-1] in FREE or path[0] == "life" or path in (("public_key",), ("signature",)) or told(path):
        return False
    if path[-1] == "p_z_lower" and protocol != "three-state":  # then only the monitors use it
        return False
    if path[:2] == ("ledger", "source"):
        return not decoy or path[-1] == "eps"
    if path[-1] in ("cross_basis", "mismatch") or path[0] == "randomness":
        return True
    return path[-1] != "slots_sent" or not decoy


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
        (("ledger", "phi_upper"), lambda v: 0.9 * v, "phi_upper"),
        (("ledger", "n_u_lower"), lambda v: 1.1 * v, "n_u_lower"),
        (("ledger", "ell_bits"), lambda v: v + 8, "length"),
        (("ledger", "eps_spent"), lambda v: v / 2, "eps_spent"),
        (("ledger", "terms", 0, "eps"), lambda v: 0.0, "eps of the terms"),
        (("ledger", "assumes"), lambda v: [said for said in v if "A3" not in said], "assumption A3"),
        (("ledger", "assumes"), lambda v: [*v, "A3: nothing at all"], "assumption A3"),
        (("ledger", "assumes"), lambda v: [f"not so: {said}" if "coins" in said else said for said in v], "bob_coins"),
        (("ledger", "assumes"), lambda v: [said for said in v if "coins" not in said], "randomness of bob_coins"),
        (("amplification", "secret_bits"), lambda v: v + 800, "more than the"),
        (("ledger", "leak_ec_bits"), lambda v: 1000, "log2 C"),
        (("ledger", "leak_verify_bits"), lambda v: 0, "verification"),
        (("ledger", "leak_monitor_bits"), lambda v: 0, "z_ones_steps"),
        (("ledger", "budget", "eps_cor"), lambda v: 1e-40, "eps_cor"),
        (("ledger", "budget", "eps_auth"), lambda v: 1e-30, "eps_auth"),
        (("ledger", "budget", "eps_total"), lambda v: 1.2e-14, "n_u_lower"),
        (("ledger", "source", "eps"), lambda v: 1e-14, "overspent"),
        (("ledger", "receiver", "eps"), lambda v: 1e-14, "overspent"),
        (("ledger", "tallies", "n_z_kept"), lambda v: 10**9, "counts of a basis"),
        (("ledger", "tallies", "cross_clicks"), lambda v: 300_000, "no key"),
        (("ledger", "tallies", "cross_clicks"), lambda v: None, "cross_clicks is not a count"),
        (("ledger", "tallies", "z_ones_steps"), lambda v: 30_000, "V and H are out of balance"),
        (("ledger", "settings", "protocol"), lambda v: "magic", "no proof"),
        (("ledger", "settings", "p_z_alice"), lambda v: 0.8, "Alice's share of Z"),
        (("ledger", "receiver", "p_z_upper"), lambda v: 0.89, "interval"),
        (("ledger", "receiver", "mismatch"), lambda v: 1.0, "mismatch"),
        (("ledger", "version"), lambda v: 99, "unknown version"),
        (("version",), lambda v: 1, "unknown version"),
        (("version",), lambda v: True, "unknown version"),
        (("format",), lambda v: "a letter", "not a key certificate"),
        (("amplification", "family"), lambda v: "crc", "hash family"),
        (("amplification", "seed_bits"), lambda v: v - 1, "seed"),
        (("amplification", "input_bits"), lambda v: v + 1, "input"),
        (("randomness", "alice", "symbols", "class"), lambda v: "quantum", "does not assume"),
        (("randomness", "bob", "coins", "source"), lambda v: "a fair coin", "does not assume"),
        (("authentication", "tags"), lambda v: 3, "sums"),
        (("authentication", "bits_spent"), lambda v: 0, "sums"),
        (("authentication", "net_key_bits"), lambda v: v + 1, "sums"),
        (("authentication", "bits_earned"), lambda v: 10**9, "sums"),
        (("reconciliation", "detections"), lambda v: 10, "detections are not those"),
        (("reconciliation", "frames_failed"), lambda v: 99, "more frames failed"),
        (("reconciliation", "errors_corrected"), lambda v: 10**9, "log2 C"),
        (("block_id",), lambda v: 0, "block_id"),
        (("life", "eps_life"), lambda v: v / 4, "life of the link"),
        (("life", "blocks"), lambda v: 0, "life of the link"),
        (("life", "blocks"), lambda v: 2**62, "life of the link"),
        (("ledger", "refusal"), lambda v: "no", "refusal"),
        (("ledger", "tallies"), lambda v: {**v, "x_counts": [[[1], [2, 3], [4, 5], [6, 7]]]}, "shape"),
    ],
)
def test_impossible_claims_are_named(path: tuple[Any, ...], change: Callable[[Any], Any], reason: str) -> None:
    found = faults(signed(altered(made(), path, change)))
    assert any(reason in fault for fault in found), found


def test_a_detector_that_is_weak_in_x_is_named() -> None:
    def weak(counts: list[Any]) -> list[Any]:
        return [[[sum(pair), 0] for pair in level] for level in counts]

    body = altered(made("three-state"), ("ledger", "tallies", "x_counts"), weak)
    assert any("R and L are out of balance" in fault for fault in faults(signed(body)))


def lie(**changes: Any) -> Body:
    """What a node makes and signs by its own arithmetic from inputs that it has no right to."""
    return certified(ledger_of("three-state", **changes))


def few_x() -> Body:
    """An X share of 2 % where the splitter says 10 %: light that chooses the basis."""
    body = made("three-state")
    body["ledger"]["tallies"]["z_detections"] = 49 * body["ledger"]["tallies"]["x_detections"]
    body["reconciliation"]["detections"] = 50 * body["ledger"]["tallies"]["x_detections"]
    return signed(body)


def short_hash() -> Body:
    """A promise of correctness that no hash of 128 bits keeps."""
    return signed(altered(made(), ("ledger", "budget", "eps_cor"), lambda eps: 1e-40))


def bright_vacuum() -> Body:
    """Intensities that no shutter leaves."""
    settings = made("decoy-bb84")["ledger"]["settings"]
    settings["intensities"], settings["p_intensities"] = (0.36, 0.135, 0.055), tuple(settings["p_intensities"])
    return certified(ledger_of("decoy-bb84", settings=ProtocolSettings(**settings)))


LIES: dict[str, tuple[Callable[[], Body], str]] = {
    "paper accounting": (lambda: lie(budget=EpsilonBudget(accounting="paper")), "no composable claim"),
    "tails that do not cover a stream": (lambda: lie(budget=EpsilonBudget(tails="chernoff")), "may end the block"),
    "eps_total 0.999": (lambda: lie(budget=EpsilonBudget(eps_total=0.999)), "policy: eps_total"),
    "eps_cor below what 128 bits reach": (short_hash, "eps_cor"),
    "g2 of 1e-12": (lambda: lie(source=SourceBounds(0.292, 1e-12)), "policy: g2_upper"),
    "almost no light": (lambda: lie(source=SourceBounds(1e-4, 0.00698)), "policy: mean_photon_number_upper"),
    "a splitter known exactly": (lambda: lie(receiver=ReceiverBounds(0.92, 0.92, 0.01)), "policy: p_z_bob_width"),
    "bounds that are hardly ever right": (
        lambda: lie(source=SourceBounds(0.292, 0.00698, 1e-10), budget=EpsilonBudget(eps_total=3e-10)),
        "policy: eps_source",
    ),
    "a vacuum that is a second decoy": (bright_vacuum, "policy: vacuum_intensity"),
    "equal detectors": (lambda: lie(receiver=ReceiverBounds(0.919, 0.921)), "policy: mismatch"),
    "X share of 2 %": (few_x, "the X share of the detections"),
    "simulated": (lambda: certified(ledger_of("bb84"), simulated=True), "policy: simulated"),
}


def with_leak(body: Body, leak: int) -> Body:
    """The same block, of which fewer bits are said to be disclosed, with a key that is longer by as many."""
    ledger, amplified, spent = body["ledger"], body["amplification"], body["authentication"]
    ledger["ell_bits"] += (ledger["leak_ec_bits"] - leak) // 8 * 8
    ledger["leak_ec_bits"] = leak
    m = amplified["secret_bits"] = ledger["ell_bits"]
    amplified["seed_bits"] = amplified["input_bits"] + m - 1
    spent["application_bits"], spent["net_key_bits"] = m - spent["bits_earned"], m - 512
    return signed(body)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("errors", [0, 1, 100])
def test_a_key_that_cost_no_bits_of_error_correction_is_not_believed(protocol: str, errors: int) -> None:
    body = altered(made(protocol), ("reconciliation", "errors_corrected"), lambda _: errors)
    least = verify_certificate.least_leak(body)
    tallies, reconciled = body["ledger"]["tallies"], body["reconciliation"]
    missing = sum(tallies["n_z"]) - tallies["n_z_kept"]
    assert least >= 56 * reconciled["frames"] + (missing - 1023 if reconciled["frames_failed"] else 0)
    assert least >= 15 * tallies["n_z_kept"] // 512
    for leak in (0, 1, 2000, least - 1):
        found = faults(with_leak(copy.deepcopy(body), leak))
        assert any("of these frames were disclosed" in fault for fault in found), (leak, found)
    assert faults(with_leak(copy.deepcopy(body), least)) == []


def test_few_errors_with_the_least_that_can_be_disclosed_are_for_the_policy() -> None:
    body = altered(made(), ("reconciliation", "errors_corrected"), lambda _: 1)
    report = verdict(with_leak(body, verify_certificate.least_leak(body)))
    assert {reason.split()[2] for reason in report.reasons} == {"qber", "f_ec"}
    assert verdict(body, policy=None).verdict == "invalid"
    low = altered(made(), ("reconciliation", "errors_corrected"), lambda n: 2 * n)
    assert any("log2 C" in reason for reason in verdict(signed(with_leak(low, 50_000))).reasons)


@pytest.mark.parametrize(
    ("missing", "frames", "failed", "fault"),
    [
        (0, 5, 0, None),
        (1023, 5, 0, None),
        (1024, 5, 0, "failed frames"),
        (0, 6, 1, "failed frames"),
        (1023, 6, 1, "failed frames"),
        (1024, 6, 1, None),
        (2**20 + 1023, 6, 1, None),
        (2**20 + 1024, 6, 1, "failed frames"),
        (2**20 + 1024, 7, 2, None),
        (0, 0, 0, "decoded frames"),
        (0, 1, 0, None),
        (0, 283, 0, None),
        (0, 284, 0, "decoded frames"),
        (2048, 1, 2, "more frames failed"),
    ],
)
def test_frames_hold_the_bits_that_they_are_said_to_hold(
    missing: int, frames: int, failed: int, fault: str | None
) -> None:
    body = made("bb84")
    kept = body["ledger"]["tallies"]["n_z_kept"] = 290_000
    body["ledger"]["tallies"]["n_z"] = [kept + missing]
    body["ledger"]["leak_ec_bits"] = 10**7
    body["reconciliation"].update(frames=frames, frames_failed=failed)
    found = list(verify_certificate.frame_faults(body))
    assert (fault in found[0] if fault else found == []), found


def test_every_code_of_the_protocol_discloses_what_the_auditor_takes_for_the_least() -> None:
    numerator, denominator = verify_certificate.LEAST_RATE
    codes = code_table().codes
    least = [Fraction(code.syndrome_bits - code.merged_bits, code.capacity_bits) for code in codes]
    assert min(least) == Fraction(numerator, denominator)
    assert min(code.capacity_bits for code in codes) == verify_certificate.SMALLEST_CODE
    assert verify_certificate.FRAME_BITS == CHECK_BITS + RESULT_BITS
    assert (verify_certificate.SHORTEST_FRAME, verify_certificate.LONGEST_FRAME) == (MIN_TAIL_BITS, LONGEST_FRAME_BITS)
    shortest_asked = Reconciliation.model_fields["frame_length_bits"].metadata[0].ge
    for asked in (shortest_asked, shortest_asked + 1, 2**18):
        for tail in (MIN_TAIL_BITS, asked - 1, asked, asked + 1, 2 * asked + 1, window_bits(asked)):
            if tail >= MIN_TAIL_BITS:
                assert min(frame_lengths(tail, asked)) >= MIN_TAIL_BITS


@pytest.mark.parametrize("name", LIES)
def test_a_node_that_believes_too_much_is_not_believed(name: str) -> None:
    body, reason = LIES[name][0](), LIES[name][1]
    report = verdict(body)
    assert report.verdict == "invalid"
    assert any(reason in said for said in report.reasons), report.reasons


@pytest.mark.parametrize("name", [*ONE_OF, *BETWEEN])
def test_every_line_of_the_policy_is_used(name: str) -> None:
    of_pulses = name.endswith("_intensity") or name in ("p_signal", "p_decoy", "p_vacuum")
    protocol = "decoy-bb84" if of_pulses else "bb84"
    assert not list(POLICY.faults(made(protocol)))
    nothing = Policy(
        {key: [] if key == name else value for key, value in POLICY.one_of.items()},
        {key: [2e300, 3e300] if key == name else value for key, value in POLICY.between.items()},
    )
    assert [fault.split()[1] for fault in nothing.faults(made(protocol))] == [name]


@pytest.mark.parametrize(
    ("was", "becomes", "reason"),
    [
        ("eps_total =", "eps_all =", "eps_"),
        ("protocol =", "# protocol =", "'protocol' is missing"),
        ("simulated = [false]", "simulated = false", "not a list"),
        ("g2_upper = [0.0005, 0.5]", "g2_upper = [0.0005]", "two numbers"),
        ("g2_upper = [0.0005, 0.5]", "g2_upper = [0.0005, nan]", "two numbers"),
        ("[between]", "[betwixt]", "'between' is missing|betwixt|missing"),
        ("[between]", "[", "Expected|Invalid"),
    ],
)
def test_a_policy_that_leaves_something_open_is_refused(was: str, becomes: str, reason: str) -> None:
    text = POLICY_FILE.read_text()
    assert was in text
    with pytest.raises(ValueError, match=reason):
        Policy.read(text.replace(was, becomes))


def test_signatures() -> None:
    body, stranger = made(), Ed25519PrivateKey.from_private_bytes(bytes([9] * 32))
    forged = {**body, "public_key": stranger.public_key().public_bytes_raw().hex()}
    forged["signature"] = stranger.sign(signed_bytes(forged)).hex()
    assert faults(forged) == []
    assert faults(forged, BOTH) == ["it is signed by another key than those given"]
    assert "it is not signed" in faults({**body, "signature": ""})
    assert any("wrong signature" in fault for fault in faults({**body, "signature": "zz"}))


def test_no_block_is_used_twice_and_both_ends_agree() -> None:
    def reasons(*bodies: Body) -> list[str]:
        return verdict(*bodies).reasons

    ours, theirs, next_block = made(), made(role="bob"), made(block_id=8_000)
    assert reasons(ours, theirs, next_block) == []
    assert any("used twice" in reason for reason in reasons(ours, next_block, ours))
    copied = {**next_block, "amplification": ours["amplification"]}
    assert any("seed_sha256 of another block" in reason for reason in reasons(ours, signed(copied)))
    copied = {**next_block, "transcript": ours["transcript"]}
    assert any("bob_to_alice_sha256 of another block" in reason for reason in reasons(ours, signed(copied)))
    for path in (
        ("transcript", "alice_to_bob_sha256"),
        ("reconciliation", "frames"),
        ("reconciliation", "errors_corrected"),
        ("ledger", "tallies", "double_clicks"),
        ("ledger", "settings", "p_z_bob"),
    ):
        apart = signed(altered(theirs, path, another))
        found = reasons(ours, apart)
        assert any(f"differ in {name}" in reason for reason in found for name in path), found
    alone = {**theirs, "public_key": SIGNERS["alice"]}
    alone["signature"] = KEYS["alice"].sign(signed_bytes(alone)).hex()
    assert any("one key signed for both ends" in reason for reason in reasons(ours, alone))


def test_a_life_that_forgets_blocks_is_found() -> None:
    def block(number: int, life: int) -> Body:
        return signed(altered(made(block_id=1000 * number), ("life", "blocks"), lambda _: life))

    assert verdict(*(block(i, i) for i in range(1, 11))).reasons == []
    assert any("counts 1 in its life" in reason for reason in verdict(*(block(i, 1) for i in range(1, 11))).reasons)


def test_a_life_that_forgets_what_blocks_have_spent_is_found() -> None:
    def blocks(spent_in_all: float) -> list[Body]:
        made_so = []
        for number in range(1, 41):
            body = made(block_id=1000 * number)
            spent = body["ledger"]["eps_spent"]
            life = {"blocks": number, "tags": 0, "eps_life": max(spent, min(number, spent_in_all) * spent)}
            made_so.append(signed({**body, "life": life}))
        return made_so

    assert verdict(*blocks(40)).reasons == []
    assert verdict(*blocks(32)).reasons == []
    for few in (2, 31.9):
        assert any("counts" in reason and "has spent" in reason for reason in verdict(*blocks(few)).reasons)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_assumptions_are_the_words_that_the_auditor_holds_itself(protocol: str) -> None:
    settings = ProtocolSettings(**made(protocol)["ledger"]["settings"])
    assert tuple(verify_certificate.assumptions(protocol).values()) == sentences(settings, EpsilonBudget())
    empty = made(protocol)
    said = empty["ledger"]["assumes"]
    empty["ledger"]["assumes"] = [f"{one[:2]}: nothing" if one[:2] in ("A1", "A2", "A3", "A4") else one for one in said]
    found = faults(signed(empty))
    assert sum("in the words of this file" in fault for fault in found) == 4, found
    words = {f"{role}_{use}": text for role, texts in USES.items() for use, text in texts.items()}
    assert words == verify_certificate.DRAWN


@pytest.mark.parametrize("grade", CLASSES)
def test_every_class_of_randomness_is_said_in_the_same_words(grade: RandomnessClass) -> None:
    random = {role: sources(role, grade) for role in KEYS}
    body = certified(ledger_of("bb84", assumes=assumptions(random)))
    body["randomness"] = {role: documents(uses) for role, uses in random.items()}
    assert faults(signed(body)) == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"version": 1, "version": 1}', "[" * 5000, '{"format": NaN}']
)
def test_what_is_no_certificate_is_said_to_be_none(text: str) -> None:
    report = examine([("x", text)], POLICY, BOTH)
    assert report.certificates == []
    assert any("not a key certificate" in reason for reason in report.reasons)


def test_a_number_beyond_all_floats_is_a_fault_and_the_other_certificates_are_judged() -> None:
    good = made()
    for path in leaves(good):
        if path not in (("role",), ("signature",)):
            report = verdict(signed(altered(good, path, lambda _: 10**400)), made(block_id=8_000))
            assert (report.verdict, [one["block_id"] for one in report.certificates]) == ("invalid", [8_000]), path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Certificates, keys and policy beside a copy of the auditor's file, as an auditor has them."""
    for role in SIGNERS:
        (tmp_path / f"{role}.json").write_text(json.dumps(made(role=role)))
        public = KEYS[role].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{role}.pub").write_bytes(public)
    (tmp_path / "bad.json").write_text(json.dumps(altered(made(), ("block_id",), another)))
    huge = json.dumps({**made(), "life": {"blocks": 3, "tags": 40, "eps_life": 10**400}})
    (tmp_path / "huge.json").write_text(huge)
    (tmp_path / "policy.toml").write_text(POLICY_FILE.read_text())
    (tmp_path / "verify_certificate.py").write_text(FILE.read_text())
    return tmp_path


RUNS = [
    ("alice.json bob.json --policy policy.toml --signer alice.pub --signer bob.pub", 0, "valid"),
    (f"alice.json --policy policy.toml --signer {SIGNERS['alice']}", 0, "valid"),
    ("alice.json --signer alice.pub", 5, "consistent"),
    ("alice.json --policy policy.toml", 5, "consistent"),
    ("alice.json --policy policy.toml --signer bob.pub", 1, "invalid"),
    ("alice.json bad.json --policy policy.toml --signer alice.pub", 1, "invalid"),
    ("huge.json alice.json --policy policy.toml --signer alice.pub", 1, "invalid"),
    ("none.json", 2, "cannot be read"),
    ("alice.json --policy alice.json", 2, "not a policy"),
    ("alice.json --signer policy.toml", 2, "not an Ed25519 public key"),
]


@pytest.mark.parametrize(("line", "code", "word"), RUNS)
def test_both_commands_say_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, code: int, word: str
) -> None:
    monkeypatch.chdir(folder)
    assert main([*line.split(), "--json"]) == code
    alone = capsys.readouterr()
    result = CliRunner().invoke(command, [*line.split(), "--json"], standalone_mode=False)
    if code == 2:
        assert word in alone.err
        assert word in str(result.exception)
    else:
        assert result.return_value == code
        assert json.loads(alone.out) == json.loads(result.stdout)
        assert json.loads(alone.out)["verdict"] == word


def test_the_table_shows_what_a_reader_must_weigh(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder / "alice.json")])
    text = capsys.readouterr().out
    for name in ("eps_spent", "f_ec", "x_share", "cross_clicks", "mismatch", "A3: ", "bob_coins", "g2_upper"):
        assert name in text
    assert "CONSISTENT" in text
    assert "in doubt: no policy" in text


def test_the_file_runs_alone_in_a_folder_without_the_product(folder: Path) -> None:
    line = [sys.executable, "-I", "verify_certificate.py", *RUNS[0][0].split(), "--json"]
    done = subprocess.run(line, cwd=folder, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verdict"] == "valid"


def test_it_imports_the_standard_library_and_cryptography_only() -> None:
    tree = ast.parse(FILE.read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} <= {*sys.stdlib_module_names, "cryptography"}
    assert not any(isinstance(node, ast.Call) and "import" in ast.unparse(node.func) for node in ast.walk(tree))
