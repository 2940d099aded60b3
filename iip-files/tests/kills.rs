//! Servers that are killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use iip_files::{FileClient, Folder, Phase, TransferOptions};
use iip_rpc::Client;
use tokio::sync::watch;

use crate::common::{ALONE, MIB, content, names, serve, within};

const SIZE: usize = 16 * MIB;

/// Starts this test in a separate process, which serves a folder. Returns the process and its
/// address.
fn start(folder: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kills::what_is_acknowledged_survives_kills_of_the_server",
        ])
        .arg("--nocapture")
        .env(ALONE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.map(Result::unwrap).find_map(|line| {
        let (_, address) = line.split_once("serves on ")?;
        Some(address.to_owned())
    });
    (child, address.unwrap())
}

/// Uploads the file until more of it is on disk than before, and kills the server. Returns the
/// number of bytes on disk.
async fn put_and_kill(source: &Path, served: &Path, before: u64) -> u64 {
    let (mut child, address) = start(served);
    let (durable, mut is_durable) = watch::channel(before);
    let options = TransferOptions::new().progress(move |progress| {
        if progress.phase == Phase::Beginning {
            assert!(
                progress.durable >= before,
                "{} of {before}",
                progress.durable
            );
        }
        durable.send_replace(progress.durable);
    });
    let client = Client::connect(address).await.unwrap();
    let files = FileClient::new(client).with_options(options);
    tokio::select! {
        report = files.put(source, "file") => panic!("it is slow: {report:?}"),
        more = within("more on disk", is_durable.wait_for(|durable| *durable > before)) => {
            drop(more.unwrap());
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    *is_durable.borrow()
}

#[tokio::test]
async fn what_is_acknowledged_survives_kills_of_the_server() {
    if let Some(folder) = std::env::var_os(ALONE) {
        let folder = Folder::open(folder)
            .unwrap()
            .writable(true)
            .bytes_per_second(2 * MIB as u64);
        let server = serve(folder).await;
        println!("serves on {}", server.local_addr().unwrap());
        return std::future::pending().await;
    }
    let temp = tempfile::tempdir().unwrap();
    let (served, source) = (temp.path().join("served"), temp.path().join("source"));
    fs::create_dir(&served).unwrap();
    fs::write(&source, content(SIZE)).unwrap();
    let mut durable = 0;
    for _ in 0..3 {
        durable = put_and_kill(&source, &served, durable).await;
    }
    let server = serve(Folder::open(&served).unwrap().writable(true)).await;
    let files = FileClient::new(Client::connect(server.target()).await.unwrap());
    let report = within("the rest", files.put(&source, "file"))
        .await
        .unwrap();
    assert!(
        report.transferred <= SIZE as u64 - durable,
        "{} after {durable}",
        report.transferred
    );
    assert!(fs::read(served.join("file")).unwrap() == content(SIZE));
    assert_eq!(names(&served), ["file"]);
}
