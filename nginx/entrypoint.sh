#!/usr/bin/env bash
# Checks the variables of nginx, writes the configuration that depends on them, and becomes nginx.
#
# usage: entrypoint.sh           render, test, then run nginx in the foreground
#        entrypoint.sh --test    render and test only
#        entrypoint.sh --help    this text
#        entrypoint.sh --hand-over NUMBER [PREVIOUS]    for ./scripts/deploy, as are the next five: put this image's
#                                configuration and static files, and those static files of PREVIOUS that this image
#                                lacks, on the volume, for the backends of deployment NUMBER
#        entrypoint.sh --serve NUMBER         let the running nginx serve what was handed over, without a restart
#        entrypoint.sh --serving              the number of the deployment that is served, if there is one
#        entrypoint.sh --drained SECONDS      wait for the requests that nginx took before the last --serve
#        entrypoint.sh --image                what this image holds, as one word
#        entrypoint.sh --forget [KEEP...]     remove what was handed over for other deployments
#
# Every bad variable is named in one message, without its value, and the exit status is 78 (EX_CONFIG of sysexits.h).
# The accepted values are those of backend/config/env.py, which declares the same variables for the whole stack.

set -Eeuo pipefail

# In other locales [A-Z] may contain more than these letters.
export LC_ALL=C

readonly SOURCE=/etc/nginx
# Also in nginx.conf and in snippets/application.conf: /tmp is the only writable place of the container.
readonly RENDERED=/tmp/nginx
# The configuration that nginx reads: a link, so that a reload can mean another one. To /etc/nginx, or to what a
# deployment has handed over (docs/decisions/0030).
readonly LIVE=/tmp/nginx/live
# A volume: it must outlive a restart of this container.
readonly HANDED_OVER=/srv/nginx
readonly STATIC=/usr/share/nginx
# In servers/health.conf.
readonly DEPLOYMENT_URL=http://127.0.0.1:8081/deployment
readonly RELOAD_SECONDS=15
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
  sed -n '2,${/^#/!q; s/^# \{0,1\}//; p}' "$0"
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
  # Below Django's DATA_UPLOAD_MAX_MEMORY_SIZE of 2.5 MB.
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
  if ! mkdir -p "$RENDERED/servers" "$RENDERED/snippets"; then
    echo "nginx does not start: $RENDERED cannot be written. Give the container a tmpfs on /tmp." >&2
    exit "$EX_CONFIG"
  fi
  render_templates "$SOURCE" "$RENDERED" "${TEMPLATES[@]}"
}

# render_templates FROM INTO TEMPLATE...
render_templates() {
  local from=$1 into=$2 template
  for template in "${@:3}"; do
    envsubst "$SUBSTITUTED" <"$from/$template.template" >"$into/$template.new"
    mv "$into/$template.new" "$into/$template"
  done
}

# -q: only what is wrong. -e: nowhere to write a log file, not even before the configuration is read.
test_configuration() {
  if ! nginx -e stderr -t -q; then
    echo 'nginx does not start: the lines above say which part of its configuration it refuses.' >&2
    exit "$EX_CONFIG"
  fi
}

# choose_live: what this container served before it was restarted; with the present variables, what another container of
# this image served; and what this image holds, if that is another one or nothing was handed over.
choose_live() {
  local container image number
  make_live "$SOURCE"
  [[ -r $HANDED_OVER/served ]] && read -r container image number <"$HANDED_OVER/served" || return 0
  is_complete "$number" && [[ $image == "$(image_id)" ]] || return 0
  if [[ $container != "$HOSTNAME" ]]; then
    local -a templates
    mapfile -t templates <"$HANDED_OVER/$number/templates"
    render_templates "$HANDED_OVER/$number" "$HANDED_OVER/$number/rendered" "${templates[@]}"
  fi
  accepts "$HANDED_OVER/$number" || return 0
  make_live "$HANDED_OVER/$number"
  note_served "$number"
}

image_id() {
  (find "$SOURCE" -type f -exec sha256sum {} + && find "$STATIC" -type f) | LC_ALL=C sort | sha256sum | head -c 16
}

note_served() {
  echo "$HOSTNAME $(image_id) $1" >"$HANDED_OVER/served.new"
  mv "$HANDED_OVER/served.new" "$HANDED_OVER/served"
}

make_live() {
  ln -sfn "$1" "$LIVE.new"
  mv -T "$LIVE.new" "$LIVE"
}

is_complete() { [[ -e $HANDED_OVER/$1/complete ]]; }

accepts() { nginx -e stderr -t -q -c "$1/nginx.conf"; }

refuse() {
  echo "nginx: $1" >&2
  exit 1
}

# number WORD: the names of folders and of hosts are made of it.
number() { [[ ${1-} =~ ^[0-9]{1,9}$ ]] || refuse "the number of a deployment must be 1 to 9 digits."; }

# hand_over NUMBER [PREVIOUS]: a whole configuration of its own, with no path into this image, since another image's
# nginx will read it.
hand_over() {
  local tree=$HANDED_OVER/$1 previous=${2:+$HANDED_OVER/$2}
  rm -rf "$tree"
  mkdir -p "$tree/public"
  cp -r "$SOURCE/." "$tree"
  cp -r "$RENDERED" "$tree/rendered"
  rm -f "$tree/rendered/live"
  printf '%s\n' "${TEMPLATES[@]}" >"$tree/templates"
  cp -r "$STATIC/static" "$tree/public/static"
  (cd "$tree/public" && find static -type f) | LC_ALL=C sort >"$tree/static-files"
  find "$tree" \( -name '*.conf' -o -name '*.template' \) -exec sed -i \
    -e "s|$RENDERED/|$tree/rendered/|" -e "s|^root $STATIC;|root $tree/public;|" {} +
  # The backends of this deployment; any, should there be none of them. And the answer to --serving.
  sed -i -e "s|^\( *\)server backend:8000 \(.*\);|\1server backend-$1:8000 \2;\n\1server backend:8000 \2 backup;|" \
    -e "s|^\( *\)default \"no deployment\";|\1default \"$1\";|" "$tree/snippets/upstream.conf"
  if ! grep -q "server backend-$1:8000 " "$tree/snippets/upstream.conf" ||
    ! grep -q "default \"$1\";" "$tree/snippets/upstream.conf" ||
    grep -rqE --include='*.conf*' "^[^#]*($RENDERED/|$STATIC;)" "$tree"; then
    refuse "the configuration cannot be handed over: hand_over in nginx/entrypoint.sh does not know its lines."
  fi
  # Pages that the previous release has made name its static files.
  if [[ -n $previous && -e $previous/static-files ]]; then
    local file
    while read -r file; do
      [[ ! -e $tree/public/$file ]] || continue
      mkdir -p "$tree/public/${file%/*}"
      ln "$previous/public/$file" "$tree/public/$file"
    done <"$previous/static-files"
  fi
  accepts "$tree" || refuse 'the configuration was not handed over: the lines above say what this nginx refuses in it.'
  touch "$tree/complete"
}

serve() {
  local tree=$HANDED_OVER/$1 deadline=$((SECONDS + RELOAD_SECONDS))
  is_complete "$1" || refuse "nothing was handed over for deployment $1."
  accepts "$tree" || refuse 'the lines above say what the nginx that runs refuses; it goes on as before.'
  make_live "$tree"
  note_served "$1"
  nginx -e stderr -c "$LIVE/nginx.conf" -s reload
  until [[ $(serving) == "$1" ]]; do
    ((SECONDS < deadline)) || refuse "nginx did not begin to serve deployment $1; its log says why."
    sleep 0.2
  done
}

serving() {
  local answer
  answer=$(curl -fsS --max-time 5 "$DEPLOYMENT_URL") || refuse 'nginx does not answer.'
  [[ ! $answer =~ ^\{\"detail\":\"([0-9]+)\"\}$ ]] || echo "${BASH_REMATCH[1]}"
}

# drained SECONDS: a worker that was told to end says so in its title, and ends with its last request.
drained() {
  local deadline=$((SECONDS + $1))
  # nginx starts the new workers first and tells the old ones 0.1 s later.
  sleep 1
  while grep -qsa 'worker process is shutting down' /proc/[0-9]*/cmdline; do
    ((SECONDS < deadline)) || refuse 'requests from before are still under way.'
    sleep 0.2
  done
}

forget() {
  local tree number
  for tree in "$HANDED_OVER"/*/; do
    number=${tree%/}
    number=${number##*/}
    [[ $number =~ ^[0-9]+$ && " $* " != *" $number "* && $(readlink "$LIVE") != "$HANDED_OVER/$number" ]] || continue
    rm -rf "${HANDED_OVER:?}/$number"
  done
}

main() {
  case "${1-}" in
    --hand-over | --serve | --drained)
      number "${2-}"
      [[ -z ${3-} ]] || number "$3"
      ;;
  esac
  case "${1-}/$#" in
    /0)
      check_variables
      render
      test_configuration
      choose_live
      exec nginx -e stderr -c "$LIVE/nginx.conf" -g 'daemon off;'
      ;;
    --test/1 | --hand-over/[23])
      check_variables
      render
      test_configuration
      [[ $1 == --test ]] || hand_over "${@:2}"
      ;;
    --serve/2) serve "$2" ;;
    --serving/1) serving ;;
    --image/1) image_id ;;
    --drained/2) drained "$2" ;;
    --forget/*) forget "${@:2}" ;;
    --help/1) usage ;;
    *)
      usage >&2
      exit "$EX_USAGE"
      ;;
  esac
}

main "$@"
