//! Read-only disks.

use std::fs;

use tokio::process::Command;

use super::support::{Serve, bytes};
use crate::common::{Home, LONG, Ran};

/// Returns the program in a separate mount namespace, in which the folder is on a read-only disk.
/// `None` if this machine does not support that.
async fn with_read_only(home: &Home, folder: &str) -> Option<Command> {
    let mut command = Command::new("unshare");
    home.isolate(&mut command);
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    let mount = format!("mount -t tmpfs -o ro none '{folder}'");
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]);
    if !probe
        .output()
        .await
        .is_ok_and(|probe| probe.status.success())
    {
        eprintln!("note: left out, because `unshare` cannot mount a disk here");
        return None;
    }
    command.arg(format!("{mount} && exec \"$0\" \"$@\""));
    command.arg(env!("CARGO_BIN_EXE_iq"));
    Some(command)
}

#[tokio::test]
async fn a_server_on_a_read_only_disk_says_so_to_its_clients() {
    let home = Home::new();
    let folder = home.0.join("served");
    fs::create_dir(&folder).unwrap();
    let Some(command) = with_read_only(&home, folder.to_str().unwrap()).await else {
        return;
    };
    let server = Serve::of(command, folder, &["--write"]).await;
    let file = home.write("file", bytes(100_000));
    let error = home
        .iq(&["put", &file, &server.uri("copy"), "-t", LONG])
        .await;
    assert_eq!(error.out, "");
    assert!(error.code > Some(64), "{:?}", error.code);
    assert!(error.err.contains("copy"), "{}", error.err);
    assert!(error.err.contains("Read-only file system"), "{}", error.err);
}

#[tokio::test]
async fn a_client_on_a_read_only_disk_names_the_file() {
    let home = Home::new();
    let server = Serve::start(&home, &[]).await;
    fs::write(server.folder.join("file"), bytes(100_000)).unwrap();
    let here = home.0.join("here");
    fs::create_dir(&here).unwrap();
    let Some(mut command) = with_read_only(&home, here.to_str().unwrap()).await else {
        return;
    };
    command
        .arg("get")
        .arg(server.uri("file"))
        .arg(here.join("got"));
    let error = Ran::of(command).await;
    assert_eq!(error.out, "");
    assert_ne!(error.code, Some(0));
    assert!(error.err.contains("got"), "{}", error.err);
    assert!(error.err.contains("Read-only file system"), "{}", error.err);
}
