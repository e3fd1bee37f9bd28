"""The two configuration files as models: an unknown key is refused with the nearest known name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from common.addresses import read_address, read_endpoint, read_host
from common.kernels.click_rule import CrossBasis
from common.randomness import RandomnessClass
from common.units import PS_PER_S

ProtocolName = Literal["three-state", "bb84", "decoy-bb84"]
SelectionRule = Literal["off", "transmittance"]
PZ_DENOMINATOR = 1 << 16
LEAST_DECOY_PHASES = 16
"""With decoy states: the phase is one of this many at least; what that leaves is said in the ledger
(`common.statements.phase_distance`)."""


MAX_GATE = 0.9
"""Widest gate in slots: outside it the background is measured."""
LONGEST_NAME, LONGEST_PATH = 200, 3000
"""Bytes of a file's name and path: less than file systems allow, so that siblings and the file's folder fit as well."""
LONGEST_DELAY_PS = 10**12
Entity = Annotated[str, Field(pattern=r"^[A-Za-z0-9_@:~-][A-Za-z0-9 ._@:~+=,-]{0,63}$")]
"""Name of an application or a key manager: a common name of a certificate, a part of a URL and of a file's name."""



def _n_bytes(name: str) -> int:
    """Bytes of a name as the operating system stores it."""
    return len(name.encode("utf-8", "surrogateescape"))


class Section(BaseModel):
    """A table of the file: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A path that no file system has would be a fault of every program that opens it."""
        if isinstance(value, Path):
            if "\0" in str(value):
                raise ValueError("holds a NUL character")
            longest = max((_n_bytes(part) for part in value.parts), default=0)
            if longest > LONGEST_NAME or _n_bytes(str(value)) > LONGEST_PATH:
                raise ValueError(f"is longer than file systems allow ({LONGEST_NAME} bytes a name, {LONGEST_PATH} all)")
        return value


class Link(Section):
    """What both ends must agree on about the light."""

    name: str = Field("link", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    protocol: ProtocolName = "three-state"
    clock_rate_hz: float = Field(76.13e6, gt=1e3, lt=1e10)
    p_z_alice: float = Field(0.9, gt=0.0, lt=1.0)
    """Probability that Alice prepares Z; rounded to a multiple of 2^-16, which is the exact value used."""
    p_z_bob: float = Field(0.9, gt=0.0, lt=1.0)
    """Probability that Bob's receiver measures Z (the splitting ratio)."""
    intensities: tuple[float, ...] = ()
    """Mean photon numbers of signal, decoy, vacuum (decoy-bb84 only)."""
    p_intensities: tuple[float, ...] = ()
    """Their probabilities, multiples of 2^-16."""

    @property
    def p_z_numerator(self) -> int:
        """``p_z_alice`` as the exact fraction numerator / 2^16 that the sampler uses."""
        return min(max(round(self.p_z_alice * PZ_DENOMINATOR), 1), PZ_DENOMINATOR - 1)

    def check_intensities(self) -> None:
        """Refuse decoy settings that Alice could not draw exactly, or that prove nothing."""
        if len(self.intensities) != 3 or len(self.p_intensities) != 3:
            raise ValueError("link.intensities and link.p_intensities need three values for decoy-bb84")
        counts = [p * PZ_DENOMINATOR for p in self.p_intensities]
        if any(abs(c - round(c)) > 1e-6 or round(c) < 1 for c in counts) or sum(map(round, counts)) != PZ_DENOMINATOR:
            raise ValueError("link.p_intensities must be positive multiples of 2^-16 that sum to 1")
        signal, decoy, vacuum = self.intensities
        if not (signal > decoy + vacuum and decoy > vacuum >= 0.0):
            raise ValueError("link.intensities must be signal > decoy + vacuum, decoy > vacuum >= 0")


class Source(Section):
    """One-sided bounds of the source, calibrated and monitored (assumption A1)."""

    calibration: Path | None = None
    """File with the bounds (`qkd plan g2`, `qkd plan source`); what it gives must not be given here again."""
    mean_photon_number_upper: float = Field(0.292, ge=0.0)
    g2_upper: float = Field(0.00698, ge=0.0)
    eps_source: float = Field(0.0, ge=0.0, lt=1.0)
    """Probability that one of the bounds is wrong; 0 where they are taken as given."""
    phase_bits: int = Field(4, ge=0, le=16)
    """Bits of the random phase word of each slot."""
    phase_by: Literal["modulator", "source"] = "modulator"
    """What gives every pulse its random phase: the modulator, by the phase word, or the source itself (a gain-switched
    laser, an emitter without coherence to its pump)."""
    power_lower_w: float | None = Field(None, ge=0.0)
    power_upper_w: float | None = Field(None, gt=0.0)
    """Window of the average power at Alice's monitor (`devices.power_meter`): outside it no block produces key. Without
    it nobody watches the power, and no ledger says so."""


class Detectors(Section):
    """Bounds of Bob's receiver (assumption A3): equal at both ends."""

    calibration: Path | None = None
    """File with the bounds; what it gives must not be given here again."""
    p_z_lower: float | None = Field(None, gt=0.0, lt=1.0)
    p_z_upper: float | None = Field(None, gt=0.0, lt=1.0)
    """Interval of the probability that the receiver measures Z; without it, exactly `link.p_z_bob`."""
    mismatch: float | None = Field(None, ge=0.0, lt=1.0)
    """Largest relative difference of the efficiencies of any two of the four detectors; without it, 0."""
    eps: float = Field(0.0, ge=0.0, lt=1.0)
    """Probability that one of these is wrong."""
    cross_basis: CrossBasis = "discard"
    """What becomes of a slot in which detectors of both bases clicked; it is announced either way."""

    def filled(self, p_z_bob: float) -> dict[str, Any]:
        """The bounds, with what is not given taken as ideal; the file apart."""
        ideal = {"p_z_lower": p_z_bob, "p_z_upper": p_z_bob, "mismatch": 0.0}
        given = self.model_dump(mode="json", exclude={"calibration"})
        return {name: ideal[name] if value is None else value for name, value in given.items()}


class Security(Section):
    """The epsilon budget: equal at both ends."""

    accounting: Literal["composable", "paper"] = "composable"
    eps_total: float = Field(1e-14, gt=0.0, lt=1.0)
    eps_cor: float = Field(1e-15, gt=0.0, lt=1.0)
    eps_auth: float = Field(1e-15, gt=0.0, lt=1.0)
    eps_life_max: float = Field(1e-6, gt=0.0, le=1.0)
    """An alarm is up while the sum over all blocks and tags since the start secret is more."""
    tails: Literal["chernoff", "exact", "anytime"] = "anytime"
    """Form of the tail bounds: `anytime` holds wherever a block ends; the others are for comparison."""
    randomness: RandomnessClass = "physical"
    """Class that every random source of the link must have at least (symbols, seeds, coins, start secret): with real
    devices a weaker one is refused. `computational` accepts keys that are secret only as long as nobody predicts the
    generators that their certificate names."""


class Reconciliation(Section):
    """How errors are corrected."""

    decoder: Literal["fast", "reference"] = "fast"
    decoding_side: Literal["bob", "alice", "both"] = "bob"
    """Which end corrects; both ends can, but only `bob` is covered by the proof, and nothing else is accepted."""
    frame_length_bits: int = Field(1 << 18, ge=1 << 12, le=1 << 20)
    efficiency: Literal["auto", "efficient", "balanced", "fast"] = "auto"
    """Trade between disclosed bits and speed; `auto` takes as few bits as the decoder has time for."""
    qber_start: float = Field(0.03, gt=0.0, lt=0.11)
    """Assumed QBER before the first frame has told the true one."""
    qber_abort: float = Field(0.09, gt=0.0, lt=0.5)
    """Above this tracked QBER, once its frames are decoded, a block is refused."""


class Amplification(Section):
    """How privacy is amplified."""

    family: Literal["toeplitz", "modified-toeplitz", "gf2m"] = "toeplitz"


class Channel(Section):
    """The classical channel and its secrets (paths are relative to the file)."""

    endpoint: str = "tcp://127.0.0.1:47600"
    """Alice binds it, Bob connects to it."""
    link_secret_file: Path = Path("secrets/link.key")
    link_secret_class: RandomnessClass = "computational"
    """Class of the randomness that the start secret was made from; `qkd init` takes the operating system's."""
    link_secret_origin: str = Field("the operating system's generator (qkd init)", min_length=3, max_length=200)
    """What it was made with: shown in every certificate."""
    curve_secret_file: Path = Path("secrets/curve.key")
    peer_curve_public_file: Path = Path("secrets/peer.pub")
    heartbeat_s: float = Field(1.0, gt=0.01, le=3600.0)
    peer_timeout_s: float = Field(5.0, gt=0.1, le=86_400.0)

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        read_endpoint(value)
        return value


class Keys(Section):
    """The key store and what it delivers."""

    database: Path = Path("keys.sqlite")
    key_file: Path = Path("secrets/store.key")
    certificate_key_file: Path = Path("secrets/certificate.key")
    """Private key (Ed25519, PEM) that signs a certificate for every key; its public half lies beside it as `.pub`."""
    max_stored_bits: int = Field(1 << 33, gt=0)
    """While so much waits for applications, no block produces key; what a second makes may come on top. Keys that the
    peer's application has made and ours does not fetch take at most half: of more, the oldest are destroyed."""
    blocks_kept: int = Field(1000, ge=64)
    """The newest blocks stay in the store in any case; an older one leaves it once too little for a key is left of it.
    The peer may ask again about a few of the newest."""
    certificates_archived: int = Field(100_000, ge=0)
    """This many certificates of blocks that have left the store are kept, compressed, in `<database>.certificates/`."""
    deliver_simulated: bool = False
    """Hand out keys that were made with simulated devices. Both ends must say so."""
    auth_pool_target_bits: int = Field(1 << 16, ge=1 << 13)
    """The authentication pool is refilled from produced key up to this level. Both ends must say the same: a direction
    burns what it has above twice this level (or twice what it began with, if that is more)."""


class Etsi014(Section):
    """The key delivery interface (ETSI GS QKD 014) over mutual TLS."""

    enabled: bool = True
    listen: str = "127.0.0.1:47700"
    kme_id: Entity = "kme-alice"
    peer_kme_id: Entity = "kme-bob"
    certificate: Path = Path("secrets/kme.crt")
    private_key: Path = Path("secrets/kme.key")
    ca_certificate: Path = Path("secrets/ca.crt")
    revoked_file: Path | None = None
    """Certificates of applications that are good no longer (`common/node/revocation.py`); read anew on change."""
    key_size_bits: int = Field(256, ge=8)
    min_key_size_bits: int = Field(64, ge=8)
    max_key_size_bits: int = Field(4096, ge=8)
    max_key_per_request: int = Field(128, ge=1)
    saes: dict[Entity, Entity] = Field(default_factory=dict)
    """SAE ID -> KME ID that serves it (this one's or the peer's); the certificate's common name is the SAE ID."""

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        read_address(value)
        return value


class Mqtt(Section):
    """Telemetry and slow control over an MQTT broker; its loss never disturbs key production."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(1883, ge=1, le=65535)
    version: Literal["5", "3.1.1"] = "5"
    """Of the MQTT protocol; correlation data of commands needs 5."""
    username: str | None = None
    password_file: Path | None = None
    ca_certificate: Path | None = None
    """With it, TLS: the broker's certificate must be signed by this authority."""
    certificate: Path | None = None
    private_key: Path | None = None
    telemetry_interval_s: float = Field(1.0, ge=0.1, le=3600.0)
    commands: bool = False
    """Obey operators' commands for slow devices (attenuator, polarisation controller, detector bias)."""
    min_attenuation_db: float | None = Field(None, ge=0.0)
    """No command sets the attenuator lower: the calibrated mean photon number holds from here on."""

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return read_host(value)


class Blocks(Section):
    """Post-processing blocks; the receiver's values rule."""

    block_size_detections: int = Field(1_000_000, ge=10_000, le=100_000_000)
    chunk_detections: int = Field(1 << 17, ge=1 << 10, le=1 << 19)
    max_blocks: int = Field(0, ge=0)
    """Stop after this many blocks; 0 means never."""
    symbol_buffer_slots: int = Field(1 << 30, ge=1 << 27)
    """Alice keeps at most this many unsifted slots (2 bits each)."""


class Transmitter(Section):
    """How Alice draws her symbols (used by Alice alone)."""

    random_bits: Literal["plentiful", "scarce"] = "plentiful"
    """`plentiful` spends about 6 random bits a slot; `scarce` the entropy (1.4 bits) and ten times the time."""


class Record(Section):
    """The flight recorder (`record = true` switches it on with these defaults); see `common/node/recorder.py`."""

    enabled: bool = False
    directory: Path = Path("recordings")
    key_file: Path = Path("secrets/record.key")
    """32 secret bytes, made at the first start: recording and key file together give the keys of the run."""
    max_bytes: int = Field(1 << 34, ge=1 << 16)
    """All recordings in the directory together; when they are full the run goes on unrecorded, with an alarm."""
    light: bool = False
    """Also every random byte and symbol of Alice's light (about 2 bytes a slot), not only what was detected."""


class Receiver(Section):
    """Bob's gate and the rules for clicks (used by Bob alone)."""

    gate_ps: float = Field(3420.0, gt=0.0)
    """Full width of the gate around the light."""
    dead_time_ps: int | None = Field(None, ge=0, le=LONGEST_DELAY_PS)
    """Blanks all four detectors after any click: at least the longest recovery time of a single detector. Must be given
    with a real tagger (`qkd doctor --hardware` measures it); 0 where it is not, with a simulated one."""
    channel_skew_ps: tuple[int, int, int, int] = (0, 0, 0, 0)
    """How much later than the others each logical channel reports (H, V, R, L)."""
    selection: SelectionRule = "off"
    """`transmittance` drops segments of light in which background dominates (single photons only; assumption A5)."""
    segment_s: float = Field(0.01, ge=0.001, le=1.0)
    """Length of a segment: shorter than the fading."""
    light_qber: float = Field(0.0, ge=0.0, le=0.1)
    """QBER that the light has without any background, rather too low than too high; 0 drops least."""


class Polarisation(Section):
    """Feedback on devices.polarisation_controller from Bob's public error rates (used by Bob alone)."""

    feedback: bool = False
    enough_clicks: int = Field(2000, ge=100)
    """Clicks of each basis that one reading waits for."""
    patience_s: float = Field(8.0, gt=0.0)
    """How long a setting may fail to show the preamble before another is tried."""


def check_gate(gate_ps: float, clock_rate_hz: float) -> None:
    """Refuse (ValueError) a gate that leaves no room beside it in a slot, where the background is measured."""
    slot_ps = PS_PER_S / clock_rate_hz
    if not 0.0 < gate_ps < MAX_GATE * slot_ps:
        raise ValueError(
            f"receiver.gate_ps: {gate_ps:g} does not fit a clock of {clock_rate_hz:g} Hz,"
            f" whose slot lasts {slot_ps:.6g} ps: at most {MAX_GATE:g} of it"
        )


class DeviceSection(BaseModel):
    """One device: its driver's name and the driver's own parameters."""

    model_config = ConfigDict(frozen=True, extra="allow")
    driver: str


class Config(Section):
    """One node's configuration file."""

    role: Literal["alice", "bob"]
    link: Link = Link()
    source: Source = Source()
    detectors: Detectors = Detectors()
    security: Security = Security()
    blocks: Blocks = Blocks()
    transmitter: Transmitter = Transmitter()
    receiver: Receiver = Receiver()
    polarisation: Polarisation = Polarisation()
    reconciliation: Reconciliation = Reconciliation()
    amplification: Amplification = Amplification()
    channel: Channel = Channel()
    keys: Keys = Keys()
    etsi014: Etsi014 = Etsi014()
    mqtt: Mqtt = Mqtt()
    record: Record = Record()
    devices: dict[str, DeviceSection] = Field(default_factory=dict)
    """Device role (random_source, modulator, time_tagger, ...) -> driver and its parameters."""
    status_file: Path = Path("status.json")
    base_dir: Path = Path()
    """Directory of the file; set on loading."""

    @field_validator("record", mode="before")
    @classmethod
    def _switch(cls, given: Any) -> Any:
        return {"enabled": given} if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.role == "bob":
            check_gate(self.receiver.gate_ps, self.link.clock_rate_hz)
        if any(abs(skew) > LONGEST_DELAY_PS for skew in self.receiver.channel_skew_ps):
            raise ValueError("receiver.channel_skew_ps: no cable delays a click by a second")
        lower_w, upper_w = self.source.power_lower_w, self.source.power_upper_w
        whole = lower_w is not None and upper_w is not None and lower_w <= upper_w
        if not whole and (lower_w, upper_w) != (None, None):
            raise ValueError("source.power_lower_w and power_upper_w are given together, the lower one first")
        bounds = self.detectors.filled(self.link.p_z_bob)
        if not bounds["p_z_lower"] <= self.link.p_z_bob <= bounds["p_z_upper"]:
            raise ValueError("link.p_z_bob is not between detectors.p_z_lower and detectors.p_z_upper")
        if self.reconciliation.decoding_side != "bob":
            raise ValueError(
                "reconciliation.decoding_side must be 'bob': where Alice corrects, syndromes speak of Bob's string,"
                " whose randomness rests on a model of his receiver that the proof does not contain"
            )
        stated = "link_secret_origin" in self.channel.model_fields_set
        if self.channel.link_secret_class != "computational" and not stated:
            raise ValueError("channel.link_secret_origin must say what made a link secret of a better class")
        if not self.channel.link_secret_origin.isprintable():
            raise ValueError("channel.link_secret_origin must be printable")
        if self.link.protocol == "decoy-bb84":
            self.link.check_intensities()
            if self.source.phase_by == "modulator" and 1 << self.source.phase_bits < LEAST_DECOY_PHASES:
                raise ValueError(
                    f"source.phase_bits: decoy states need at least {LEAST_DECOY_PHASES} phases;"
                    " with fewer, the photon numbers of a pulse keep a coherence that the proof neglects"
                )
            if self.receiver.selection != "off":
                raise ValueError("receiver.selection is made for single photons, not for decoy-bb84")
        elif self.link.intensities or self.link.p_intensities:
            raise ValueError(f"link.intensities has no meaning for protocol {self.link.protocol!r}")
        return self

    def path(self, relative: Path) -> Path:
        """A path of the file, made absolute from the file's directory."""
        return relative if relative.is_absolute() else self.base_dir / relative

    def agreed(self) -> dict[str, Any]:
        """Every field that must be equal at both ends, by its dotted name, for the handshake."""
        sections = {
            "link": self.link.model_dump(mode="json"),
            "source": self.source.model_dump(mode="json", exclude={"calibration"}),
            "detectors": self.detectors.filled(self.link.p_z_bob),
            "security": self.security.model_dump(mode="json"),
            "reconciliation": self.reconciliation.model_dump(mode="json"),
            "amplification": self.amplification.model_dump(mode="json"),
            "keys": self.keys.model_dump(mode="json", include={"deliver_simulated", "auth_pool_target_bits"}),
        }
        return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}

    def digest(self) -> bytes:
        """32-byte SHA-256 of :meth:`agreed`, canonical JSON."""
        return hashlib.sha256(json.dumps(self.agreed(), sort_keys=True).encode()).digest()
