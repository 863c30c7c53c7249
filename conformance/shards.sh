#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Runs every cell once whole and once in four partitions, as four hosts would, and holds the union of
# the partitions' verdicts against the whole run's, test by test, as JUnit has them.
#
#     conformance/shards.sh                        # every cell, which takes seven minutes
#     conformance/shards.sh -E 'test(/^arcs/)'     # these, as nextest's filters say
#
# Needs cargo-nextest. Exit status: 1 if a test fails or the verdicts differ, 2 if it cannot be tried.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo nextest --version >/dev/null 2>&1 || {
    echo "there is no cargo-nextest: cargo install --locked cargo-nextest, or https://nexte.st" >&2
    exit 2
}
profile=reference
filter=("$@")
# Words of so many states more loop inside their cell.
export VFIO_CONFORM_EXTRA="${VFIO_CONFORM_EXTRA:-1}"
# Where nextest puts it, wherever Cargo builds.
junit="target/nextest/$profile/junit.xml"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# Name and verdict of each test of the last run, one a line.
verdicts() {
    awk '
        /<testcase / { match($0, /name="[^"]*"/); name = substr($0, RSTART + 6, RLENGTH - 7); verdict = "pass" }
        /<(failure|error)/ { verdict = "fail" }
        /<skipped/ { verdict = "skipped" }
        /<\/testcase>/ || /<testcase [^>]*\/>/ { print name, verdict }
    ' "$junit"
}

# A run whose tests fail has verdicts all the same.
run() {
    local status=0
    rm -f "$junit"
    cargo nextest run --locked --release --profile "$profile" --no-fail-fast --status-level none \
        --final-status-level fail --hide-progress-bar -p vfio-conform --features cells --test cells \
        "${filter[@]}" "${@:2}" || status=$?
    # 100: tests failed. Anything else is no run.
    [ "$status" -eq 0 ] || [ "$status" -eq 100 ] || exit 2
    verdicts >"$scratch/$1"
    [ "$status" -eq 0 ] || failed=yes
}

failed=
run whole
for shard in 1 2 3 4; do
    run "shard-$shard" --partition "hash:$shard/4"
done
sort "$scratch/whole" >"$scratch/whole.sorted"
sort "$scratch"/shard-? >"$scratch/union.sorted"
echo "$(wc -l <"$scratch/whole") tests; in four partitions: $(wc -l "$scratch"/shard-? | awk '{ printf "%s%s", (NR > 1 && NR < 5 ? " + " : ""), (NR < 5 ? $1 : "") }')"
[ -s "$scratch/whole" ] || { echo "nothing was run" >&2; exit 2; }
if ! diff "$scratch/whole.sorted" "$scratch/union.sorted"; then
    echo "the partitions together are not the whole" >&2
    exit 1
fi
echo "the partitions' verdicts together are the whole run's"
[ -z "$failed" ]
