//! What a mistake in a service looks like to its author: one file for each group of messages.
//!
//! Messages of the compiler around ours change with its versions, so these are compared on one toolchain only, the one that
//! `EXPECTED` names. After a change of the messages, `TRYBUILD=overwrite cargo test -p iip-ui-tests` writes them anew; read what it wrote.

use std::process::Command;

/// The toolchain whose words stand in `mistakes/*.stderr`.
const EXPECTED: &str = "rustc 1.95.";

#[test]
fn every_mistake_is_reported_where_it_is_with_what_to_write_instead() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .unwrap()
        .stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    if !version.starts_with(EXPECTED) {
        println!("not compared: this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("mistakes/*.rs");
}
