//! Files and folders that cannot be read, or not be written.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::process::Command;

use super::support::{Serve, bytes};
use crate::common::{Home, LONG, Ran, json_lines};

/// Returns the program without the right of root to read everything. `None` if this machine does
/// not support that.
async fn without_rights(home: &Home) -> Option<Command> {
    let secret = home.write("secret", "secret");
    close(Path::new(&secret));
    let mut probe = Command::new("unshare");
    probe.args(["--user", "sh", "-c", "! cat \"$0\" && true", &secret]);
    if !probe
        .output()
        .await
        .is_ok_and(|probe| probe.status.success())
    {
        eprintln!("note: left out, because `unshare` cannot take rights away here");
        return None;
    }
    let mut command = Command::new("unshare");
    home.isolate(&mut command);
    command.args(["--user", env!("CARGO_BIN_EXE_iq")]);
    Some(command)
}

fn close(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap();
}

/// Writes a folder with files that cannot be read and files that can.
fn write_folder(folder: &Path) {
    fs::create_dir_all(folder.join("below")).unwrap();
    for (name, size) in [
        ("below/fine", 10),
        ("large", 100_000),
        ("small", 10),
        ("z", 100_000),
    ] {
        fs::write(folder.join(name), bytes(size)).unwrap();
    }
    close(&folder.join("large"));
    close(&folder.join("small"));
    std::os::unix::fs::symlink("z", folder.join("link")).unwrap();
}

fn paths(list: &serde_json::Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    let mut paths: Vec<_> = list.map(|entry| entry["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    paths
}

#[tokio::test]
async fn a_put_names_what_it_cannot_read_and_fails_after_the_rest() {
    let home = Home::new();
    let server = Serve::start(&home, &["--write"]).await;
    let here = home.0.join("here");
    write_folder(&here);
    fs::create_dir(here.join("closed")).unwrap();
    fs::write(here.join("closed/file"), "x").unwrap();
    let fine = home.write("fine", "x");
    close(&here.join("closed"));
    for option in ["--json", "--quiet"] {
        let Some(mut command) = without_rights(&home).await else {
            break;
        };
        command.args(["put", option]).arg(&here).arg(&fine);
        let ran = Ran::of({
            command.arg(server.uri("in"));
            command
        })
        .await;
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains("3 files or folders"), "{}", ran.err);
        if option == "--quiet" {
            for name in ["closed", "large", "small"] {
                assert!(
                    ran.err.contains(&format!("{name} cannot be read: ")),
                    "{}",
                    ran.err
                );
            }
            continue;
        }
        let lines = json_lines(&ran.out);
        let done = lines.iter().find(|line| line["type"] == "put").unwrap();
        assert_eq!(paths(&done["unreadable"]), ["closed", "large", "small"]);
        assert_eq!(done["unreadable_count"], 3);
        assert_eq!(paths(&done["skipped"]), ["link"]);
        assert_eq!(server.names("in/here"), ["below", "closed", "z"]);
        assert_eq!(server.names("in/here/below"), ["fine"]);
        // The next source is sent too.
        assert_eq!(server.names("in"), ["fine", "here"]);
    }
    fs::set_permissions(here.join("closed"), Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_get_names_what_the_server_cannot_read_and_fails_after_the_rest() {
    let home = Home::new();
    let Some(command) = without_rights(&home).await else {
        return;
    };
    let folder = home.0.join("served");
    write_folder(&folder);
    let server = Serve::of(command, folder, &[]).await;
    let got = home.0.join("got");
    let get = ["get", &server.uri(""), got.to_str().unwrap(), "-t", LONG];
    let ran = home.iq(&get).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("2 files or folders"), "{}", ran.err);
    for name in ["large", "small"] {
        assert!(
            ran.err.contains(&format!("{name} cannot be read: ")),
            "{}",
            ran.err
        );
        assert!(!got.join(name).exists());
    }
    assert!(ran.out.starts_with(".\t"), "{}", ran.out);
    assert!(got.join("z").exists() && got.join("below/fine").exists());
}

/// Returns the program with a limit of 3 MiB on the size of files.
fn with_limit(home: &Home) -> Command {
    let mut command = Command::new("sh");
    home.isolate(&mut command);
    command.args(["-c", "ulimit -f 6144 && exec \"$0\" \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_iq"));
    command
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_is_an_error_and_ends_no_program() {
    let home = Home::new();
    let folder = home.0.join("served");
    fs::create_dir(&folder).unwrap();
    let server = Serve::of(with_limit(&home), folder, &["--write"]).await;
    let (large, small) = (
        home.write("large", bytes(5 << 20)),
        home.write("small", "x"),
    );
    let put = home.iq(&["put", &large, &server.uri(""), "-t", LONG]).await;
    assert!(put.failed(72).contains("File too large"));
    home.iq(&["put", &small, &server.uri(""), "-t", LONG])
        .await
        .data();

    fs::copy(&large, server.folder.join("large")).unwrap();
    let mut command = with_limit(&home);
    command.arg("get").arg(server.uri("large"));
    command.arg(home.0.join("got"));
    assert!(Ran::of(command).await.failed(72).contains("File too large"));
}

#[tokio::test]
async fn only_an_upload_that_the_server_refuses_gets_advice_about_its_option() {
    let home = Home::new();
    let Some(mut command) = without_rights(&home).await else {
        return;
    };
    let server = Serve::start(&home, &[]).await;
    let file = home.write("file", "x");
    let put = home.iq(&["put", &file, &server.uri(""), "-t", LONG]).await;
    assert!(put.failed(71).contains("--write"));
    close(Path::new(&file));
    command.args(["put", &file, &server.uri("")]);
    let error = Ran::of(command).await.failed(71);
    assert!(!error.contains("--write"), "{error}");
}
