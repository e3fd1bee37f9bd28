"""One block of post-processing as either end sees it: its frames, its tallies, its length, its facts for operators."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import ArrayLike, NDArray

from common.config import Config
from common.datatypes import ReconciledKey, VerifiedKey
from common.errors import AuthenticationError
from common.keybits import KeyBits
from common.keys.certificate import Amplification, Provenance, Reconciliation, Transcript, certificate
from common.keys.life import Life
from common.postprocessing.amplification import seed_bits
from common.postprocessing.estimation import device_fault, estimate
from common.postprocessing.reconciliation.exchange import FrameExchange
from common.postprocessing.reconciliation.interface import Reconciliation as BlockReconciliation
from common.postprocessing.reconciliation.tracker import QberTracker
from common.postprocessing.sifting import SiftedChunk
from common.postprocessing.verification import verified_key
from common.preamble import key_slots
from common.protocol.effects import Effect, Job
from common.protocol.frames import MessageOutlet
from common.protocol.jobs import Seed8, hash_with
from common.protocol.messages import BlockMessage, Commit, Committed, Fixed, Fixing, Prepared, Refuse, Withdraw
from common.protocol.schedule import Schedule
from common.protocol.story import Do, Story, Tale
from common.protocol.transitions import Role, State
from common.randomness import Uses, assumptions, documents
from common.security.finite_key import Ledger
from common.security.recent import RecentBlocks
from common.security.tallies import ONES_STEPS, H, Tallies, V
from common.units import seconds_from_ns

BITS_PER_BYTE = 8
_ENDINGS = (Fixed, Prepared, Commit, Committed, Refuse, Withdraw)
"""Messages after the key is fixed: not part of the transcript that both ends certify."""
Digests = tuple[bytes, bytes]
"""SHA-256 of what Alice said of a block, and of what Bob said."""


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """What operators may see of a block; nothing secret. Rates are per key slot, QBER is of the decoded frames.

    ``seconds`` runs from the block's opening, ``seconds_after_last_detection`` from its last detections' arrival in the
    session (Bob) or from the news of its end (Alice); both end with the block.

    What is watched of the devices, of the detections sifted so far: ``x_share`` measured in X; ``z_sent_share`` sent in
    Z, Alice's realised p_z; ``v_share`` of V among the sifted bits, and ``l_share`` of L among the X outcomes of Z
    pulses, both 1/2 with equal detectors; ``device_fault`` says which of them refused the block.
    """

    block_id: int
    state: str
    reason: str
    slots: int
    detections: int
    n_z: int
    qber: float
    phase_error_upper: float
    f_ec: float
    leak_ec_bits: int
    secret_bits: int
    bits_per_pulse: float
    seconds: float
    seconds_after_last_detection: float
    frames: int
    frames_failed: int
    rounds_max: int
    auth_bits_earned: int
    simulated: bool
    x_share: float
    z_sent_share: float
    v_share: float
    l_share: float
    cross_clicks: int
    double_clicks: int
    device_fault: str


WATCHED = ("x_share", "z_sent_share", "v_share", "l_share", "cross_clicks", "double_clicks")
"""Of :class:`BlockFacts`: what operators see of the devices, block by block."""


@dataclass(frozen=True, slots=True, repr=False)
class Deed:
    """What is stored with a key.

    Parameters
    ----------
    block_id, eps_spent : of the block.
    refill_bytes : the first of the key, for the authentication pool.
    certificate : the evidence for the key's length, signed, from the life of the link.
    """

    block_id: int
    eps_spent: float
    refill_bytes: int
    certificate: Callable[[Life], str]


class Block:
    """State of one block at one end.

    Its frames and its story reach it by a weak reference: an ended block and its bits leave memory at once, not when
    the garbage collector next looks for cycles among old objects.

    Parameters
    ----------
    block_id : unique over the life of the link, growing.
    role, config, tracker : whose block, under which rules, with the link's running QBER.
    say : see :class:`FrameExchange`, of this block.
    refuse : ends this block for a reason.
    now_ns : when it was opened.
    schedule : see :class:`FrameExchange`.
    randomness : role -> sources of its random numbers, as the handshake told.
    """

    def __init__(
        self,
        block_id: int,
        role: Role,
        config: Config,
        tracker: QberTracker,
        say: Callable[[Any, BlockMessage], Effect],
        refuse: Callable[[Any, str], list[Effect]],
        now_ns: int,
        schedule: Schedule | None = None,
        randomness: Mapping[str, Uses] | None = None,
    ) -> None:
        self.block_id = block_id
        self.role = role
        self.state = State.FILLING
        self.config = config
        self._tracker = tracker
        self._randomness = dict(randomness or {})
        self._opened_ns = now_ns
        self._filled_ns = 0
        weak = weakref.ref(self)

        def this() -> Block:
            block = weak()
            assert block is not None, "its frames or its story outlived a block"
            return block

        self.story = Story(lambda reason: refuse(this(), reason))
        outlet = MessageOutlet(block_id, lambda message: say(this(), message), self.story.job)
        self.frames: BlockReconciliation[Effect] = FrameExchange(
            role.value, config.reconciliation, tracker, outlet, schedule or Schedule(config.reconciliation)
        )
        self.from_slot: int | None = None
        self.to_slot = 0
        self.chunks = 0
        self.chunks_sifted = 0
        self.detections = 0
        levels = 4 if config.link.intensities else 1
        self.x_counts: NDArray[np.int64] = np.zeros((levels, 4, 2), dtype=np.int64)
        self.n_z: NDArray[np.int64] = np.zeros(levels, dtype=np.int64)
        self.cross_clicks = self.double_clicks = self.detections_sifted = 0
        self.z_ones_steps: int | None = None
        self.device_fault: str | None = None
        self.reconciled_key: ReconciledKey | None = None
        self.verified: VerifiedKey | None = None
        self.ledger: Ledger | None = None
        self.refill_bytes = 0
        self.simulated = False
        self.amplification: Amplification | None = None
        self._transcript = {sender: hashlib.sha256() for sender in Role}

    def note(self, message: BlockMessage, sender: Role) -> None:
        """One more message of this block's transcript, in the order of its direction."""
        if not isinstance(message, _ENDINGS):
            raw = message.encode()
            self._transcript[sender].update(len(raw).to_bytes(8, "little"))
            self._transcript[sender].update(raw)

    def digests(self) -> Digests:
        """What has been said of this block so far, as this end has it."""
        return self._transcript[Role.ALICE].digest(), self._transcript[Role.BOB].digest()

    def compare(self, message: Fixing) -> None:
        """The peer has the same messages of this block, in both directions; see :func:`compare`."""
        compare(message, self.digests())

    def cover(self, from_slot: int, to_slot: int) -> None:
        """One more chunk accounts for these slots."""
        if self.from_slot is None:
            self.from_slot = from_slot
        self.to_slot = to_slot
        self.chunks += 1

    def count(self, sifted: SiftedChunk, detections: int, cross_clicks: int, double_clicks: int) -> None:
        """One more chunk is sifted: its public counts."""
        self.chunks_sifted += 1
        self.detections_sifted += detections
        self.x_counts += sifted.x_counts
        self.n_z += sifted.n_z
        self.cross_clicks += cross_clicks
        self.double_clicks += double_clicks

    def filled(self, now_ns: int) -> None:
        """The last detections are in: from now on the key is waited for."""
        self._filled_ns = now_ns

    @property
    def slots_sent(self) -> int:
        """Key slots between the first and the last slot, gaps included (conservative), preambles not."""
        return 0 if self.from_slot is None else key_slots(self.from_slot, self.to_slot)

    def all_sifted(self) -> bool:
        """The last chunk has been told, and all of them are sifted."""
        return self.state is not State.FILLING and self.chunks_sifted == self.chunks

    def reconciled(self, packed: NDArray[np.uint8]) -> None:
        """The kept frames have been joined to one key, and are overwritten."""
        frames = self.frames
        kept, failed, leak = frames.frames_kept, frames.frames_failed, frames.leak_ec_bits
        bits = KeyBits(packed, frames.kept_bits)
        frames.wipe()
        self.reconciled_key = ReconciledKey(self.block_id, bits, leak, kept, failed)

    def verified_by_both(self) -> None:
        """The tags of both ends agree: the same bits are a verified key."""
        assert self.reconciled_key is not None
        self.verified = verified_key(self.reconciled_key)

    def tallies(self) -> Tallies:
        """The public counts of what is sifted; every X outcome is in ``x_counts``, V is taken as even until told."""
        x_detections = int(self.x_counts.sum())
        return Tallies(
            slots_sent=self.slots_sent,
            n_z=tuple(int(count) for count in self.n_z),
            n_z_kept=self.frames.kept_bits,
            x_counts=tuple(tuple((int(a), int(b)) for a, b in level) for level in self.x_counts),
            z_detections=self.detections_sifted - x_detections,
            x_detections=x_detections,
            cross_clicks=self.cross_clicks,
            double_clicks=self.double_clicks,
            z_ones_steps=ONES_STEPS // 2 if self.z_ones_steps is None else self.z_ones_steps,
        )

    def noise(self) -> str | None:
        """Why no key is made of a block whose errors are too many, once all its frames have told theirs."""
        limit, qber = self.config.reconciliation.qber_abort, self._tracker.qber
        if qber <= limit:
            return None
        return f"the QBER of {100 * qber:.1f} % is above reconciliation.qber_abort = {limit}"

    def tallies_json(self) -> str:
        """Both ends' integers, canonical: compared before any length is accepted."""
        return json.dumps({**asdict(self.tallies()), "leak_ec_bits": self.frames.leak_ec_bits}, sort_keys=True)

    def judge_devices(self) -> str | None:
        """Which device the counts so far accuse, or None."""
        self.device_fault = device_fault(self.config, self.tallies())
        return self.device_fault

    def counted(self, z_ones_steps: int, recent: RecentBlocks) -> str | None:
        """All counts are known and join those of the blocks before: which device they accuse together, or None."""
        self.z_ones_steps = z_ones_steps
        self.device_fault = recent.enter(self.tallies())
        return self.device_fault

    def estimation(self) -> Job:
        """The job that computes the ledger of this block from its own tallies."""
        assert self.z_ones_steps is not None, "the share of V comes with the verdict of verification"
        return Job(estimate, (self.config, self.tallies(), self.frames.leak_ec_bits, assumptions(self._randomness)))

    @property
    def secret_bytes(self) -> int:
        """Whole bytes of key by the ledger."""
        return 0 if self.ledger is None else self.ledger.ell_bits // BITS_PER_BYTE

    def seed_bits(self, secret_bytes: int) -> int:
        """Random bits that amplification to this many bytes takes."""
        assert self.verified is not None
        return seed_bits(self.config.amplification.family, self.verified.bits.n_bits, BITS_PER_BYTE * secret_bytes)

    def amplify(self, seed: Seed8, secret_bytes: int, simulated: bool) -> Tale:
        """Privacy amplification to the agreed length; whatever happens, the verified key is overwritten.

        Parameters
        ----------
        seed : public, drawn after the verified key was fixed.

        Returns
        -------
        *(secret_bytes,) uint8*, the secret key.
        """
        verified, self.verified = self.verified, None
        assert verified is not None
        family, n, m = self.config.amplification.family, verified.bits.n_bits, BITS_PER_BYTE * secret_bytes
        needed = seed_bits(family, n, m)
        packed = verified.bits.take()
        try:
            secret, digest = yield Do("block", Job(hash_with, (seed, needed, packed, n, m, family)))
        finally:
            packed.fill(0)
        self.simulated, self.amplification = simulated, Amplification(family, n, m, needed, digest)
        return secret

    def deed(self, software: str, signer: Ed25519PrivateKey | None) -> Deed:
        """What is stored beside the key; the evidence for its length is signed once the life of the link is known."""
        assert self.ledger is not None
        assert self.amplification is not None
        frames = self.frames
        kept, failed = frames.frames_kept, frames.frames_failed
        signed = partial(
            certificate,
            Provenance(software, self.config.link.name, self.role.value, self.block_id, self.simulated),
            self.ledger,
            Reconciliation(self.detections, kept + failed, failed, frames.errors),
            self.amplification,
            BITS_PER_BYTE * self.refill_bytes,
            Transcript(*(digest.hex() for digest in self.digests())),
            {role: documents(uses) for role, uses in self._randomness.items()},
            signer=signer,
        )
        return Deed(self.block_id, self.ledger.eps_spent, self.refill_bytes, signed)

    def wipe(self) -> None:
        """Overwrite all key material."""
        self.frames.wipe()
        for key in (self.reconciled_key, self.verified):
            if key is not None:
                key.bits.wipe()

    def facts(self, now_ns: int, reason: str = "") -> BlockFacts:
        """What operators may see."""
        ledger, frames = self.ledger, self.frames
        kept = frames.kept_bits
        committed = self.state in (State.DECIDED, State.COMMITTED)
        secret_bits = ledger.ell_bits if ledger is not None and committed else 0
        qber = frames.errors / kept if kept else 0.0
        slots = self.slots_sent
        return BlockFacts(
            block_id=self.block_id,
            state=self.state.value,
            reason=reason or (ledger.refusal or "" if ledger is not None else ""),
            slots=slots,
            detections=self.detections,
            n_z=int(self.n_z.sum()),
            qber=qber,
            phase_error_upper=ledger.phi_upper if ledger is not None else 0.5,
            f_ec=efficiency(frames.leak_ec_bits, kept, qber),
            leak_ec_bits=frames.leak_ec_bits,
            secret_bits=secret_bits,
            bits_per_pulse=secret_bits / slots if slots else 0.0,
            seconds=seconds_from_ns(now_ns - self._opened_ns),
            seconds_after_last_detection=seconds_from_ns(now_ns - self._filled_ns) if self._filled_ns else 0.0,
            frames=frames.frames_kept + frames.frames_failed,
            frames_failed=frames.frames_failed,
            rounds_max=frames.rounds_max,
            auth_bits_earned=BITS_PER_BYTE * self.refill_bytes if committed else 0,
            simulated=self.simulated,
            **_watched(self.detections_sifted, int(self.n_z.sum()), self.x_counts, self.z_ones_steps or 0),
            cross_clicks=self.cross_clicks,
            double_clicks=self.double_clicks,
            device_fault=self.device_fault or "",
        )


def compare(message: Fixing, ours: Digests) -> None:
    """What the peer says it has sent and received is what this end has received and sent.

    Raises
    ------
    AuthenticationError
        It is not: one end's key rests on words that the other did not say.
    """
    if (message.alice_to_bob, message.bob_to_alice) != ours:
        raise AuthenticationError(f"{message!r}: the two ends do not have the same messages of this block")


def certified_digests(certificate_json: str) -> Digests:
    """Both transcripts of a block as the certificate beside its key names them."""
    said = json.loads(certificate_json)["transcript"]
    return bytes.fromhex(said["alice_to_bob_sha256"]), bytes.fromhex(said["bob_to_alice_sha256"])


def settled_facts(certificate_json: str) -> BlockFacts:
    """The facts of a block whose key is good by now, from the certificate that was stored with the promise.

    How long it took and how many rounds its frames needed are not in it: 0.
    """
    body = json.loads(certificate_json)
    ledger, met = body["ledger"], body["reconciliation"]
    tallies, secret_bits, leak_ec_bits = ledger["tallies"], int(ledger["ell_bits"]), int(ledger["leak_ec_bits"])
    kept, slots = int(tallies["n_z_kept"]), int(tallies["slots_sent"])
    qber = met["errors_corrected"] / kept if kept else 0.0
    return BlockFacts(
        block_id=int(body["block_id"]),
        state=State.COMMITTED.value,
        reason="",
        slots=slots,
        detections=int(met["detections"]),
        n_z=sum(tallies["n_z"]),
        qber=qber,
        phase_error_upper=float(ledger["phi_upper"]),
        f_ec=efficiency(leak_ec_bits, kept, qber),
        leak_ec_bits=leak_ec_bits,
        secret_bits=secret_bits,
        bits_per_pulse=secret_bits / slots if slots else 0.0,
        seconds=0.0,
        seconds_after_last_detection=0.0,
        frames=int(met["frames"]),
        frames_failed=int(met["frames_failed"]),
        rounds_max=0,
        auth_bits_earned=int(body["authentication"]["bits_earned"]),
        simulated=bool(body["simulated"]),
        **_watched(int(met["detections"]), sum(tallies["n_z"]), tallies["x_counts"], int(tallies["z_ones_steps"])),
        cross_clicks=int(tallies["cross_clicks"]),
        double_clicks=int(tallies["double_clicks"]),
        device_fault="",
    )


def _watched(detections: int, n_z: int, x_counts: ArrayLike, z_ones_steps: int) -> dict[str, float]:
    """The shares of :class:`BlockFacts`; 0 of nothing."""
    of_symbol = np.sum(np.asarray(x_counts, dtype=np.int64), axis=0)
    of_z_pulses = of_symbol[H] + of_symbol[V]
    return {
        "x_share": int(of_symbol.sum()) / max(detections, 1),
        "z_sent_share": (n_z + int(of_z_pulses.sum())) / max(detections, 1),
        "v_share": z_ones_steps / ONES_STEPS,
        "l_share": int(of_z_pulses[1]) / max(int(of_z_pulses.sum()), 1),
    }


def efficiency(leak_bits: int, n_bits: int, qber: float) -> float:
    """f_EC = leak / (n h(QBER)); 0 where it has no meaning."""
    if n_bits == 0 or not 0.0 < qber < 1.0:
        return 0.0
    entropy = float(-qber * np.log2(qber) - (1 - qber) * np.log2(1 - qber))
    return leak_bits / (n_bits * entropy)


def refused_facts(certificate_json: str, reason: str) -> BlockFacts:
    """The facts of a block whose stored key was given up after all."""
    facts = settled_facts(certificate_json)
    return replace(
        facts, state=State.REFUSED.value, reason=reason, secret_bits=0, bits_per_pulse=0.0, auth_bits_earned=0
    )
