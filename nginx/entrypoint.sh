#!/usr/bin/env bash
# Checks the variables of nginx, writes the configuration that depends on them, and becomes nginx.
#
# usage: entrypoint.sh           render, test, then run nginx in the foreground
#        entrypoint.sh --test    render and test only
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
readonly EX_USAGE=64
readonly EX_CONFIG=78

# By name, not by glob, as nginx.conf includes them.
readonly TEMPLATES=(
  servers/http.conf
  snippets/auth-rate.conf
  snippets/connections-per-address.conf
  snippets/request-body.conf
  snippets/upstream-timeouts.conf
  snippets/workers.conf
)
# Only these are replaced: nginx's own $variables stay.
# shellcheck disable=SC2016  # envsubst reads the names, the shell must not
readonly SUBSTITUTED='
    ${NGINX_AUTH_BURST} ${NGINX_AUTH_RATE} ${NGINX_AUTH_WAIT_SECONDS} ${NGINX_CLIENT_MAX_BODY_KB}
    ${NGINX_CONNECTIONS_PER_ADDRESS} ${NGINX_SERVER_NAMES} ${NGINX_UPSTREAM_TIMEOUT_SECONDS} ${NGINX_WORKER_PROCESSES}'

complaints=()

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "$0"
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

check_variables() {
  check_hosts
  check_auth_rate
  # No more than Django's DATA_UPLOAD_MAX_MEMORY_SIZE (backend/config/settings.py).
  check_whole NGINX_CLIENT_MAX_BODY_KB 1024 1 2048
  check_whole NGINX_CONNECTIONS_PER_ADDRESS 100 1 100000
  check_whole NGINX_UPSTREAM_TIMEOUT_SECONDS 12 1 600
  check_whole NGINX_WORKER_PROCESSES 2 1 64

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
    exec nginx -e stderr -g 'daemon off;'
  fi
}

main "$@"
