#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Holds the graphs of the core's own device against those of the independent specification: see
# specs/checked-twice.md. Needs spin, rumur, gcc (Debian's) and, for --tla, tla-checker (crates.io).
#
#   specs/check-twice.sh [--tla] [--bug BUG]
#
# --tla   also check the TLA+ specification, of the smallest set of flags
# --bug   a bug in our device: shows that the comparison can fail
#
# Exit status: 0 all the same, 1 something differs, 2 a tool is missing or broken.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

tla=
bug=()
while [ $# -gt 0 ]; do
    case $1 in
        --tla) tla=yes ;;
        --bug) bug=(--bug "${2:?--bug takes the name of one}"); shift ;;
        *) echo "unknown argument: $1" >&2; exit 2 ;;
    esac
    shift
done

for tool in spin rumur gcc ${tla:+tla}; do
    command -v "$tool" >/dev/null || { echo "$tool is missing" >&2; exit 2; }
done

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0
good() { printf '  %-10s %s\n' "$1" "$2"; }
fail() { printf '  %-10s FAIL: %s\n' "$1" "$2"; bad=1; }
broken() { echo "$1 did not do its work:" >&2; tail -n 20 "$2" >&2; exit 2; }

# What the tool counted and printed, against ours.
compare() { # tool, its states, its transitions, set
    local ours="$out/ours/$4.edges" theirs="$out/$1/$4.edges"
    local states edges
    edges=$(wc -l <"$ours")
    states=$(awk -F ' [|] ' '{ print $1; print $3 }' "$ours" | sort -u | wc -l)
    if [ "$2 $3" = "$states $edges" ]; then
        good "$1" "$2 states, $3 transitions"
    else
        fail "$1" "$2 states, $3 transitions; ours has $states and $edges"
    fi
    if cmp -s "$ours" "$theirs"; then
        good "$1" "each of the $edges labelled edges is the same"
    else
        fail "$1" "edges differ (< only there, > only ours):"
        diff "$theirs" "$ours" | grep '^[<>]' | head -n 6 || true
    fi
}

# Exhaustive: no partial order reduction, no compaction, and no variable dropped because nothing
# but a printf reads it (-o2). The first step of all computes the routes: one state and, with the
# root, which Spin counts as a step, two transitions more.
run_spin() { # set, P2P, PRE_COPY
    local work="$out/spin/$1" states transitions
    mkdir -p "$work"
    (
        cd "$work"
        spin -o2 -DP2P="$2" -DPRE_COPY_="$3" -a "$OLDPWD/specs/promela/vfio_migration.pml"
        gcc -O1 -w -DSAFETY -DNOREDUCE -DVECTORSZ=2048 -DPRINTF -o pan pan.c
        ./pan -E
    ) >"$work/log" 2>&1 || broken spin "$work/log"
    grep -q 'errors: 0$' "$work/log" || broken spin "$work/log"
    if grep -q 'max search depth too small' "$work/log"; then broken spin "$work/log"; fi
    sed -n 's/^EDGE //p' "$work/log" | sort >"$out/spin/$1.edges"
    states=$(awk '/ states, stored/ { print $1 }' "$work/log")
    transitions=$(awk '/ transitions \(= stored\+matched\)/ { print $1 }' "$work/log")
    compare spin $((states - 1)) $((transitions - 2)) "$1"
}

# One thread: the edges are printed word by word.
run_rumur() { # set, P2P, PRE_COPY
    local work="$out/rumur/$1" states rules
    mkdir -p "$work"
    sed "s/^  P2P: [01];/  P2P: $2;/; s/^  PRE_COPY_: [01];/  PRE_COPY_: $3;/" \
        specs/murphi/vfio_migration.m >"$work/model.m"
    (
        cd "$work"
        rumur --threads 1 --deadlock-detection off --symmetry-reduction off --output model.c model.m
        gcc -std=c11 -O2 -w -mcx16 -o model model.c -lpthread
        ./model
    ) >"$work/log" 2>&1 || broken rumur "$work/log"
    grep -q 'No error found' "$work/log" || broken rumur "$work/log"
    # A value is printed as `name:VALUE` on a line of its own; ERROR is a word of the language.
    sed -n '/EDGE /,/^====/p' "$work/log" | grep -v '^====' | tr '\n' ' ' | sed 's/EDGE /\n/g' |
        sed -E 's/[A-Za-z_]+(\[[0-9]\])?://g; s/\bERROR_/ERROR/g; s/  +/ /g; s/ $//' |
        grep . | sort >"$out/rumur/$1.edges"
    read -r states rules < <(sed -nE 's/.*\t([0-9]+) states, ([0-9]+) rules fired.*/\1 \2/p' "$work/log")
    compare rumur "$states" "$rules" "$1"
}

# It counts a pair of states once, however many labels lead from one to the other.
run_tla() { # set, P2P, PRECOPY
    local work="$out/tla" ours="$out/ours/$1.edges" states pairs is
    mkdir -p "$work"
    cp specs/tla/VfioMigration.tla "$work"
    sed "s/P2P = .*/P2P = $2/; s/PRECOPY = .*/PRECOPY = $3/" specs/tla/VfioMigration.cfg \
        >"$work/VfioMigration.cfg"
    (cd "$work" && tla VfioMigration.tla --allow-deadlock --config VfioMigration.cfg) \
        >"$work/log" 2>&1 || broken tla-checker "$work/log"
    states=$(awk '/Reachable states:/ { print $3 }' "$work/log")
    pairs=$(awk '/Transitions:/ { print $2 }' "$work/log")
    is="$(awk -F ' [|] ' '{ print $1; print $3 }' "$ours" | sort -u | wc -l)"
    is="$is $(awk -F ' [|] ' '{ print $1 "|" $3 }' "$ours" | sort -u | wc -l)"
    if [ "$states $pairs" = "$is" ]; then
        good tla "$states states, $pairs pairs of states"
    else
        fail tla "$states states, $pairs pairs of states; ours has $is"
    fi
}

# With a bug the endings are broken, too; here it is the graphs that matter.
cargo run --locked --release --quiet -p vfio-conform -- graph --out "$out/ours" "${bug[@]}" \
    >"$out/log" || [ ${#bug[@]} -gt 0 ] || { cat "$out/log"; exit 1; }

for set in stop-copy:0:0 p2p:1:0 pre-copy:0:1 full:1:1; do
    IFS=: read -r name p2p pre_copy <<<"$set"
    echo "$name"
    run_spin "$name" "$p2p" "$pre_copy"
    run_rumur "$name" "$p2p" "$pre_copy"
done
if [ -n "$tla" ]; then
    echo "stop-copy, TLA+"
    run_tla stop-copy FALSE FALSE
fi
exit $bad
