"""Judge key certificates of a QKD link with this one file, the standard library and `cryptography`.

    python verify_certificate.py alice.json bob.json --policy policy.toml --signer KEY --signer KEY

A certificate says how many secret bits a block gave, and the counts, settings and bounds from which that follows. This
file imports nothing of the node's software. It computes the length again from the equations of
`common/security/README.md` (below: README), in intervals that hold the exact number, and takes the worse end of each.

Verdicts and exit codes:
    invalid     1  the length is above what the counts allow, a claim contradicts another, or the policy forbids it
    consistent  5  no contradiction, but nobody said whose signature and which physics to believe (--signer, --policy)
    valid       0  no contradiction, signed by a given key, within the given policy
    (2: a file, policy or key cannot be read)

Steps: 1 read, 2 signature, 3 shape, 4 intervals, 5 concentration, 6 untagged events and phase errors, 7 length and
epsilon, 8 other claims, 9 certificates compared, 10 policy, 11 report.

What no equation can find: a signer who lies about what happened. Counts, errors and disclosed bits are his word. They
are held to each other and to the least that the protocol discloses; a lie that fits all of it passes. Two ends that
agree are two words. Narrow the policy (qber, f_ec, x_share, eps) to what you know of the link from elsewhere.
"""

from __future__ import annotations

import argparse
import errno
import functools
import json
import math
import os
import stat
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

FORMAT, VERSION, LEDGER_VERSION = "qkd-node key certificate", 2, 3
VALID, INVALID, UNREADABLE, CONSISTENT = 0, 1, 2, 5
Body = Mapping[str, Any]

# --- 1. Read: one JSON object, no name twice, no NaN ----------------------------------------------------------------


def parse(text: str) -> dict[str, Any]:
    """Read a certificate; raise ValueError where it is not one JSON object with every name once."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a field occurs twice")
        return made

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not a number")

    body = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    if not isinstance(body, dict):
        raise ValueError("it is not a JSON object")
    return body


# --- 2. Signature: Ed25519 over every other field, sorted, without spaces -------------------------------------------


def signed_bytes(body: Body) -> bytes:
    """Return what the signature covers."""
    covered = {name: value for name, value in body.items() if name != "signature"}
    return json.dumps(covered, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def signature_faults(body: Body, signers: Sequence[str]) -> Iterator[str]:
    """Name what is wrong with the signature; without signers any key may have signed."""
    if not body.get("signature") or not body.get("public_key"):
        yield "it is not signed"
        return
    if signers and body["public_key"] not in signers:
        yield "it is signed by another key than those given"
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(body["public_key"]))
        key.verify(bytes.fromhex(body["signature"]), signed_bytes(body))
    except (InvalidSignature, ValueError, TypeError):
        yield "wrong signature: a field was altered, or another key signed"


def public_key_hex(data: bytes) -> str:
    """Read an Ed25519 public key given as PEM or as 64 hexadecimal digits; raise ValueError where it is neither."""
    if b"BEGIN" in data:
        key = load_pem_public_key(data)
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 public key")
        return key.public_bytes_raw().hex()
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(data.decode("ascii").strip())).public_bytes_raw().hex()


# --- 3. Shape: exactly these fields, each of its kind ---------------------------------------------------------------


def count(value: Any) -> bool:
    """Tell whether it is a whole number that a count can be."""
    return type(value) is int and 0 <= value <= 2**63


def number(value: Any) -> bool:
    """Tell whether it is a finite number."""
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def size(value: Any) -> bool:
    """Tell whether it is a finite number of 0 or more."""
    return number(value) and value >= 0


def word(value: Any) -> bool:
    """Tell whether it is a text that can be shown on a terminal."""
    return isinstance(value, str) and 0 < len(value) <= 500 and value.isprintable()


def digest(value: Any) -> bool:
    """Tell whether it is 32 bytes in hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def flag(value: Any) -> bool:
    """Tell whether it is true or false."""
    return type(value) is bool


def null(value: Any) -> bool:
    """Tell whether it is nothing: a ledger with a refusal certifies nothing."""
    return value is None


SHAPE: dict[str, Any] = {
    "format": word,
    "version": count,
    "software": word,
    "link": word,
    "role": word,
    "block_id": count,
    "simulated": flag,
    "public_key": digest,
    "signature": word,
    "ledger": {
        "version": count,
        "refusal": null,
        **dict.fromkeys(("ell_bits", "leak_ec_bits", "leak_verify_bits", "leak_monitor_bits"), count),
        **dict.fromkeys(("n_u_lower", "phi_upper", "pa_cost_bits", "eps_spent"), size),
        "terms": [{"name": word, "value": number, "eps": size}],
        "monitors": [{"name": word, "observed": number, "expected": number, "tolerance": number}],
        "assumes": [word],
        "tallies": {
            **dict.fromkeys(("slots_sent", "n_z_kept", "z_detections", "x_detections"), count),
            **dict.fromkeys(("cross_clicks", "double_clicks", "z_ones_steps"), count),
            "n_z": [count],
            "x_counts": [[[count]]],
        },
        "settings": {
            "protocol": word,
            "p_z_alice": size,
            "p_z_bob": size,
            "intensities": [size],
            "p_intensities": [size],
        },
        "source": {**dict.fromkeys(("mean_photon_number_upper", "g2_upper", "eps"), size), "phase_bits": count},
        "receiver": {**dict.fromkeys(("p_z_lower", "p_z_upper", "mismatch", "eps"), size), "cross_basis": word},
        "budget": {
            "accounting": word,
            "tails": word,
            **dict.fromkeys(("eps_total", "eps_cor", "eps_auth"), size),
        },
    },
    "reconciliation": dict.fromkeys(("detections", "frames", "frames_failed", "errors_corrected"), count),
    "amplification": {
        "family": word,
        **dict.fromkeys(("input_bits", "secret_bits", "seed_bits"), count),
        "seed_sha256": digest,
    },
    "authentication": {
        **dict.fromkeys(("tags", "bits_spent", "bits_earned", "application_bits"), count),
        "net_key_bits": number,
    },
    "randomness": {
        "alice": {use: {"class": word, "source": word} for use in ("symbols", "seeds", "start")},
        "bob": {use: {"class": word, "source": word} for use in ("coins", "start")},
    },
    "life": {"blocks": count, "tags": count, "eps_life": size},
    "transcript": dict.fromkeys(("alice_to_bob_sha256", "bob_to_alice_sha256"), digest),
}
"""A table of fields, a list of likes, or the test that a value must pass."""


def shape_faults(shape: Any, value: Any, where: str = "the certificate") -> Iterator[str]:
    """Name every place at which a document has not the given shape."""
    if isinstance(shape, dict):
        if not isinstance(value, dict) or set(value) != set(shape):
            yield f"{where} has not the fields of version {VERSION}"
            return
        for name, part in shape.items():
            yield from shape_faults(part, value[name], name)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{where} is not a list"
            return
        for part in value:
            yield from shape_faults(shape[0], part, where)
    elif not shape(value):
        yield f"{where} is not a {shape.__name__}"


# --- 4. Intervals: every operation is rounded outward, 50 digits ----------------------------------------------------

DOWN, UP = (Context(prec=50, rounding=rounding) for rounding in (ROUND_FLOOR, ROUND_CEILING))


@dataclass(frozen=True, slots=True)
class Interval:
    """Two decimals with the exact number between them."""

    low: Decimal
    high: Decimal

    @classmethod
    def of(cls, value: Interval | Decimal | float) -> Interval:
        """Take a number as it is: a binary float is a decimal exactly."""
        return value if isinstance(value, Interval) else cls(Decimal(value), Decimal(value))

    def __neg__(self) -> Interval:
        return Interval(self.high.copy_negate(), self.low.copy_negate())

    def __add__(self, other: Interval | Decimal | float) -> Interval:
        other = Interval.of(other)
        return Interval(DOWN.add(self.low, other.low), UP.add(self.high, other.high))

    __radd__ = __add__

    def __sub__(self, other: Interval | Decimal | float) -> Interval:
        return self + -Interval.of(other)

    def __rsub__(self, other: Interval | Decimal | float) -> Interval:
        return Interval.of(other) + -self

    def __mul__(self, other: Interval | Decimal | float) -> Interval:
        other = Interval.of(other)
        pairs = [(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(DOWN.multiply(*pair) for pair in pairs), max(UP.multiply(*pair) for pair in pairs))

    __rmul__ = __mul__

    def __truediv__(self, other: Interval | Decimal | float) -> Interval:
        other = Interval.of(other)
        if other.low <= 0 <= other.high:
            raise ZeroDivisionError("division by an interval around 0")
        pairs = [(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(DOWN.divide(*pair) for pair in pairs), max(UP.divide(*pair) for pair in pairs))

    def __rtruediv__(self, other: Interval | Decimal | float) -> Interval:
        return Interval.of(other) / self


def exp(x: Interval | Decimal | float) -> Interval:
    """Enclose e^x: `decimal` rounds it to the nearest; the neighbours hold it."""
    x = Interval.of(x)
    return Interval(DOWN.next_minus(DOWN.exp(x.low)), UP.next_plus(UP.exp(x.high)))


def ln(x: Interval | Decimal | float) -> Interval:
    """Enclose the natural logarithm, in the same way."""
    x = Interval.of(x)
    return Interval(DOWN.next_minus(DOWN.ln(x.low)), UP.next_plus(UP.ln(x.high)))


def square(x: Interval | float) -> Interval:
    """Enclose the squares of all members."""
    return Interval.of(x) * x


def sqrt(x: Interval) -> Interval:
    """Enclose the square root, in the same way."""
    return Interval(DOWN.next_minus(DOWN.sqrt(x.low)), UP.next_plus(UP.sqrt(x.high)))


def least(*values: Interval | float) -> Interval:
    """Return the smallest of upper bounds."""
    return Interval.of(min(Interval.of(value).high for value in values))


def largest(*values: Interval | float) -> Interval:
    """Return the largest of lower bounds."""
    return Interval.of(max(Interval.of(value).low for value in values))


def not_negative(x: Interval) -> Interval:
    """Return x, or 0 where it is below."""
    return Interval(max(Decimal(0), x.low), max(Decimal(0), x.high))


def log2(x: Interval) -> Interval:
    """Enclose the binary logarithm."""
    return ln(x) / ln(2)


def entropy_upper(x: Interval) -> Interval:
    """Bound the binary entropy h(x) in bits from above, for x below 1/2, where h grows."""
    p = Interval.of(x.high)
    return -(p * log2(p) + (1 - p) * log2(1 - p)) if p.high > 0 else p


# --- 5. Concentration (README, Concentration and Streaming) ---------------------------------------------------------


class Anytime:
    """Bounds that hold at every stopping point at once: Ville's inequality for each exponent x of a grid of 96.

    exp(+-x k - sum ln(1 + p_i (e^(+-x) - 1))) has mean 1 for coins of bias p_i, and ever exceeds 96 / eps with
    probability at most eps / 96; of the 96 statements, which hold together, the best one is taken.
    """

    def __init__(self, eps: Interval) -> None:
        self.needed = ln(96 / eps)

    def coins_upper(self, n: Interval, p: Interval) -> Interval:
        """x k <= ln(96 / eps) + n ln(1 + p (e^x - 1))."""
        if p.high <= 0:
            return Interval.of(0)
        return least(n, *((self.needed + n * ln(1 + p * (up - 1))) / x for x, up, _ in exponents()))

    def other_upper(self, k: Interval, ratio: Interval) -> Interval:
        """-x k - total ln(1 - s (1 - e^-x)) <= ln(96 / eps)."""
        k, s = Interval.of(k.high), 1 / (1 + ratio)
        lines = ((self.needed + x * k) / -ln(1 - s * (1 - down)) for x, _, down in exponents())
        return not_negative(least(*lines) - k)

    def mean_upper(self, k: Interval, n: Interval) -> Interval:
        """Solve the same for the mean m of unlike coins: ln(1 + p (e^-x - 1)) is concave in p."""
        if k.high >= n.low:
            return n
        lines = (n * (1 - exp(-(self.needed + x * k) / n)) / (1 - down) for x, _, down in exponents())
        return least(n, *lines)

    def mean_lower(self, k: Interval, n: Interval) -> Interval:
        """Bound the mean from below."""
        if k.low <= 0:
            return Interval.of(0)
        return largest(0, *(n * (exp((x * k - self.needed) / n) - 1) / (up - 1) for x, up, _ in exponents()))


@functools.cache
def exponents() -> tuple[tuple[Decimal, Interval, Interval], ...]:
    """Return the grid x = 32 / 1.2^j, j = 0 .. 95, with e^x and e^-x."""
    grid = [Decimal(32) / Decimal("1.2") ** j for j in range(96)]
    return tuple((x, exp(x), exp(-x)) for x in grid)


# --- 6. Untagged events and phase errors (README, Several photons to Decoy states) -------------------

H, V, R, L = range(4)
"""Symbols sent, first index of x_counts[level]; outcomes are R = 0 and L = 1."""
TERMS = {"three-state": 5, "bb84": 3, "decoy-bb84": 9}
"""How many bounds may fail."""


class Estimate(NamedTuple):
    """Z events that Eve may not know (lower bound), their phase errors (upper bound), the sum of all eps used."""

    untagged: Interval
    phase_errors: Interval
    eps: Interval


class Inputs:
    """Numbers of one ledger as intervals; where the receiver's basis probability has a worse end, that one is taken."""

    def __init__(self, ledger: Body) -> None:
        receiver, source, budget = ledger["receiver"], ledger["source"], ledger["budget"]
        self.protocol = ledger["settings"]["protocol"]
        self.tallies, self.settings, self.receiver = ledger["tallies"], ledger["settings"], receiver
        self.eps = square(Interval.of(budget["eps_total"]) / 10) / TERMS[self.protocol]
        self.tails = Anytime(self.eps)
        self.p_z = Interval.of(ledger["settings"]["p_z_alice"])
        # Phase errors are seen in X: the more often Bob may measure Z, the more of them one that was seen stands for.
        self.q_z = Interval.of(receiver["p_z_upper"])
        self.q_x_most = 1 - Interval.of(receiver["p_z_lower"])
        self.p_multi = least(1, Interval.of(source["g2_upper"]) * square(source["mean_photon_number_upper"]) / 2)
        self.mismatch = Interval.of(receiver["mismatch"])

    def tagged(self, probability: Interval) -> Interval:
        """Bound the pulses of several photons that were sent and measured in one basis."""
        return self.tails.coins_upper(Interval.of(self.tallies["slots_sent"]), probability * self.p_multi)

    def several(self, basis: str) -> Interval:
        """Bound the detections in one basis that light of several photons made, whoever sent it.

        All of k photons in the basis that one takes with probability q : both bases click, at most u^2 / 2 q (1 - q)
        (1 - D)^2 at k = 2; a photon is not seen in the other basis with u = q + (1 - q) D.
        """
        odds = []
        for p_z in (self.receiver["p_z_lower"], self.receiver["p_z_upper"]):
            q = Interval.of(p_z) if basis == "Z" else 1 - Interval.of(p_z)
            u = q + (1 - q) * self.mismatch
            odds.append((u * u / (2 * q * (1 - q) * square(1 - self.mismatch))).high)
        cross = Interval.of(self.tallies["cross_clicks"])
        unseen = self.tails.other_upper(cross, Interval.of(max(odds)))
        return unseen + cross if self.receiver["cross_basis"] == "random" else unseen


def estimate(ledger: Body) -> Estimate:
    """Bound what the protocol's counts allow; each bound fails with (eps_total / 10)^2 / (number of bounds)."""
    x = Inputs(ledger)
    kept, seen, spent = x.tallies["n_z_kept"], x.tallies["x_counts"], TERMS[x.protocol] * x.eps
    if x.protocol == "three-state":
        untagged = kept - x.tagged(x.p_z * x.q_z) - x.several("Z")
        right = not_negative(seen[0][R][0] - x.tagged((1 - x.p_z) * x.q_x_most) - x.several("X"))
        return Estimate(untagged, three_states(x, seen[0], Interval.of(right.low)), spent)
    right_seen = sum(level[R][0] + level[L][1] for level in seen[:3])
    if x.protocol == "bb84":
        untagged = kept - x.tagged(x.p_z * x.q_z) - x.several("Z")
        return Estimate(untagged, four_states(x, Interval.of(seen[0][R][1] + seen[0][L][0]), right_seen), spent)
    single, wrong = decoy(ledger, x.tails)
    return Estimate(single - x.several("Z"), four_states(x, wrong, right_seen), spent)


class Unequal(NamedTuple):
    """Detectors of relative efficiencies 1 - D .. 1 as a filter: P(phase error) <= more P(wrong) + flip P(right) in X.

    The filter is (1 - d) 1 + d Z with d = (1 - sqrt(1 - D)) / 2, and |(1 - d) a + d b|^2 <= (1 + t) |a|^2 + (1 + 1 / t)
    d^2 |b|^2 with t = 4 d. ``seen`` is the least part of the X outcomes that is detected.
    """

    more: Interval
    flip: Interval
    seen: Interval

    @classmethod
    def of(cls, mismatch: Interval) -> Unequal:
        """Make it from D."""
        d = (1 - sqrt(1 - mismatch)) / 2
        return cls(1 + 4 * d, d * d + d / 4, 1 - mismatch)


def three_states(x: Inputs, seen: Sequence[Sequence[int]], right: Interval) -> Interval:
    """N_ph <= a c_RL + b (c_HR + c_VR) + m (c_HL + c_VL) - g c_RR + ln(64 / eps) / y, for every y of the grid.

    rho_H + rho_V = rho_R + rho_L: a Z pulse is a virtual R or L. w: a pulse in the state R is a virtual one. For each y
    the coefficients make exp(y (N_ph - ...)) of mean <= 1 whether (state, X outcome) is (L, R), (R, L), (R, R), (L, L).
    """
    unequal = Unequal.of(x.mismatch)
    w = (x.p_z / 2) / (1 - x.p_z / 2)
    gain, loss = x.q_z * unequal.more, (1 - x.q_z) * unequal.seen

    def bound(y: Decimal) -> Interval:
        a = price(w * gain, (1 - w) * loss, y)
        b = price(gain, loss, y)
        m = price(x.q_z * unequal.flip, loss, y)
        # (R, R): w (e^(-y b) - e^(-y m)) + (1 - w) (e^(y g) - 1) = 0
        g = not_negative(ln(1 + w / (1 - w) * (exp(-m * y) - exp(-b * y))) / y)
        return a * seen[R][1] + b * (seen[H][0] + seen[V][0]) + m * (seen[H][1] + seen[V][1]) - g * right

    return best(bound, least(steepest(gain, loss), steepest(w * gain, (1 - w) * loss)), x.eps)


def four_states(x: Inputs, wrong: Interval, right: int) -> Interval:
    """N_ph <= a wrong + m right + ln(64 / eps) / y: Z and X pulses are the same mixed qubit, split by a coin."""
    unequal = Unequal.of(x.mismatch)
    ratio = x.p_z * x.q_z / ((1 - x.p_z) * (1 - x.q_z))
    gain = ratio * unequal.more

    def bound(y: Decimal) -> Interval:
        return price(gain, unequal.seen, y) * wrong + price(ratio * unequal.flip, unequal.seen, y) * right

    return best(bound, steepest(gain, unequal.seen), x.eps)


def price(gain: Interval, loss: Interval, y: Decimal) -> Interval:
    """Return x with gain (e^y - 1) + loss (e^(-y x) - 1) = 0: what an event that is seen must count."""
    return -ln(1 - gain * (exp(y) - 1) / loss) / y


def steepest(gain: Interval, loss: Interval) -> Interval:
    """Return the exponent at which the price becomes infinite."""
    return ln(1 + loss / gain)


def best(bound: Callable[[Decimal], Interval], limit: Interval, eps: Interval) -> Interval:
    """Take the best of 64 bounds that hold together (Ville): exponents 0.99 limit / 1.25^j, set before any count."""
    grid = [Decimal("0.99") * limit.low / Decimal("1.25") ** j for j in range(64)]
    cost = ln(64 / eps)
    return not_negative(least(*(bound(y) + cost / y for y in grid)))


def decoy(ledger: Body, tails: Anytime) -> tuple[Interval, Interval]:
    """Bound Z events and X errors of one photon (Lim et al., PRA 89, 022307, Eqs. (2) to (4))."""
    t, settings = ledger["tallies"], ledger["settings"]
    mu, nu, vac = (Interval.of(value) for value in settings["intensities"])
    p = [Interval.of(value) for value in settings["p_intensities"]]
    weight = [exp(-k) * p_k for k, p_k in zip((mu, nu, vac), p, strict=True)]
    tau_1 = weight[0] * mu + weight[1] * nu + weight[2] * vac
    n_z = t["n_z"][:3]
    wrong = [level[R][1] + level[L][0] for level in t["x_counts"][:3]]

    def scaled(counts: Sequence[int], k: int, bound: Callable[[Interval, Interval], Interval]) -> Interval:
        return bound(Interval.of(counts[k]), Interval.of(sum(counts))) / weight[k]

    lower, upper = tails.mean_lower, tails.mean_upper
    decoy_upper, vacuum_upper = scaled(n_z, 1, upper), scaled(n_z, 2, upper)
    y_0 = largest(0, (nu * scaled(n_z, 2, lower) - vac * decoy_upper) / (nu - vac))
    multi = (nu * nu - vac * vac) / (mu * mu) * (scaled(n_z, 0, upper) - y_0)
    y_1 = mu * (scaled(n_z, 1, lower) - vacuum_upper - multi) / (mu * (nu - vac) - nu * nu + vac * vac)
    v_1 = tau_1 * (scaled(wrong, 1, upper) - scaled(wrong, 2, lower)) / (nu - vac)
    return largest(0, tau_1 * y_1) - (sum(n_z) - t["n_z_kept"]), least(sum(wrong), not_negative(v_1))


# --- 7. Length and epsilon (README, Length and The epsilon ledger) --------------------------------------------------


class Length(NamedTuple):
    """What the verifier computed; ``bits`` is certainly not above the exact length."""

    bits: int
    untagged: Interval
    phi: Interval
    amplification_cost: Interval
    eps_estimation: Interval
    eps_spent: Interval


def key_length(ledger: Body) -> Length:
    """n_u (1 - h(phi)) - leak - 2 log2(1 / (2 eps_PA)), in whole bytes; eps = 2 sqrt(sum) + eps_PA + all others."""
    budget, found = ledger["budget"], estimate(ledger)
    hashing = Interval.of(budget["eps_total"]) / 4
    spent = 2 * sqrt(found.eps) + hashing + budget["eps_cor"] + budget["eps_auth"]
    spent += Interval.of(ledger["source"]["eps"]) + ledger["receiver"]["eps"]
    cost = -2 * log2(2 * hashing)
    if found.untagged.low <= 0:
        return Length(0, found.untagged, Interval.of(0.5), cost, found.eps, spent)
    phi = found.phase_errors / found.untagged
    if phi.high >= Decimal("0.5"):
        return Length(0, found.untagged, phi, cost, found.eps, spent)
    leak = ledger["leak_ec_bits"] + ledger["leak_verify_bits"] + ledger["leak_monitor_bits"]
    bits = Interval.of(found.untagged.low) * (1 - entropy_upper(phi)) - leak - cost
    return Length(max(0, math.floor(bits.low) // 8 * 8), found.untagged, phi, cost, found.eps, spent)


def impossible(ledger: Body) -> Iterator[str]:
    """Name inputs that no block can have; the equations are used only where there are none."""
    t, settings, source, receiver = (ledger[name] for name in ("tallies", "settings", "source", "receiver"))
    budget, levels = ledger["budget"], len(t["n_z"])
    protocol, mu, p = settings["protocol"], settings["intensities"], settings["p_intensities"]
    if protocol not in TERMS:
        yield f"there is no proof for protocol {protocol!r}"
        return
    if budget["accounting"] != "composable":
        yield f"accounting {budget['accounting']!r} carries no composable claim"
    if budget["tails"] != "anytime":
        yield f"tails {budget['tails']!r} do not hold where an eavesdropper may end the block"
    if levels != len(t["x_counts"]) or any(len(level) != 4 or {2} != set(map(len, level)) for level in t["x_counts"]):
        yield "the tallies have not the shape of intensities, four symbols and two outcomes"
        return
    in_x = [sum(map(sum, level)) for level in t["x_counts"]]
    if t["n_z_kept"] > sum(t["n_z"]) or sum(t["n_z"]) > t["z_detections"] or sum(in_x) != t["x_detections"]:
        yield "the counts of a basis are not those of its detections"
    if not 0 < t["z_detections"] + t["x_detections"] <= t["slots_sent"] or sum(in_x) == 0 or sum(t["n_z"]) == 0:
        yield "there are no detections, or more than slots"
    if max(t["cross_clicks"], t["double_clicks"]) > t["slots_sent"] or t["z_ones_steps"] >= 2**16:
        yield "there are more double or cross-basis clicks than slots, or a share above 1"
    if not all(0 < value < 1 for value in (settings["p_z_alice"], settings["p_z_bob"], *p)):
        yield "a probability is not between 0 and 1"
    if not 0 < receiver["p_z_lower"] <= settings["p_z_bob"] <= receiver["p_z_upper"] < 1:
        yield "the receiver's basis probability is not in its interval"
    if receiver["mismatch"] >= 1 or receiver["cross_basis"] not in ("discard", "random"):
        yield "there is no such mismatch or rule for clicks in both bases"
    if not all(0 < budget[name] < 1 for name in ("eps_total", "eps_cor", "eps_auth")):
        yield "an epsilon is not between 0 and 1"
    if 2 * (Decimal(budget["eps_cor"]) + Decimal(budget["eps_auth"])) > Decimal(budget["eps_total"]):
        yield "eps_cor and eps_auth leave too little of eps_total"
    if protocol != "decoy-bb84":
        if levels != 1 or mu or p:
            yield "there are intensities of a source that has one"
        if not (source["mean_photon_number_upper"] > 0 and source["g2_upper"] > 0):
            yield "a bound of the source is not above 0: no measurement gives that"
        if protocol == "three-state" and sum(t["x_counts"][0][L]):
            yield "L was counted, which three states never send"
        return
    if len(mu) != 3 or len(p) != 3 or levels < 3 or sum(t["n_z"][3:]) + sum(in_x[3:]):
        yield "decoy states need three intensities and counts of no other"
    elif source["phase_bits"] < 4:
        yield "the phase has fewer than 16 values: the photon numbers are not Poissonian"
    elif not (10 >= mu[0] > mu[1] + mu[2] and mu[1] > mu[2] and abs(sum(p) - 1) <= 1e-6):
        yield "the intensities are not those of signal, decoy and vacuum"


def alarms(ledger: Body) -> Iterator[str]:
    """Name monitors out of tolerance (README, Monitors): the devices are not those that the bounds describe.

    What the stated mismatch D allows and eight standard deviations; floating point, since these are no lengths.
    """
    t, receiver, levels = ledger["tallies"], ledger["receiver"], ledger["tallies"]["x_counts"]
    mismatch: float = receiver["mismatch"]
    in_x, in_z = t["x_detections"], t["z_detections"]

    def weakened(p: float) -> float:  # share of a class whose detectors are the weakest, the other's the strongest
        return p * (1 - mismatch) / (1 - p * mismatch)

    def eight_sigma(p: float, n: int) -> float:
        return 8 * math.sqrt(p * (1 - p) / max(n, 1))

    def cells(symbols: tuple[int, ...], outcomes: tuple[int, ...] = (0, 1)) -> int:
        return sum(level[a][b] for level in levels for a in symbols for b in outcomes)

    # H and V are sent equally often: a turned polarisation cancels in their sum, unequal detectors do not.
    from_z, step = cells((H, V)), 2.0**-16
    balances = [("R and L", cells((H, V), (0,)) / from_z, from_z, 0.0)] if from_z else []
    balances.append(("V and H", t["z_ones_steps"] * step, sum(t["n_z"]), step))
    for name, share, n, rounding in balances:
        if abs(share - 0.5) > 0.5 - weakened(0.5) + eight_sigma(0.5, n) + rounding:
            yield f"detectors {name} are out of balance: {share:.6g} from Z pulses"

    # Cross-basis slots may count for no basis or for both; background is at most twice the X errors of X pulses.
    cross, kept = t["cross_clicks"], 0
    if receiver["cross_basis"] == "random":
        kept = min(cross, in_x)
    alone = in_x + in_z - kept
    shares = (in_x - kept) / alone, (in_x + cross) / (alone + 2 * cross)
    sent_x, wrong = cells((R, L)), cells((R,), (1,)) + cells((L,), (0,))
    background = min(1.0, 2.0 * wrong / sent_x) if sent_x else 1.0
    fewest, most = weakened(1 - receiver["p_z_upper"]), 1 - weakened(receiver["p_z_lower"])
    if max(shares) < fewest - eight_sigma(fewest, alone):
        yield f"the X share of the detections is {max(shares):.6g}, by the receiver's bounds {fewest:.6g} or more"
    if (1 - background) * min(shares) > most + eight_sigma(most, alone):
        yield f"the X share of the detections is {min(shares):.6g}, by the receiver's bounds {most:.6g} or less"

    # What Alice really sent, among the detections in X, all of whose symbols are public.
    p, sent = ledger["settings"]["p_z_alice"], from_z / in_x
    if abs(sent - p) > max(p - weakened(p), 1 - p - weakened(1 - p)) + eight_sigma(p, in_x):
        yield f"Alice's share of Z is {sent:.6g}, stated {p:.6g}"


def assumptions(protocol: str) -> dict[str, str]:
    """Return what every length of a protocol rests on (README, Assumptions); a ledger says it in these words."""
    single = (
        "A1: in no slot is the light above `source`; where the emitter is driven resonantly, its phase is random in "
        "every slot as well"
    )
    weak = "A1: every pulse has exactly the stated mean photon number, and a random phase"
    return {
        "A1": weak if protocol == "decoy-bb84" else single,
        "A2": "A2: the states are exactly H, V and R (and L), and symbols are drawn as stated: preparation tolerance "
        "0; each degree that a state is off on the Poincare sphere may hide 0.87 percentage points of phase errors",
        "A3": "A3: loss lies before the splitter, the four detectors are blanked together, and splitter and "
        "efficiencies are within `receiver` in every slot, whatever light comes",
        "A4": "A4: both stations are trusted, and the classical channel is authenticated",
    }


TOLERANCE = 1e-9
"""Relative difference of floating point arithmetic, within which a stated result is the computed one."""


def ledger_faults(ledger: Body) -> Iterator[str]:
    """Name every claim of the ledger that its own inputs contradict."""
    if ledger["version"] != LEDGER_VERSION:
        yield f"unknown version {ledger['version']} of the ledger: this file knows {LEDGER_VERSION}"
        return
    found = list(impossible(ledger))
    yield from found
    if found:
        return
    yield from alarms(ledger)
    ours, budget = key_length(ledger), ledger["budget"]
    if ours.eps_spent.high > Decimal(budget["eps_total"]):
        yield f"the epsilon budget is overspent: {float(ours.eps_spent.high):.3g} of {budget['eps_total']:.3g}"
    if ours.bits == 0:
        yield "these tallies produce no key"
    elif ledger["ell_bits"] > ours.bits:
        yield f"the length {ledger['ell_bits']} is above what the tallies allow, {ours.bits}"
    for name, own in (
        ("n_u_lower", ours.untagged),
        ("phi_upper", ours.phi),
        ("pa_cost_bits", ours.amplification_cost),
        ("eps_spent", ours.eps_spent),
        ("eps of the terms", ours.eps_estimation),
    ):
        stated = ledger[name] if name in ledger else math.fsum(term["eps"] for term in ledger["terms"])
        if not math.isclose(stated, float(own.low), rel_tol=TOLERANCE, abs_tol=0.0):
            yield f"{name} is {stated}, computed {float(own.low)}"
    for name, sentence in assumptions(ledger["settings"]["protocol"]).items():
        if [said for said in ledger["assumes"] if said.startswith(f"{name}:")] != [sentence]:
            yield f"the ledger does not state its assumption {name} in the words of this file"


# --- 8. Other claims: leaks, verification, hash, authentication -----------------------------------------------------

TAG_BITS = 128
TAGS_PER_BLOCK = 4
"""FIXED, PREPARED, COMMIT and COMMITTED: the sealed messages of a block that produces key."""
SMALLEST_EPS_AUTH = Decimal(2) ** -68
"""Of 8 tags over at most 2^36 bytes each: more than a block has, and more than it can say."""
LEAST_EPS_SPENT = Decimal("1.9") * SMALLEST_EPS_AUTH
"""Of any block: 0.45 eps_total and eps_auth, where eps_total is at least twice eps_auth."""


def eps_hash(length: int) -> Decimal:
    """Return how often Poly1305 confuses messages of this many bytes: 8 ceil(L / 16) / 2^106 (Bernstein 2005)."""
    return 8 * Decimal(-(-length // 16)) / Decimal(2) ** 106


@functools.cache
def ln_factorial(n: int) -> Interval:
    """Enclose ln n!: exactly up to 300, then Stirling's series, whose next term bounds what is left out."""
    if n <= 300:
        return ln(math.factorial(n))
    x = Interval.of(n)
    series = 1 / (12 * x) - 1 / (360 * x * x * x)
    series = Interval(series.low, (series + 1 / (1260 * x * x * x * x * x)).high)
    two_pi = Interval(Decimal("6.28318530717958647692528676655900"), Decimal("6.28318530717958647692528676655901"))
    return x * ln(x) - x + ln(two_pi * x) / 2 + series


def counting_bound(n: int, errors: int) -> Interval:
    """Return log2 C(n, e): no error correction tells e errors among n bits apart with less."""
    return (ln_factorial(n) - ln_factorial(errors) - ln_factorial(n - errors)) / ln(2)


SHORTEST_FRAME, LONGEST_FRAME = 2**10, 2**20
"""Bits. A rest of a block below the shortest is sifted and in no frame; nothing is said about it."""
FRAME_BITS = 24 + 32
"""The result of a round and the check, which every frame discloses beside its syndrome."""
SMALLEST_CODE, LEAST_RATE = 2**14, (15, 512)
"""Bits of the smallest code, and the least part of a code's bits that its syndrome has (numerator, denominator)."""


def failed_bits(body: Body) -> int:
    """Return the least number of bits in failed frames, which all count as disclosed."""
    tallies, failed = body["ledger"]["tallies"], body["reconciliation"]["frames_failed"]
    missing = sum(tallies["n_z"]) - tallies["n_z_kept"]
    return max(SHORTEST_FRAME * failed, missing - SHORTEST_FRAME + 1) if failed else 0


def least_leak(body: Body) -> int:
    """Return what the protocol discloses at least of this many frames and bits, whatever their errors."""
    kept, reconciled = body["ledger"]["tallies"]["n_z_kept"], body["reconciliation"]
    decoded = reconciled["frames"] - reconciled["frames_failed"]
    syndromes = max(kept, SMALLEST_CODE * decoded) * LEAST_RATE[0] // LEAST_RATE[1]
    return int(FRAME_BITS * decoded + syndromes + failed_bits(body))


def frame_faults(body: Body) -> Iterator[str]:
    """Name what cannot be true of the frames and of what they disclosed."""
    tallies, reconciled, leak = body["ledger"]["tallies"], body["reconciliation"], body["ledger"]["leak_ec_bits"]
    kept, errors, failed = tallies["n_z_kept"], reconciled["errors_corrected"], reconciled["frames_failed"]
    decoded, missing = reconciled["frames"] - failed, sum(tallies["n_z"]) - kept
    if decoded < 0:
        yield "more frames failed than there were"
        return
    if not SHORTEST_FRAME * decoded <= kept <= LONGEST_FRAME * decoded or kept == 0:
        yield f"{decoded} decoded frames do not hold {kept} bits"
    if not SHORTEST_FRAME * failed <= missing < LONGEST_FRAME * failed + SHORTEST_FRAME:
        yield f"{failed} failed frames do not hold the {missing} bits that were sifted and not kept"
    if errors > kept or counting_bound(kept, errors).high > leak:
        yield f"leak_ec_bits is below log2 C({kept}, {errors}), what {errors} errors must disclose"
    if leak < least_leak(body):
        yield f"leak_ec_bits is {leak}, at least {least_leak(body)} bits of these frames were disclosed"


def other_faults(body: Body) -> Iterator[str]:
    """Name claims beside the ledger that cannot be true."""
    ledger, amplified, reconciled, spent = (
        body[name] for name in ("ledger", "amplification", "reconciliation", "authentication")
    )
    kept, tallies = ledger["tallies"]["n_z_kept"], ledger["tallies"]
    yield from frame_faults(body)
    if ledger["leak_monitor_bits"] != 16:
        yield "leak_monitor_bits is not the 16 bits of z_ones_steps"
    if ledger["leak_verify_bits"] != TAG_BITS or Decimal(ledger["budget"]["eps_cor"]) < eps_hash(8 + -(-kept // 8)):
        yield "verification by one 128-bit tag does not give eps_cor"
    if Decimal(ledger["budget"]["eps_auth"]) < SMALLEST_EPS_AUTH:
        yield "authentication of a block does not give eps_auth"
    if reconciled["detections"] != tallies["z_detections"] + tallies["x_detections"]:
        yield "the detections are not those of the tallies"
    life = body["life"]
    least = Decimal(ledger["eps_spent"] * (1 - TOLERANCE)) + max(0, life["blocks"] - 1) * LEAST_EPS_SPENT
    if life["blocks"] == 0 or not min(least, 1) <= life["eps_life"] <= 1:
        yield "the life of the link does not cover this block and those before it"
    if amplified["input_bits"] != kept:
        yield "the hash's input is not the kept key"
    if amplified["secret_bits"] > ledger["ell_bits"] or amplified["secret_bits"] % 8:
        yield f"{amplified['secret_bits']} secret bits are more than the ledger's {ledger['ell_bits']}"
    if amplified["secret_bits"] == 0:
        yield "there is no key to certify"
    family, n, m, seed = (amplified[name] for name in ("family", "input_bits", "secret_bits", "seed_bits"))
    seeds = {"toeplitz": (n + m - 1, n + m - 1), "modified-toeplitz": (n - 1, n - 1), "gf2m": (n, 2 * n + 1000)}
    if family not in seeds:
        yield f"unknown hash family {family!r}"
    elif not seeds[family][0] <= seed <= seeds[family][1]:
        yield f"a seed of {seed} bits is not one of {family} from {n} to {m} bits"
    sums = {
        "tags": TAGS_PER_BLOCK,
        "bits_spent": TAG_BITS * TAGS_PER_BLOCK,
        "bits_earned": spent["bits_earned"],
        "application_bits": m - spent["bits_earned"],
        "net_key_bits": m - TAG_BITS * TAGS_PER_BLOCK,
    }
    if spent != sums:
        yield "the sums of authentication and net key do not hold"
    for use, drawn in uses(body).items():
        broken = "; secret only as long as nobody predicts that generator" * (drawn["class"] == "computational")
        if f"{DRAWN[use]}: {drawn['class']} randomness from {drawn['source']}{broken}" not in ledger["assumes"]:
            yield f"the ledger does not assume what the randomness of {use} is"
    if body["role"] not in ROLES or body["block_id"] == 0:
        yield "role or block_id has no such value"


DRAWN = {
    "alice_symbols": "Alice's symbols, intensities and phases",
    "alice_seeds": "the seeds of privacy amplification and the points of verification",
    "alice_start": "the start secret of authentication (as Alice states it)",
    "bob_coins": "Bob's coins for double clicks and his nonces",
    "bob_start": "the start secret of authentication (as Bob states it)",
}
"""What random numbers are for, by role and use."""


def uses(body: Body) -> dict[str, Mapping[str, str]]:
    """Return class and source of every kind of random numbers, by role and use."""
    return {f"{role}_{use}": drawn for role, uses in body["randomness"].items() for use, drawn in uses.items()}


def faults(body: Body, signers: Sequence[str] = ()) -> list[str]:
    """Name everything that is wrong with one certificate."""
    if body.get("format") != FORMAT:
        return ["this is not a key certificate"]
    if body.get("version") != VERSION or type(body["version"]) is not int:
        return [f"unknown version {body.get('version')!r}: this file knows {VERSION}"]
    found = [*signature_faults(body, signers), *shape_faults(SHAPE, body)]
    if found:
        return found
    try:
        return [*ledger_faults(body["ledger"]), *other_faults(body)]
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return [f"a field has no sensible value ({type(error).__name__})"]


# --- 9. Certificates compared: no block twice, both ends alike ------------------------------------------------------

LONGEST_FILE_BYTES = 1 << 26
"""Of a certificate, a policy or a key: a millionth of it is usual."""
ROLES = ("alice", "bob")
SHARED = ("simulated", "amplification", "authentication", "transcript", "randomness")
SHARED_IN = {
    "reconciliation": ("detections", "frames", "frames_failed", "errors_corrected"),
    "ledger": ("ell_bits", "leak_ec_bits", "tallies", "settings", "source", "receiver", "budget", "assumes"),
}
"""What both ends know alike; of the errors both keep what the announced rates say."""
UNDECIDED = 8
"""Blocks that may be promised and not yet counted in the life of the link when a certificate is signed."""


def faults_between(bodies: Sequence[Body]) -> list[str]:
    """Name what is wrong between certificates that are good alone."""
    found: list[str] = []
    seen: dict[tuple[Any, ...], Body] = {}
    for body in bodies:
        block, role = (body["link"], body["block_id"]), body["role"]
        if (*block, role) in seen:
            found.append(f"block {block[1]} of {role} on link {block[0]!r} is used twice")
        seen[*block, role] = body
        peer = seen.get((*block, ROLES[1 - ROLES.index(role)]))
        if peer is not None:
            parts = [(name, body[name], peer[name]) for name in SHARED]
            parts += [(name, body[at][name], peer[at][name]) for at, names in SHARED_IN.items() for name in names]
            found += [f"block {block[1]}: the two ends differ in {name}" for name, a, b in parts if a != b]
    for end in sorted({(body["link"], body["role"]) for body in bodies}):
        (link, role), own = end, [body for body in bodies if (body["link"], body["role"]) == end]
        blocks = max(body["life"]["blocks"] for body in own)
        if len(own) > blocks + UNDECIDED:
            found.append(f"{role} certifies {len(own)} blocks of link {link!r}, and counts {blocks} in its life")
        counted = math.fsum(sorted(body["ledger"]["eps_spent"] for body in own)[: max(1, len(own) - UNDECIDED)])
        eps = max(body["life"]["eps_life"] for body in own)
        if eps < min(1.0, counted * (1 - TOLERANCE)):
            found.append(f"{role} has spent {counted:.3g} on blocks of link {link!r}, and counts {eps:.3g} in its life")
    for name in ("seed_sha256", "alice_to_bob_sha256", "bob_to_alice_sha256"):
        owner: dict[str, Any] = {}
        for body in bodies:
            own = {**body["amplification"], **body["transcript"]}[name]
            if owner.setdefault(own, (body["link"], body["block_id"])) != (body["link"], body["block_id"]):
                found.append(f"block {body['block_id']} has the {name} of another block")
    return found


# --- 10. Policy: what the auditor believes of the devices and demands of the proof ----------------------------------


def x_share(body: Body) -> float:
    """Return the part of the detections that was measured in X."""
    in_x = body["ledger"]["tallies"]["x_detections"]
    return float(in_x / max(1, in_x + body["ledger"]["tallies"]["z_detections"]))


def qber(body: Body) -> float:
    """Return the error rate of the key."""
    return float(body["reconciliation"]["errors_corrected"] / body["ledger"]["tallies"]["n_z_kept"])


def efficiency(body: Body) -> float:
    """Return what decoded frames disclosed, relative to Shannon's limit at the mean error rate; that is at least 1."""
    limit = body["ledger"]["tallies"]["n_z_kept"] * entropy_upper(Interval.of(min(qber(body), 0.5))).high
    return float((body["ledger"]["leak_ec_bits"] - failed_bits(body)) / max(Decimal(1), limit))


def source_bound(name: str) -> Callable[[Body], Any]:
    """Return a bound of the source, None for weak pulses, whose proof does not use it."""
    return lambda body: None if body["ledger"]["settings"]["intensities"] else body["ledger"]["source"][name]


LEVELS = ("signal", "decoy", "vacuum")


def of_pulses(name: str, level: int) -> Callable[[Body], Any]:
    """Return a setting of weak pulses by its place (signal, decoy, vacuum), None for a single-photon source."""
    return lambda body: dict(enumerate(body["ledger"]["settings"][name])).get(level)


ONE_OF: dict[str, Callable[[Body], Any]] = {
    "protocol": lambda body: body["ledger"]["settings"]["protocol"],
    "cross_basis": lambda body: body["ledger"]["receiver"]["cross_basis"],
    "simulated": lambda body: body["simulated"],
    **{name: functools.partial(lambda use, body: uses(body)[use]["class"], name) for name in DRAWN},
}
BETWEEN: dict[str, Callable[[Body], Any]] = {
    "eps_total": lambda body: body["ledger"]["budget"]["eps_total"],
    "eps_life": lambda body: body["life"]["eps_life"],
    "block_bits": lambda body: body["ledger"]["tallies"]["n_z_kept"],
    "mean_photon_number_upper": source_bound("mean_photon_number_upper"),
    "g2_upper": source_bound("g2_upper"),
    "eps_source": lambda body: body["ledger"]["source"]["eps"],
    "eps_receiver": lambda body: body["ledger"]["receiver"]["eps"],
    **{f"{name}_intensity": of_pulses("intensities", level) for level, name in enumerate(LEVELS)},
    **{f"p_{name}": of_pulses("p_intensities", level) for level, name in enumerate(LEVELS)},
    "p_z_alice": lambda body: body["ledger"]["settings"]["p_z_alice"],
    "p_z_bob_lower": lambda body: body["ledger"]["receiver"]["p_z_lower"],
    "p_z_bob_upper": lambda body: body["ledger"]["receiver"]["p_z_upper"],
    "p_z_bob_width": lambda body: body["ledger"]["receiver"]["p_z_upper"] - body["ledger"]["receiver"]["p_z_lower"],
    "x_share": x_share,
    "qber": qber,
    "f_ec": efficiency,
    "mismatch": lambda body: body["ledger"]["receiver"]["mismatch"],
}
"""A policy says of each of these what is allowed: a list of values, or [smallest, largest] in its table `between`."""


class Policy(NamedTuple):
    """What is allowed, by name."""

    one_of: Mapping[str, Sequence[Any]]
    between: Mapping[str, Sequence[float]]

    @classmethod
    def read(cls, text: str) -> Policy:
        """Read a policy; raise ValueError where it leaves something open or names what there is not."""
        one_of = tomllib.loads(text)
        between = one_of.pop("between", {})
        for known, given, where in ((ONE_OF, one_of, ""), (BETWEEN, between, " in [between]")):
            if odd := sorted(set(known) ^ set(given)):
                raise ValueError(f"{odd[0]!r}{where} is {'missing' if odd[0] in known else 'unknown'}")
        for name, allowed in (*one_of.items(), *between.items()):
            pair = isinstance(allowed, list) and len(allowed) == 2 and all(map(number, allowed))
            if not isinstance(allowed, list) or not (pair or name in one_of):
                raise ValueError(f"{name!r} is not a list{'' if name in one_of else ' of two numbers'}")
        return cls(one_of, between)

    def faults(self, body: Body) -> Iterator[str]:
        """Name what the policy does not allow."""
        for name, allowed in self.one_of.items():
            if (value := ONE_OF[name](body)) not in allowed:
                yield f"policy: {name} {value!r} is not one of {', '.join(map(str, allowed))}"
        for name, (low, high) in self.between.items():
            value = BETWEEN[name](body)
            if value is not None and not low <= value <= high:
                yield f"policy: {name} {value:.6g} is not between {low:g} and {high:g}"


# --- 11. Report -----------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """The verdict on some certificates, and what those say in which no fault was found."""

    reasons: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    certificates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Return "invalid", "consistent" or "valid"."""
        return "invalid" if self.reasons or not self.certificates else "consistent" if self.doubts else "valid"

    @property
    def exit_code(self) -> int:
        """Return the code that says the same."""
        return {"invalid": INVALID, "consistent": CONSISTENT, "valid": VALID}[self.verdict]

    def document(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        return {
            "valid": self.verdict == "valid",
            "verdict": self.verdict,
            "reasons": self.reasons,
            "doubts": self.doubts,
            "certificates": self.certificates,
        }

    def lines(self) -> Iterator[str]:
        """Return the report for people."""
        for facts in self.certificates:
            yield f"{facts['file']}"
            for name, value in facts.items():
                values = value if isinstance(value, list) else [value]
                shown = [f"{one:.6g}" if isinstance(one, float) else str(one) for one in values]
                if name != "file":
                    yield f"  {name:<24}" + f"\n{'':<26}".join(shown)
        yield from (f"not valid: {reason}" for reason in self.reasons)
        yield from (f"in doubt: {doubt}" for doubt in self.doubts)
        yield self.verdict.upper()


def examine(texts: Sequence[tuple[str, str]], policy: Policy | None = None, signers: Sequence[str] = ()) -> Report:
    """Judge certificates, given as (file name, text)."""
    report, bodies = Report(), []
    for name, text in texts:
        try:
            body = parse(text)
        except (ValueError, RecursionError) as error:
            report.reasons.append(f"{name}: this is not a key certificate: {error}")
            continue
        found = faults(body, signers)
        if not found and policy is not None:
            found = list(policy.faults(body))
        report.reasons += [f"{name}: {fault}" for fault in found]
        if not found:
            bodies.append(body)
            report.certificates.append({"file": name, **facts(body)})
    report.reasons += faults_between(bodies)
    alice, bob = ({body["public_key"] for body in bodies if body["role"] == role} for role in ROLES)
    report.reasons += ["one key signed for both ends"] * bool(alice & bob)
    if policy is None:
        report.doubts.append("no policy: bounds of the devices, epsilon and assumptions are the signer's own")
    if not signers:
        report.doubts.append("no signer: anybody can have signed with the keys that the certificates name")
    return report


def facts(body: Body) -> dict[str, Any]:
    """Return what a good certificate says that a reader must believe or weigh."""
    ledger = body["ledger"]
    settings, receiver, tallies = ledger["settings"], ledger["receiver"], ledger["tallies"]
    return {
        **{name: body[name] for name in ("link", "role", "block_id", "simulated", "software", "public_key")},
        "protocol": settings["protocol"],
        "secret_bits": body["amplification"]["secret_bits"],
        **{name: body["authentication"][name] for name in ("application_bits", "net_key_bits")},
        "eps_spent": ledger["eps_spent"],
        "eps_life": body["life"]["eps_life"],
        "life": f"{body['life']['blocks']} blocks, {body['life']['tags']} tags",
        **{name: ledger["budget"][name] for name in ("accounting", "tails")},
        "qber": qber(body),
        "f_ec": efficiency(body),
        "phase_error_upper": ledger["phi_upper"],
        "x_share": x_share(body),
        "p_z_bob": [receiver["p_z_lower"], receiver["p_z_upper"]],
        "mismatch": receiver["mismatch"],
        "cross_clicks": tallies["cross_clicks"],
        "double_clicks": tallies["double_clicks"],
        "source": [f"{name} {value}" for name, value in ledger["source"].items()],
        **{use: f"{drawn['class']}, {drawn['source']}" for use, drawn in uses(body).items()},
        "assumes": ledger["assumes"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the certificates named on the command line."""
    parser = argparse.ArgumentParser(description="Judge key certificates of a QKD link.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="certificates: of both ends, of a whole period")
    parser.add_argument("--policy", metavar="FILE", help="what to believe and demand (TOML)")
    parser.add_argument("--signer", action="append", default=[], metavar="KEY", help="public key: hex digits or a file")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    try:
        texts, policy, signers = inputs(options.files, options.policy, options.signer)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return UNREADABLE
    report = examine(texts, policy, signers)
    print(json.dumps(report.document(), indent=2) if options.json else "\n".join(report.lines()))
    return report.exit_code


def inputs(
    files: Sequence[str], policy: str | None, signers: Sequence[str]
) -> tuple[list[tuple[str, str]], Policy | None, list[str]]:
    """Read what the command line names; raise OSError or ValueError that says which cannot be read."""
    texts = [(name, read(name).decode(errors="replace")) for name in files]
    try:
        rules = Policy.read(read(policy).decode()) if policy is not None else None
    except ValueError as error:
        raise ValueError(f"{policy} is not a policy: {error}") from None
    keys = []
    for signer in signers:
        try:
            keys.append(public_key_hex(signer.encode() if digest(signer) else read(signer)))
        except ValueError:
            raise ValueError(f"{signer} is not an Ed25519 public key") from None
    return texts, rules, keys


def read(name: str) -> bytes:
    """Read a whole file."""
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # a device or a pipe may have no end
                raise OSError(errno.EINVAL, "is no ordinary file")
            content = file.read(LONGEST_FILE_BYTES + 1)
    except OSError as error:
        raise OSError(f"{name} cannot be read: {error.strerror}") from None
    if len(content) > LONGEST_FILE_BYTES:
        raise OSError(f"{name} cannot be read: more than {LONGEST_FILE_BYTES} bytes")
    return content


if __name__ == "__main__":
    sys.exit(main())
