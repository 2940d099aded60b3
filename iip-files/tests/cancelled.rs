//! Calls that are cancelled while the server reads or writes files for them.

use std::fs::{self, File};
use std::sync::mpsc;
use std::time::Duration;

use iip_files::Hash;
use iip_files::service::{Files, FilesClient};
use iip_rpc::{CallOptions, Code, Status};

use crate::common::{Pair, within};

/// Runs a test whose files are read and written by a single thread.
fn with_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build();
    runtime.unwrap().block_on(test);
}

async fn checksum(files: &FilesClient, path: &str) -> Result<Hash, Status> {
    let entry = files.stat(path).await?;
    files.checksum(path, entry.identity).await
}

fn hasty(pair: &Pair) -> FilesClient {
    let timeout = Duration::from_secs(1);
    pair.raw().with_options(CallOptions::new().timeout(timeout))
}

#[test]
fn a_checksum_that_is_cancelled_does_not_go_on() {
    with_one_thread(async {
        let pair = Pair::new().await;
        // Nothing is stored of it, but hashing it takes many minutes.
        let large = File::create(pair.served.join("large")).unwrap();
        large.set_len(1 << 40).unwrap();
        let entry = pair.raw().stat("large").await.unwrap();
        let cancelled = hasty(&pair).checksum("large", entry.identity).await;
        assert_eq!(cancelled.unwrap_err().code(), Code::DeadlineExceeded);
        within("a free thread", pair.raw().stat("large"))
            .await
            .unwrap();
    });
}

#[test]
fn a_step_that_is_cancelled_holds_its_place_until_it_ends() {
    with_one_thread(async {
        let set = |folder: iip_files::Folder| folder.writable(true).max_open_transfers(1);
        let pair = Pair::with(set).await;
        fs::write(pair.served.join("file"), "x").unwrap();
        let entry = pair.raw().stat("file").await.unwrap();
        let (hasty, files) = (hasty(&pair), pair.raw());
        for call in 0..4 {
            let (release, released) = mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let cancelled = match call {
                0 => hasty.checksum("file", entry.identity).await.err(),
                1 => hasty.read_small(vec!["file".into()]).await.err(),
                2 => hasty.missing(Vec::new()).await.err(),
                _ => hasty.make_directories(vec!["a".into()]).await.err(),
            };
            assert_eq!(cancelled.unwrap().code(), Code::DeadlineExceeded, "{call}");
            let status = files.missing(Vec::new()).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{call}: {status}");
            drop(release);
            busy.await.unwrap().unwrap_err();
            within("a free place", async {
                while checksum(&files, "file").await.is_err() {}
            })
            .await;
        }
        // It was told before it began.
        assert!(!pair.served.join("a").exists());
    });
}
