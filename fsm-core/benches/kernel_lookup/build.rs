// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Links the objects that run.sh compiled from C.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KERNEL_OBJECTS");
    let Ok(objects) = std::env::var("KERNEL_OBJECTS") else {
        println!("cargo::error=KERNEL_OBJECTS is not set: start this with run.sh");
        return;
    };
    for object in objects.split(':') {
        println!("cargo::rerun-if-changed={object}");
        println!("cargo::rustc-link-arg-bins={object}");
    }
}
