"""nginx before each variant: this stack's own configuration, and the one that the usual guides give."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.processes import BenchError, Programs, free_port, wait_for_file
from tests.benchmarks.setting import ROOT, Setting

# What the guides of Gunicorn, Django and FastAPI have in common, in the nginx.conf that nginx itself is shipped with:
# https://docs.gunicorn.org/en/stable/deploy.html and https://nginx.org/en/docs/http/ngx_http_proxy_module.html
USUAL = """\
worker_processes auto;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{
    worker_connections 1024;
}}
http {{
    include mime.types;
    default_type application/octet-stream;
    log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
                    '"$http_referer" "$http_user_agent" "$http_x_forwarded_for"';
    access_log {folder}/access.log main;
    sendfile on;
    keepalive_timeout 65;
    client_body_temp_path {folder}/client-body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    upstream application {{
        server 127.0.0.1:{application};
{keepalive}    }}
    server {{
        listen 127.0.0.1:{port};
        server_name localhost;
        location / {{
            proxy_pass http://application;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
{http11}        }}
    }}
}}
"""
KEEPALIVE = "        keepalive 16;\n"
HTTP11 = '            proxy_http_version 1.1;\n            proxy_set_header Connection "";\n'


def start_usual(
    setting: Setting, programs: Programs, name: str, *, application: int, keepalive: bool
) -> tuple[int, int, Path]:
    """Start the usual nginx; return its process id, its port and its access log.

    With ``keepalive`` it keeps connections to the application, for servers that can.
    """
    folder = setting.work / name / "nginx"
    folder.mkdir(parents=True)
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        USUAL.format(
            folder=folder,
            port=port,
            application=application,
            keepalive=KEEPALIVE if keepalive else "",
            http11=HTTP11 if keepalive else "",
        )
    )
    (folder / "mime.types").write_text("types { application/json json; }\n")
    command: list[str | Path] = [setting.nginx, "-e", "stderr", "-c", configuration, "-g", "daemon off;"]
    pid = programs.start(f"{name}-nginx", command, env=setting.environment(), cwd=folder)
    return pid, port, folder / "access.log"


SERVER = "    server backend:8000 resolve max_fails=0;\n"
BACKUP = "    server backend:8000 resolve max_fails=0 backup;\n"


def start_shipped(
    setting: Setting, programs: Programs, name: str, *, applications: Sequence[int]
) -> tuple[int, int, Path]:
    """Start nginx with this repository's configuration, rendered by its own entry point; return as ``start_usual``.

    What a container gives it by paths and names is given by other paths and addresses; nothing else is changed. The
    limit of logins (NGINX_AUTH_RATE) is raised, since all of them come from one address here.
    """
    folder = setting.work / name / "root"
    port, health = free_port(), free_port()
    servers = "".join(SERVER.replace("backend:8000 resolve", f"127.0.0.1:{number}") for number in applications)
    replacements = {
        "/etc/nginx": f"{folder}/etc/nginx",
        "/tmp/": f"{folder}/tmp/",
        "/srv/nginx": f"{folder}/srv/nginx",
        "/usr/share/nginx": f"{folder}/usr/share/nginx",
        "/dev/stdout": f"{folder}/access.log",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8081": f"127.0.0.1:{health}",
        SERVER: servers,
        BACKUP: "",
    }
    unused = set(replacements)
    # All in one pass: what was put in is not looked at again.
    anything = re.compile("|".join(map(re.escape, replacements)))

    def replace(found: re.Match[str]) -> str:
        unused.discard(found[0])
        return replacements[found[0]]

    for source in sorted((ROOT / "nginx").rglob("*")):
        if source.is_file():
            text = anything.sub(replace, source.read_text())
            target = folder / "etc/nginx" / source.relative_to(ROOT / "nginx")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o755)
    if unused:
        raise BenchError(f"nginx/ has changed: tests/benchmarks/proxies.py replaces in vain: {sorted(unused)}")
    (folder / "etc/nginx/mime.types").write_text("types { application/json json; }\n")
    for made in ("tmp", "srv/nginx", "usr/share/nginx/static", "bin"):
        (folder / made).mkdir(parents=True)
    # nginx, with the configuration of this run where the entry point names none.
    program = folder / "bin/nginx"
    program.write_text(
        '#!/bin/sh\ncase " $* " in *" -c "*) ;; *)'
        f' set -- "$@" -c {folder}/etc/nginx/nginx.conf ;; esac\nexec {setting.nginx} "$@"\n'
    )
    program.chmod(0o755)
    env = setting.environment(DJANGO_ALLOWED_HOSTS="localhost,127.0.0.1", NGINX_AUTH_RATE="99999r/s")
    env["PATH"] = f"{folder / 'bin'}:{setting.nginx.parent}:{env['PATH']}"
    entrypoint = folder / "etc/nginx/entrypoint.sh"
    checked = subprocess.run([entrypoint, "--test"], env=env, capture_output=True, text=True, check=False, timeout=60)
    if checked.returncode:
        raise BenchError(f"nginx refuses the configuration of this repository:\n{checked.stderr}")
    programs.start(f"{name}-nginx", [entrypoint], env=env, cwd=folder)
    # nginx is no child of its entry point, which only waits for it.
    pid = int(wait_for_file(folder / "tmp/nginx.pid", programs))
    return pid, port, folder / "access.log"
