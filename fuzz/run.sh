#!/usr/bin/env bash
# Fuzzes one target for so many seconds, with AddressSanitizer and what libFuzzer wants to know of
# the branches taken: what `cargo fuzz` does, without it and with any compiler.
#   fuzz/run.sh lane 600 [libFuzzer's options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target=${1:?the name of a target in fuzz_targets}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
host=$(rustc -vV | sed -n 's/^host: //p')

coverage=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0
)
# Sanitizers are no part of the stable compiler's promises: RUSTC_BOOTSTRAP takes them nevertheless.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="${coverage[*]} -Zsanitizer=address -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing"
cargo build --locked --release --target "$host" --bin "$target"

mkdir -p "corpus/$target" "artifacts/$target"
exec "target/$host/release/$target" "corpus/$target" "-artifact_prefix=artifacts/$target/" \
  -max_total_time="$seconds" -print_final_stats=1 -timeout=20 "$@"
