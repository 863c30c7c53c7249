#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Fuzzes each target for so many seconds, from the committed corpus, on a stable toolchain:
#
#     conformance/fuzz/run.sh 30                 # every target
#     conformance/fuzz/run.sh 600 firmware       # these
#     conformance/fuzz/run.sh --planted 60       # each must find the fault planted in it
#
# Needs a C++ compiler (for libFuzzer). Exit status: 1 if an input breaks a property, which then lies
# in out/fuzz/TARGET; 2 if it could not be tried.
set -euo pipefail
cd "$(dirname "$0")"

planted=
if [ "${1:-}" = --planted ]; then
    planted=yes
    export FUZZ_PLANTED=yes
    shift
fi
seconds="${1:?how many seconds for each target}"
shift
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=(trace frame record firmware recording)

# What cargo-fuzz passes, without the sanitizers, which need a nightly compiler: the pass that counts
# branches is a part of LLVM, and so is in every compiler. A target is named, so that build scripts and
# procedural macros are built without it.
host="$(rustc -vV | sed -n 's/^host: //p')"
flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares"
build=(cargo build --locked --quiet --release --target "$host")
for target in "${targets[@]}"; do
    build+=(--bin "$target")
done
RUSTFLAGS="$flags" "${build[@]}" || exit 2

out=../../out/fuzz
failed=()
for target in "${targets[@]}"; do
    # What is found goes where nothing is committed; what is committed is only read.
    found="$out/$target/corpus"
    mkdir -p "$found"
    corpus=("corpus/$target")
    [ "$target" != trace ] || corpus=(../tests/corpus)
    log="$out/$target/log"
    status=0
    "target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -max_len=8192 -print_final_stats=1 -artifact_prefix="$out/$target/" \
        "$found" "${corpus[@]}" 2>"$log" || status=$?
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    covered="$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)"
    echo "$target: ${runs:-no} inputs, ${covered:-no} edges, $([ "$status" -eq 0 ] && echo nothing found || echo "FAIL, see $log")"
    if [ "$status" -ne 0 ]; then
        failed+=("$target")
        [ -n "$planted" ] || tail -n 40 "$log" >&2
    fi
    # Planted and not planted do not share what they found.
    [ -z "$planted" ] || rm -rf "$found"
done

if [ -n "$planted" ]; then
    [ "${#failed[@]}" -eq "${#targets[@]}" ] || { echo "a planted fault was not found" >&2; exit 1; }
    exit 0
fi
[ "${#failed[@]}" -eq 0 ]
