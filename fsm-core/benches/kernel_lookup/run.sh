#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Counts the instructions of our lookups beside those of the kernel's own
# vfio_mig_get_next_state(), in one program and in one run, and compares every
# answer of the two on the way.
#
#   run.sh [vfio_main.c]
#
# The kernel's source is the argument, or $VFIO_MAIN_C, or that of the newest
# linux-source package of the distribution: fetched without root, and only the
# one file kept, under ${XDG_CACHE_HOME:-~/.cache}/vfio-fsm. The function is cut
# out of it at run time, because its text is GPL and this tree is not.
#
# Exit: 0 equal answers and nowhere more instructions than the kernel;
#       1 a different answer or more instructions;
#       2 wrong use, or something is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/vfio-fsm/kernel-source
target=${CARGO_TARGET_DIR:-$here/../../../target}/kernel-lookup
rounds=100

missing() {
    echo "run.sh: $*" >&2
    exit 2
}

need() {
    command -v "$1" >/dev/null 2>&1 || missing "$1 is not installed ($2)"
}

# Prints the path of the newest linux-source's vfio_main.c.
fetch() {
    need apt-cache "without apt, pass the path of a kernel's drivers/vfio/vfio_main.c"
    need dpkg-deb "Debian package dpkg"
    need xz "Debian package xz-utils"
    package=$(apt-cache pkgnames linux-source- | grep -E '^linux-source-[0-9.]+$' | sort -V | tail -n 1)
    [ -n "$package" ] || missing "apt knows no linux-source package; apt-get update, or pass a path"
    version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
    kept=$cache/${package}_$version/vfio_main.c
    if [ ! -s "$kept" ]; then
        echo "fetching $package $version (about 150 MB, once)" >&2
        # A mirror may fail once.
        for pause in 5 15 0; do
            (cd "$work" && apt-get download -q "$package=$version") >"$work/apt.log" 2>&1 && break
            [ "$pause" != 0 ] || {
                cat "$work/apt.log" >&2
                missing "$package $version cannot be downloaded"
            }
            sleep "$pause"
        done
        # The second tar ends as soon as it has the file, and the first with it.
        dpkg-deb --fsys-tarfile "$work/$package"_*.deb 2>"$work/tar.log" |
            tar -xO "./usr/src/$package.tar.xz" 2>>"$work/tar.log" |
            tar -xJO --occurrence=1 "$package/drivers/vfio/vfio_main.c" \
                >"$work/vfio_main.c" 2>>"$work/tar.log" || {
            cat "$work/tar.log" >&2
            missing "$package $version has no drivers/vfio/vfio_main.c where it is expected"
        }
        rm -f "$work/$package"_*.deb
        mkdir -p "$(dirname "$kept")"
        # Into the same directory first: a rename is whole or not at all.
        cp "$work/vfio_main.c" "$kept.partial"
        mv "$kept.partial" "$kept"
    fi
    echo "$kept"
}

# count TOGGLE MODE ROUNDS: instructions, in the function TOGGLE only if that is not empty.
count() {
    rm -f "$work/count"
    valgrind --tool=callgrind --callgrind-out-file=/dev/null ${1:+"--toggle-collect=$1"} \
        "$program" "$2" "$3" >"$work/sum" 2>"$work/count" || {
        cat "$work/count" >&2
        missing "valgrind cannot run the program"
    }
    sed -n 's/^==[0-9]*== Collected : \([0-9]*\)$/\1/p' "$work/count"
}

# inside FUNCTION MODE: instructions in the function and what it calls, of all rounds.
inside() {
    count "$1" "$2" "$rounds"
}

# looped MODE: instructions of as many rounds, the loop included and the start of the program not.
looped() {
    once=$(count '' "$1" "$rounds")
    twice=$(count '' "$1" $((2 * rounds)))
    echo $((twice - once))
}

[ $# -le 1 ] || missing "usage: run.sh [vfio_main.c]"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

need cargo "https://rustup.rs"
need rustc "https://rustup.rs"
need "${CC:-gcc}" "Debian package gcc"
need valgrind "Debian package valgrind"
need timeout "Debian package coreutils"

source=${1:-${VFIO_MAIN_C:-}}
[ -n "$source" ] || source=$(fetch)
[ -r "$source" ] || missing "$source cannot be read"

# From the line with its name to the first brace at the beginning of a line.
{
    echo '#include "shim.h"'
    awk '/^int vfio_mig_get_next_state\(/ { inside = 1 }
         inside { print }
         inside && /^}/ { exit }' "$source"
} >"$work/kernel.c"
grep -q '^}' "$work/kernel.c" || missing "there is no vfio_mig_get_next_state() in $source"

# As the kernel is built, without what it adds for tracing and hardening: that only costs more.
# Both sides at fixed addresses, which spares either the same instructions.
flags='-O2 -std=gnu11 -Wall -Werror=implicit-function-declaration'
flags="$flags -fno-strict-aliasing -fno-common -fno-pie -fno-stack-protector"
case $(uname -m) in
x86_64) flags="$flags -fcf-protection=none" ;;
esac
mkdir -p "$target"
target=$(CDPATH='' cd -- "$target" && pwd)
for unit in "$work/kernel.c" "$here/driver.c"; do
    # shellcheck disable=SC2086 # the flags are words
    "${CC:-gcc}" $flags -I "$here" -c "$unit" -o "$target/$(basename "$unit" .c).o" ||
        missing "$unit does not compile; does shim.h lack something that the function needs now?"
done

host=$(rustc -vV | sed -n 's/^host: //p')
(
    cd "$here"
    KERNEL_OBJECTS=$target/kernel.o:$target/driver.o RUSTFLAGS='-C relocation-model=static' \
        cargo build --quiet --locked --release --target "$host" --target-dir "$target"
) || missing "the program does not build"
program=$target/$host/release/vfio-fsm-kernel-lookup

# The kernel's function loops until it finds a state, so that any answer may fail to come.
ask() {
    timeout 10 "$program" "$1"
}

compared=$(ask check) || {
    echo "run.sh: the answers differ, or the kernel's function gave none in time" >&2
    exit 1
}
status=0
blocked=$(ask check-blocked) || status=$?
case $status in
0) echo "answers: $((compared + blocked)) compared, all equal, the blocked pairs among them" ;;
124)
    echo "answers: $compared compared, all equal; the blocked pairs not compared:" \
        "this kernel lacks the fix of 2026 and never returns from them"
    ;;
*)
    echo "run.sh: the answers to the blocked pairs differ" >&2
    exit 1
    ;;
esac

# What is counted below must have done the same work: its sums are equal.
for mode in hop-called hop-to-number hop-inlined route-called; do
    [ "$("$program" $mode 3)" = "$("$program" "${mode%%-*}-kernel" 3)" ] || {
        echo "run.sh: $mode and the kernel's come to different sums" >&2
        exit 1
    }
done

legal=$("$program" legal)
calls=$((rounds * legal))
row() {
    echo "$1|$2|$3" >>"$work/table"
}
kernel=$(inside vfio_mig_get_next_state hop-kernel)
row 'next hop, inside the function' "$(inside our_next_hop hop-called)" "$kernel"
row 'next hop towards a number, inside the function' \
    "$(inside our_next_hop_to_number hop-to-number)" "$kernel"
kernel=$(looped hop-kernel)
row 'next hop, called in a loop' "$(looped hop-called)" "$kernel"
row 'next hop towards a number, called in a loop' "$(looped hop-to-number)" "$kernel"
row "next hop, inlined in a loop (the kernel's: called)" "$(looped hop-inlined)" "$kernel"
row 'whole route, inside the function' \
    "$(inside our_route route-called)" "$(inside kernel_route route-kernel)"
row 'whole route, called in a loop' "$(looped route-called)" "$(looped route-kernel)"

echo "instructions per call, mean over $legal legal pairs (4 flag sets), x $rounds rounds"
awk -F '|' -v calls="$calls" '
    BEGIN { printf "%-52s %8s %8s %6s\n", "what", "ours", "kernel", "ratio" }
    # A count of nothing is a counter that saw nothing, and no win.
    $2 <= 0 || $3 <= 0 { print "run.sh: nothing was counted for: " $1 > "/dev/stderr"; bad = 2; next }
    {
        printf "%-52s %8.2f %8.2f %6.2f%s\n", $1, $2 / calls, $3 / calls, $2 / $3, \
            ($2 > $3) ? "  MORE" : ""
        if ($2 > $3 && !bad) bad = 1
    }
    END { exit bad }' "$work/table"
