//! Comparison of the folders of tests and of `examples/features/` with the lists of their files: a
//! file that is in no list would silently not run.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the Rust files directly in this folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of this repository");
    let paths = entries.map(|entry| entry.expect("an entry of it").path());
    let files: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    assert!(!files.is_empty(), "{} was not understood", folder.display());
    files
}

/// Returns the files of the package's `folder` that neither its manifest nor a file named there
/// lists.
fn unnamed(package: &Path, folder: &str) -> Vec<String> {
    let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("a manifest");
    let folder = package.join(folder);
    let is_target = |file: &PathBuf| {
        let path = file.strip_prefix(package).expect("a file of the package");
        manifest.contains(&format!("path = \"{}\"", path.display()))
    };
    let (roots, rest): (Vec<PathBuf>, Vec<PathBuf>) =
        files(&folder).into_iter().partition(is_target);
    let read = |root: &PathBuf| fs::read_to_string(root).expect("a file of this repository");
    let roots: Vec<String> = roots.iter().map(read).collect();
    rest.iter()
        .map(|file| {
            file.file_stem()
                .expect("a file has a name")
                .to_string_lossy()
        })
        .filter(|name| {
            let module = format!("mod {name};");
            !roots
                .iter()
                .any(|root| root.lines().any(|line| line == module))
        })
        .map(std::borrow::Cow::into_owned)
        .collect()
}

#[test]
fn every_file_of_tests_is_a_module_of_a_binary() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The test of the root's package, which runs these.
    assert_eq!(unnamed(tests, ""), ["workspace"]);
}

#[test]
fn every_file_of_the_tests_of_iip_rpc_is_a_module_of_their_binary() {
    let iip_rpc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../iip-rpc");
    assert_eq!(unnamed(&iip_rpc, "tests"), [""; 0]);
}

#[test]
fn every_file_of_the_tests_of_iip_rules_is_a_module_of_their_binary() {
    let iip_rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../iip-rules");
    assert_eq!(unnamed(&iip_rules, "tests"), [""; 0]);
}

#[test]
fn every_file_of_the_tests_of_iip_schema_is_a_module_of_their_binary() {
    let iip_schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../iip-schema");
    assert_eq!(unnamed(&iip_schema, "tests"), [""; 0]);
}

#[test]
fn every_file_of_the_tests_of_iip_discovery_etcd_is_a_module_of_their_binary() {
    let etcd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../iip-discovery-etcd");
    assert_eq!(unnamed(&etcd, "tests"), [""; 0]);
}

#[test]
fn every_file_of_the_tests_of_iip_files_is_a_module_of_their_binary() {
    let iip_files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../iip-files");
    assert_eq!(unnamed(&iip_files, "tests"), [""; 0]);
}

#[test]
fn every_file_of_the_tests_of_iip_gateway_is_a_module_of_their_binary() {
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR")).join("../iip-gateway");
    assert_eq!(unnamed(&gateway, "tests"), [""; 0]);
}

#[test]
fn every_file_of_the_tests_of_iq_is_a_module_of_their_binary() {
    let iq = Path::new(env!("CARGO_MANIFEST_DIR")).join("../iq");
    assert_eq!(unnamed(&iq, "tests"), [""; 0]);
}

#[test]
fn every_example_of_the_features_is_in_the_manifest() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(unnamed(&tests.join("../examples/features"), ""), [""; 0]);
}
