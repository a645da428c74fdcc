#!/usr/bin/env bash
# Counts what a sidecar does under load, so that the compiler knows which way requests take (proxy/profile/rustc).
# As root on Debian; takes three minutes and a release build of everything.
#
#   ./benches/profile.sh
#
# Builds into target/profiled (or CARGO_TARGET_DIR) a sidecar that counts, runs every load of benches/run.sh and
# benches/pair.py with it, and writes proxy/profile/weft-proxy.profdata. What no load comes by is built for size, so a
# new way of requests wants a load of its own. A function that has changed since is built as if nothing were known of
# it: this is to be run again when much has changed, and benches/layout.py with what is built by its outcome. Needs
# `rustup component add llvm-tools`.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1-} in '') ;; *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 1 ;; esac

merge=$(find "$(rustc --print sysroot)" -name llvm-profdata | head -n 1)
[ -n "$merge" ] || { echo "llvm-profdata is missing: rustup component add llvm-tools" >&2; exit 1; }

work=$(mktemp -d /tmp/weft-profile.XXXXXX)
trap 'rm -rf "$work"' EXIT
# Sidecars run as users of their own.
mkdir -m 1777 "$work/counts"
chmod 755 "$work"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/profiled}
WEFT_PROFILE=$work/counts cargo build --release --locked --bins
mkdir "$work/programs"
cp "$CARGO_TARGET_DIR"/release/{weft,weft-proxy,weft-testkit} "$work/programs"

WEFT_PROGRAMS=$work/programs ./benches/run.sh --rounds 1 --json "$work/bench.json" weft
./benches/pair.py --rounds 1 usual="$work/programs" resilient="$work/programs,@benches/policies/resilience.yaml"

"$merge" merge --output proxy/profile/weft-proxy.profdata "$work"/counts/*.profraw
rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p' >proxy/profile/llvm
