"""HTTPS, switched on and off as an operator would: by ./scripts/up, with a certificate or without."""

import json
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.operations.certificates import DAY, Authority, Files, Pair, replace
from tests.operations.test_doctor import examine, mend, wrong
from tests.stack.containers import SERVERS, Result, Stack, docker, eventually, free_port, run
from tests.stack.images import built
from tests.stack.load import Load
from tests.stack.people import connect, sign_up, unique

pytestmark = pytest.mark.timeout(300)

CONFIGURATION_ERROR = 78
PAGE = 10
SERVED_WITHIN_SECONDS = 60
CONSEQUENCES = {"MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"}
"""The severities of testssl.sh above LOW, and those of a check that could not be made."""


@dataclass(frozen=True)
class Secure:
    """The stack with TLS."""

    stack: Stack
    files: Files
    authority: Authority
    first: Pair
    plain_url: str
    https_port: int

    @property
    def base_url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority.certificate_pem().decode())

    def client(self) -> httpx.Client:
        return connect(self.base_url, verify=self.trust())

    def connection(self, trust: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
        """Shake hands."""
        plain = socket.create_connection(("127.0.0.1", self.https_port), timeout=10)
        return trust.wrap_socket(plain, server_hostname=name)

    def serial(self) -> int:
        """Return which certificate is served."""
        with self.connection(self.trust()) as connection:
            shown = connection.getpeercert()
        assert shown
        return int(str(shown["serialNumber"]), 16)

    def wait_for(self, pair: Pair) -> None:
        deadline = time.monotonic() + SERVED_WITHIN_SECONDS
        while self.serial() != pair.serial:
            assert time.monotonic() < deadline, f"not served within {SERVED_WITHIN_SECONDS} s"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def secure(stack: Stack, base_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """The stack has TLS; afterwards it has none."""
    files = Files(tmp_path_factory.mktemp("tls"))
    files.folder.chmod(0o755)  # the folder above it is closed, as an operator's should be
    authority = Authority()
    files.write(first := authority.sign())
    https_port = free_port()
    # What the shell has wins over .env.
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**files.variables(), "HTTPS_PORT": str(https_port)}.items():
            patch.setenv(name, value)
        try:
            run(str(stack.checkout / "scripts/up"), "--detach", timeout=240)
            yield Secure(stack, files, authority, first, base_url, https_port)
        finally:
            patch.undo()
            stack.compose("up", "--detach", "--no-build", "--wait")
            stack.wait_until_whole()


@pytest.fixture
def original(secure: Secure) -> Iterator[Secure]:
    """The stack with TLS, for a test that replaces the certificate."""
    yield secure
    secure.files.write(secure.first)
    secure.wait_for(secure.first)


def started(secure: Secure) -> tuple[str, str]:
    """Which container nginx is in, and since when: a restart keeps the first and not the second."""
    nginx = secure.stack.container("nginx")
    return nginx.id, nginx.inspect()["State"]["StartedAt"]


def nginx_log(secure: Secure) -> str:
    return "\n".join(line for line in secure.stack.logs("nginx").splitlines() if not line.startswith("{"))


def test_without_a_certificate_there_is_no_second_port(stack: Stack) -> None:
    ports = stack.container("nginx").inspect()["NetworkSettings"]["Ports"]

    assert [port for port, published in ports.items() if published] == ["8080/tcp"]
    listening = stack.container("nginx").execute("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
    assert f":{8443:04X} " not in listening
    assert f":{8080:04X} " in listening


# Served over TLS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_either_version_shakes_hands_and_may_speak_http_2(secure: Secure, version: ssl.TLSVersion) -> None:
    trust = secure.trust()
    trust.minimum_version = trust.maximum_version = version
    trust.set_alpn_protocols(["h2", "http/1.1"])

    with secure.connection(trust) as connection:
        agreed = connection.version(), connection.selected_alpn_protocol()

    assert agreed == ({"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name], "h2")


def test_the_api_is_served_over_http_2(secure: Secure) -> None:
    ask = (
        "curl",
        "--silent",
        "--insecure",
        "--http2",
        "--write-out",
        " %{http_version}",
        "https://localhost:8443/readyz",
    )

    assert secure.stack.container("nginx").execute(*ask).stdout == '{"status": "ready"} 2'


def test_links_to_further_pages_stay_in_https(secure: Secure) -> None:
    with closing((person := sign_up(secure.base_url, "alice", verify=secure.trust())).client) as client:
        for number in range(PAGE + 1):
            person.record(f"row {number}")
        first = client.get("/api/transactions/").json()
        second = client.get(first["next"])

    prefix = f"{secure.base_url}/api/transactions/"
    assert first["next"].startswith(prefix)
    assert second.status_code == HTTPStatus.OK
    assert second.json()["previous"].startswith(prefix)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_plain_http_is_redirected_with_its_method_path_and_query(secure: Secure, method: str) -> None:
    with connect(secure.plain_url) as client:
        answer = client.request(method, "/api/transactions/?search=a%20b&page=2")

    assert answer.status_code == HTTPStatus.PERMANENT_REDIRECT
    assert answer.headers["Location"] == f"{secure.base_url}/api/transactions/?search=a%20b&page=2"
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize("path", ["/readyz", "/static/x.css", "/auth/jwt/create/", "/api/docs/"])
def test_nothing_is_served_over_plain_http(secure: Secure, path: str) -> None:
    with connect(secure.plain_url) as client:
        assert client.get(path).status_code == HTTPStatus.PERMANENT_REDIRECT


def test_a_host_that_is_not_ours_is_refused_with_and_without_tls(secure: Secure) -> None:
    with connect(secure.plain_url) as plain, secure.client() as client:
        answers = [one.get("/readyz", headers={"Host": "other.example"}) for one in (plain, client)]

    assert [answer.status_code for answer in answers] == [HTTPStatus.MISDIRECTED_REQUEST] * 2
    assert all("Location" not in answer.headers for answer in answers)


def test_every_answer_over_tls_says_that_plain_http_is_over(secure: Secure) -> None:
    with secure.client() as client:
        answers = [
            client.get("/readyz"),
            client.get("/api/transactions/"),
            client.get("/nothing-here/"),
            client.get("/static/nothing-here.css"),
            client.get("/readyz", headers={"Host": "other.example"}),
            client.post("/auth/jwt/create/", content=b"x" * 2_000_000),
        ]

    assert [answer.status_code for answer in answers] == [200, 401, 404, 404, 421, 413]
    assert {answer.headers.get("Strict-Transport-Security") for answer in answers} == {"max-age=63072000"}
    assert {answer.headers["Content-Type"].partition(";")[0] for answer in answers} == {"application/json"}


def test_plain_http_on_the_port_for_tls_is_refused_in_json(secure: Secure) -> None:
    with connect(f"http://127.0.0.1:{secure.https_port}") as client:
        answer = client.get("/readyz")

    assert (answer.status_code, list(answer.json())) == (HTTPStatus.BAD_REQUEST, ["detail"])


def test_only_nginx_sees_the_files_and_cannot_change_them(secure: Secure) -> None:
    mounted = {
        service: [
            (mount["Source"], mount["RW"])
            for mount in secure.stack.container(service).inspect()["Mounts"]
            if mount["Source"] == str(secure.files.folder)
        ]
        for service in SERVERS
    }

    assert mounted.pop("nginx") == [(str(secure.files.folder), False)] * 2
    assert set(map(tuple, mounted.values())) == {()}


def test_nginx_says_when_the_certificate_ends(secure: Secure) -> None:
    said = secure.stack.container("nginx").execute("/entrypoint.sh", "--certificate").stdout

    assert re.fullmatch(r"179 20[0-9-]+ [0-9:]+ UTC\n", said)


def test_doctor_has_no_finding_over_tls_and_warns_14_days_ahead(original: Secure) -> None:
    healthy = examine(original.stack)
    original.files.write(original.authority.sign(ends=timedelta(days=13, hours=12)))
    late = examine(original.stack)

    # The address of a test is named by nothing but the certificate of a test, and the engine's disk is not its own.
    assert {identity for identity in wrong(healthy) if not identity.startswith("certificate.names")} == set()
    assert healthy["certificate"]["level"] == "ok"
    assert late["certificate"]["level"] == "warning"
    assert re.search(r"expires in 1[34] days", late["certificate"]["message"])


def test_doctor_finds_a_new_certificate_whose_key_nginx_cannot_read(original: Secure) -> None:
    original.files.write(new := original.authority.sign())
    original.files.key.chmod(0o600)

    found = examine(original.stack)["certificate"]

    assert found["level"] == "problem"
    assert found["message"].startswith("TLS_KEY_FILE cannot be read by nginx, which is user 101")
    assert original.serial() == original.first.serial
    mend(original.stack, found)
    original.wait_for(new)
    assert examine(original.stack)["certificate"]["level"] == "ok"


WATCHERS = "for pid in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' <$pid/cmdline)\" != '{}' ] || echo ${{pid#/proc/}}; done"


def test_doctor_finds_that_nginx_serves_another_certificate_than_the_files_hold(original: Secure) -> None:
    nginx = original.stack.container("nginx")
    # Of the processes of the entry point those that look for a new certificate came later.
    _main, *watchers = sorted(
        map(int, nginx.execute("sh", "-c", WATCHERS.format("bash /entrypoint.sh ")).stdout.split())
    )
    nginx.execute("bash", "-c", 'kill -KILL "$@"', "bash", *map(str, watchers))
    original.files.write(new := original.authority.sign(ends=timedelta(days=90)))
    for file in (original.files.certificate, original.files.key):
        os.utime(file, (time.time() - 2 * SERVED_WITHIN_SECONDS,) * 2)

    found = examine(original.stack)

    assert found["certificate"]["level"] == "ok"
    assert found["certificate.served"]["level"] == "problem"
    assert "it lasts 179 more days" in found["certificate.served"]["message"]
    assert original.serial() == original.first.serial
    mend(original.stack, found["certificate.served"])
    original.stack.compose("up", "--detach", "--no-build", "--wait")
    assert original.serial() == new.serial
    assert "certificate.served" not in examine(original.stack)


# Replaced while it serves ---------------------------------------------------------------------------------------------


def test_a_new_certificate_is_served_within_a_minute_and_no_request_fails(original: Secure) -> None:
    before = started(original)

    secure = Stack(original.stack.checkout, original.base_url, original.stack.project)
    with Load(secure, trust=original.trust()) as load:
        for _ in range(2):
            original.files.write(new := original.authority.sign())
            original.wait_for(new)

    load.assert_whole()
    assert started(original) == before


def test_a_certificate_that_is_written_in_place_is_served_too(original: Secure) -> None:
    new = original.authority.sign(key=rsa.generate_private_key(65537, 2048))
    original.files.certificate.write_bytes(new.certificate_pem())
    original.files.key.write_bytes(new.key_pem())

    original.wait_for(new)

    assert "nginx serves the new certificate" in nginx_log(original)


def test_a_bad_new_certificate_is_named_and_the_old_one_stays(original: Secure) -> None:
    replace(original.files.certificate, original.authority.sign().certificate_pem())

    eventually(
        lambda: "TLS_KEY_FILE is not the key" in nginx_log(original),
        within=SERVED_WITHIN_SECONDS,
        what="the error is in the log",
    )

    assert "nginx goes on with the certificate it has" in nginx_log(original)
    assert original.serial() == original.first.serial
    with original.client() as client:
        assert client.get("/readyz").status_code == HTTPStatus.OK


# Refused at the start -------------------------------------------------------------------------------------------------


def start(secure: Secure) -> Result:
    return secure.stack.compose("run", "--rm", "--no-deps", "--no-TTY", "nginx", "--test", check=False, timeout=60)


def unreadable(files: Files, authority: Authority) -> None:
    files.write(authority.sign())
    files.key.chmod(0o600)


def missing(files: Files, authority: Authority) -> None:
    files.write(authority.sign())
    files.certificate.unlink()


def folder(files: Files, authority: Authority) -> None:
    files.write(authority.sign())
    files.certificate.unlink()
    files.certificate.mkdir()


def link_to_another_folder(files: Files, authority: Authority) -> None:
    files.write(authority.sign())
    elsewhere = files.folder.parent / unique("archive")
    files.certificate.rename(elsewhere)
    files.certificate.symlink_to(elsewhere)


def swapped(files: Files, authority: Authority) -> None:
    pair = authority.sign()
    replace(files.certificate, pair.key_pem())
    replace(files.key, pair.certificate_pem())


def mismatched(files: Files, authority: Authority) -> None:
    replace(files.certificate, authority.sign().certificate_pem())
    replace(files.key, authority.sign().key_pem())


def weak(files: Files, authority: Authority) -> None:
    files.write(authority.sign(key=rsa.generate_private_key(65537, 1024)))  # noqa: S505 # that is what must be refused


Spoil = Callable[[Files, Authority], None]

BAD: dict[str, tuple[Spoil, list[str]]] = {
    "expired": (
        lambda files, authority: files.write(authority.sign(begins=-2 * DAY, ends=timedelta(minutes=-1))),
        ["TLS_CERT_FILE has expired, on 20"],
    ),
    "not yet valid": (
        lambda files, authority: files.write(authority.sign(begins=timedelta(hours=1))),
        ["TLS_CERT_FILE is not valid before 20"],
    ),
    "mismatched": (mismatched, ["TLS_KEY_FILE is not the key of the certificate in TLS_CERT_FILE"]),
    "unreadable": (unreadable, ["TLS_KEY_FILE cannot be read by nginx, which is user 101"]),
    "protected by a password": (
        lambda files, authority: files.write(authority.sign(), password=b"correct horse"),
        ["TLS_KEY_FILE is protected by a password"],
    ),
    "missing": (missing, ["TLS_CERT_FILE names a file that does not exist"]),
    "a folder": (folder, ["TLS_CERT_FILE names a folder"]),
    "a link": (link_to_another_folder, ["TLS_CERT_FILE is a link to another folder"]),
    "swapped": (swapped, ["TLS_CERT_FILE holds no certificate", "TLS_KEY_FILE holds no private key"]),
    "weak": (weak, ["TLS_CERT_FILE and TLS_KEY_FILE are refused by nginx: "]),
}


@pytest.mark.parametrize("what", BAD)
def test_a_certificate_that_is_bad_is_refused_by_name(
    secure: Secure, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path / "tls")
    files.folder.mkdir(mode=0o755)
    spoil, complaints = BAD[what]
    spoil(files, secure.authority)
    for name, value in files.variables().items():
        monkeypatch.setenv(name, value)

    result = start(secure)

    assert result.returncode == CONFIGURATION_ERROR, result.stderr
    said = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("  - ")]
    assert len(said) == len(complaints), said
    for line, complaint in zip(said, complaints, strict=True):
        assert line.startswith(f"  - {complaint}")
    assert "BEGIN" not in result.stderr


@pytest.mark.parametrize("name", ["TLS_CERT_FILE", "TLS_KEY_FILE"])
def test_one_file_without_the_other_is_refused_by_name(
    secure: Secure, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)

    result = start(secure)

    assert result.returncode == CONFIGURATION_ERROR, result.stderr
    assert f"  - {name} is missing although" in result.stderr + result.stdout


@pytest.mark.parametrize(
    ("value", "status", "complaint"),
    [
        ("secrets/certificate.pem", CONFIGURATION_ERROR, "  - TLS_CERT_FILE is "),
        ("/no/such/folder/tls.pem", 1, "TLS_CERT_FILE in .env names a file in a folder that does not exist"),
    ],
)
def test_a_folder_that_does_not_exist_is_refused_by_up_before_anything_happens(
    stack: Stack, tmp_path: Path, value: str, status: int, complaint: str
) -> None:
    for name in ("scripts", "backend"):
        shutil.copytree(stack.checkout / name, tmp_path / name)
    for name in ("env.example", "docker-compose.yml", "docker-compose.listeners.yml"):
        shutil.copy(stack.checkout / name, tmp_path)
    environment = {**os.environ, "COMPOSE_PROJECT_NAME": unique("never"), "TLS_CERT_FILE": value}

    result = run(str(tmp_path / "scripts/up"), "--detach", check=False, env=environment)

    assert result.returncode == status
    assert complaint in result.stderr


# What others think of it ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_testssl_finds_nothing_above_low(secure: Secure, stack: Stack, tmp_path: Path) -> None:
    image = built("testssl", stack.checkout)
    trusted = tmp_path / "trusted"
    trusted.mkdir(mode=0o755)
    replace(trusted / "authority.pem", secure.authority.certificate_pem())
    name = unique(f"{stack.name()}-own")
    try:
        result = docker(
            *("run", "--rm", "--name", name, "--network", "host", "--read-only", "--cap-drop", "ALL"),
            *("--tmpfs", "/tmp:mode=1777", "--volume", f"{trusted}:/trusted:ro", image),
            *(
                "--quiet",
                "--color",
                "0",
                "--warnings",
                "off",
                "--ip",
                "127.0.0.1",
                "--add-ca",
                "/trusted/authority.pem",
            ),
            *("--jsonfile", "/dev/stderr", f"https://localhost:{secure.https_port}/api/transactions/"),
            check=False,
            timeout=500,
        )
    finally:
        docker("rm", "--force", name, check=False)
    findings = json.loads(result.stderr[result.stderr.index("[") :])

    assert {"TLS1_2", "TLS1_3", "HSTS_time", "cert_trust"} <= {finding["id"].split(" ")[0] for finding in findings}
    # It lacks GOST, which nobody here speaks.
    known = {"engine_problem"}
    assert [one for one in findings if one["severity"] in CONSEQUENCES and one["id"] not in known] == []
