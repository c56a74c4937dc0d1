// SPDX-License-Identifier: Apache-2.0
//! Gives the shared library its name, by which the dynamic linker finds it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblimestone_core.so");
}
