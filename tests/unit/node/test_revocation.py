"""Certificates that are revoked while a node runs: by fingerprint, by list, and what happens when the file is bad."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from common.errors import ConfigurationError
from common.node.credentials import Authority, make_authority, make_certificate, pem
from common.node.revocation import Revocation


class Office:
    """An authority, two applications, and a file."""

    def __init__(self, folder: Path) -> None:
        self.authority = make_authority("test")
        self.ca, self.file = folder / "ca.crt", folder / "revoked"
        self.ca.write_bytes(pem(self.authority.certificate))
        self.sae, self.other = (
            x509.load_pem_x509_certificate(make_certificate(self.authority, name)[0]) for name in ("sae", "other")
        )

    def open(self) -> Revocation:
        return Revocation(self.file, self.ca)

    def refused(self, revocation: Revocation) -> list[bool]:
        return [revocation.refuses(one.public_bytes(serialization.Encoding.DER)) for one in (self.sae, self.other)]

    def listed(self, authority: Authority | None = None, days: int = 30) -> str:
        signer = authority or self.authority
        now = datetime.datetime.now(datetime.UTC)
        entry = x509.RevokedCertificateBuilder().serial_number(self.sae.serial_number).revocation_date(now).build()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(signer.certificate.subject)
            .last_update(now - datetime.timedelta(60))
            .next_update(now + datetime.timedelta(days))
            .add_revoked_certificate(entry)
        )
        return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """As OpenSSL prints it."""
    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest().upper()
    return "sha256 Fingerprint=" + ":".join(digest[at : at + 2] for at in range(0, 64, 2))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_without_a_file_nobody_is_revoked(office: Office) -> None:
    assert office.refused(Revocation(None, office.ca)) == [False, False]


def test_what_is_written_while_the_node_runs_holds_at_once(office: Office) -> None:
    office.file.write_text("# nobody yet\n\n")
    revocation = office.open()
    assert office.refused(revocation) == [False, False]
    office.file.write_text(f"{fingerprint(office.sae)}   # left the project\n")
    assert office.refused(revocation) == [True, False]
    office.file.write_text(fingerprint(office.other).partition("=")[2].replace(":", "").lower())
    assert office.refused(revocation) == [False, True]
    assert revocation.fault is None


def test_a_list_of_the_authority_revokes(office: Office) -> None:
    office.file.write_text(office.listed() + fingerprint(office.other))
    assert office.refused(office.open()) == [True, True]


def test_an_overdue_list_holds_and_is_told_of(office: Office) -> None:
    office.file.write_text(office.listed(days=-1))
    revocation = office.open()
    assert office.refused(revocation) == [True, False]
    assert "was due" in str(revocation.fault)


@pytest.mark.parametrize("bad", ["nonsense", "AA:BB", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----"])
def test_a_file_that_cannot_be_used(office: Office, bad: str) -> None:
    """No start with it; a running node keeps what held before, and says so until the file is good again."""
    office.file.write_text(bad)
    with pytest.raises(ConfigurationError, match="revoked_file"):
        office.open()
    office.file.write_text(fingerprint(office.sae))
    revocation = office.open()
    office.file.write_text(bad)
    assert office.refused(revocation) == [True, False]
    assert "holds meanwhile" in str(revocation.fault)
    office.file.unlink()
    assert office.refused(revocation) == [True, False]
    assert "No such file" in str(revocation.fault)
    office.file.write_text("")
    assert (office.refused(revocation), revocation.fault) == ([False, False], None)


def test_a_list_of_another_authority_is_none(office: Office) -> None:
    office.file.write_text(office.listed(make_authority("test")))
    with pytest.raises(ConfigurationError, match="not signed"):
        office.open()


def test_a_bad_line_is_named(office: Office) -> None:
    office.file.write_text(office.listed() + "# fine\nAA\n")
    with pytest.raises(ConfigurationError, match=f"line {office.listed().count(chr(10)) + 2}:"):
        office.open()
