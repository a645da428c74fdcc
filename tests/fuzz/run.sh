#!/usr/bin/env bash
# Runs every fuzz target: ./tests/fuzz/run.sh [SECONDS-EACH, default 300] [TARGET...]; what it finds stands in target/fuzz/found.
# libFuzzer needs flags that stable Rust keeps for nightly; RUSTC_BOOTSTRAP lets it take them, here only.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-300}
shift || true
export PATH=$PWD/../../target/tools/bin:$PATH RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$PWD/../../target/fuzz
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked --version 0.13.2 --root ../../target/tools
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo fuzz list --fuzz-dir .)
for target in "${targets[@]}"; do
    echo "== $target, $seconds s"
    corpus=$CARGO_TARGET_DIR/corpus/$target
    found=$CARGO_TARGET_DIR/found/$target
    mkdir -p "$corpus" "$found" "seeds/$target"
    cargo fuzz run --fuzz-dir . "$target" "$corpus" "seeds/$target" -- -max_total_time="$seconds" -max_len=8192 -timeout=10 -artifact_prefix="$found/" -print_final_stats=1
done
