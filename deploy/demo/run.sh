#!/bin/sh
# Builds weft and shows the whole mesh on this machine, without root. `--keep` leaves it running.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --locked -p weft -p weft-proxy
exec "${CARGO_TARGET_DIR:-target}/release/weft" demo "$@"
