//! `cargo test`, run from inside a test.

use std::path::Path;
use std::process::Command;

/// Returns `cargo test` with all features for the workspace at `root`, in the profile of this test.
pub(crate) fn cargo_test(root: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--all-features"]).current_dir(root);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    // What cargo says about the package of this test would make it run the build script of ring
    // again.
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    cargo
}
