//! Other calls during a transfer, and limits on its rate.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iip_files::go::{self, GoFileClient};
use iip_files::service::{Files, SmallRead};
use iip_files::{FileClient, Folder, TransferOptions};
use iip_rpc::{CallOptions, Client, Code, Server, Status, service};

use crate::common::{MIB, Pair, content, within};

#[service]
pub(crate) trait Echo {
    async fn echo(&self, text: String) -> Result<String, Status>;
}

struct Here;

impl Echo for Here {
    async fn echo(&self, text: String) -> Result<String, Status> {
        Ok(text)
    }
}

#[tokio::test]
async fn calls_on_the_same_connection_go_on_beside_a_transfer() {
    let temp = tempfile::tempdir().unwrap();
    let (served, source) = (temp.path().join("served"), temp.path().join("source"));
    fs::create_dir(&served).unwrap();
    fs::write(&source, content(16 * MIB)).unwrap();
    let folder = Folder::open(&served).unwrap().writable(true);
    let server = Server::builder()
        .service(folder.into_service())
        .service(EchoServer::new(Here));
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.target()).await.unwrap();
    let echo = EchoClient::new(client.clone());
    let ended = Arc::new(AtomicBool::new(false));
    let (files, has_ended) = (FileClient::new(client), Arc::clone(&ended));
    let put = tokio::spawn(async move {
        let report = files.put(source, "file").await;
        has_ended.store(true, Ordering::SeqCst);
        report
    });
    let mut calls = 0;
    while !ended.load(Ordering::SeqCst) {
        within("a call", echo.echo("16 bytes of text".into()))
            .await
            .unwrap();
        calls += 1;
    }
    put.await.unwrap().unwrap();
    // 16 MiB are 512 pieces; a call that had to wait for a MiB would allow 16.
    assert!(calls > 20, "{calls}");
}

#[tokio::test]
async fn a_limit_of_bytes_per_second_is_kept_by_either_side() {
    let rate = MIB as u64 * 4;
    let limited = TransferOptions::new().bytes_per_second(rate);
    for (of_server, options) in [(true, TransferOptions::new()), (false, limited)] {
        let set = |folder: Folder| folder.writable(true);
        let pair = Pair::with(|folder| match of_server {
            true => set(folder).bytes_per_second(rate),
            false => set(folder),
        });
        let pair = pair.await;
        let source = pair.local.join("source");
        fs::write(&source, content(3 * MIB)).unwrap();
        let files = pair.files().with_options(options);
        let begun = Instant::now();
        within("a put", files.put(&source, "file")).await.unwrap();
        within("a get", files.get("file", pair.local.join("target")))
            .await
            .unwrap();
        // Twice 0.75 s, less the allowed burst and the last piece.
        assert!(
            begun.elapsed() > Duration::from_millis(1200),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn calls_that_are_cancelled_do_not_delay_transfers_under_a_limit() {
    let pair = Pair::with(|folder| folder.bytes_per_second(50_000)).await;
    fs::write(pair.served.join("file"), content(60_000)).unwrap();
    let options = CallOptions::new().timeout(Duration::from_millis(50));
    let hasty = pair.raw().with_options(options);
    for _ in 0..30 {
        let paths = vec!["file".to_owned(); 100];
        let status = within("a timeout", hasty.read_small(paths)).await;
        assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    }
    // The calls have asked for an hour of the rate.
    let target = pair.local.join("target");
    within("a get", pair.files().get("file", target))
        .await
        .unwrap();
}

#[tokio::test]
async fn small_files_for_which_a_limit_leaves_no_time_are_read_by_themselves() {
    let pair = Pair::with(|folder| folder.bytes_per_second(50_000)).await;
    fs::write(pair.served.join("file"), content(60_000)).unwrap();
    // All of them take two minutes.
    let paths = vec!["file".to_owned(); 100];
    let options = CallOptions::new().timeout(Duration::from_secs(30));
    let read = pair.raw().with_options(options).read_small(paths).await;
    let read = read.unwrap();
    assert_eq!(read.len(), 100);
    assert!(matches!(read[0], SmallRead::File { .. }));
    let files = read.iter().filter(|read| !matches!(read, SmallRead::Large));
    // Five seconds allow 250,000 bytes, and a burst.
    assert!(files.count() <= 4);
}

#[tokio::test]
async fn a_directory_is_downloaded_under_a_limit_that_its_small_files_exceed() {
    let pair = Pair::with(|folder| folder.bytes_per_second(30_000)).await;
    fs::create_dir(pair.served.join("small")).unwrap();
    for number in 0..6 {
        let path = pair.served.join(format!("small/{number}"));
        fs::write(path, content(60_000)).unwrap();
    }
    let target = pair.local.join("target");
    let report = within("a get", pair.files().get("small", &target)).await;
    assert_eq!(report.unwrap().files, 6);
    for number in 0..6 {
        let copy = fs::read(target.join(number.to_string())).unwrap();
        assert!(copy == content(60_000), "{number}");
    }
}

#[tokio::test]
async fn a_file_of_a_go_client_is_taken_in_the_parts_that_a_limit_allows() {
    let temp = tempfile::tempdir().unwrap();
    let folder = Folder::open(temp.path()).unwrap().writable(true);
    let service = go::service(folder.bytes_per_second(20_000), "/srv");
    let server = Server::builder().service(service);
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let files = GoFileClient::new(Client::connect(server.target()).await.unwrap());
    let source = temp.path().join("source");
    // It is sent in one request, which has a timeout of 10 s.
    fs::write(&source, content(240_000)).unwrap();
    let report = within("a put", files.put(&source, "file")).await.unwrap();
    assert_eq!(report.bytes, 240_000);
    assert!(fs::read(temp.path().join("file")).unwrap() == content(240_000));
}
