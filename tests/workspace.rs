//! The tests of all other packages with all features, run by `cargo test` in the root. Its
//! arguments are passed on, as in `cargo test deadline` and `cargo test -- --test-threads=1`.
//!
//! Those packages are not default members because cargo unites the features of all packages that it
//! selects: the first example would be built with all features too.

use std::env;
use std::process::{Command, ExitCode};

use iip_rpc::compression::CompressionId;

/// The packages that are tested with all features.
const PACKAGES: [&str; 8] = [
    "iip-core",
    "iip-rpc",
    "iip-macros",
    "iip-build",
    "iip-tests",
    "iip-examples",
    "iip-example-protobuf-build",
    "greeter-server",
];

fn main() -> ExitCode {
    // The features of other packages are visible here only if those were selected too, as by `cargo
    // test --workspace`.
    if CompressionId::ZSTD.is_supported() {
        return ExitCode::SUCCESS;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--all-features"]);
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // What cargo says about this package would make it run the build script of ring again after a
    // command without it.
    for (name, _) in env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
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
