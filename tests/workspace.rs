//! The tests of all other packages with all features, run by `cargo test` in the root. Its
//! arguments are passed on, as in `cargo test deadline` and `cargo test -- --test-threads=1`.
//!
//! Those packages are not default members because cargo unites the features of all packages that it
//! selects: the first example would be built with all features too.

#[path = "common/cargo.rs"]
mod cargo;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use iip_rpc::compression::CompressionId;

use crate::cargo::cargo_test;

/// The packages that are tested with all features.
const PACKAGES: [&str; 13] = [
    "iip-core",
    "iip-rpc",
    "iip-macros",
    "iip-build",
    "iip-rules",
    "iip-schema",
    "iip-files",
    "iip-gateway",
    "iq",
    "iip-tests",
    "iip-examples",
    "iip-example-protobuf-build",
    "greeter-server",
];

fn has_etcd() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join("etcd").is_file())
}

fn main() -> ExitCode {
    // The features of other packages are visible here only if those were selected too, as by `cargo
    // test --workspace`.
    if CompressionId::ZSTD.is_supported() {
        return ExitCode::SUCCESS;
    }
    let mut cargo = cargo_test(Path::new(env!("CARGO_MANIFEST_DIR")));
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    // Its tests start etcd.
    if has_etcd() {
        cargo.args(["-p", "iip-discovery-etcd"]);
    } else {
        eprintln!(
            "note: the tests of iip-discovery-etcd are left out, because `etcd` is not in PATH \
             (Debian: apt install etcd-server)"
        );
    }
    let status = cargo.arg("--").args(env::args_os().skip(1)).status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("the tests with all features: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{} cannot be started: {error}", env!("CARGO"));
            ExitCode::FAILURE
        }
    }
}
