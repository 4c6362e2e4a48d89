#!/usr/bin/env bash
# A real S3 server on loopback for the tests: Ceph's radosgw over one monitor and one disk daemon.
#
#   tests/helpers/s3_server.sh start DIR   installs Ceph if it is missing, starts, writes DIR/env.sh
#   tests/helpers/s3_server.sh stop DIR    ends the three processes and deletes what they stored
#
# DIR/env.sh holds the environment of a client: fresh random keys, the endpoint, the bucket.
set -euo pipefail

BUCKET=polytower-test
START_TIMEOUT_SECONDS=${POLYTOWER_S3_START_TIMEOUT_SECONDS:-90}
DAEMONS=(radosgw osd mon)  # in the order in which they stop
PACKAGES=(radosgw ceph-mon ceph-osd curl)

fail() {
    echo "s3-server: $1" >&2
    exit "${2:-1}"
}

fail_with_log() {
    local log=$DATA/log/$2.log
    echo "s3-server: $1; the end of $log:" >&2
    tail -n 20 "$log" >&2 || true
    exit 1
}

install_missing() {
    local program missing=()
    for program in radosgw radosgw-admin ceph ceph-mon ceph-osd curl; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "not installed: ${missing[*]}; as root on Debian 12+: apt-get install ${PACKAGES[*]}" 2
    fi
    echo "s3-server: installing ${PACKAGES[*]} (60 MB)"
    local apt_get=(apt-get -o DPkg::Lock::Timeout=120 -y --no-install-recommends)
    export DEBIAN_FRONTEND=noninteractive
    {
        "${apt_get[@]}" update && "${apt_get[@]}" install "${PACKAGES[@]}"
    } >"$DATA/log/apt.log" 2>&1 || fail_with_log "apt-get failed" apt
}

port_is_open() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() {
    local port
    while true; do
        port=$((20000 + RANDOM % 10000))  # below the range that Linux hands to outgoing connections
        port_is_open "$port" || { echo "$port"; return; }
    done
}

# The process id of one of our daemons, if it runs: a number reused by a stranger does not count.
pid_of() {
    local pid
    pid=$(cat "$DATA/run/$1.pid" 2>/dev/null) || return 1
    grep -qF "$DATA/ceph.conf" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

is_running() {
    local daemon
    [ -e "$DIR/env.sh" ] || return 1
    for daemon in "${DAEMONS[@]}"; do
        pid_of "$daemon" >/dev/null || return 1
    done
}

wait_until() {  # wait_until DAEMON WHAT COMMAND...
    local daemon=$1 what=$2 deadline=$((SECONDS + START_TIMEOUT_SECONDS))
    local begun=$((SECONDS + 5))  # a daemon writes its pid file some time after its parent returns
    shift 2
    until "$@"; do
        pid_of "$daemon" >/dev/null || [ $SECONDS -lt $begun ] \
            || fail_with_log "$daemon ended before $what" "$daemon"
        [ $SECONDS -lt $deadline ] \
            || fail_with_log "not after $START_TIMEOUT_SECONDS s: $what" "$daemon"
        sleep 0.2
    done
}

write_config() {  # write_config FSID MON_PORT S3_PORT
    cat >"$DATA/ceph.conf" <<CONFIG
[global]
fsid = $1
mon host = [v2:127.0.0.1:$2]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = $DATA/admin.keyring
run dir = $DATA/run
admin socket =
log to stderr = false
# One copy of each object, in few placement groups, with no manager daemon to scale them.
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd pool default pg num = 2
osd pool default pgp num = 2
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
osd crush chooseleaf type = 0
# By default the monitor waits up to a second before each change, and radosgw asks for a dozen.
paxos propose interval = 0.02
paxos min wait = 0.01
[mon.a]
mon data = $DATA/mon
pid file = $DATA/run/mon.pid
log file = $DATA/log/mon.log
[osd.0]
osd data = $DATA/osd
keyring = $DATA/osd/keyring
pid file = $DATA/run/osd.pid
log file = $DATA/log/osd.log
osd objectstore = bluestore
bluestore block create = true
bluestore block size = 17179869184
bluestore fsck on mount = false
osd memory target = 939524096
[client.radosgw]
keyring = $DATA/radosgw.keyring
pid file = $DATA/run/radosgw.pid
log file = $DATA/log/radosgw.log
rgw data = $DATA
rgw frontends = beast endpoint=127.0.0.1:$3 tcp_nodelay=1
rgw thread pool size = 32
CONFIG
}

start_mon() {  # start_mon FSID MON_PORT
    local admin=(--cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *')
    ceph-authtool --create-keyring "$DATA/mon.keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool --create-keyring "$DATA/admin.keyring" --gen-key -n client.admin "${admin[@]}"
    ceph-authtool "$DATA/mon.keyring" --import-keyring "$DATA/admin.keyring"
    monmaptool --create --fsid "$1" --addv a "[v2:127.0.0.1:$2]" "$DATA/monmap"
    ceph-mon -c "$DATA/ceph.conf" -i a --mkfs --monmap "$DATA/monmap" --keyring "$DATA/mon.keyring"
    ceph-mon -c "$DATA/ceph.conf" -i a
}

start_osd() {
    local uuid key
    uuid=$(cat /proc/sys/kernel/random/uuid)
    key=$(ceph-authtool --gen-print-key)
    ceph -c "$DATA/ceph.conf" osd new "$uuid" 0 -i - <<<"{\"cephx_secret\": \"$key\"}"
    ceph-authtool --create-keyring "$DATA/osd/keyring" -n osd.0 --add-key "$key"
    ceph-osd -c "$DATA/ceph.conf" -i 0 --mkfs --osd-uuid "$uuid"
    ceph-osd -c "$DATA/ceph.conf" -i 0
}

start_radosgw() {
    ceph -c "$DATA/ceph.conf" auth get-or-create client.radosgw mon 'allow rw' osd 'allow rwx' \
        -o "$DATA/radosgw.keyring"
    radosgw -c "$DATA/ceph.conf" -n client.radosgw
}

# Prints `access secret`: two random words that radosgw chose.
create_user() {
    local user field
    user=$(radosgw-admin -c "$DATA/ceph.conf" user create --uid polytower --display-name polytower \
        2>>"$DATA/log/setup.log") || fail_with_log "no user was created" setup
    user=${user//\\/}  # its JSON writes / as \/
    for field in access_key secret_key; do
        sed -n "s/.*\"$field\": \"\([^\"]*\)\".*/\1/p" <<<"$user"
    done | paste -sd ' '
}

osd_is_up() {
    ceph -c "$DATA/ceph.conf" osd stat 2>/dev/null | grep -q '1 up'
}

start() {
    if is_running; then
        echo "s3-server: already running; its environment is $DIR/env.sh"
        return
    fi
    stop >/dev/null
    trap end_daemons EXIT  # of a start that fails; the logs stay
    mkdir -p "$DATA"/{run,log,mon,osd}
    install_missing

    local fsid mon_port s3_port access secret
    fsid=$(cat /proc/sys/kernel/random/uuid)
    mon_port=$(free_port)
    s3_port=$(free_port)
    write_config "$fsid" "$mon_port" "$s3_port"
    start_mon "$fsid" "$mon_port" >>"$DATA/log/setup.log" 2>&1 || fail_with_log "no monitor" setup
    start_osd >>"$DATA/log/setup.log" 2>&1 || fail_with_log "no disk daemon" setup
    wait_until osd "the disk daemon joins" osd_is_up
    start_radosgw >>"$DATA/log/setup.log" 2>&1 || fail_with_log "no radosgw" setup
    wait_until radosgw "the S3 port $s3_port opens" port_is_open "$s3_port"
    read -r access secret <<<"$(create_user)"

    # The keys go to curl through a pipe, as a command line can be read by all. Older versions of
    # curl leave out the header, which S3 asks for.
    curl --silent --show-error --fail --request PUT --aws-sigv4 aws:amz:us-east-1:s3 --config - \
        --header "x-amz-content-sha256: UNSIGNED-PAYLOAD" \
        "http://127.0.0.1:$s3_port/$BUCKET" <<<"user = \"$access:$secret\"" \
        || fail_with_log "the bucket was not created" radosgw
    cat >"$DIR/env.sh" <<ENVIRONMENT
export AWS_ACCESS_KEY_ID=$access
export AWS_SECRET_ACCESS_KEY=$secret
export AWS_ENDPOINT_URL=http://127.0.0.1:$s3_port
export AWS_DEFAULT_REGION=us-east-1
export AWS_REQUEST_CHECKSUM_CALCULATION=when_required
export POLYTOWER_S3_TEST_BUCKET=$BUCKET
ENVIRONMENT
    trap - EXIT
    echo "s3-server: listens on 127.0.0.1:$s3_port after $SECONDS s; its environment is $DIR/env.sh"
}

end_daemons() {
    local daemon pid
    for daemon in "${DAEMONS[@]}"; do
        pid=$(pid_of "$daemon") || continue
        kill -KILL "$pid"  # nothing to flush: the data go too
        while pid_of "$daemon" >/dev/null; do sleep 0.05; done
    done
}

stop() {
    end_daemons
    rm -rf "$DATA" "$DIR/env.sh"
    echo "s3-server: stopped"
}

[[ $# == 2 && $1 =~ ^(start|stop)$ ]] || fail "usage: $0 start|stop DIR" 2
umask 077
mkdir -p "$2"
DIR=$(cd "$2" && pwd)
DATA=$DIR/data
# One start or stop at a time; --close keeps the lock from passing to the daemons.
if [ "${POLYTOWER_S3_LOCKED:-}" != "$DIR" ]; then
    exec env POLYTOWER_S3_LOCKED="$DIR" flock --close "$DIR" "$BASH" "$0" "$1" "$DIR"
fi
"$1"
