// SPDX-License-Identifier: Apache-2.0
//! The committed C header against the sources of the C ABI. `scripts/generate_header.sh` writes it anew.

use std::path::Path;

const UPDATE_VARIABLE: &str = "LIMESTONE_UPDATE_HEADER";

#[test]
fn the_committed_header_is_what_the_sources_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("include/limestone_core.h");
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is readable");
    // Only what stands in src/ffi is for C; its module file leads to the others.
    let builder = cbindgen::Builder::new().with_config(config).with_src(root.join("src/ffi/mod.rs"));
    let bindings = builder.generate().expect("the sources can be read");
    let mut fresh = Vec::new();
    bindings.write(&mut fresh);
    let fresh = String::from_utf8(fresh).expect("a header is text");
    if std::env::var_os(UPDATE_VARIABLE).is_some() {
        std::fs::write(&committed, &fresh).expect("the header can be written");
    }
    let found = std::fs::read_to_string(&committed).expect("the header is committed");
    let differs = found.lines().zip(fresh.lines()).position(|(a, b)| a != b);
    assert!(
        found == fresh,
        "{} is not up to date (first differing line: {differs:?}); run scripts/generate_header.sh",
        committed.display()
    );
}

#[test]
fn every_function_is_declared_once() {
    let header = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/limestone_core.h"))
        .expect("the header is committed");
    let mut names: Vec<&str> = header
        .lines()
        .filter(|line| !line.trim_start().starts_with(['/', '*']) && !line.starts_with("typedef"))
        .filter_map(|line| line.split_once('(').map(|(before, _)| before))
        .filter_map(|before| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("limestone_"))
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(all > 40, "found only {all} functions");
    assert_eq!(names.len(), all, "a function is declared twice");
}
