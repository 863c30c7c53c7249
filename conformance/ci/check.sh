#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# VFIO migration v2 in the CI of a VMM or of a driver: the model check, and every suite on your device.
# Copy it into your project; README.md beside it says what else there is to copy. It needs Rust, and
# takes its settings from the environment:
#
#   VFIO_CONFORM    the tool, if you have it; else vfio-conform is installed from crates.io
#   VFIO_VERSION    which version of it [0.1.0]
#   VFIO_TARGET     a device for `vfio-conform replay --target`, such as kernel:0000:01:00.2 [none]
#   VFIO_TEST       a command that runs the suites on a device of your own [if there is a file
#                   tests/vfio_conformance.rs: cargo test --release --test vfio_conformance]
#
# Exit: 0 the model holds and every suite passes; 1 something does not; 2 something is missing, a device
# among others; 3 the model check was cut short.
set -eu

tool=${VFIO_CONFORM:-}
test=${VFIO_TEST:-}
target=${VFIO_TARGET:-}

if [ -z "$test" ] && [ -e tests/vfio_conformance.rs ]; then
    test='cargo test --release --test vfio_conformance'
fi
if [ -z "$test$target" ]; then
    echo "check.sh: no device: set VFIO_TARGET or VFIO_TEST, or write tests/vfio_conformance.rs" >&2
    exit 2
fi

if [ -z "$tool" ]; then
    # Without the lab and mlx5: that halves what there is to build.
    cargo install --locked --quiet --no-default-features --features check \
        "vfio-conform@${VFIO_VERSION:-0.1.0}" || {
        echo "check.sh: vfio-conform cannot be installed; set VFIO_CONFORM to a program you have" >&2
        exit 2
    }
    tool=${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin/vfio-conform
fi

echo "=== the model"
"$tool" check

if [ -n "$target" ]; then
    echo "=== the suites on $target"
    "$tool" replay --target "$target"
fi

if [ -n "$test" ]; then
    echo "=== the suites on your own device: $test"
    # Whatever it fails with is a verdict.
    sh -c "$test" || exit 1
fi

echo "=== all good"
