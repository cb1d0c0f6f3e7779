"""Certificates that the tests make for themselves: an authority, and what it signs."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

DAY = timedelta(days=1)


def new_key() -> Key:
    """Return a key as one makes it today."""
    return ec.generate_private_key(ec.SECP256R1())


def subject(name: str) -> x509.Name:
    """Return the name of somebody."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def general_name(host: str) -> x509.GeneralName:
    """Return the name of a host, or its address, as a certificate holds it."""
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def serial(self) -> int:
        """Tells this certificate from every other."""
        return self.certificate.serial_number

    def certificate_pem(self) -> bytes:
        """Return the certificate as a file holds it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        """Return the key as a file holds it."""
        protection: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


@dataclass(frozen=True)
class Authority:
    """Signs certificates for this host."""

    key: Key = field(default_factory=new_key)

    @property
    def name(self) -> x509.Name:
        """Return who signs."""
        return subject("The authority of the tests")

    def certificate_pem(self) -> bytes:
        """Return what a client trusts."""
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            self.name, self.name, self.key.public_key(), x509.random_serial_number(), now - DAY, now + 400 * DAY
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def sign(
        self,
        *,
        begins: timedelta = -DAY,
        ends: timedelta = 180 * DAY,
        key: Key | None = None,
        address: str = "127.0.0.1",
        host: str = "",
    ) -> Pair:
        """Return a new certificate for localhost and ``address``, or for ``host`` alone.

        ``begins`` and ``ends`` count from now.
        """
        key = key or new_key()
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            self.name, subject("localhost"), key.public_key(), x509.random_serial_number(), now + begins, now + ends
        )
        names = [general_name(host)] if host else [x509.DNSName("localhost"), general_name(address)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        usage = x509.KeyUsage(True, False, isinstance(key, rsa.RSAPrivateKey), False, False, False, False, False, False)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        # Asked by nobody; a certificate that names no list is a finding of testssl.sh.
        lists = x509.DistributionPoint(
            [x509.UniformResourceIdentifier("http://revoked.example.com/list")], None, None, None
        )
        builder = builder.add_extension(x509.CRLDistributionPoints([lists]), critical=False)
        return Pair(builder.sign(self.key, hashes.SHA256()), key)


@dataclass(frozen=True)
class Files:
    """The two files that an operator names."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """TLS_CERT_FILE."""
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        """TLS_KEY_FILE."""
        return self.folder / "key.pem"

    def variables(self) -> dict[str, str]:
        """Return what an operator writes into .env."""
        return {"TLS_CERT_FILE": str(self.certificate), "TLS_KEY_FILE": str(self.key)}

    def write(self, pair: Pair, *, password: bytes | None = None) -> None:
        """Put both in place by a new file under the old name, as a program that renews certificates does."""
        replace(self.certificate, pair.certificate_pem())
        replace(self.key, pair.key_pem(password))


def replace(file: Path, content: bytes) -> None:
    """Write a new file and give it the name."""
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(file)
