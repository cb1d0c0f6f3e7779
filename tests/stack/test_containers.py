"""The containers as they run: what each may do, reach, read and write."""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.stack.containers import SERVERS, SERVICES, Container, Stack, docker, eventually
from tests.stack.people import PASSWORD, Person, unique

MIB = 1024 * 1024

USERS = {
    "db": "999:999",
    "migrate": "10001:10001",
    "backend": "10001:10001",
    "upkeep": "10001:10001",
    "nginx": "101:101",
}
MEMORY = {"db": 1024 * MIB, "migrate": 512 * MIB, "backend": 512 * MIB, "upkeep": 192 * MIB, "nginx": 128 * MIB}
PIDS = {"db": 256, "migrate": 64, "backend": 256, "upkeep": 32, "nginx": 128}
STOP_SIGNALS = {"db": "SIGINT", "backend": "SIGTERM", "upkeep": "SIGTERM", "nginx": "SIGQUIT"}
"""SIGINT: PostgreSQL ends sessions and writes a checkpoint. SIGQUIT: nginx answers what is under way."""
GRACE_SECONDS = {"db": 120, "backend": 40, "upkeep": 30, "nginx": 15}
NETWORKS = {
    "db": {"data"},
    "migrate": {"data"},
    "backend": {"application", "data"},
    "upkeep": {"data", "mail"},
    "nginx": {"edge", "application"},
}
KEYS = {"django_secret_key", "jwt_signing_key", "database_root_certificate"}
"""What every process of the application reads, or may be told to read."""
SECRETS = {
    "db": {"postgres_superuser_password", "postgres_migrator_password", "postgres_app_password"},
    "migrate": {*KEYS, "postgres_migrator_password", "migrator_database_url"},
    "backend": {*KEYS, "postgres_app_password", "database_url"},
    "upkeep": {*KEYS, "postgres_app_password", "database_url", "email_url"},
    "nginx": set(),
}
EMPTY = {"email_url", "database_url", "migrator_database_url", "database_root_certificate"}
"""Unless somebody fills them: tests/operations/test_mail.py, tests/operations/test_managed_database.py."""
VOLUMES = {"db": {"/var/lib/postgresql"}, "migrate": set(), "backend": set(), "upkeep": set(), "nginx": {"/srv/nginx"}}
IMAGES = ("db", "backend", "nginx")
NOTHING_SERVES = {
    "db": "Connection refused",
    "backend": "Connection refused",
    "upkeep": "no heartbeat: No such file or directory",
    "nginx": "curl: (7)",
}
"""What a health check says where its process does not run; a check that is itself broken says something else."""


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    """Each service of the stack, one after another."""
    return str(request.param)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Each service that keeps running, one after another."""
    return str(request.param)


@pytest.fixture(scope="session")
def secrets(checkout: Path) -> dict[str, str]:
    """Every secret of the stack, by its name."""
    found = {path.name: path.read_text().strip() for path in (checkout / "secrets").iterdir()}
    assert found.keys() == set().union(*SECRETS.values())
    assert {found.pop(name) for name in EMPTY} == {""}
    assert all(len(value) >= 20 for value in found.values())
    return found


def only(containers: list[Container]) -> Container:
    assert len(containers) == 1
    return containers[0]


def test_the_stack_is_these_containers(stack: Stack) -> None:
    running = {service: len(stack.containers(service)) for service in stack.configuration()["services"]}

    assert running == {"db": 1, "migrate": 1, "backend": 2, "upkeep": 1, "nginx": 1}


def test_a_container_has_no_privilege(service: str, stack: Stack) -> None:
    for container in stack.containers(service):
        host = container.inspect()["HostConfig"]

        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Privileged"] is False
        assert host["ReadonlyRootfs"] is True
        assert not host["Devices"]
        assert (host["PidMode"], host["IpcMode"], host["UTSMode"]) == ("", "private", "")


def test_a_container_is_bounded(service: str, stack: Stack) -> None:
    for container in stack.containers(service):
        host = container.inspect()["HostConfig"]

        assert host["Memory"] == MEMORY[service]
        assert host["PidsLimit"] == PIDS[service]
        assert host["Ulimits"] == [{"Name": "nofile", "Hard": 16384, "Soft": 16384}]
        assert host["LogConfig"] == {"Type": "local", "Config": {"max-file": "5", "max-size": "10m"}}
        assert all("size=" in options for options in host["Tmpfs"].values())


def test_a_container_has_an_init_process(service: str, stack: Stack) -> None:
    for container in stack.containers(service):
        assert container.inspect()["HostConfig"]["Init"] is True


def test_a_server_comes_back_and_stops_in_its_own_time(server: str, stack: Stack) -> None:
    for container in stack.containers(server):
        details = container.inspect()

        assert details["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        # Docker's own is SIGTERM; an image may leave it unsaid.
        assert details["Config"].get("StopSignal", "SIGTERM") == STOP_SIGNALS[server]
        assert details["Config"]["StopTimeout"] == GRACE_SECONDS[server]
        assert details["Config"]["Healthcheck"]["Test"][0] == "CMD"


def test_a_health_check_is_red_where_nothing_serves_and_green_in_the_stack(server: str, stack: Stack) -> None:
    running = stack.container(server)
    details = running.inspect()
    form, *check = details["Config"]["Healthcheck"]["Test"]
    idle = unique(f"{stack.name()}-own")
    variables = [option for variable in details["Config"]["Env"] for option in ("--env", variable)]
    docker(
        *("run", "--detach", "--init", "--name", idle, "--no-healthcheck", "--network", "none", "--tmpfs", "/tmp"),
        *(*variables, "--entrypoint", "sleep", details["Image"], "infinity"),
    )
    try:
        Container(idle).execute("true")  # what fails below is the check, not the way into the container
        red = Container(idle).execute(*check, check=False)
    finally:
        docker("rm", "--force", "--volumes", idle)
    green = running.execute(*check, check=False)

    assert form == "CMD"
    assert red.returncode != 0
    assert NOTHING_SERVES[server] in red.stdout + red.stderr
    assert green.returncode == 0, green.stdout + green.stderr


def test_migrate_has_ended_well_and_stays_ended(stack: Stack) -> None:
    details = only(stack.containers("migrate")).inspect()

    assert details["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert (details["State"]["Status"], details["State"]["ExitCode"]) == ("exited", 0)


def test_a_process_is_not_root(service: str, stack: Stack) -> None:
    for container in stack.containers(service):
        assert container.inspect()["Config"]["User"] == USERS[service]


def test_a_process_has_no_way_to_become_root(server: str, stack: Stack) -> None:
    for container in stack.containers(server):
        status = container.execute("cat", "/proc/self/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

        assert container.execute("id", "-u").stdout.strip() == USERS[server].split(":")[0]
        assert {fields[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
        assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr", "/app", "/var/tmp", "/home/app"])
def test_a_server_cannot_write_to_its_image(folder: str, server: str, stack: Stack) -> None:
    for container in stack.containers(server):
        written = container.execute("sh", "-c", f"mkdir -p {folder} && touch {folder}/written", check=False)

        assert written.returncode != 0
        # Everybody may write to this one; only that nothing can be written keeps them from it.
        assert folder != "/var/tmp" or "Read-only file system" in written.stderr


def test_nothing_in_tmp_can_be_executed(server: str, stack: Stack) -> None:
    script = "cp /bin/true /tmp/program && trap 'rm -f /tmp/program' EXIT && /tmp/program"
    for container in stack.containers(server):
        executed = container.execute("sh", "-c", script, check=False)

        assert "ermission denied" in executed.stderr


def test_only_nginx_is_published_and_only_on_this_host(service: str, stack: Stack, base_url: str) -> None:
    for container in stack.containers(service):
        details = container.inspect()
        expected = {}
        if service == "nginx":
            expected = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(urlsplit(base_url).port)}]}

        assert (details["HostConfig"]["PortBindings"] or {}) == expected
        assert details["HostConfig"]["PublishAllPorts"] is False


def test_a_container_is_on_its_networks_alone(service: str, stack: Stack) -> None:
    project = stack.name()
    for container in stack.containers(service):
        networks = container.inspect()["NetworkSettings"]["Networks"]

        assert networks.keys() == {f"{project}_{name}" for name in NETWORKS[service]}


def test_the_networks_behind_nginx_lead_nowhere(stack: Stack) -> None:
    internal = {
        name: json.loads(docker("network", "inspect", f"{stack.name()}_{name}").stdout)[0]["Internal"]
        for name in ("edge", "application", "data", "mail")
    }

    assert internal == {"edge": False, "application": True, "data": True, "mail": True}


def test_nginx_reaches_the_backend_and_not_the_database(stack: Stack) -> None:
    nginx = stack.container("nginx")
    backend = stack.container("backend").address(f"{stack.name()}_application")
    db = stack.container("db").address(f"{stack.name()}_data")

    def reaches(address: str, port: int) -> bool:
        return nginx.execute("timeout", "3", "bash", "-c", f"</dev/tcp/{address}/{port}", check=False).returncode == 0

    assert nginx.execute("getent", "hosts", "backend").returncode == 0
    assert nginx.execute("getent", "hosts", "db", check=False).returncode != 0
    assert reaches(backend, 8000)
    assert not reaches(db, 5432)


def connect_from(container: Container, host: str, port: int) -> str:
    """Return what a connection attempt from the application says."""
    program = f"import socket; socket.create_connection(({host!r}, {port}), timeout=3)"
    return container.execute("python", "-c", program, check=False).stderr


@pytest.mark.parametrize("program", ["backend", "upkeep"])
def test_the_application_reaches_the_database_and_nothing_outside(program: str, stack: Stack) -> None:
    for container in stack.containers(program):
        assert connect_from(container, "db", 5432) == ""
        assert "Network is unreachable" in connect_from(container, "192.0.2.1", 443)
        assert "gaierror" in connect_from(container, "example.com", 443)


def test_the_upkeep_process_and_the_backend_do_not_reach_each_other_over_its_network(stack: Stack) -> None:
    upkeep = stack.container("upkeep")

    for backend in stack.containers("backend"):
        application = backend.address(f"{stack.name()}_application")
        assert connect_from(upkeep, application, 8000) != ""


def test_a_secret_is_mounted_only_where_it_is_read(service: str, stack: Stack, checkout: Path) -> None:
    for container in stack.containers(service):
        mounts = container.inspect()["Mounts"]
        secrets = {mount["Destination"]: mount for mount in mounts if mount["Type"] == "bind"}

        assert secrets.keys() == {f"/run/secrets/{name}" for name in SECRETS[service]}
        for mount in secrets.values():
            assert mount["RW"] is False
            assert Path(mount["Source"]).parent == checkout / "secrets"


def test_only_the_database_and_what_nginx_is_handed_over_are_on_volumes(service: str, stack: Stack) -> None:
    for container in stack.containers(service):
        volumes = {
            mount["Destination"]: mount["Name"] for mount in container.inspect()["Mounts"] if mount["Type"] == "volume"
        }

        assert volumes.keys() == VOLUMES[service]
        assert set(volumes.values()) <= {f"{stack.name()}_{name}" for name in ("database", "handover")}


def test_docker_inspect_shows_no_secret(service: str, stack: Stack, secrets: dict[str, str]) -> None:
    for container in stack.containers(service):
        shown = json.dumps(container.inspect())

        assert "/run/secrets" in shown or service == "nginx"
        assert [name for name, value in secrets.items() if value in shown] == []


def test_an_image_holds_no_secret(service: str, stack: Stack, secrets: dict[str, str]) -> None:
    image = stack.container(service).inspect()["Image"]

    shown = docker("history", "--no-trunc", image).stdout + docker("image", "inspect", image).stdout

    assert "transactions" in shown
    assert [name for name, value in secrets.items() if value in shown] == []


def environments_in(container: Container) -> str:
    """Return the environments of the processes in a container; fail where one of them cannot be read."""
    shown = ""

    def all_are_read() -> bool:
        nonlocal shown
        result = container.execute("sh", "-c", "cat /proc/[0-9]*/environ", check=False)
        shown = result.stdout
        # A health check, or a command of another test, may have ended meanwhile; nothing else is not read.
        return not [line for line in result.stderr.splitlines() if "No such " not in line]

    # Not at once: a process that the engine is just starting is the engine's own until it has become the command.
    eventually(all_are_read, within=5, what="the environment of every process can be read")
    return shown


def test_no_server_has_a_secret_in_its_environment(stack: Stack, secrets: dict[str, str]) -> None:
    for service in ("backend", "upkeep", "nginx"):
        for container in stack.containers(service):
            shown = environments_in(container)

            assert "DJANGO_ALLOWED_HOSTS" in shown
            assert [name for name, value in secrets.items() if value in shown] == []


def test_the_logs_show_nothing_that_a_person_would_not_tell(
    stack: Stack, client: httpx.Client, alice: Person, secrets: dict[str, str]
) -> None:
    canary = unique("canary")
    alice.client.post("/auth/jwt/create/", json={"username": alice.name, "password": canary})
    alice.client.post("/auth/users/set_password/", json={"current_password": canary, "new_password": canary})
    alice.client.request("DELETE", "/auth/users/me/", json={"current_password": canary})
    alice.client.post("/auth/users/reset_password_confirm/", json={"token": canary, "new_password": canary})
    client.post("/auth/jwt/create/", json={"username": canary, "password": PASSWORD})
    alice.client.post("/auth/users/", json={"username": canary, "password": "short"})
    alice.client.post("/api/transactions/", json={"amount": canary, "description": canary})
    alice.client.get("/api/transactions/", params={"search": canary})
    client.get("/api/transactions/", headers={"Authorization": f"Bearer {canary}", "Cookie": f"x={canary}"})
    client.post("/auth/jwt/refresh/", json={"refresh": canary})
    last = client.get("/nowhere").headers["X-Request-ID"]
    eventually(lambda: last in stack.logs("nginx"), within=10, what="the requests are in the log")

    written = {service: stack.logs(service) for service in SERVICES}

    for service, text in written.items():
        assert text, f"{service} wrote nothing"
        for hidden in (canary, PASSWORD, alice.access, alice.refresh, *secrets.values()):
            assert hidden not in text, service


def test_the_compose_configuration_shows_no_secret(stack: Stack, secrets: dict[str, str]) -> None:
    shown = stack.compose("config").stdout

    assert "postgres_app_password" in shown
    assert [name for name, value in secrets.items() if value in shown] == []


def test_the_images_are_those_of_this_release(stack: Stack) -> None:
    tags = {service: stack.container(service).inspect()["Config"]["Image"] for service in IMAGES}

    assert tags == {service: f"transactions-{service}:{os.environ.get('RELEASE', 'local')}" for service in IMAGES}
