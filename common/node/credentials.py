"""Secrets and demonstration certificates for a link: made once, written with mode 0600, never printed."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISVTX

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.config import Config
from common.errors import ConfigurationError
from common.files import read_file

#: 64 kB: about 2000 tags in each direction before the first produced key must refill the pool.
LINK_SECRET_BYTES = 1 << 16
STORE_KEY_BYTES = 32
FEWEST_VALUES = 17
"""Different bytes of a store key, too short to be judged by a compressor: 32 random ones have 16 values or fewer with a
probability below C(256, 16) (16 / 256)^32 < 1e-13. All of them are printable with one of (95 / 256)^32 < 1e-13."""
VALID_DAYS = 825
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


@dataclass(frozen=True)
class Authority:
    """A certificate authority that exists for one link; its private key is forgotten after `qkd init`."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read; an existing one is never overwritten."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(
            f"{path} exists and is not overwritten", remedy="Give `qkd init` another folder, or remove the old secrets."
        ) from None
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def private_files(config: Config) -> dict[str, Path]:
    """The files of a configuration that nobody but their owner may read, by the field that names them."""
    named = {
        "channel.link_secret_file": config.channel.link_secret_file,
        "channel.curve_secret_file": config.channel.curve_secret_file,
        "keys.key_file": config.keys.key_file,
        "keys.certificate_key_file": config.keys.certificate_key_file,
        "etsi014.private_key": config.etsi014.private_key if config.etsi014.enabled else None,
        "record.key_file": config.record.key_file if config.record.enabled else None,
        "mqtt.private_key": config.mqtt.private_key if config.mqtt.enabled else None,
        "mqtt.password_file": config.mqtt.password_file if config.mqtt.enabled else None,
    }
    return {field: config.path(path) for field, path in named.items() if path is not None}


def refuse_readable(config: Config) -> None:
    """Refuse secrets that others can read; what is missing is told where it is needed.

    Raises
    ------
    ConfigurationError
        Names every such file.
    """
    found = {field: path for field, path in private_files(config).items() if path.exists()}
    open_ones = [f"{field} {path}" for field, path in found.items() if path.stat().st_mode & 0o077]
    if open_ones:
        raise ConfigurationError(
            f"others can read {', '.join(open_ones)}",
            remedy="Run `chmod 600` on each; if others may have read it, make new secrets with `qkd init`.",
        )


def refuse_replaceable(config: Config) -> None:
    """Refuse secrets in a folder in which others can put another file in their place.

    Raises
    ------
    ConfigurationError
        Names every such folder.
    """
    folders = {path.parent for path in private_files(config).values() if path.exists()}
    open_ones = [str(one) for one in sorted(folders) if (mode := one.stat().st_mode) & 0o022 and not mode & S_ISVTX]
    if open_ones:
        raise ConfigurationError(
            f"others can replace the secrets in {', '.join(open_ones)}",
            remedy="Run `chmod 700` on each; if others may have written there, make new secrets with `qkd init`.",
        )


def refuse_guessable(config: Config) -> None:
    """Refuse a store key that is plainly not random; one that is missing or too short is told where it is needed.

    Raises
    ------
    ConfigurationError
        It is zeros of a failed copy, or text.
    """
    path = config.path(config.keys.key_file)
    key = read_file(path) if path.is_file() else b""
    if len(key) == STORE_KEY_BYTES and (len(set(key)) < FEWEST_VALUES or all(32 <= byte < 127 for byte in key)):
        raise ConfigurationError(
            f"keys.key_file {path} does not hold random bytes",
            remedy="Make the link's files with `qkd init`; of a store that exists, put its own key file back.",
        )


def require_private(config: Config) -> None:
    """All that is asked of the secrets' files before anything is opened."""
    refuse_readable(config)
    refuse_replaceable(config)
    refuse_guessable(config)


def link_secret() -> bytes:
    """The pre-shared start key of a link."""
    return secrets.token_bytes(LINK_SECRET_BYTES)


def store_key() -> bytes:
    """The key that a key store is encrypted under."""
    return secrets.token_bytes(STORE_KEY_BYTES)


def certificate_keys() -> tuple[bytes, bytes]:
    """(private, public) Ed25519 key in PEM: the private one signs a node's key certificates."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def read_certificate_key(path: Path) -> ed25519.Ed25519PrivateKey:
    """The private key of :func:`certificate_keys`.

    Raises
    ------
    ConfigurationError
        The file is missing, or holds no such key.
    """
    try:
        key = serialization.load_pem_private_key(read_file(path), password=None)
    except OSError as error:
        raise ConfigurationError(
            f"keys.certificate_key_file {path} cannot be read: {error.strerror}",
            remedy="Make one with `openssl genpkey -algorithm ed25519`, or a new link with `qkd init`.",
        ) from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigurationError(f"keys.certificate_key_file {path} is not an Ed25519 private key in PEM")
    return key



def curve_keys() -> tuple[bytes, bytes]:
    """(public, secret) key pair for ZeroMQ's CURVE, 40 Z85 characters each."""
    key = x25519.X25519PrivateKey.generate()
    return z85(key.public_key().public_bytes_raw()), z85(key.private_bytes_raw())


def z85(raw: bytes) -> bytes:
    """Five characters for four bytes (ZeroMQ RFC 32); ``raw`` has a multiple of four bytes."""
    numbers = [int.from_bytes(raw[at : at + 4], "big") for at in range(0, len(raw), 4)]
    return bytes(_Z85[number // 85**power % 85] for number in numbers for power in (4, 3, 2, 1, 0))


def make_authority(name: str) -> Authority:
    """A self-signed authority for demonstration certificates."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{name} demonstration CA")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(key, builder.sign(key, hashes.SHA256()))


def make_certificate(authority: Authority, common_name: str, hosts: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    """(certificate, private key) in PEM, for a key manager (with ``hosts``) or an application (without)."""
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [_general_name(host) for host in hosts] or [x509.DNSName(common_name)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    builder = (
        _builder(_name(common_name), authority.certificate.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    certificate = builder.sign(authority.key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem(certificate), private


def pem(certificate: x509.Certificate) -> bytes:
    """Write it in PEM form."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
