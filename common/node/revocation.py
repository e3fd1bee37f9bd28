"""Certificates of applications that are good no longer: a file that a person changes while the node runs.

The file holds any of two things, as many as wanted: certificate revocation lists of the applications' authority
(RFC 5280, in PEM), and lines with the SHA-256 fingerprint of one certificate each, as `openssl x509 -fingerprint
-sha256` prints it. The second needs no key of the authority. `#` begins a comment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from common.errors import ConfigurationError
from common.files import read_file

_LIST = re.compile(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_FINGERPRINT = re.compile(r"(?:sha256 fingerprint=)?([0-9a-f]{64})", re.IGNORECASE)
_REMEDY = "Write SHA-256 fingerprints, one a line, or revocation lists in PEM that the applications' authority signed."
Stamp = tuple[int, int, int] | None
"""What changes when a file does: (device's number of it, time of change in ns, size); None without a file."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a file says: fingerprints, and (issuer, serial number) of certificates; the day a newer list was due."""

    fingerprints: Set[bytes]
    serials: Set[tuple[x509.Name, int]]
    due: datetime | None

    def holds(self, der: bytes) -> bool:
        """Whether this certificate is among them."""
        if hashlib.sha256(der).digest() in self.fingerprints:
            return True
        if not self.serials:
            return False
        certificate = x509.load_der_x509_certificate(der)
        return (certificate.issuer, certificate.serial_number) in self.serials


NOBODY = Revoked(frozenset(), frozenset(), None)


def read_revoked(path: Path, authority: Path) -> Revoked:
    """Read a revocation file.

    Parameters
    ----------
    authority : certificates (PEM) of those who may sign lists.

    Raises
    ------
    ConfigurationError
        It cannot be read, a line is no fingerprint, or a list is not signed by the authority.
    """
    try:
        text = read_file(path).decode()
        signers = x509.load_pem_x509_certificates(read_file(authority))
        lists = [x509.load_pem_x509_crl(one.group().encode()) for one in _LIST.finditer(text)]
    except OSError as error:
        raise ConfigurationError(f"etsi014.revoked_file {path}: {error.strerror}", remedy=_REMEDY) from None
    except ValueError as error:
        raise ConfigurationError(f"etsi014.revoked_file {path} cannot be read: {error}", remedy=_REMEDY) from None
    for one in lists:
        if not any(_signed(one, signer) for signer in signers):
            raise ConfigurationError(
                f"etsi014.revoked_file {path}: a list is not signed by etsi014.ca_certificate", remedy=_REMEDY
            )
    serials = {(one.issuer, entry.serial_number) for one in lists for entry in one}
    dues = [one.next_update_utc for one in lists if one.next_update_utc is not None]
    return Revoked(frozenset(_fingerprints(path, _LIST.sub(_lines, text))), frozenset(serials), min(dues, default=None))


def _lines(match: re.Match[str]) -> str:
    """As many empty lines: those that follow keep their numbers."""
    return "\n" * match.group().count("\n")


def _fingerprints(path: Path, text: str) -> list[bytes]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].replace(":", "").strip()
        if not said:
            continue
        match = _FINGERPRINT.fullmatch(said)
        if match is None:
            raise ConfigurationError(
                f"etsi014.revoked_file {path}, line {number}: no SHA-256 fingerprint", remedy=_REMEDY
            )
        found.append(bytes.fromhex(match.group(1)))
    return found


def _signed(one: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    return one.issuer == signer.subject and one.is_signature_valid(signer.public_key())  # type: ignore[arg-type]


class Revocation:
    """The revocation file of a running node, read again when it has changed.

    Parameters
    ----------
    path : of the file; None: nobody is revoked. authority : as for :func:`read_revoked`.

    Raises
    ------
    ConfigurationError
        The file cannot be used at the start.
    """

    def __init__(self, path: Path | None, authority: Path) -> None:
        self._path, self._authority = path, authority
        self._fault: str | None = None
        self._seen = self._stamp()
        self._revoked = NOBODY if path is None else read_revoked(path, authority)

    def refuses(self, der: bytes) -> bool:
        """Whether a client's certificate (DER) is revoked by now."""
        self._look()
        return self._revoked.holds(der)

    @property
    def fault(self) -> str | None:
        """What is wrong with the file now; what it held when it was last good holds meanwhile."""
        self._look()
        due = self._revoked.due
        if self._fault is None and due is not None and due < datetime.now(UTC):
            return f"etsi014.revoked_file {self._path}: a newer list was due on {due:%Y-%m-%d}; it holds meanwhile"
        return self._fault

    def _look(self) -> None:
        if self._path is None or (stamp := self._stamp()) == self._seen:
            return
        self._seen = stamp
        try:
            self._revoked, self._fault = read_revoked(self._path, self._authority), None
        except ConfigurationError as error:
            self._fault = f"{error}; what it held before holds meanwhile"

    def _stamp(self) -> Stamp:
        try:
            found = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)
