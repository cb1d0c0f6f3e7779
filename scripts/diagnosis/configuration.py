"""What an operator wrote: .env, and a certificate."""

from __future__ import annotations

import json
import os
import re
import shlex
import ssl
import stat
import time
from difflib import get_close_matches
from pathlib import Path

from config.env import OF_OTHERS, Environment
from config.env_file import unknown

from scripts.diagnosis.findings import Finding, Findings, Level, NotSeen, listed, ok, problem, warning
from scripts.diagnosis.installation import UP, Installation, unescaped
from scripts.diagnosis.proxy import door

EDIT = f"${{EDITOR:-vi}} .env && {UP}"

NOT_OURS = ("COMPOSE_", "DOCKER_", "BUILDKIT_", "BUILDX_")
"""What Compose, the engine and the builder read of .env themselves."""

CHECK_VALUES = """
import json, sys
from config.env import ConfigurationError, check
try:
    check(json.load(sys.stdin))
except ConfigurationError as error:
    print(json.dumps(error.problems))
else:
    print("[]")
"""


def variables(installation: Installation) -> Findings:
    """Look in .env for what nothing reads."""
    registry = installation.registry()
    values = installation.dotenv().values
    renamed = Environment.renamed
    found = []
    for name in values:
        if name in registry or name.startswith(NOT_OURS) or OF_OTHERS.fullmatch(name):
            continue
        # ./scripts/up refuses what looks like a slip; the rest may be for an override.
        judge = problem if unknown([name]) else warning
        rename = f"sed -i 's/^{re.escape(name)}=/{{}}=/' .env && {UP}"
        remove = f"sed -i '/^{re.escape(name)}=/d' .env"
        if name in renamed:
            new = renamed[name]
            mend = f"{remove} && {UP}" if new in values else rename.format(new)
            found.append(problem(f"variables.{name}", f".env sets {name}, which is now called {new}.", mend))
            continue
        near = get_close_matches(name, [known for known in registry if known not in values], n=1, cutoff=0.75)
        if near:
            message = f".env sets {name}, which nothing reads. Did you mean {near[0]}?"
            found.append(judge(f"variables.{name}", message, rename.format(near[0])))
            continue
        message = f".env sets {name}, which nothing reads."
        found.append(judge(f"variables.{name}", message, remove))
    yield from found or [ok("variables", "Everything that .env sets is declared in env.example.")]


def values(installation: Installation) -> Findings:
    """Ask the check of ./scripts/up, and that of the application that runs, whether they accept what is said now."""
    found: dict[str, Finding] = {}
    for sentence in [*_of_the_files(installation), *_of_the_application(installation)]:
        # No value is shown in these.
        match = re.match(r"([A-Z][A-Z0-9_]+)\b", sentence)
        identity = f"values.{match[1]}" if match else "values"
        mend = _mend(installation, match[1] if match else "", sentence)
        if identity not in found:
            found[identity] = problem(identity, sentence, mend)
        elif sentence not in found[identity].message:
            found[identity] = problem(identity, f"{found[identity].message} {sentence}", found[identity].mend)
    yield from found.values()
    if not found:
        yield ok("values", "What .env and secrets/ say is accepted.")


def _of_the_files(installation: Installation) -> list[str]:
    """Return what is wrong with .env and secrets/, whatever runs, but for what ``variables`` finds."""
    return [
        sentence
        for sentence in installation.refusals()
        if not re.match(r"\w+ is (?:unknown|now called \w+)\.", sentence)
    ]


def _of_the_application(installation: Installation) -> list[str]:
    """Return what a running backend says of what Compose would hand over, which is more than .env."""
    try:
        installation.compose_version()
    except NotSeen:
        return []
    try:
        installation.configuration()
    except NotSeen as reason:
        # One cause is enough.
        return [] if installation.refusals() else [f"{reason}."]
    try:
        backend = installation.one_of("backend")
    except NotSeen:
        return []
    given = installation.service("backend").get("environment", {})
    # What no one sets comes from the image, as it would at the start.
    handed_over = {name: unescaped(str(value)) for name, value in given.items() if value is not None}
    done = installation.execute(backend, "python", "-c", CHECK_VALUES, text=json.dumps(handed_over))
    try:
        return list(json.loads(done.stdout))
    except ValueError:
        raise NotSeen("the running backend could not check the configuration") from None


def _mend(installation: Installation, name: str, sentence: str) -> str:
    """Return the command that leads to what ``sentence`` complains about."""
    if "scripts/init" in sentence and not name:
        return "./scripts/init"
    if name and name in os.environ and f"{name} in line " not in sentence:
        return f"unset {name} && {UP}"
    files = installation.registry()[name].files if name in installation.registry() else ()
    if not files or "no effect in .env" in sentence:
        return f"{EDIT}  # {name}" if name else EDIT
    if all((installation.root / file).exists() for file in files):
        # Nothing is lost by it; a key that is not empty may be one of several, of which only one is wrong.
        if "is empty" in sentence and len(files) == 1:
            return f"rm {files[0]} && ./scripts/init && {UP}"
        command = "chmod 0644" if "cannot be read" in sentence else "${EDITOR:-vi}"
        return f"{command} {' '.join(files)} && {UP}"
    return f"./scripts/init && {UP}"


# The certificate ------------------------------------------------------------------------------------------------------

DAY = 86_400
EXPIRY_DAYS = 14
NGINX_USER = 101
"""Of its image; nginx/entrypoint.sh says the same of a file that it cannot read."""
SERVED_WITHIN_SECONDS = 60


def certificate(installation: Installation) -> Findings:
    """Look at the certificate and its key, where TLS is switched on."""
    chosen = installation.setting("TLS_CERT_FILE")
    if not chosen:
        yield ok("certificate", "TLS is not switched on here (TLS_CERT_FILE is not set).")
        return
    files = installation.root / chosen, installation.root / (installation.setting("TLS_KEY_FILE") or chosen)
    for name, path in zip(("TLS_CERT_FILE", "TLS_KEY_FILE"), files, strict=True):
        try:
            path.read_bytes()
        except OSError as error:
            yield problem("certificate", f"{name} cannot be read: {error.strerror}.", EDIT)
            return
        about = path.stat()
        if not about.st_mode & (stat.S_IRUSR if about.st_uid == NGINX_USER else stat.S_IROTH):
            message = (
                f"{name} cannot be read by nginx, which is user {NGINX_USER}: it goes on with the pair that it has."
            )
            yield problem("certificate", message, f"chmod 0644 {shlex.quote(str(path))}")
            return
    judged = list(judge_certificate(*files, installation.setting("DJANGO_ALLOWED_HOSTS"), time.time()))
    yield from judged
    if not any(finding.level is Level.PROBLEM for finding in judged):
        yield from _served(installation, *files)


def _served(installation: Installation, *files: Path) -> Findings:
    """Compare the certificate of the files with the one that is shown to clients."""
    if time.time() - max(path.stat().st_mtime for path in files) < SERVED_WITHIN_SECONDS:
        return
    try:
        shown = door(installation).certificate()
        lasts, *_until = installation.execute(
            installation.one_of("nginx"), "/entrypoint.sh", "--certificate"
        ).stdout.split()
    except (NotSeen, OSError, ValueError):
        return  # whether anything answers is another question
    (own, *_others) = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", files[0].read_text(), re.S)
    if shown != ssl.PEM_cert_to_DER_cert(own):
        message = f"nginx serves another certificate than that of TLS_CERT_FILE; it lasts {lasts} more days."
        mend = "docker compose exec nginx /entrypoint.sh --test && docker compose restart nginx"
        yield problem("certificate.served", message, mend)


def judge_certificate(certificate_file: Path, key_file: Path, hosts: str, now: float) -> Findings:
    """Judge a certificate by a handshake with itself, in memory."""
    renew = f"{UP}  # after putting the renewed certificate and its key in place"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password would be asked for at the terminal.
        server.load_cert_chain(certificate_file, key_file, password="")
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower() or "the files are malformed"
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = "TLS_KEY_FILE is not the key of TLS_CERT_FILE"
        yield problem("certificate", f"The certificate cannot be served: {reason}.", renew)
        return
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate_file)
    # The certificate itself is all that is trusted, whoever signed it.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        about = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        yield problem("certificate", f"The certificate is refused by clients: {error.verify_message}.", renew)
        return
    days = (ssl.cert_time_to_seconds(str(about["notAfter"])) - now) / DAY
    names = {str(name) for kind, name in about.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}}
    missing = {host for host in _names_of(hosts) if not _covers(names, host)}
    if days < EXPIRY_DAYS:
        yield warning("certificate", f"The certificate expires in {days:.0f} days.", renew)
    if missing:
        yield warning("certificate.names", f"The certificate does not name {listed(missing)}.", renew)
    if days >= EXPIRY_DAYS and not missing:
        yield ok("certificate", f"The certificate has its key, names every host and lasts {days:.0f} more days.")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, tuple[tuple[str, str], ...]]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _turn in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert() or {}  # type: ignore[return-value]


def _names_of(hosts: str) -> list[str]:
    """Return the names that clients use from afar: nobody gets a certificate for localhost."""
    names = [host.strip().strip("[]") for host in hosts.split(",")]
    return [name for name in names if name and name not in {"localhost", "127.0.0.1", "::1"}]


def _covers(names: set[str], host: str) -> bool:
    if host.startswith("."):
        return f"*{host}" in names
    return host in names or f"*.{host.partition('.')[2]}" in names
