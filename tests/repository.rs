//! Consistency of the files of the repository: documents, manifests and tests.

use std::path::Path;

mod build_cost;
mod dependencies;
mod features;
mod layout;
mod protocol_rules;
mod public_dependencies;

/// The folder of the workspace.
fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ is in the workspace")
}
