#!/usr/bin/env bash
# Checks the variables of nginx, writes the configuration that depends on them, and runs nginx.
#
# usage: entrypoint.sh           render, test, then run nginx, for as long as it or a successor lives
#        entrypoint.sh --test    render and test only
#        entrypoint.sh --certificate   for how many days the certificate that is served lasts, and until when
#        entrypoint.sh --help    this text
#        entrypoint.sh --hand-over NUMBER [PREVIOUS]    for ./scripts/deploy, as are those below: put this image's
#                                nginx, configuration and static files, and those static files of PREVIOUS that this
#                                image lacks, on the volume, for the backends of deployment NUMBER
#        entrypoint.sh --serve NUMBER         let nginx serve what was handed over, without a restart; where that came
#                                with another nginx, let it take the place of the one that runs
#        entrypoint.sh --serving              the number of the deployment that is served, if there is one
#        entrypoint.sh --drained SECONDS      wait for the requests that nginx took before the last --serve
#        entrypoint.sh --image                what this image holds, as one word
#        entrypoint.sh --stays                of this image what is not handed over, as one word
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
# Also in snippets/certificate.conf. Not below RENDERED, whose files may be shown.
readonly TLS=/tmp/tls
# What is being checked; of this process, since a deployment may check at the moment at which a certificate is replaced.
readonly PAIR=$TLS/pair.$$
# Where Compose mounts the folders of TLS_CERT_FILE and TLS_KEY_FILE (docker-compose.listeners.yml).
readonly TLS_SOURCES=/run/tls
readonly TLS_CHECK_SECONDS=20
# The configuration that nginx reads: a link, so that a reload can mean another one. To /etc/nginx, or to what a
# deployment has handed over (docs/decisions/0030).
readonly LIVE=/tmp/nginx/live
# The nginx that runs, and the one that takes its place: a link, to this image's or to one that was handed over.
readonly PROGRAM=/tmp/nginx/program
# Also in nginx.conf.
readonly PID_FILE=/tmp/nginx.pid
# A volume: it must outlive a restart of this container.
readonly HANDED_OVER=/srv/nginx
readonly STATIC=/usr/share/nginx
# In servers/health.conf.
readonly DEPLOYMENT_URL=http://127.0.0.1:8081/deployment
# The libraries that belong to the loader of the container.
readonly LIBC='/lib(c|m|dl|rt|pthread|resolv|util)\.so[^/]*$'
readonly UNTIL_RESOLVED='# until resolved'
readonly SERVE_LOCK=/tmp/serve.lock
readonly RELOAD_SECONDS=15
readonly EX_USAGE=64
readonly EX_CONFIG=78

# By name, not by glob, as nginx.conf includes them.
readonly TEMPLATES=(
  servers/http.conf
  snippets/auth-rate.conf
  snippets/connections-per-address.conf
  snippets/port-of-https.conf
  snippets/request-body.conf
  snippets/trusted-proxies.conf
  snippets/upstream-timeouts.conf
  snippets/workers.conf
)
# Of these the rendered file is empty without TLS.
readonly TLS_TEMPLATES=(servers/https.conf)
# Only these are replaced: nginx's own $variables stay.
# shellcheck disable=SC2016  # envsubst reads the names, the shell must not
readonly SUBSTITUTED='
    ${HTTPS_PORT} ${NGINX_AUTH_BURST} ${NGINX_AUTH_RATE} ${NGINX_AUTH_WAIT_SECONDS} ${NGINX_CLIENT_MAX_BODY_KB}
    ${NGINX_CONNECTIONS_PER_ADDRESS} ${NGINX_HTTP_ANSWERS} ${NGINX_SERVER_NAMES} ${NGINX_TRUSTED_ADDRESSES} ${NGINX_TRUSTED_FROM}
    ${NGINX_UPSTREAM_TIMEOUT_SECONDS} ${NGINX_WORKER_PROCESSES}'

complaints=()
tls=false
pair_seen=

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

# Turns NGINX_TRUSTED_PROXIES, separated by commas, into the lines of snippets/trusted-proxies.conf.template.
check_trusted_proxies() {
  # Nobody has this address.
  export NGINX_TRUSTED_FROM=255.255.255.255 NGINX_TRUSTED_ADDRESSES=255.255.255.255
  [[ -n ${NGINX_TRUSTED_PROXIES+set} ]] || return 0
  local octet='(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])' rest=$NGINX_TRUSTED_PROXIES, item
  local ipv4="^${octet}(\\.${octet}){3}(/([1-9]|[12][0-9]|3[0-2]))?\$"
  local ipv6='^[0-9A-Fa-f:]*:[0-9A-Fa-f:]*(/([1-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?$'
  while [[ -n $rest ]]; do
    item=${rest%%,*}
    rest=${rest#*,}
    item=${item#"${item%%[![:space:]]*}"}
    item=${item%"${item##*[![:space:]]}"}
    if [[ ! $item =~ $ipv4 && ! $item =~ $ipv6 ]]; then
      complaints+=('NGINX_TRUSTED_PROXIES must be addresses or networks such as 192.0.2.10 or 2001:db8::/48, separated by commas, never all addresses; remove it where no proxy stands in front.')
      return
    fi
    NGINX_TRUSTED_FROM+=";"$'\n'"set_real_ip_from $item"
    NGINX_TRUSTED_ADDRESSES+=" 1;"$'\n'"    $item"
  done
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
  # Before the copy is made: what is replaced from now on is another pair.
  # check_pair says what of it cannot be read.
  pair_seen=$(fingerprint) || true
  check_pair
}

# check_pair: copies what the operator's files hold now into $PAIR, and adds to the complaints what is wrong
# with it. The copy is what is checked and what is served: no replacement can come in between.
check_pair() {
  local before=${#complaints[@]} certificate=$TLS/certificate.$$ key=$TLS/key.$$
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
  (umask 077 && { cat "$1" && echo && cat "$2"; } >"$PAIR")
  cat >"$PAIR.conf" <<CONFIGURATION
pid $PAIR.pid;
events {}
http {
    access_log off;
    include $SOURCE/snippets/temporary-files.conf;
    server {
        listen unix:$PAIR.sock ssl;
        ssl_certificate $PAIR;
        ssl_certificate_key $PAIR;
    }
}
CONFIGURATION
  local refusal
  if ! refusal=$(nginx -e stderr -t -q -c "$PAIR.conf" 2>&1); then
    complaints+=("TLS_CERT_FILE and TLS_KEY_FILE are refused by nginx: ${refusal%%$'\n'*}")
  fi
  rm -f "$PAIR.conf" "$PAIR.sock"
}

# date_of CERTIFICATE OPTION: in seconds since 1970.
date_of() { date --utc --date "$(openssl x509 -in "$1" -noout "$2" | cut -d = -f 2)" +%s; }

as_date() { date --utc --date "@$1" '+%Y-%m-%d %H:%M UTC'; }

# serve_pair: from the next handshake on. One rename, so that no handshake reads half of it.
serve_pair() { mv "$PAIR" "$TLS/pair.pem"; }

# watch_pair MASTER: for as long as that process is there. A pair that is refused is said once, not three times a minute.
watch_pair() {
  set +e
  local seen=$pair_seen now refused=''
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
  check_trusted_proxies
  # No more than Django's DATA_UPLOAD_MAX_MEMORY_SIZE (backend/config/settings.py).
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
  if ! mkdir -p "$RENDERED/servers" "$RENDERED/snippets"; then
    echo "nginx does not start: $RENDERED cannot be written. Give the container a tmpfs on /tmp." >&2
    exit "$EX_CONFIG"
  fi
  render_templates "$SOURCE" "$RENDERED" "${TEMPLATES[@]}"
  render_tls_templates "$SOURCE" "$RENDERED" "${TLS_TEMPLATES[@]}"
}

# render_templates FROM INTO TEMPLATE...
render_templates() {
  local from=$1 into=$2 template
  for template in "${@:3}"; do
    envsubst "$SUBSTITUTED" <"$from/$template.template" >"$into/$template.new"
    mv "$into/$template.new" "$into/$template"
  done
}

# render_tls_templates FROM INTO TEMPLATE...
render_tls_templates() {
  local template
  if [[ $tls == true ]]; then
    render_templates "$@"
    return
  fi
  for template in "${@:3}"; do
    : >"$2/$template"
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
  make_live "$SOURCE" "$(command -v nginx)"
  [[ -r $HANDED_OVER/served ]] && read -r container image number <"$HANDED_OVER/served" || return 0
  is_complete "$number" && [[ $image == "$(image_id)" ]] || return 0
  if [[ $container != "$HOSTNAME" ]]; then
    local -a templates
    mapfile -t templates <"$HANDED_OVER/$number/templates"
    render_templates "$HANDED_OVER/$number" "$HANDED_OVER/$number/rendered" "${templates[@]}"
    mapfile -t templates <"$HANDED_OVER/$number/tls-templates"
    render_tls_templates "$HANDED_OVER/$number" "$HANDED_OVER/$number/rendered" "${templates[@]}"
  fi
  local tree=$HANDED_OVER/$number program
  program=$(program_for "$tree")
  accepts "$tree" "$program" || return 0
  make_live "$tree" "$program"
  note_served "$number"
}

image_id() {
  (find "$SOURCE" -type f -exec sha256sum {} + && find "$STATIC" -type f && program_id) | sort | sha256sum | head -c 16
}

note_served() {
  echo "$HOSTNAME $(image_id) $1" >"$HANDED_OVER/served.new"
  mv "$HANDED_OVER/served.new" "$HANDED_OVER/served"
}

# make_live TREE PROGRAM
make_live() {
  point "$LIVE" "$1"
  point "$PROGRAM" "$2"
}

# point LINK TARGET: there is never no link.
point() {
  ln -sfn "$2" "$1.new"
  mv -T "$1.new" "$1"
}

is_complete() { [[ -e $HANDED_OVER/$1/complete ]]; }

# accepts TREE [PROGRAM]
accepts() { "${2:-nginx}" -e stderr -t -q -c "$1/nginx.conf"; }

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
  printf '%s\n' "${TLS_TEMPLATES[@]}" >"$tree/tls-templates"
  cp -r "$STATIC/static" "$tree/public/static"
  (cd "$tree/public" && find static -type f) | LC_ALL=C sort >"$tree/static-files"
  find "$tree" \( -name '*.conf' -o -name '*.template' \) -exec sed -i \
    -e "s|$RENDERED/|$tree/rendered/|" -e "s|^root $STATIC;|root $tree/public;|" {} +
  # The backends of this deployment; any, should there be none of them. And the answer to --serving.
  sed -i -e "/ backup;/!s|^\( *server backend\):8000 |\1-$1:8000 |" \
    -e "s|^\( *\)default \"no deployment\";|\1default \"$1\";|" "$tree/snippets/upstream.conf"
  if ! grep -q "server backend-$1:8000 " "$tree/snippets/upstream.conf" ||
    ! grep -q "server backend:8000 .* backup;" "$tree/snippets/upstream.conf" ||
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
  hand_over_program "$tree/program"
  touch "$tree/complete"
}

serve() {
  local tree=$HANDED_OVER/$1 deadline=$((SECONDS + RELOAD_SECONDS)) program before
  is_complete "$1" || refuse "nothing was handed over for deployment $1."
  before=$(readlink "$PROGRAM")
  program=$(program_for "$tree")
  # One successor at a time: the one that runs can make way once its own predecessor has ended.
  [[ $(id_of "$program") == "$(id_of "$before")" ]] || ! predecessor_runs || program=$before
  accepts "$tree" "$program" || refuse 'the lines above say what nginx refuses; it goes on as before.'
  if [[ $(id_of "$program") == "$(id_of "$before")" ]]; then
    make_live "$tree" "$program"
    kill -HUP "$(<"$PID_FILE")"
  else
    write_addresses "$1" "$tree"
    succeed "$tree" "$program" || refuse 'the nginx that was handed over did not start; the one that runs goes on.'
  fi
  note_served "$1"
  until [[ $(serving) == "$1" ]]; do
    ((SECONDS < deadline)) || refuse "nginx did not begin to serve deployment $1; its log says why."
    sleep 0.2
  done
  if drop_addresses "$tree"; then
    sleep 1 # DNS has answered within milliseconds
    kill -HUP "$(<"$PID_FILE")"
  fi
}

# write_addresses NUMBER TREE: a program that starts knows no address of a backend until DNS has answered, and a reload
# remembers what the one before it knew. So for this moment they are in the configuration.
write_addresses() {
  local address lines=''
  while read -r address _; do
    lines+="    server $address:8000 max_fails=0 backup; $UNTIL_RESOLVED\n"
  done < <(getent ahostsv4 "backend-$1" | grep STREAM)
  sed -i "s|^upstream backend {\$|&\n${lines%\\n}|" "$2/snippets/upstream.conf"
}

# drop_addresses TREE: fails where there are none.
drop_addresses() {
  grep -q "$UNTIL_RESOLVED" "$1/snippets/upstream.conf" && sed -i "/$UNTIL_RESOLVED/d" "$1/snippets/upstream.conf"
}

# --- nginx itself: a program with libraries ---------------------------------------------------------------------------

# hand_over_program FOLDER: this image's. Not its libc, which would need its own loader: that of the container does.
hand_over_program() {
  local name
  mkdir -p "$1/files"
  program_files | while read -r name; do cp -L "$name" "$1/files/"; done
  program_id >"$1/id"
  # The name by which it is called must remain the link's: from there nginx starts its successor.
  # shellcheck disable=SC2016 # $0 and $@ are for that file
  printf '#!%s\nLD_LIBRARY_PATH=%s exec -a "$0" %s "$@"\n' "$BASH" "$1/files" "$1/files/nginx" >"$1/nginx"
  chmod 0755 "$1/nginx"
}

# program_files: this image's nginx, and the libraries that come with it.
program_files() {
  command -v nginx
  libraries | grep -vE "$LIBC" || true
}

libraries() { ldd "$(command -v nginx)" 2>/dev/null | sed -nE 's|^.* => (/[^ ]+) .*$|\1|p' || true; }

program_id() { program_files | id_of_files; }

# staying_files: what the container keeps until it is made anew.
staying_files() {
  printf '%s\n' "$0"
  libraries | grep -E "$LIBC" || true
}

staying_id() { staying_files | id_of_files; }

id_of_files() { xargs sha256sum | cut -d ' ' -f 1 | sort | sha256sum | head -c 16; }

# id_of PROGRAM
id_of() { cat "${1%/*}/id" 2>/dev/null || program_id; }

# program_for TREE: the one that was handed over with it, where it is another than this image's and runs here.
program_for() {
  local handed_over=$1/program/nginx
  if [[ -x $handed_over && $(id_of "$handed_over") != "$(program_id)" ]] && "$handed_over" -v >/dev/null 2>&1; then
    printf '%s\n' "$handed_over"
  else
    command -v nginx
  fi
}

predecessor_runs() { [[ -e $PID_FILE.oldbin ]] && kill -0 "$(<"$PID_FILE.oldbin")" 2>/dev/null; }

# succeed TREE PROGRAM: the sockets go from one nginx to the other, so no connection is refused meanwhile; the one before
# ends with its last request. https://nginx.org/en/docs/control.html#upgrade
succeed() {
  local before after tree program deadline=$((SECONDS + RELOAD_SECONDS))
  before=$(<"$PID_FILE")
  tree=$(readlink "$LIVE")
  program=$(readlink "$PROGRAM")
  make_live "$1" "$2"
  kill -USR2 "$before"
  until [[ -s $PID_FILE ]] && after=$(<"$PID_FILE") && [[ $after != "$before" ]] && has_workers "$after"; do
    if ((SECONDS >= deadline)); then
      make_live "$tree" "$program"
      [[ -z ${after-} || $after == "$before" ]] || kill -TERM "$after" 2>/dev/null || true
      return 1
    fi
    sleep 0.1
  done
  kill -QUIT "$before"
}

has_workers() { grep -qsx "PPid:[[:space:]]$1" /proc/[0-9]*/status; }

# run: nginx, until it or the last of its successors has ended; what they are told is told to this process.
run() {
  rm -f "$PID_FILE"
  local told='' master
  trap 'tell QUIT' QUIT
  trap 'tell TERM' TERM INT
  trap 'tell HUP' HUP
  # In a process that ends once nginx has started: with a parent of its own, nginx would take itself for a successor
  # whose predecessor is still there, and let none take its place (ngx_signal_handler in src/os/unix/ngx_process.c).
  (
    "$PROGRAM" -e stderr -c "$LIVE/nginx.conf" -g 'daemon off;' &
    until [[ -s $PID_FILE ]] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
  )
  while master=$(cat "$PID_FILE" 2>/dev/null) && kill -0 "$master" 2>/dev/null; do
    tail --pid "$master" --sleep-interval 0.2 --follow /dev/null &
    wait $! || true
  done
  [[ $told == QUIT || $told == TERM ]] || refuse 'it has ended by itself; its last lines say why.'
}

# tell SIGNAL
tell() {
  told=$1
  kill "-$1" "$(<"$PID_FILE")" 2>/dev/null || true
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
  local tree number used
  used="$(readlink "$LIVE")/ $(readlink "$PROGRAM")"
  for tree in "$HANDED_OVER"/*/; do
    number=${tree%/}
    number=${number##*/}
    [[ $number =~ ^[0-9]+$ && " $* " != *" $number "* ]] || continue
    [[ $used != *"$tree"* ]] || continue
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
      if [[ $tls == true ]]; then
        serve_pair
        watch_pair $$ &
      fi
      choose_live
      run
      ;;
    --test/1 | --hand-over/[23])
      check_variables
      render
      test_configuration
      rm -f "$PAIR"
      [[ $1 == --test ]] || hand_over "${@:2}"
      ;;
    --serve/2)
      # One at a time: a deployment that was killed leaves its own under way.
      exec 8>"$SERVE_LOCK"
      flock 8
      serve "$2"
      ;;
    --serving/1) serving ;;
    --image/1) image_id ;;
    --stays/1) staying_id ;;
    --drained/2) drained "$2" ;;
    --forget/*) forget "${@:2}" ;;
    --certificate/1) show_certificate ;;
    --help/1) usage ;;
    *)
      usage >&2
      exit "$EX_USAGE"
      ;;
  esac
}

main "$@"
