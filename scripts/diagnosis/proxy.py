"""The API as a client sees it: through the published port, with headers that lie."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address, ip_network

from scripts.diagnosis.commands import run
from scripts.diagnosis.findings import Finding, Findings, NotSeen, listed, ok, problem
from scripts.diagnosis.installation import UP, Installation

SECONDS = 5
FORGED_ADDRESS = "192.0.2.66"
"""Of a block that is only for documentation (RFC 5737), so nobody has it."""
FORGED_HOST = "forged.invalid"

RECREATE = "docker compose up --detach --force-recreate nginx"

HEADERS = {
    "X-Content-Type-Options": r"nosniff",
    "Referrer-Policy": r"same-origin|no-referrer",
    "X-Frame-Options": r"DENY",
    "Cross-Origin-Opener-Policy": r"same-origin",
    "Content-Security-Policy": r".*default-src .+",
    "Permissions-Policy": r".+",
    "Cache-Control": r"no-store",
}
"""What nginx/snippets/response-headers.conf puts on every answer."""

# They differ between two answers to the same question.
OF_THE_MOMENT = {"date", "x-request-id", "connection"}


@dataclass(frozen=True)
class Answer:
    """A status and its headers, with names in lower case."""

    status: int
    headers: dict[str, str]


@dataclass(frozen=True)
class Door:
    """Where clients come in."""

    address: str
    port: int
    host: str
    tls: bool = False

    def ask(self, path: str, headers: dict[str, str] | None = None, host: str = "") -> Answer:
        """Send one GET request; raise ``OSError`` where there is no answer."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=SECONDS)
        if self.tls:
            connection.sock = self._shake_hands()
        try:
            connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": host or self.host, "Connection": "close", **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()})
        except http.client.HTTPException as error:
            raise ConnectionError(f"no HTTP answer ({type(error).__name__})") from None
        finally:
            connection.close()

    def certificate(self) -> bytes:
        """Return the certificate that is shown, as DER; raise ``OSError`` where there is none."""
        with self._shake_hands() as shown:
            return shown.getpeercert(binary_form=True) or b""

    def _shake_hands(self) -> ssl.SSLSocket:
        # The certificate has a check of its own.
        context = ssl._create_unverified_context()  # noqa: S323
        plain = socket.create_connection((self.address, self.port), SECONDS)
        return context.wrap_socket(plain, server_hostname=self.host)


def door(installation: Installation) -> Door:
    """Return where the API is published; by TLS, where that is on."""
    tls = bool(installation.setting("TLS_CERT_FILE"))
    bind = installation.setting("BIND_ADDRESS", "127.0.0.1").strip("[]")
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104
    port = installation.setting("HTTP_PORT", "8080")
    if tls:
        published = installation.service("nginx").get("ports", [])
        port = next((str(item["published"]) for item in published if int(item["target"]) == 8443), port)
    hosts = [host.strip().lstrip(".") for host in installation.setting("DJANGO_ALLOWED_HOSTS", "localhost").split(",")]
    return Door(address, int(port), hosts[0], tls=tls)


def api(installation: Installation) -> Findings:
    """Ask the API whether it is ready."""
    entrance = door(installation)
    try:
        runs = bool(installation.containers()) or installation.embedded_runs()
    except NotSeen:
        runs = installation.embedded_runs()
    if not runs:
        raise NotSeen("nothing runs")
    try:
        answer = entrance.ask("/readyz")
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        yield problem("api", f"The API does not answer on port {entrance.port}: {reason}.", UP)
        return
    if answer.status == HTTPStatus.OK:
        yield ok("api", f"The API is ready on port {entrance.port}.")
    elif answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        yield problem("api", "The API is not ready (503); the findings above say why.", UP)
    else:
        yield problem("api", f"/readyz answers {answer.status}; something else may have port {entrance.port}.", UP)


def proxy(installation: Installation) -> Findings:
    """Send what a client should not be believed, and look at what becomes of it."""
    nginx = installation.one_of("nginx")
    try:
        trusted = is_trusted(installation, nginx.id)
        found = list(judge_door(door(installation), trusted=trusted))
        seen = door(installation).ask(
            "/api/transactions/",
            {"X-Forwarded-For": FORGED_ADDRESS, "X-Real-IP": FORGED_ADDRESS, "Forwarded": f"for={FORGED_ADDRESS}"},
        )
    except OSError as error:
        raise NotSeen(f"nginx does not answer from outside: {error.strerror or error}") from None
    request = seen.headers.get("x-request-id", "")
    if request and not trusted and _address_in_log(nginx.id, request) == FORGED_ADDRESS:
        message = "nginx takes a client's address from the client's own headers (X-Forwarded-For)."
        found.append(problem("proxy.address", message, RECREATE))
    yield from found or [
        ok("proxy", "nginx believes no header of a client, checks the host, and sends its security headers.")
    ]


def is_trusted(installation: Installation, nginx: str) -> bool:
    """Whether nginx takes this host for one of its NGINX_TRUSTED_PROXIES."""
    networks = [
        ip_network(item.strip(), strict=False)
        for item in installation.setting("NGINX_TRUSTED_PROXIES").split(",")
        if item
    ]
    if not networks:
        return False
    request = door(installation).ask("/api/transactions/").headers.get("x-request-id", "")
    address = _address_in_log(nginx, request) if request else None
    return address is not None and any(ip_address(address) in network for network in networks)


def judge_door(entrance: Door, *, trusted: bool = False) -> Findings:
    """Judge by the answers alone; ``trusted`` proxies may say how they were asked."""
    honest = entrance.ask("/api/transactions/")
    forged_id = secrets.token_hex(16)
    named = entrance.ask("/api/transactions/", {"X-Request-ID": forged_id})
    if not re.fullmatch(r"[0-9a-f]{32}", named.headers.get("x-request-id", "")):
        yield problem("proxy.request-id", "Answers carry no X-Request-ID of nginx.", RECREATE)
    elif named.headers["x-request-id"] == forged_id:
        yield problem("proxy.request-id", "A client's X-Request-ID is believed.", RECREATE)
    yield from _believed(entrance, honest, trusted=trusted)
    stranger = entrance.ask("/api/transactions/", host=FORGED_HOST)
    if stranger.status != HTTPStatus.MISDIRECTED_REQUEST:
        message = f"A host that is not in DJANGO_ALLOWED_HOSTS is answered with {stranger.status}, not 421."
        yield problem("proxy.host", message, RECREATE)
    wanted = {**HEADERS, **({"Strict-Transport-Security": r"max-age=\d{7,}.*"} if entrance.tls else {})}
    for what, answer in (("an answer of the backend", honest), ("an answer of nginx", stranger)):
        wrong = {
            name for name, pattern in wanted.items() if not re.fullmatch(pattern, answer.headers.get(name.lower(), ""))
        }
        if wrong:
            yield problem("proxy.headers", f"{what[0].upper()}{what[1:]} lacks {listed(wrong)}.", RECREATE)
            break
    if re.search(r"\d", honest.headers.get("server", "")):
        yield problem("proxy.server", "Answers tell the version of the server.", RECREATE)


def _believed(entrance: Door, honest: Answer, *, trusted: bool) -> list[Finding]:
    lies = {
        "X-Forwarded-Host": FORGED_HOST,
        "X-Forwarded-Proto": "http" if entrance.tls else "https",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Ssl": "on",
    }
    if trusted:
        del lies["X-Forwarded-Proto"]
    believed = set()
    for name, value in lies.items():
        answer = entrance.ask("/api/transactions/", {name: value})
        if _lasting(answer) != _lasting(honest):
            believed.add(name)
    if not believed:
        return []
    return [problem("proxy.forwarded", f"A client's {listed(believed)} changes the answer.", RECREATE)]


def _lasting(answer: Answer) -> tuple[int, dict[str, str]]:
    # The words of Allow and Vary come in an order that differs between the processes of the backend.
    words = {name: " ".join(sorted(re.split(r"[,;\s]+", value))) for name, value in answer.headers.items()}
    return answer.status, {name: value for name, value in words.items() if name not in OF_THE_MOMENT}


def _address_in_log(container: str, request: str) -> str | None:
    """Return the client address that nginx logged for a request; the line may take a moment."""
    for _attempt in range(5):
        for line in run("docker", "logs", "--since", "1m", container).stdout.splitlines():
            if request in line:
                try:
                    return str(json.loads(line)["remote_addr"])
                except (ValueError, KeyError):
                    return None
        time.sleep(0.2)
    return None
