"""nginx/ read as data: what it includes, limits, hides and answers, and what its entry point accepts.

No container and no nginx: the entry point runs for real with a stand-in for the nginx program, and gixy judges what it
rendered. What only a running nginx can show is in tests/stack/.
"""

from __future__ import annotations

import ast
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

import pytest

from config import env as config_env
from tests.operations.certificates import Authority

REPOSITORY = Path(__file__).resolve().parents[2]
NGINX = REPOSITORY / "nginx"
ENV = (REPOSITORY / "backend/config/env.py").read_text()
EX_CONFIG = 78


# For a host without the package gettext-base: the variables of the first argument, and no others, by their values.
ENVSUBST = f"""\
#!{sys.executable}
import os, re, sys
listed = set(re.findall(r"\\$\\{{(\\w+)\\}}", sys.argv[1]))
value = lambda found: os.environ.get(found[1], "") if found[1] in listed else found[0]
sys.stdout.write(re.sub(r"\\$\\{{(\\w+)\\}}", value, sys.stdin.read()))
"""

# For a host without the package openssl: what the entry point asks about a certificate and a key.
OPENSSL = f"""\
#!{sys.executable}
import sys
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
kind, options = sys.argv[1], sys.argv[2:]
data = open(options[options.index("-in") + 1], "rb").read()
try:
    found = load_pem_x509_certificate(data) if kind == "x509" else load_pem_private_key(data, None)
except ValueError as error:
    sys.exit(str(error))
if "-startdate" in options:
    print(f"notBefore={{found.not_valid_before_utc:%b %d %H:%M:%S %Y}} GMT")
if "-enddate" in options:
    print(f"notAfter={{found.not_valid_after_utc:%b %d %H:%M:%S %Y}} GMT")
if {{"-pubkey", "-pubout"}} & {{*options}}:
    print(found.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), end="")
"""

# gixy's findings that are left as they are: the plugin's name and the reason. Empty, and meant to stay so.
ACCEPTED_FINDINGS: dict[str, str] = {}


# The configuration as data -------------------------------------------------------------------------


@dataclass
class Directive:
    """One directive of a configuration file, with the directives in its block."""

    name: str
    arguments: list[str]
    file: Path
    block: list[Directive] = field(default_factory=list)

    def walk(self) -> Iterator[Directive]:
        yield self
        for directive in self.block:
            yield from directive.walk()


TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<mark>[{};])|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'"""
    r"""|(?P<bare>(?:\$\{\w+\}|[^\s;{}"'\#])(?:\$\{\w+\}|[^\s;{}])*)"""
)


def parse(path: Path) -> list[Directive]:
    top: list[Directive] = []
    words: list[str] = []
    blocks, position = [top], 0
    text = path.read_text()
    while position < len(text):
        token = TOKEN.match(text, position)
        assert token, f"{path.name}: cannot be read at {text[position : position + 40]!r}"
        position = token.end()
        mark = token["mark"]
        if mark == "}":
            assert not words, f"{path.name}: a block ends in the middle of {words}"
            blocks.pop()
        elif mark:
            directive = Directive(words[0], words[1:], path)
            blocks[-1].append(directive)
            if mark == "{":
                blocks.append(directive.block)
            words = []
        elif token["double"] is not None:
            words.append(token["double"])
        elif token["single"] is not None:
            words.append(token["single"])
        elif token["bare"]:
            words.append(token["bare"])
    assert len(blocks) == 1, f"{path.name}: a block is not closed"
    assert not words, f"{path.name}: the last directive is not closed"
    return top


SOURCES = sorted(path for path in NGINX.rglob("*") if path.name.endswith((".conf", ".conf.template")))
SNIPPETS = [path for path in SOURCES if path.parent.name == "snippets"]


def every(name: str) -> list[Directive]:
    """Every directive of that name, in all files."""
    return [found for path in SOURCES for top in parse(path) for found in top.walk() if found.name == name]


def only(name: str) -> Directive:
    """The one directive of that name."""
    found = every(name)
    assert len(found) == 1, f"{name} is there {len(found)} times"
    return found[0]


def map_to(variable: str) -> list[Directive]:
    """The lines of the map that sets ``variable``."""
    (found,) = [directive for directive in every("map") if directive.arguments[1] == variable]
    return found.block


def mapped(variable: str, value: str) -> str:
    """What a map of regular expressions and constants makes of ``value``."""
    default = ""
    for line in map_to(variable):
        key, result = line.name, line.arguments[0]
        flags = re.IGNORECASE if key.startswith("~*") else re.NOFLAG
        if key == "default":
            default = result
        elif key == value or (key.startswith("~") and re.search(key.lstrip("~").removeprefix("*"), value, flags)):
            return result
    return default


def seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)s", text)
    assert match, f"{text} is no number of seconds"
    return int(match[1])


def location(modifier: str, path: str) -> Directive:
    (found,) = [found for found in every("location") if found.arguments in ([modifier, path], [path])]
    return found


# The entry point -----------------------------------------------------------------------------------


@dataclass
class Container:
    """The entry point with its directories below a temporary one, and a program that only notes how it was called."""

    root: Path

    @property
    def configuration(self) -> Path:
        return self.root / "etc/nginx/nginx.conf"

    @property
    def live(self) -> Path:
        """The link to what nginx reads."""
        return self.root / "tmp/nginx/live"

    def handed_over(self, number: int) -> Path:
        """What was handed over for the backends of a deployment."""
        return self.root / "srv/nginx" / str(number)

    def static(self, **files: str) -> None:
        """Put static files into the image, in place of those that it has."""
        folder = self.root / "usr/share/nginx/static"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / f"{name}.css").write_text(text)

    def sign(self, folder: Path) -> None:
        """Write a new certificate and its key."""
        pair = Authority().sign()
        (folder / "certificate/certificate.pem").write_bytes(pair.certificate_pem())
        (folder / "key/key.pem").write_bytes(pair.key_pem())

    def command(self, *arguments: str, **variables: str) -> tuple[list[str], dict[str, str]]:
        environment = {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", **variables}
        return [str(self.root / "etc/nginx/entrypoint.sh"), *arguments], environment

    def start(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command, environment = self.command(*arguments, **variables)
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def calls(self) -> list[str]:
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []

    def rendered(self, name: str) -> str:
        return (self.root / "tmp/nginx" / name).read_text()


@pytest.fixture
def container(tmp_path: Path) -> Container:
    shutil.copytree(NGINX, tmp_path / "etc/nginx")
    for path in (tmp_path / "etc/nginx").rglob("*"):
        if path.is_file():
            text = path.read_text()
            for folder in ("/tmp/nginx", "/etc/nginx", "/srv/nginx", "/usr/share/nginx"):
                text = text.replace(folder, f"{tmp_path}{folder}")
            path.write_text(text)
    # The base image brings it.
    (tmp_path / "etc/nginx/mime.types").write_text("types { text/css css; }\n")
    (tmp_path / "bin").mkdir()
    programs = {"nginx": f'#!/bin/sh\necho "$*" >>"{tmp_path}/calls"\n'}
    # The image has the real ones, and so have tests/stack and tests/operations.
    others = {"envsubst": ENVSUBST, "openssl": OPENSSL}
    programs |= {name: text for name, text in others.items() if shutil.which(name) is None}
    for name, text in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return Container(tmp_path)


def test_entrypoint_renders_the_defaults_and_runs_nginx(container: Container) -> None:
    result = container.start(DJANGO_ALLOWED_HOSTS="localhost, .example.com ,127.0.0.1,[::1]")

    assert result.returncode == 1, "the program of this test ends at once, and nobody had told it to"
    assert result.stderr == "nginx: it has ended by itself; its last lines say why.\n"
    assert container.calls() == ["-e stderr -t -q", f"-e stderr -c {container.live}/nginx.conf -g daemon off;"]
    assert container.live.readlink() == container.configuration.parent
    assert "server_name localhost .example.com 127.0.0.1 [::1];" in container.rendered("servers/http.conf")
    assert "worker_processes 2;" in container.rendered("snippets/workers.conf")
    assert "client_max_body_size 1024k;" in container.rendered("snippets/request-body.conf")
    assert "proxy_read_timeout 12s;" in container.rendered("snippets/upstream-timeouts.conf")
    per_address = container.rendered("snippets/connections-per-address.conf")
    assert "limit_conn connections_per_address 100;" in per_address
    assert "$binary_remote_addr" in per_address, "a variable of nginx's own was replaced"
    assert "zone=authentication:10m rate=30r/m;" in container.rendered("snippets/auth-rate.conf")


def test_what_is_handed_over_needs_nothing_of_the_image_that_it_came_from(container: Container) -> None:
    container.static(one="a {}")

    result = container.start("--hand-over", "7", DJANGO_ALLOWED_HOSTS="localhost")

    tree = container.handed_over(7)
    assert result.returncode == 0, result.stderr
    assert container.calls()[-1] == f"-e stderr -t -q -c {tree}/nginx.conf"
    assert (tree / "public/static/one.css").read_text() == "a {}"
    assert f"root {tree}/public;" in (tree / "snippets/static-files.conf").read_text()
    directives = [line for path in tree.rglob("*.conf") for line in path.read_text().splitlines() if line[:1] != "#"]
    included = [line.split()[1] for line in directives if line.strip().startswith("include /")]
    assert len(included) >= 6
    assert all(Path(path.rstrip(";")).is_relative_to(tree) for path in included)
    assert not [line for line in directives if f"{container.root}/etc" in line or f"{container.root}/usr" in line]


def servers_in(upstream: Path) -> list[list[str]]:
    return [d.arguments for top in parse(upstream) for d in top.walk() if d.name == "server"]


def test_the_backup_of_what_is_handed_over_is_known_before() -> None:
    """Across a reload nginx keeps what it has resolved for a server of the same name and kind, and for no other."""
    assert servers_in(NGINX / "snippets/upstream.conf") == [
        ["backend:8000", "resolve", "max_fails=0"],
        ["backend:8000", "resolve", "max_fails=0", "backup"],
    ]


def test_what_is_handed_over_is_for_the_backends_of_one_deployment(container: Container) -> None:
    container.static()
    container.start("--hand-over", "7", DJANGO_ALLOWED_HOSTS="localhost")

    upstream = container.handed_over(7) / "snippets/upstream.conf"
    assert servers_in(upstream) == [
        ["backend-7:8000", "resolve", "max_fails=0"],
        ["backend:8000", "resolve", "max_fails=0", "backup"],
    ]
    assert '    default "7";' in upstream.read_text().splitlines()


def test_static_files_of_the_release_before_are_handed_over_too_and_those_before_it_are_not(
    container: Container,
) -> None:
    for number, files in enumerate([{"first": "1"}, {"second": "2", "both": "2"}, {"third": "3", "both": "3"}]):
        container.static(**files)
        result = container.start("--hand-over", str(number), str(max(number - 1, 0)), DJANGO_ALLOWED_HOSTS="localhost")
        assert result.returncode == 0, result.stderr

    served = {path.stem: path.read_text() for path in (container.handed_over(2) / "public/static").iterdir()}

    assert served == {"second": "2", "third": "3", "both": "3"}


@pytest.mark.parametrize("number", ["", "x", "../7", "1 2"])
def test_a_deployment_has_a_number_and_nothing_else(container: Container, number: str) -> None:
    result = container.start("--hand-over", number, DJANGO_ALLOWED_HOSTS="localhost")

    assert result.returncode == 1
    assert not (container.root / "srv").exists()


def test_a_configuration_that_nginx_refuses_is_not_handed_over(container: Container) -> None:
    container.static()
    (container.root / "bin/nginx").write_text('#!/bin/sh\ncase "$*" in *srv/nginx*) exit 1 ;; esac\n')

    result = container.start("--hand-over", "7", DJANGO_ALLOWED_HOSTS="localhost")

    assert result.returncode == 1
    assert "not handed over" in result.stderr
    assert not (container.handed_over(7) / "complete").exists()


def test_a_container_that_is_restarted_serves_what_it_served(container: Container) -> None:
    container.static(one="")
    container.start("--hand-over", "7", DJANGO_ALLOWED_HOSTS="localhost", NGINX_CLIENT_MAX_BODY_KB="7")
    record = container.root / "srv/nginx/served"
    identity = container.start("--image", DJANGO_ALLOWED_HOSTS="localhost").stdout.strip()

    record.write_text(f"this {identity} 7\n")
    container.start(DJANGO_ALLOWED_HOSTS="localhost", HOSTNAME="this", NGINX_CLIENT_MAX_BODY_KB="8")
    restarted = (container.live.readlink(), (container.live / "rendered/snippets/request-body.conf").read_text())

    container.start(DJANGO_ALLOWED_HOSTS="localhost", HOSTNAME="another", NGINX_CLIENT_MAX_BODY_KB="8")
    made_anew = (container.live.readlink(), (container.live / "rendered/snippets/request-body.conf").read_text())

    container.static(two="")
    container.start(DJANGO_ALLOWED_HOSTS="localhost", HOSTNAME="another", NGINX_CLIENT_MAX_BODY_KB="8")
    of_another_image = container.live.readlink()

    assert restarted[0] == made_anew[0] == container.handed_over(7)
    assert "client_max_body_size 7k;" in restarted[1]
    assert "client_max_body_size 8k;" in made_anew[1], "it does not follow the variables of the new container"
    assert of_another_image == container.configuration.parent


def test_entrypoint_test_mode_does_not_start_nginx(container: Container) -> None:
    result = container.start("--test", DJANGO_ALLOWED_HOSTS="localhost")

    assert result.returncode == 0, result.stderr
    assert container.calls() == ["-e stderr -t -q"]


def test_entrypoint_puts_every_template_in_place_completely(container: Container) -> None:
    container.start("--test", DJANGO_ALLOWED_HOSTS="localhost")

    templates = {str(path.relative_to(NGINX)).removesuffix(".template") for path in NGINX.rglob("*.template")}
    rendered = {
        str(path.relative_to(container.root / "tmp/nginx"))
        for path in (container.root / "tmp/nginx").rglob("*")
        if path.is_file()
    }
    assert rendered == templates
    for name in rendered:
        assert "${" not in container.rendered(name), f"{name} has a variable that nobody sets"


def test_entrypoint_names_every_bad_variable_in_one_message_without_its_value(container: Container) -> None:
    bad = {
        "DJANGO_ALLOWED_HOSTS": "good.example,*bad1",
        "NGINX_AUTH_RATE": "30r/m;bad3",
        "NGINX_CLIENT_MAX_BODY_KB": "4096",
        "NGINX_CONNECTIONS_PER_ADDRESS": "",
        "NGINX_TRUSTED_PROXIES": "10.0.0.0/8;bad4",
        "NGINX_UPSTREAM_TIMEOUT_SECONDS": "12s-bad2",
        "NGINX_WORKER_PROCESSES": "auto",
    }

    result = container.start(**bad)

    assert result.returncode == EX_CONFIG
    assert result.stdout == ""
    assert container.calls() == [], "nginx ran with a bad configuration"
    for name, value in bad.items():
        assert name in result.stderr
        assert not value or value not in result.stderr, f"the value of {name} is printed"
    assert "run ./scripts/up again" in result.stderr


@pytest.mark.parametrize(
    "hosts",
    [
        *[
            "*",
            ".",
            "_",
            "-a",
            "a b",
            "a_b",
            "a..b",
            "..a",
            "a/b",
            "a;b",
            "{x}",
            "$host",
            "~^x",
            "é.example",
            "a" * 300,
        ],
        *["a,,b", "a,", " , ", "a\nb", "localhost\n;"],
        *["example.com:8000", "::1", "[::1", "[]"],
    ],
)
def test_entrypoint_refuses_what_is_no_list_of_host_names(container: Container, hosts: str) -> None:
    result = container.start("--test", DJANGO_ALLOWED_HOSTS=hosts)

    assert result.returncode == EX_CONFIG
    assert "DJANGO_ALLOWED_HOSTS" in result.stderr
    assert container.calls() == []


def test_entrypoint_requires_the_host_names(container: Container) -> None:
    result = container.start("--test")

    assert result.returncode == EX_CONFIG
    assert "DJANGO_ALLOWED_HOSTS is missing" in result.stderr


def test_entrypoint_refuses_unknown_arguments(container: Container) -> None:
    result = container.start("--tset", DJANGO_ALLOWED_HOSTS="localhost")

    assert result.returncode == os.EX_USAGE
    assert "usage:" in result.stderr
    assert container.calls() == []


def test_entrypoint_and_the_registry_of_variables_accept_the_same() -> None:
    in_entrypoint = {
        name: (default, int(minimum), int(maximum))
        for name, default, minimum, maximum in re.findall(
            r"^\s*check_whole (\w+) (\d+) (\d+) (\d+)$", (NGINX / "entrypoint.sh").read_text(), re.MULTILINE
        )
    }

    in_registry = {}
    for node in ast.walk(ast.parse((REPOSITORY / "backend/config/env.py").read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call):
            name = node.targets[0].id
            given = {keyword.arg: keyword.value for keyword in node.value.keywords}
            if name in in_entrypoint:
                parser = given["parse"]
                assert isinstance(parser, ast.Call)
                minimum, maximum = (ast.literal_eval(argument) for argument in parser.args)
                in_registry[name] = (ast.literal_eval(given["default"]), minimum, maximum)

    assert in_entrypoint
    assert in_registry == in_entrypoint


@pytest.mark.parametrize(
    ("rate", "burst", "wait"),
    [
        ("30r/m", 5, 2),
        ("1r/m", 5, 60),
        ("7r/m", 5, 9),
        ("61r/m", 5, 1),
        ("9999r/m", 167, 1),
        ("5r/s", 5, 1),
        ("99999r/s", 99999, 1),
    ],
)
def test_entrypoint_derives_burst_and_wait_from_the_rate(
    container: Container, rate: str, burst: int, wait: int
) -> None:
    result = container.start("--test", DJANGO_ALLOWED_HOSTS="localhost", NGINX_AUTH_RATE=rate)

    assert result.returncode == 0, result.stderr
    rendered = container.rendered("snippets/auth-rate.conf")
    assert f"rate={rate};" in rendered
    assert f"limit_req zone=authentication burst={burst} nodelay;" in rendered
    assert f"REJECTED {wait};" in rendered


@pytest.mark.parametrize(
    "rate", ["", "30", "0r/m", "030r/m", "100000r/s", "30r/h", "-1r/m", "3 r/m", "1.5r/s", "3r/s "]
)
def test_entrypoint_refuses_what_the_registry_refuses_as_a_rate(container: Container, rate: str) -> None:
    accepted = re.search(r'NGINX_AUTH_RATE = Variable\(.*?parse=text\(r"([^"]+)"\)', ENV, re.DOTALL)
    assert accepted
    assert not re.fullmatch(accepted[1], rate)

    result = container.start("--test", DJANGO_ALLOWED_HOSTS="localhost", NGINX_AUTH_RATE=rate)

    assert result.returncode == EX_CONFIG
    assert "NGINX_AUTH_RATE must be" in result.stderr


@pytest.mark.parametrize(
    "proxies",
    [
        *("", ",", "10.0.0.1,", "0.0.0.0/0", "::/0", "10.0.0.0/33", "10.0.0.256", "2001:db8::/129", "fe80::1%eth0"),
        *("example.com", "10.0.0.1 1; } evil {", "10.0.0.0/255.0.0.0"),
    ],
)
def test_entrypoint_refuses_what_the_registry_refuses_as_proxies(container: Container, proxies: str) -> None:
    with pytest.raises(config_env.InvalidError):
        config_env.networks(proxies)

    result = container.start("--test", DJANGO_ALLOWED_HOSTS="localhost", NGINX_TRUSTED_PROXIES=proxies)

    assert result.returncode == EX_CONFIG
    assert "NGINX_TRUSTED_PROXIES must be" in result.stderr


@pytest.mark.parametrize("proxies", ["192.0.2.10", "10.0.0.0/8,2001:db8::/48", " 192.0.2.1 , ::1/128 ", "::ffff:a00:1"])
def test_entrypoint_believes_the_proxies_that_the_registry_accepts(container: Container, proxies: str) -> None:
    result = container.start("--test", DJANGO_ALLOWED_HOSTS="localhost", NGINX_TRUSTED_PROXIES=proxies)

    assert result.returncode == 0, result.stderr
    rendered = container.rendered("snippets/trusted-proxies.conf")
    for network in config_env.networks(proxies):
        assert f"set_real_ip_from {network};" in rendered
        assert f"    {network} 1;" in rendered


# TLS -----------------------------------------------------------------------------------------------


def test_without_a_certificate_nothing_listens_for_tls(container: Container) -> None:
    container.start("--test", DJANGO_ALLOWED_HOSTS="localhost")

    assert container.rendered("servers/https.conf") == ""
    assert "include snippets/application.conf;" in container.rendered("servers/http.conf")


@pytest.fixture
def secure(container: Container) -> Container:
    """An entry point that finds a certificate and its key where Compose mounts them."""
    script = container.root / "etc/nginx/entrypoint.sh"
    text = script.read_text().replace("=/tmp/tls", f"={container.root}/tmp/tls")
    script.write_text(text.replace("=/run/tls", f"={container.root}/run/tls"))
    for folder in ("certificate", "key"):
        (container.root / "run/tls" / folder).mkdir(parents=True)
    container.sign(container.root / "run/tls")
    return container


TLS_FILES = {"TLS_CERT_FILE": "/etc/tls/certificate.pem", "TLS_KEY_FILE": "/etc/tls/key.pem"}


def test_a_certificate_that_is_replaced_while_nginx_starts_is_served(secure: Container) -> None:
    new = secure.root / "new"
    shutil.copytree(secure.root / "run/tls", new)
    secure.sign(new)
    script = secure.root / "etc/nginx/entrypoint.sh"
    script.write_text(script.read_text().replace("TLS_CHECK_SECONDS=20", "TLS_CHECK_SECONDS=0.2"))
    # After the pair was copied, nginx is asked whether it takes its configuration.
    (secure.root / "bin/nginx").write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'"-e stderr -t -q") cp -r "{new}/." "{secure.root}/run/tls" ;;\n'
        f'*daemon*) echo $$ >"{secure.root}/tmp/nginx.pid"; exec sleep 60 ;;\n'
        "esac\n"
    )

    command, environment = secure.command(DJANGO_ALLOWED_HOSTS="localhost", **TLS_FILES)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True) as running:
        assert running.stderr
        ready, _, _ = select.select([running.stderr], [], [], 20)
        said = running.stderr.readline() if ready else b"nothing"
        os.killpg(running.pid, signal.SIGKILL)

    assert said.startswith(b"nginx serves the new certificate")
    served = (secure.root / "tmp/tls/pair.pem").read_text()
    assert served.startswith((new / "certificate/certificate.pem").read_text())


@pytest.mark.parametrize("port", ["8443", "443"])
def test_with_a_certificate_plain_http_redirects_and_https_serves(secure: Container, port: str) -> None:
    result = secure.start("--test", DJANGO_ALLOWED_HOSTS="localhost", HTTPS_PORT=port, **TLS_FILES)

    assert result.returncode == 0, result.stderr
    assert "include snippets/redirect-to-https.conf;" in secure.rendered("servers/http.conf")
    assert "include snippets/application.conf" not in secure.rendered("servers/http.conf")
    assert "listen 8443 ssl;" in secure.rendered("servers/https.conf")
    assert "server_name localhost;" in secure.rendered("servers/https.conf")
    assert f'default ":{port}";' in secure.rendered("snippets/port-of-https.conf")
    assert list((secure.root / "tmp/tls").iterdir()) == [], "a copy of the key is left"


@pytest.mark.parametrize("name", TLS_FILES)
@pytest.mark.parametrize("value", ["", "certificate.pem", "/certificate.pem", "/a b/c", "/a/", None])
def test_a_file_of_tls_that_is_missing_or_no_path_is_refused_by_name(
    secure: Container, name: str, value: str | None
) -> None:
    given = {key: path for key, path in (TLS_FILES | {name: value}).items() if path is not None}

    result = secure.start("--test", DJANGO_ALLOWED_HOSTS="localhost", **given)

    assert result.returncode == EX_CONFIG
    assert [line.split()[1] for line in result.stderr.splitlines() if line.startswith("  - ")] == [name]


def test_both_listeners_for_tls_are_alike() -> None:
    servers = [found for found in every("server") if found.file.name == "https.conf.template"]

    assert len(servers) == 2
    for server in servers:
        found = {(inner.name, *inner.arguments) for inner in server.walk()}
        assert ("http2", "on") in found
        assert ("include", "snippets/tls.conf") in found
    assert only("ssl_protocols").arguments == ["TLSv1.2", "TLSv1.3"]


def test_only_suites_with_forward_secrecy_and_authenticated_encryption_are_offered() -> None:
    for suite in only("ssl_ciphers").arguments[0].split(":"):
        assert re.fullmatch(r"ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305)", suite)


# gixy ----------------------------------------------------------------------------------------------


def test_gixy_finds_nothing(container: Container) -> None:
    container.start("--test", DJANGO_ALLOWED_HOSTS="localhost,.example.com")
    program = shutil.which("gixy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "gixy is missing: install the group `lint` of backend/pyproject.toml"

    result = subprocess.run(
        [program, "--format", "json", str(container.configuration)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    findings = [found for found in json.loads(result.stdout) if found["plugin"] not in ACCEPTED_FINDINGS]
    assert findings == [], json.dumps(findings, indent=2)
    assert result.stderr == "", "gixy could not read everything"


# The files -----------------------------------------------------------------------------------------


def test_includes_name_files_that_exist_and_every_file_is_included() -> None:
    included = set()
    for directive in every("include"):
        (named,) = directive.arguments
        # What entrypoint.sh chooses from.
        chosen = re.findall(r"NGINX_HTTP_ANSWERS=(\S+)", (NGINX / "entrypoint.sh").read_text())
        for target in chosen if named == "${NGINX_HTTP_ANSWERS}" else [named]:
            assert "*" not in target, f"{directive.file.name} includes by glob"
            if target == "mime.types":  # of the base image
                continue
            rendered = target.startswith("/tmp/nginx/")
            path = NGINX / (f"{target.removeprefix('/tmp/nginx/')}.template" if rendered else target)
            assert path.exists(), f"{directive.file.name} includes {target}, which does not exist"
            included.add(path)

    assert included == set(SOURCES) - {NGINX / "nginx.conf"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_file_starts_with_what_and_why_and_has_a_link(path: Path) -> None:
    text = path.read_text()
    head = text[: len(text) - len(re.sub(r"\A(#[^\n]*\n)+", "", text))]

    assert len(head.splitlines()) >= 3, f"{path.name} does not say what it is for and why"
    assert "https://" in text, f"{path.name} links no source"


# Headers -------------------------------------------------------------------------------------------


def test_only_one_file_adds_headers_and_to_every_status() -> None:
    for directive in every("add_header"):
        assert directive.file.name == "response-headers.conf", "a second add_header drops all inherited ones"
        assert directive.arguments[2:] == ["always"]


def test_no_header_is_sent_by_both_nginx_and_the_backend() -> None:
    hidden = {directive.arguments[0] for directive in every("proxy_hide_header")}
    added = {directive.arguments[0] for directive in every("add_header")}
    # Added only when the backend did not send it.
    only_where_missing = {"Retry-After", "Allow"}
    settings = (REPOSITORY / "backend/config/settings.py").read_text()
    assert "SECURE_HSTS_SECONDS =" not in settings
    never_sent_by_the_backend = {"Strict-Transport-Security"}

    assert added - hidden == only_where_missing | never_sent_by_the_backend
    assert hidden <= added, "a header of the backend is hidden and not replaced"


def test_client_headers_about_the_client_are_overwritten() -> None:
    sent = {directive.arguments[0]: directive.arguments[1] for directive in every("proxy_set_header")}

    assert sent == {
        "Host": "$host$is_request_port$request_port",
        "X-Forwarded-For": "$remote_addr",
        "X-Forwarded-Proto": "$client_scheme",
        "X-Request-ID": "$request_id",
        "Accept-Encoding": "",
        "Connection": "",
        **dict.fromkeys(
            ["Forwarded", "Proxy", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Protocol", "X-Forwarded-Ssl"],
            "",
        ),
        "X-Real-IP": "",
    }
    assert {directive.file.name for directive in every("proxy_set_header")} == {"proxy.conf"}, (
        "a second level of proxy_set_header drops all inherited ones"
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("200 /static/admin/css/base.0123456789ab.css", "public, max-age=31536000, immutable"),
        ("304 /static/app.0123456789ab.js", "public, max-age=31536000, immutable"),
        ("404 /static/app.0123456789ab.js", "no-store"),
        ("200 /static/app.js", "no-cache"),
        ("200 /api/transactions/", "no-store"),
        ("200 /api/static/app.0123456789ab.js", "no-store"),
        ("503 /api/transactions/", "no-store"),
    ],
)
def test_only_hashed_static_files_are_kept_for_ever(answer: str, expected: str) -> None:
    assert mapped("$cache_control_of_nginx", answer) == expected


def test_retry_after_accompanies_429_and_503_unless_the_backend_sent_it() -> None:
    assert mapped("$retry_after", "429:") == "$retry_after_429"
    assert int(mapped("$retry_after_429", "")) > 0
    assert mapped("$retry_after_429", "REJECTED") == "${NGINX_AUTH_WAIT_SECONDS}"
    assert int(mapped("$retry_after", "503:")) > 0
    assert mapped("$retry_after", "503:30") == ""
    assert mapped("$retry_after", "200:") == ""


# Answers of nginx itself ---------------------------------------------------------------------------


def error_locations() -> dict[str, tuple[HTTPStatus, str]]:
    """Status and body of every location that an error_page leads to."""
    found = {}
    for directive in every("location"):
        for answer in directive.block:
            # health.conf speaks to the container alone; a redirect has an address in place of a body.
            if (
                answer.name == "return"
                and len(answer.arguments) == 2
                and answer.file.name != "health.conf"
                and not answer.arguments[0].startswith("3")
            ):
                found[directive.arguments[-1]] = (HTTPStatus(int(answer.arguments[0])), answer.arguments[1])
    return found


def test_every_answer_of_nginx_is_json_in_the_shape_of_the_api() -> None:
    answers = error_locations()

    assert len(answers) >= 13
    for name, (status, body) in answers.items():
        parsed = json.loads(body)
        assert list(parsed) == ["detail"], name
        assert parsed["detail"].endswith("."), name
        assert status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.SERVICE_UNAVAILABLE, name
    (default_type,) = [found for found in every("default_type") if found.file.name == "nginx.conf"]
    assert default_type.arguments == ["application/json"]


def test_every_status_that_nginx_gives_has_an_answer() -> None:
    covered = set()
    for directive in every("error_page"):
        *statuses, target = [argument for argument in directive.arguments if not argument.startswith("=")]
        targets = [line.arguments[0] for line in map_to(target)] if target.startswith("$") else [target]
        for name in targets:
            assert name in error_locations() or name == "@second_attempt", f"{name} does not exist"
        covered |= {int(status) for status in statuses}

    assert covered >= {400, 403, 404, 405, 411, 412, 413, 414, 416, 421, 429, *range(494, 498), *range(500, 506)}


def test_answers_of_the_backend_pass_untouched() -> None:
    assert every("proxy_intercept_errors") == []


@pytest.mark.parametrize(
    ("connect_times", "expected"),
    [("-", "@second_attempt"), ("-, -", "@second_attempt"), ("0.000", "@unavailable"), ("-, 0.001", "@unavailable")],
)
def test_only_a_request_that_was_never_sent_gets_a_second_attempt(connect_times: str, expected: str) -> None:
    assert mapped("$answer_to_failure", connect_times) == expected


def test_the_second_attempt_is_the_last_and_passes_over_a_container_that_refuses_at_once() -> None:
    attempt = {found.name: found.arguments for found in location("", "@second_attempt").block}

    assert attempt["recursive_error_pages"] == ["off"]
    assert attempt["error_page"] == ["500", "502", "503", "504", "=503", "@unavailable"]
    assert attempt["proxy_next_upstream"] == ["error"], "a timeout there would be one too many for the client"


def test_a_request_that_was_sent_is_not_repeated_unless_its_method_allows_it() -> None:
    for directive in every("proxy_next_upstream"):
        assert "non_idempotent" not in directive.arguments


# Requests that nginx refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["//auth/", "/api//x", "/auth/../x", "/..", "/./x", "/x/.", "/x/..?y", "/%2e%2E/x", "/.%2e/x", "/a%2fb", "/a%2Fb"],
)
def test_a_path_that_nginx_and_django_may_read_differently_is_refused(path: str) -> None:
    assert mapped("$path_is_ambiguous", path) == "yes"


@pytest.mark.parametrize(
    "path", ["/", "/api/transactions/1/", "/...", "/.well-known/x", "/a.b/c..d", "/x?next=//a/../b%2f", "/%20", "/a%2"]
)
def test_a_plain_path_is_not_refused(path: str) -> None:
    assert mapped("$path_is_ambiguous", path) == ""


def test_request_heads_stay_below_the_limits_of_gunicorn() -> None:
    gunicorn = ast.parse((REPOSITORY / "backend/gunicorn.conf.py").read_text())
    names = {node.id for node in ast.walk(gunicorn) if isinstance(node, ast.Name)}
    assert not names & {"limit_request_line", "limit_request_fields", "limit_request_field_size"}, (
        "Gunicorn's limits are not its defaults: compare them with nginx/snippets/request-head.conf"
    )

    assert mapped("$request_line_is_too_long", "GET /" + "a" * 3995) == ""
    assert mapped("$request_line_is_too_long", "GET /" + "a" * 4094) == "yes"
    _, size = only("large_client_header_buffers").arguments
    assert size == "7k"  # below 8190 bytes, and above the 4000 of a request line
    added = [directive for directive in every("proxy_set_header") if directive.arguments[1]]
    assert int(only("max_headers").arguments[0]) + len(added) < 100


@pytest.mark.parametrize(("line", "expected"), [("GET /a%C3%A9 HTTP/1.1", ""), ("GET /aé HTTP/1.1", "yes")])
def test_a_request_line_outside_ascii_is_refused(line: str, expected: str) -> None:
    assert mapped("$request_line_is_not_ascii", line) == expected


def test_the_methods_are_those_that_allow_names() -> None:
    known = {line.name for line in map_to("$method_is_unknown")} - {"default"}

    assert mapped("$method_is_unknown", "TRACE") == "yes"
    assert set(mapped("$allow", "405: /api/").split(", ")) == known
    assert mapped("$allow", "405:GET /api/") == ""


def test_the_largest_body_is_no_larger_than_that_of_django() -> None:
    entrypoint = (NGINX / "entrypoint.sh").read_text()
    (largest,) = re.findall(r"check_whole NGINX_CLIENT_MAX_BODY_KB \d+ \d+ (\d+)", entrypoint)

    settings = (NGINX.parent / "backend/config/settings.py").read_text()
    (megabytes,) = re.findall(r"^DATA_UPLOAD_MAX_MEMORY_SIZE = (\d+) \* 1024 \* 1024$", settings, re.MULTILINE)
    assert int(largest) <= int(megabytes) * 1024


# Who is slowed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        *["POST /auth/jwt/create/", "POST /auth/jwt/refresh/", "POST /auth/users/", "DELETE /auth/users/me/"],
        *["PATCH /auth/users/me/", "POST /auth/whatever/comes/", "PUT /authX", "POST /auth", "POST /auth/\n/x"],
        *["POST /admin/login/", "POST /admin/password_change/"],
    ],
)
def test_whatever_sends_a_password_or_a_token_is_counted(request_: str) -> None:
    assert mapped("$client_that_authenticates", request_) == "$client_network"


@pytest.mark.parametrize(
    "request_",
    [
        *["GET /auth/users/me/", "GET /auth/sessions/", "HEAD /auth/users/me/", "OPTIONS /auth/jwt/create/"],
        *["POST /api/transactions/", "POST /api/auth/x", "GET /admin/login/", "POST /admin/", "GET /"],
    ],
)
def test_nothing_else_is_counted(request_: str) -> None:
    assert mapped("$client_that_authenticates", request_) == ""


def test_every_route_below_auth_that_writes_is_counted_and_no_location_takes_itself_out() -> None:
    limit = only("limit_req")

    assert limit.file.name == "auth-rate.conf.template"
    assert limit.arguments == ["zone=authentication", "burst=${NGINX_AUTH_BURST}", "nodelay"]
    assert limit in parse(limit.file), "beyond the level of http a location could lack it"
    (http,) = every("http")
    included = [directive.arguments[0] for directive in http.block if directive.name == "include"]
    assert "/tmp/nginx/snippets/auth-rate.conf" in included
    assert only("limit_req_status").arguments == ["429"]
    zone = only("limit_req_zone").arguments
    assert zone == ["$client_that_authenticates", "zone=authentication:10m", "rate=${NGINX_AUTH_RATE}"]


def network(address: str) -> bytes:
    """What an address is counted as; the expressions are nginx's own, read as bytes, as nginx does."""
    packed = ip_address(address).packed
    for line in map_to("$client_network"):
        if line.name != "default" and (
            match := re.search(line.name.lstrip("~").replace("(?<", "(?P<").encode(), packed)
        ):
            return bytes(match[line.arguments[0].lstrip("$")])
    return packed


def test_an_ipv6_address_is_counted_with_its_network_and_an_ipv4_address_alone() -> None:
    # 0a is the byte of a newline, which a dot does not always match.
    assert network("2001:db8:a0a:1::1") == network("2001:db8:a0a:1:ffff:a0a:ffff:2")
    assert network("2001:db8:a0a:1::1") != network("2001:db8:a0a:2::1")
    assert network("192.0.2.10") != network("192.0.2.11")
    assert network("10.10.10.10") == network("::ffff:10.10.10.10")
    assert len(network("10.10.10.10")) == 4
    assert len(network("2001:db8::1")) == 8


# Listeners, locations, timeouts --------------------------------------------------------------------


def test_an_unknown_host_has_a_listener_without_a_backend() -> None:
    (server,) = [found for found in every("server") if found.file.name == "unknown-host.conf"]
    directives = list(server.walk())

    assert any(found.name == "listen" and "default_server" in found.arguments for found in directives)
    assert not any(found.name == "proxy_pass" for found in directives)
    includes = [found.arguments[0] for found in directives if found.name == "include"]
    assert includes == ["snippets/unparsed-requests.conf", "snippets/errors.conf"], "the first error_page counts"


def test_health_and_status_are_on_the_loopback_address_only() -> None:
    (server,) = [found for found in every("server") if found.file.name == "health.conf"]

    assert [found.arguments for found in server.walk() if found.name == "listen"] == [["127.0.0.1:8081"]]
    assert only("stub_status").file.name == "health.conf"


def test_requests_go_to_the_backend_and_nowhere_else() -> None:
    assert {tuple(directive.arguments) for directive in every("proxy_pass")} == {("http://backend",)}


def test_answers_under_auth_are_not_compressed() -> None:
    assert only("gzip").file.name == "compression.conf"
    compressed = [
        found for found in every("location") for inner in found.block if "compression.conf" in str(inner.arguments)
    ]

    assert [found.arguments for found in compressed] == [["/"]]
    assert location("^~", "/auth")


def test_the_list_of_static_files_is_not_served() -> None:
    (answer,) = location("^~", "/static/staticfiles.json").block

    assert (answer.name, answer.arguments) == ("return", ["404"])


def test_nginx_closes_idle_connections_before_gunicorn_does() -> None:
    (here,) = [found for found in every("keepalive_timeout") if found.file.name == "upstream.conf"]
    gunicorn = re.search(r"^keepalive = (\d+)$", (REPOSITORY / "backend/gunicorn.conf.py").read_text(), re.MULTILINE)
    ends = re.search(r"^LINGER_SECONDS = (\d+)$", (REPOSITORY / "backend/config/worker.py").read_text(), re.MULTILINE)

    assert gunicorn
    assert ends
    # A busy host may be late by more than a second.
    assert seconds(here.arguments[0]) + 2 <= int(ends[1]) <= int(gunicorn[1])


def test_a_failed_try_is_not_followed_by_a_second_long_wait() -> None:
    connect = seconds(only("proxy_connect_timeout").arguments[0])
    window = seconds(only("proxy_next_upstream_timeout").arguments[0])
    tries = int(only("proxy_next_upstream_tries").arguments[0])
    entrypoint = (NGINX / "entrypoint.sh").read_text()
    (wait,) = re.findall(r"check_whole NGINX_UPSTREAM_TIMEOUT_SECONDS (\d+)", entrypoint)

    assert tries * connect <= window < int(wait)
    # The client gives up after 15 s: all failed connections, the second attempt's, and one wait.
    assert (tries + 1) * connect + int(wait) <= 15


def test_the_access_log_holds_no_query_string_and_nothing_unescaped() -> None:
    log_format = only("log_format")

    assert "escape=json" in log_format.arguments
    line = "".join(log_format.arguments[2:])
    used = set(re.findall(r"\$(\w+)", line))
    assert not used & {"request", "request_uri", "args", "query_string", "http_referer", "http_cookie"}
    assert json.loads(re.sub(r"\$\w+", "0", line))["request_id"] == "0"
    pattern = next(entry.name for entry in map_to("$logged_path") if entry.name.startswith("~"))
    match = re.match(pattern.removeprefix("~").replace("(?<", "(?P<"), "/api/transactions/?search=secret")
    assert match
    assert match["path_without_query"] == "/api/transactions/"
