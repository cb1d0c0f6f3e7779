#!/usr/bin/env bash
# Checks the variables of nginx, writes the configuration that depends on them, and becomes nginx.
#
# usage: entrypoint.sh           render, test, then run nginx in the foreground
#        entrypoint.sh --test    render and test only
#        entrypoint.sh --certificate   for how many days the certificate that is served lasts, and until when
#        entrypoint.sh --help    this text
#
# Every bad variable is named in one message, without its value, and the exit status is 78 (EX_CONFIG of sysexits.h).
# The accepted values are those of backend/config/env.py, which declares the same variables for the whole stack.

set -Eeuo pipefail

# In other locales [A-Z] may contain more than these letters.
export LC_ALL=C

readonly SOURCE=/etc/nginx
# Also in nginx.conf and in snippets/application.conf: /tmp is the only writable place of the container.
readonly RENDERED=/tmp/nginx
# Also in snippets/certificate.conf. Not below RENDERED, whose files may be shown.
readonly TLS=/tmp/tls
# Where Compose mounts the folders of TLS_CERT_FILE and TLS_KEY_FILE (docker-compose.listeners.yml).
readonly TLS_SOURCES=/run/tls
readonly TLS_CHECK_SECONDS=20
readonly EX_USAGE=64
readonly EX_CONFIG=78

# By name, not by glob, as nginx.conf includes them.
readonly TEMPLATES=(
  servers/http.conf
  snippets/auth-rate.conf
  snippets/connections-per-address.conf
  snippets/port-of-https.conf
  snippets/request-body.conf
  snippets/upstream-timeouts.conf
  snippets/workers.conf
)
# Of these the rendered file is empty without TLS.
readonly TLS_TEMPLATES=(servers/https.conf)
# Only these are replaced: nginx's own $variables stay.
# shellcheck disable=SC2016  # envsubst reads the names, the shell must not
readonly SUBSTITUTED='
    ${HTTPS_PORT} ${NGINX_AUTH_BURST} ${NGINX_AUTH_RATE} ${NGINX_AUTH_WAIT_SECONDS} ${NGINX_CLIENT_MAX_BODY_KB}
    ${NGINX_CONNECTIONS_PER_ADDRESS} ${NGINX_HTTP_ANSWERS} ${NGINX_SERVER_NAMES} ${NGINX_UPSTREAM_TIMEOUT_SECONDS} ${NGINX_WORKER_PROCESSES}'

complaints=()
tls=false

usage() {
  sed -n '2,7s/^# \{0,1\}//p' "$0"
}

# check_whole NAME DEFAULT MINIMUM MAXIMUM: a missing variable takes its default, an empty one is a mistake.
check_whole() {
  local name=$1 default=$2 minimum=$3 maximum=$4
  local value=${!name-$default}
  if [[ ! $value =~ ^[0-9]{1,9}$ ]] || ((10#$value < minimum || 10#$value > maximum)); then
    complaints+=("$name must be a whole number from $minimum to $maximum; remove it to use $default.")
    return
  fi
  export "$name=$((10#$value))"
}

# Adds to NGINX_AUTH_RATE what snippets/auth-rate.conf.template derives from it.
check_auth_rate() {
  local rate=${NGINX_AUTH_RATE-30r/m} number period=1
  if [[ ! $rate =~ ^([1-9][0-9]{0,4})r/([sm])$ ]]; then
    complaints+=('NGINX_AUTH_RATE must be a number from 1 to 99999 and r/s or r/m; remove it to use 30r/m.')
    return
  fi
  number=${BASH_REMATCH[1]}
  [[ ${BASH_REMATCH[2]} == s ]] || period=60
  # Both rounded up.
  local in_one_second=$(((number + period - 1) / period)) until_the_next=$(((period + number - 1) / number))
  export NGINX_AUTH_RATE=$rate
  export NGINX_AUTH_BURST=$((in_one_second > 5 ? in_one_second : 5))
  export NGINX_AUTH_WAIT_SECONDS=$until_the_next
}

# Turns DJANGO_ALLOWED_HOSTS, separated by commas, into NGINX_SERVER_NAMES, separated by spaces.
check_hosts() {
  local remedy='list the names under which clients reach this service, for example localhost,127.0.0.1,[::1]'
  local form='separated by commas, without port, IPv6 in brackets, never *'
  local label='[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?'
  local name_pattern="^\\.?${label}(\\.[A-Za-z0-9-]+)*\$"
  local address_pattern='^\[[0-9A-Fa-f:.]{2,45}\]$'
  local rest=${DJANGO_ALLOWED_HOSTS-} host names=''

  if [[ -z $rest ]]; then
    complaints+=("DJANGO_ALLOWED_HOSTS is missing or empty: $remedy.")
    return
  fi
  rest+=,
  while [[ -n $rest ]]; do
    host=${rest%%,*}
    rest=${rest#*,}
    host=${host#"${host%%[![:space:]]*}"}
    host=${host%"${host##*[![:space:]]}"}
    if ((${#host} > 254)) || [[ ! $host =~ $name_pattern && ! $host =~ $address_pattern ]]; then
      complaints+=("DJANGO_ALLOWED_HOSTS must be host names or addresses, $form: $remedy.")
      return
    fi
    names+=" $host"
  done
  export NGINX_SERVER_NAMES=${names# }
}

# --- TLS --------------------------------------------------------------------------------------------------------------

# check_tls: both files or neither.
check_tls() {
  export NGINX_HTTP_ANSWERS=snippets/application.conf
  [[ -n ${TLS_CERT_FILE+set}${TLS_KEY_FILE+set} ]] || return 0
  local name others=TLS_KEY_FILE before=${#complaints[@]}
  for name in TLS_CERT_FILE TLS_KEY_FILE; do
    if [[ -z ${!name+set} ]]; then
      complaints+=("$name is missing although $others is set: set both for HTTPS, or neither.")
    elif [[ ! ${!name} =~ ^/[^[:space:]:]+/[^[:space:]:/]+$ ]]; then
      complaints+=("$name must be the absolute path of a PEM file, in a folder of its own; remove both for plain HTTP.")
    fi
    others=TLS_CERT_FILE
  done
  ((${#complaints[@]} == before)) || return 0
  tls=true
  NGINX_HTTP_ANSWERS=snippets/redirect-to-https.conf
  check_pair
}

# check_pair: copies what the operator's files hold now into $TLS/pair.new, and adds to the complaints what is wrong
# with it. The copy is what is checked and what is served: no replacement can come in between.
check_pair() {
  local before=${#complaints[@]} certificate=$TLS/certificate.new key=$TLS/key.new
  (umask 077 && mkdir -p "$TLS")
  copy_file TLS_CERT_FILE "$TLS_SOURCES/certificate" "$certificate"
  copy_file TLS_KEY_FILE "$TLS_SOURCES/key" "$key"
  if ((${#complaints[@]} == before)); then
    check_certificate "$certificate"
    check_key "$key"
  fi
  if ((${#complaints[@]} == before)); then
    check_together "$certificate" "$key"
  fi
  rm -f "$certificate" "$key"
}

# copy_file NAME FOLDER COPY
copy_file() {
  local name=$1 file=$2/${!1##*/}
  if (umask 077 && cat -- "$file" >"$3") 2>/dev/null; then
    return
  elif [[ -L $file && ! -e $file ]]; then
    complaints+=("$name is a link to another folder, and nginx sees only its own: copy the file there.")
  elif [[ ! -e $file ]]; then
    complaints+=("$name names a file that does not exist: check the path.")
  elif [[ ! -f $file ]]; then
    complaints+=("$name names a folder, not a file: check the path.")
  else
    complaints+=("$name cannot be read by nginx, which is user 101: chmod 0644 it, in a folder closed to others.")
  fi
}

check_certificate() {
  local begins ends
  if ! openssl x509 -in "$1" -noout 2>/dev/null; then
    complaints+=('TLS_CERT_FILE holds no certificate in PEM form: check which file it names.')
    return
  fi
  begins=$(date_of "$1" -startdate)
  ends=$(date_of "$1" -enddate)
  if ((ends <= EPOCHSECONDS)); then
    complaints+=("TLS_CERT_FILE has expired, on $(as_date "$ends"): renew it.")
  elif ((begins > EPOCHSECONDS)); then
    complaints+=("TLS_CERT_FILE is not valid before $(as_date "$begins"): check the clock of this host.")
  fi
}

check_key() {
  if grep -q ENCRYPTED "$1"; then
    complaints+=('TLS_KEY_FILE is protected by a password, which nobody can type here: remove it with openssl pkey.')
  elif ! openssl pkey -in "$1" -noout -passin pass: 2>/dev/null; then
    complaints+=('TLS_KEY_FILE holds no private key in PEM form: check which file it names.')
  fi
}

# check_together CERTIFICATE KEY: do they belong together, and would nginx take them? OpenSSL refuses weak keys.
check_together() {
  if [[ $(openssl x509 -in "$1" -noout -pubkey) != "$(openssl pkey -in "$2" -passin pass: -pubout)" ]]; then
    complaints+=('TLS_KEY_FILE is not the key of the certificate in TLS_CERT_FILE: give the two that belong together.')
    return
  fi
  (umask 077 && { cat "$1" && echo && cat "$2"; } >"$TLS/pair.new")
  cat >"$TLS/check.conf" <<CONFIGURATION
pid $TLS/check.pid;
events {}
http {
    access_log off;
    include $SOURCE/snippets/temporary-files.conf;
    server {
        listen unix:$TLS/check.sock ssl;
        ssl_certificate $TLS/pair.new;
        ssl_certificate_key $TLS/pair.new;
    }
}
CONFIGURATION
  local refusal
  if ! refusal=$(nginx -e stderr -t -q -c "$TLS/check.conf" 2>&1); then
    complaints+=("TLS_CERT_FILE and TLS_KEY_FILE are refused by nginx: ${refusal%%$'\n'*}")
  fi
  rm -f "$TLS/check.conf" "$TLS/check.sock"
}

# date_of CERTIFICATE OPTION: in seconds since 1970.
date_of() { date --utc --date "$(openssl x509 -in "$1" -noout "$2" | cut -d = -f 2)" +%s; }

as_date() { date --utc --date "@$1" '+%Y-%m-%d %H:%M UTC'; }

# serve_pair: from the next handshake on. One rename, so that no handshake reads half of it.
serve_pair() { mv "$TLS/pair.new" "$TLS/pair.pem"; }

# watch_pair MASTER: for as long as that process is there. A pair that is refused is said once, not three times a minute.
watch_pair() {
  set +e
  local seen now refused=''
  seen=$(fingerprint)
  while sleep "$TLS_CHECK_SECONDS" && kill -0 "$1" 2>/dev/null; do
    now=$(fingerprint)
    [[ $now != "$seen" ]] || continue
    complaints=()
    check_pair
    if ((${#complaints[@]} > 0)); then
      # The two files are rarely replaced in the same moment: what is wrong must be wrong twice.
      if [[ $refused == "$now" ]]; then
        seen=$now
        {
          echo 'nginx goes on with the certificate it has, the new one is wrong:'
          printf '  - %s\n' "${complaints[@]}"
        } >&2
      fi
      refused=$now
    else
      serve_pair
      seen=$now
      now=$(date_of "$TLS/pair.pem" -enddate)
      echo "nginx serves the new certificate, which is valid until $(as_date "$now")." >&2
    fi
  done
}

fingerprint() {
  cat "$TLS_SOURCES/certificate/${TLS_CERT_FILE##*/}" "$TLS_SOURCES/key/${TLS_KEY_FILE##*/}" 2>&1 | sha256sum
}

# show_certificate: for ./scripts/doctor.
show_certificate() {
  [[ -e $TLS/pair.pem ]] || return 0
  local ends
  ends=$(date_of "$TLS/pair.pem" -enddate)
  echo "$(((ends - EPOCHSECONDS) / 86400)) $(as_date "$ends")"
}

# --- The whole configuration ------------------------------------------------------------------------------------------

check_variables() {
  check_hosts
  check_auth_rate
  # Below Django's DATA_UPLOAD_MAX_MEMORY_SIZE of 2.5 MB.
  check_whole NGINX_CLIENT_MAX_BODY_KB 1024 1 2048
  check_whole NGINX_CONNECTIONS_PER_ADDRESS 100 1 100000
  check_whole NGINX_UPSTREAM_TIMEOUT_SECONDS 12 1 600
  check_whole NGINX_WORKER_PROCESSES 2 1 64
  check_whole HTTPS_PORT 8443 1 65535
  check_tls

  if ((${#complaints[@]} > 0)); then
    {
      echo 'nginx does not start, its configuration is wrong:'
      printf '  - %s\n' "${complaints[@]}"
      echo 'Correct the variables in .env, then run ./scripts/up again.'
    } >&2
    exit "$EX_CONFIG"
  fi
}

render() {
  local template
  if ! mkdir -p "$RENDERED/servers" "$RENDERED/snippets"; then
    echo "nginx does not start: $RENDERED cannot be written. Give the container a tmpfs on /tmp." >&2
    exit "$EX_CONFIG"
  fi
  for template in "${TEMPLATES[@]}"; do
    envsubst "$SUBSTITUTED" <"$SOURCE/$template.template" >"$RENDERED/$template.new"
    mv "$RENDERED/$template.new" "$RENDERED/$template"
  done
  for template in "${TLS_TEMPLATES[@]}"; do
    if [[ $tls == true ]]; then
      envsubst "$SUBSTITUTED" <"$SOURCE/$template.template" >"$RENDERED/$template"
    else
      : >"$RENDERED/$template"
    fi
  done
}

# -q: only what is wrong. -e: nowhere to write a log file, not even before the configuration is read.
test_configuration() {
  if ! nginx -e stderr -t -q; then
    echo 'nginx does not start: the lines above say which part of its configuration it refuses.' >&2
    exit "$EX_CONFIG"
  fi
}

main() {
  local run=true
  case "$*" in
    '') ;;
    --test) run=false ;;
    --certificate)
      show_certificate
      return
      ;;
    --help)
      usage
      return
      ;;
    *)
      usage >&2
      exit "$EX_USAGE"
      ;;
  esac
  check_variables
  render
  test_configuration
  if [[ $run == true ]]; then
    if [[ $tls == true ]]; then
      serve_pair
      # In a process that has already ended, so that it is not a child of what this one becomes.
      (watch_pair $$ &)
    fi
    exec nginx -e stderr -g 'daemon off;'
  fi
}

main "$@"
