"""Gunicorn with the application, as the container runs it, over a real socket."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from config.worker import LINGER_SECONDS
from tests.backend.conftest import BACKEND, Python, free_port, server_on_the_database_of_tests

# The server has its own connections; the mark is there so that the database is.
pytestmark = pytest.mark.django_db

Server = tuple[int, "subprocess.Popen[bytes]", Path]


@pytest.fixture(scope="module")
def server(
    configuration: dict[str, str],
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Return the port, the process and the log of a running server."""
    log = tmp_path_factory.mktemp("server") / "log"
    with server_on_the_database_of_tests(configuration, log) as (port, process):
        yield port, process, log


def raw(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send ``request`` as it is; return status, headers and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = client.recv(65536)
            assert received, f"no answer but {answer!r}"
            answer += received
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            received = client.recv(65536)
            assert received, f"no more of an answer than {answer!r}"
            body += received
    return int(first.split()[1]), headers, body


def test_server_answers_health_and_readiness(server: Server) -> None:
    for path, body in (("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})):
        with closing(HTTPConnection("127.0.0.1", server[0], timeout=10)) as client:
            client.request("GET", path)
            response = client.getresponse()
            answer = json.loads(response.read())

        assert response.status == HTTPStatus.OK
        assert answer == body


def test_server_answers_at_once_while_other_requests_are_under_way(server: Server) -> None:
    def ask(_: int) -> int:
        return raw(server[0], b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[0]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(40))) == {HTTPStatus.OK}


def test_server_serves_more_connections_than_it_has_threads_again_and_again(server: Server) -> None:
    with ExitStack() as open_until_the_end:
        clients = [
            open_until_the_end.enter_context(closing(HTTPConnection("127.0.0.1", server[0], timeout=10)))
            for _ in range(40)
        ]
        for _ in range(5):
            for client in clients:
                client.request("GET", "/readyz")
            answers = [client.getresponse() for client in clients]
            assert {json.loads(answer.read())["status"] for answer in answers} == {"ready"}
        assert not any(answer.will_close for answer in answers)


@pytest.mark.parametrize("first", ["/healthz", "/readyz"])
@pytest.mark.parametrize("then", ["/healthz", "/readyz"])
def test_server_answers_requests_that_are_sent_together(server: Server, first: str, then: str) -> None:
    requests = "".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in (first, then))

    with socket.create_connection(("127.0.0.1", server[0]), timeout=5) as client:
        client.sendall(requests.encode())
        answers = b""
        while answers.count(b'{"status": "') + answers.count(b'{"status":"') < 2:
            received = client.recv(65536)
            assert received, answers
            answers += received

    assert answers.count(b"HTTP/1.1 200 ") == 2


def test_server_says_that_it_lives_while_every_thread_waits(server: Server) -> None:
    with ExitStack() as unfinished:
        silent = unfinished.enter_context(socket.create_connection(("127.0.0.1", server[0]), timeout=5))
        for _ in range(8):
            client = unfinished.enter_context(socket.create_connection(("127.0.0.1", server[0])))
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.5)
        another = unfinished.enter_context(socket.create_connection(("127.0.0.1", server[0]), timeout=1))
        another.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            another.recv(1)

        with closing(HTTPConnection("127.0.0.1", server[0], timeout=5)) as probe:
            for path in ("/healthz", "/healthz?again", "/healthz"):  # on one connection
                probe.request("GET", path)
                response = probe.getresponse()
                assert json.loads(response.read()) == {"status": "ok"}
        silent.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert silent.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x01b\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            HTTPStatus.BAD_REQUEST,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HTTPStatus.BAD_REQUEST,
        ),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"nonsense\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", HTTPStatus.REQUEST_URI_TOO_LONG),
    ],
    ids=["control character", "two lengths", "length and chunks", "unknown encoding", "no request", "long path"],
)
def test_server_refuses_what_is_no_http_in_json_and_closes(server: Server, request_: bytes, status: HTTPStatus) -> None:
    answered, headers, body = raw(server[0], request_)

    assert answered == status
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    assert list(json.loads(body)) == ["detail"]


@pytest.mark.parametrize("charset", ["zlib", "bz2", "rot13", "undefined"])
def test_server_does_not_fail_on_a_charset_that_is_none(server: Server, charset: str) -> None:
    head = f"GET /healthz?a=%41 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset={charset}\r\n\r\n"

    status, _, _ = raw(server[0], head.encode())

    assert status == HTTPStatus.OK


def test_server_does_not_name_its_version(server: Server) -> None:
    _, headers, _ = raw(server[0], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")

    assert not any(character.isdigit() for character in headers.get("server", ""))


def test_server_keeps_no_control_socket(server: Server) -> None:
    _, process, log = server

    sockets = Path("/proc/net/unix").read_text()

    assert f"gunicorn.{process.pid}" not in sockets
    assert "control" not in log.read_text().lower()


def test_server_stops_at_once_when_it_is_told_to(configuration: dict[str, str]) -> None:
    variables = {"GUNICORN_BIND": f"127.0.0.1:{free_port()}", "WEB_CONCURRENCY": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "config.serve"], cwd=BACKEND, env={**configuration, **variables}, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"Booting worker" in line:
                break
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)

        assert process.wait(30) == 0
        assert time.monotonic() - started < 15  # of the 30 s that requests may take
        process.stderr.read()


def test_a_worker_that_is_told_to_end_before_it_listens_to_signals_ends_at_once(
    configuration: dict[str, str], tmp_path: Path
) -> None:
    late = tmp_path / "late.conf.py"
    late.write_text(
        "import time\nfrom pathlib import Path\n"
        f"exec(Path({str(BACKEND / 'gunicorn.conf.py')!r}).read_text())\n"
        "def post_fork(server, worker):\n    while server.SIG_QUEUE.empty():\n        time.sleep(0.01)\n"
    )
    variables = {"GUNICORN_BIND": f"127.0.0.1:{free_port()}", "WEB_CONCURRENCY": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "config.serve", "--config", late],
        cwd=BACKEND,
        env={**configuration, **variables},
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"Booting worker" in line:
                break
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()

        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert time.monotonic() - told < 10
        process.stderr.read()


def test_server_that_is_told_to_stop_answers_once_more_on_a_connection_and_ends_those_on_which_nothing_comes(
    two_workers: tuple[int, "subprocess.Popen[bytes]", list[int]],
) -> None:
    port, process, _ = two_workers

    def ask(client: HTTPConnection) -> bool:
        client.request("GET", "/readyz")
        answer = client.getresponse()
        answer.read()
        return answer.will_close

    with ExitStack() as open_until_the_end:
        idle, busy = (
            open_until_the_end.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=10))) for _ in "12"
        )
        open_until_the_end.enter_context(socket.create_connection(("127.0.0.1", port)))  # says nothing
        before = [ask(client) for client in (idle, busy)]
        process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        time.sleep(0.5)

        assert (*before, ask(busy)) == (False, False, True)
        assert idle.sock.recv(1) == b""
        # nginx, which closes an idle connection sooner, was given the time to.
        assert LINGER_SECONDS - 1 < time.monotonic() - told < LINGER_SECONDS + 5
        assert process.wait(10) == 0


LOOKS_ALL_THE_TIME = """
from config import worker

worker.LOOK_SECONDS = 0
"""

BUSY = """
import time
from pathlib import Path

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        with Path("served").open("a") as served:
            served.write("slow\\n")
        time.sleep(4)
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
"""

LEAVES = """
from gunicorn.http.parser import Parser

looked = 0
finish_body = Parser.finish_body

def count(parser, *arguments, **options):
    global looked
    looked += parser.mesg is not None
    return finish_body(parser, *arguments, **options)

Parser.finish_body = count

def application(environ, start_response):
    environ["wsgi.input"].read(int(environ["QUERY_STRING"] or 0))
    body = str(looked).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

EXITS = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/exit":
        raise SystemExit
    start_response("200 OK", [("Content-Length", "4")])
    return [b"done"]
"""


@contextmanager
def serving(code: str, folder: Path, *more: str) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    """Serve another application with the same worker, in one thread; give its port and its process."""
    (folder / "another.py").write_text(code)
    port = free_port()
    options = (
        "--worker-class",
        "config.worker.Worker",
        "--threads",
        "1",
        "--no-control-socket",
        "--keep-alive",
        "75",
        *more,
    )
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *options, "another:application"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{BACKEND}:{folder}"},
        stderr=subprocess.PIPE,
    ) as process:
        try:
            worker_of(process)
            yield port, process
        finally:
            process.kill()


SLOW = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_kept_connection_asks_for_health_while_every_thread_is_busy(tmp_path: Path) -> None:
    """nginx asks on a connection on which something else was asked before."""
    with (
        serving(BUSY, tmp_path) as (port, _),
        ThreadPoolExecutor(1) as pool,
        closing(HTTPConnection("127.0.0.1", port, timeout=2)) as kept,
    ):
        for path in ("/", "/healthz", "/", "/healthz"):  # from the threads to the one of its own, and back
            kept.request("GET", path)
            assert kept.getresponse().read() == b"done"
        kept.request("GET", "/")
        kept.getresponse().read()
        slow = pool.submit(raw, port, SLOW)
        time.sleep(0.5)

        for _ in range(2):
            kept.request("GET", "/healthz")
            assert kept.getresponse().read() == b"done"

        assert not slow.done()
        kept.sock.settimeout(10)
        kept.request("GET", "/")
        assert kept.getresponse().read() == b"done"
        slow.result(timeout=1)


def test_a_request_is_not_served_once_its_client_has_left(tmp_path: Path) -> None:
    with serving(BUSY, tmp_path) as (port, _), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(raw, port, SLOW)
        time.sleep(0.5)
        for wait in (1, 0):  # one is found while the thread is busy, one by the thread
            with socket.create_connection(("127.0.0.1", port)) as impatient:
                impatient.sendall(SLOW)
                time.sleep(3 * wait)
        slow.result(timeout=10)

        assert raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[2] == b"done"
        assert (tmp_path / "served").read_text() == "slow\n"


def test_a_client_that_vanishes_within_a_request_is_asked_whether_it_is_there(server: Server) -> None:
    port, _, _ = server
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        # https://docs.kernel.org/networking/proc_net_tcp.html: the server's side, established, and its timer.
        ports = f":{port:04X} 0100007F:{client.getsockname()[1]:04X} 01 "
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            [connection] = [line for line in Path("/proc/net/tcp").read_text().splitlines() if ports in line]
            timer = connection.split()[5].partition(":")[0]
            if timer == "02":
                break

    assert timer == "02", "no keepalive timer runs"


def test_connections_of_clients_that_have_left_do_not_keep_others_out(tmp_path: Path) -> None:
    with serving(BUSY, tmp_path, "--worker-connections", "10") as (port, _), ThreadPoolExecutor(1) as pool:
        slow = pool.submit(raw, port, SLOW)
        time.sleep(0.5)
        with ExitStack() as impatient:
            for _ in range(9):
                client = impatient.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.sendall(SLOW)

        health = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert raw(port, health)[2] == b"done"
        assert not slow.done()


def test_connections_that_end_while_they_are_looked_at_do_no_harm(tmp_path: Path) -> None:
    def come_and_go(port: int) -> int:
        number, until = 0, time.monotonic() + 3
        while time.monotonic() < until:
            assert raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[2] == b"done"
            number += 1
        return number

    with serving(LOOKS_ALL_THE_TIME + BUSY, tmp_path, "--threads", "4") as (port, process):
        with ThreadPoolExecutor(8) as pool:
            numbers = [pool.submit(come_and_go, port) for _ in range(8)]
            assert sum(number.result() for number in numbers) > 100
        process.terminate()
        assert process.stderr
        log = process.stderr.read()

    assert b"Exception" not in log, log.decode()
    assert b"Booting worker" not in log  # the first one is still there


def test_as_many_idle_connections_are_offered_as_leave_room_for_others(tmp_path: Path) -> None:
    with serving(BUSY, tmp_path, "--worker-connections", "10") as (port, _), ExitStack() as open_until_the_end:
        kept = 0
        for _ in range(20):
            client = open_until_the_end.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=5)))
            client.request("GET", "/")
            answer = client.getresponse()
            answer.read()
            kept += not answer.will_close

        assert kept == 9  # and one for whoever comes next


def test_server_that_is_told_to_stop_answers_a_request_that_waits_for_a_thread(tmp_path: Path) -> None:
    with serving(BUSY, tmp_path) as (port, process), ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(raw, port, SLOW) for _ in range(2)]
        time.sleep(1)  # one of them is being served, for longer than idle connections are kept from here on
        process.send_signal(signal.SIGTERM)

        assert [answer.result(timeout=20)[2] for answer in answers] == [b"done"] * 2


def test_a_request_that_would_end_its_thread_does_not(tmp_path: Path) -> None:
    with serving(EXITS, tmp_path) as (port, _):
        with pytest.raises(AssertionError, match="no answer"):
            raw(port, b"GET /exit HTTP/1.1\r\nHost: x\r\n\r\n")

        assert raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[2] == b"done"


BODY = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
"""A body that would be a request if it were left on the connection."""


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a server whose application reads as much of a body as the query says."""
    with serving(LEAVES, tmp_path_factory.mktemp("leaving")) as (port, _):
        yield port


@pytest.mark.parametrize("read", [0, 1, len(BODY) - 1, len(BODY), len(BODY) + 1])
@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_an_application_leaves_of_a_body_is_not_the_next_request(
    leaving: int, framed: bytes, read: int, at_once: bool
) -> None:
    with socket.create_connection(("127.0.0.1", leaving), timeout=5) as client:
        head, separator, body = (b"POST /?%d HTTP/1.1\r\nHost: x\r\n" % read + framed).partition(b"\r\n\r\n")
        client.sendall(head + separator)
        if not at_once:
            time.sleep(0.1)  # read by itself, and so not with the head
        client.sendall(body)
        answers = client.recv(1)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while received := client.recv(65536):
            answers += received

    assert re.findall(rb"HTTP/1\.1 (\d+) ", answers) == [b"200", b"200"]


def test_of_a_request_that_was_read_no_more_is_looked_for(tmp_path: Path) -> None:
    with (
        serving(LEAVES, tmp_path) as (port, _),
        closing(HTTPConnection("127.0.0.1", port, timeout=5)) as kept,
    ):
        for body in (None, b"read", None, None):
            kept.request("POST" if body else "GET", "/?4", body)
            looked = kept.getresponse().read()

        assert looked == b"0"


def test_every_answer_has_the_time_of_its_second(server: Server) -> None:
    def now() -> float:
        _, headers, _ = raw(server[0], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return parsedate_to_datetime(headers["date"]).timestamp()

    for _ in range(3):
        before = int(time.time())
        assert before <= now() <= time.time()
        time.sleep(0.7)


@pytest.mark.parametrize(
    "headers",
    [
        "SCRIPT_NAME: /elsewhere",
        "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off",
        "X-Forwarded-Protocol: ssl\r\nX-Forwarded-Proto: http",
    ],
)
def test_the_server_takes_neither_scheme_nor_path_from_a_header(server: Server, headers: str) -> None:
    """This host's own word is believed by Gunicorn unless it is told not to."""
    status, _, _ = raw(server[0], f"GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())

    assert status == HTTPStatus.OK


def test_a_worker_that_is_frozen_is_replaced(configuration: dict[str, str]) -> None:
    """It is the only one of its container where there are two containers or more (docs/decisions/0049)."""
    port = free_port()
    variables = {"GUNICORN_BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": "1", "GUNICORN_TIMEOUT_SECONDS": "5"}
    question = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with subprocess.Popen(
        [sys.executable, "-m", "config.serve"], cwd=BACKEND, env={**configuration, **variables}, stderr=subprocess.PIPE
    ) as process:
        try:
            worker = worker_of(process)
            assert raw(port, question)[0] == HTTPStatus.OK
            os.kill(worker, signal.SIGSTOP)
            frozen = time.monotonic()
            worker_of(process)

            assert time.monotonic() - frozen < 15
            assert raw(port, question)[0] == HTTPStatus.OK
        finally:
            process.kill()


def worker_of(process: "subprocess.Popen[bytes]") -> int:
    """Wait until the server has started another worker, and return its process."""
    assert process.stderr is not None
    for line in process.stderr:
        if b"Booting worker with pid: " in line:
            return int(line.rpartition(b":")[2])
    raise AssertionError("the server has ended")


def test_no_header_is_believed_whoever_sends_it(serve: Python) -> None:
    """All addresses are allowed to send these headers, of which there are none."""
    done = serve("--print-config")

    settings = dict(line.split("=", 1) for line in done.stdout.replace(" ", "").splitlines() if "=" in line)
    names = ("forwarded_allow_ips", "forwarder_headers", "secure_scheme_headers", "proxy_protocol", "http2_cleartext")
    assert [settings[name] for name in names] == ["['*']", "[]", "{}", "off", "off"]


def test_options_that_no_registry_declares_do_not_reach_the_server(serve: Python) -> None:
    own = {"GUNICORN_CMD_ARGS": "--no-such-option", "PORT": "1", "FORWARDED_ALLOW_IPS": "no address"}

    done = serve("--print-config", **own)

    assert done.returncode == 0, done.stderr
    assert "0.0.0.0:1'" not in done.stdout


@pytest.fixture
def two_workers(configuration: dict[str, str]) -> Iterator[tuple[int, "subprocess.Popen[bytes]", list[int]]]:
    """Return the port of a server with two workers, its process and theirs."""
    port = free_port()
    variables = {"GUNICORN_BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": "2", "GUNICORN_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "config.serve"], cwd=BACKEND, env={**configuration, **variables}, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        workers: list[int] = []
        while len(workers) < 2:
            if b"Booting worker with pid: " in (line := process.stderr.readline()):
                workers.append(int(line.rpartition(b":")[2]))
        yield port, process, workers
        process.terminate()
        process.stderr.read()
        assert process.wait(30) == 0


def ask_until_refused(port: int, deadline: float) -> list[str]:
    """Make one connection after the other; return what became of each that was made."""
    outcomes: list[str] = []
    while time.monotonic() < deadline:
        try:
            status, _, _ = raw(port, b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        except ConnectionRefusedError:
            return outcomes
        except (OSError, AssertionError) as error:
            outcomes.append(repr(error))
        else:
            outcomes.append("answered" if status < HTTPStatus.INTERNAL_SERVER_ERROR else str(status))
    raise AssertionError("nobody was refused")


def test_server_that_is_told_to_stop_answers_whoever_has_connected_and_refuses_the_next(
    two_workers: tuple[int, "subprocess.Popen[bytes]", list[int]],
) -> None:
    port, process, _ = two_workers
    deadline = time.monotonic() + 20

    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(ask_until_refused, port, deadline) for _ in range(16)]
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        outcomes = [outcome for client in clients for outcome in client.result()]

    assert len(outcomes) > 100
    assert set(outcomes) == {"answered"}
    # Here, for a server that is told again while it ends does not end with 0.
    assert process.wait(30) == 0


def test_server_goes_on_when_one_worker_is_told_to_stop(
    two_workers: tuple[int, "subprocess.Popen[bytes]", list[int]],
) -> None:
    port, _, workers = two_workers

    os.kill(workers[0], signal.SIGTERM)
    time.sleep(3)  # longer than the worker keeps idle connections

    for _ in range(20):
        status, _, _ = raw(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status == HTTPStatus.OK
