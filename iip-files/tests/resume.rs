//! Transfers that were interrupted.

use std::fs::{self, File, OpenOptions};
use std::time::{Duration, SystemTime};

use iip_files::service::{
    Files, FilesClient, Identity, MAX_PIECE_BYTES, OpenRequest, Opened, Piece,
};
use iip_files::{FileClient, Folder, Phase, TransferOptions};
use iip_rpc::{CallContext, Client, Code, Streaming};
use tokio::sync::watch;

use crate::common::{MIB, Pair, content, names, pieces, serve, serve_at, within};

/// Returns the identity of a file.
fn identity(path: &std::path::Path) -> Identity {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).unwrap();
    let modified = iip_files::service::Modified {
        seconds: metadata.mtime(),
        nanoseconds: metadata.mtime_nsec() as u32,
    };
    Identity {
        size: metadata.len(),
        modified,
        inode: metadata.ino(),
    }
}

async fn open(files: &FilesClient, path: &str, identity: Identity) -> Opened {
    let request = OpenRequest {
        path: path.to_owned(),
        identity,
        previous: None,
    };
    files.open(request).await.unwrap()
}

/// Uploads the first `bytes` of a file, and disconnects.
async fn interrupted(pair: &Pair, source: &std::path::Path, bytes: usize) {
    let client = Client::connect(pair.server.target()).await.unwrap();
    let files = FilesClient::new(client.clone());
    let content = fs::read(source).unwrap();
    let opened = open(&files, "file", identity(source)).await;
    assert_eq!(opened.offset, 0);
    let (sender, stream) = Streaming::channel(1);
    let mut positions = files
        .write(&CallContext::new(), opened.transfer, stream)
        .await
        .unwrap();
    for piece in pieces(&content[..bytes], content.len()) {
        sender.send(piece).await.unwrap();
    }
    // A chunk that is not complete is lost.
    let mut complete = (bytes - bytes % MIB) as u64;
    let mut sender = Some(sender);
    if bytes == content.len() {
        sender.take().unwrap().finish();
        complete = bytes as u64;
    }
    within("the chunks are on disk", async {
        while positions.next().await.unwrap().unwrap() < complete {}
    })
    .await;
    drop((sender, positions));
    client.close(Duration::ZERO).await;
    within("the end of the upload", async {
        while pair.raw().status("file").await.unwrap().is_open {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_whose_client_has_gone_is_resumed_at_the_last_chunk_on_disk() {
    let pair = Pair::new().await;
    let (source, size) = (pair.local.join("source"), 5 * MIB + 99);
    fs::write(&source, content(size)).unwrap();
    interrupted(&pair, &source, 3 * MIB + MIB / 2).await;
    assert!(!pair.served.join("file").exists());
    let status = pair.raw().status("file").await.unwrap();
    assert_eq!(status.unfinished, Some((identity(&source), 3 * MIB as u64)));

    let report = pair.files().put(&source, "file").await.unwrap();
    assert_eq!(report.transferred, (size - 3 * MIB) as u64);
    assert_eq!((report.bytes, report.restarted), (size as u64, 0));
    assert!(fs::read(pair.served.join("file")).unwrap() == content(size));
    assert_eq!(
        report.hash.unwrap().as_bytes(),
        blake3::hash(&content(size)).as_bytes()
    );
    assert_eq!(pair.names(), ["file"]);
}

/// Uploads a file while the server is restarted, with this time limit for its shutdown.
async fn put_with_restart(limit: Duration) {
    let pair = Pair::with(|folder| folder.writable(true).bytes_per_second(MIB as u64)).await;
    let (source, size) = (pair.local.join("source"), 24 * MIB);
    fs::write(&source, content(size)).unwrap();
    let address = pair.server.local_addr().unwrap();
    let (begun, mut has_begun) = watch::channel(false);
    let (lost, was_lost) = watch::channel(false);
    let options = TransferOptions::new().progress(move |progress| {
        if progress.phase == Phase::Reconnecting {
            lost.send_replace(true);
        }
        if progress.durable > 0 {
            begun.send_replace(true);
        }
    });
    let files = pair.files().with_options(options);
    let put = tokio::spawn(async move { files.put(&source, "file").await });
    within(
        "the first bytes",
        has_begun.wait_for(|has_begun| *has_begun),
    )
    .await
    .unwrap();
    within("the shutdown", pair.server.shutdown(limit)).await;
    let folder = Folder::open(&pair.served).unwrap().writable(true);
    let _server = serve_at(address, folder).await;
    let report = within("the put", put).await.unwrap().unwrap();
    assert!(*was_lost.borrow());
    // The first server has received little, and the bytes in flight are sent again.
    let (transferred, size) = (report.transferred as usize, size);
    assert!(
        (size..size + 16 * MIB).contains(&transferred),
        "{transferred}"
    );
    assert!(fs::read(pair.served.join("file")).unwrap() == content(size));
    assert_eq!(pair.names(), ["file"]);
}

#[tokio::test]
async fn an_upload_goes_on_with_a_restarted_server() {
    put_with_restart(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn an_upload_goes_on_after_its_connection_was_cut() {
    put_with_restart(Duration::ZERO).await;
}

#[tokio::test]
async fn a_file_that_got_its_name_before_a_crash_is_not_sent_again() {
    let pair = Pair::new().await;
    let (source, size) = (pair.local.join("source"), 3 * MIB + 5);
    fs::write(&source, content(size)).unwrap();
    interrupted(&pair, &source, size).await;
    // The rename that a commit does before it removes the journal.
    let part = names(&pair.served)
        .into_iter()
        .find(|name| name.ends_with(".part"))
        .unwrap();
    let target = pair.served.join("file");
    fs::rename(pair.served.join(part), &target).unwrap();
    let modified = fs::metadata(&source).unwrap().modified().unwrap();
    File::options()
        .write(true)
        .open(&target)
        .unwrap()
        .set_modified(modified)
        .unwrap();

    let files = pair
        .files()
        .with_options(TransferOptions::new().verify(true));
    let report = files.put(&source, "file").await.unwrap();
    assert_eq!((report.transferred, report.restarted), (0, 0));
    assert_eq!(
        report.hash.unwrap().as_bytes(),
        blake3::hash(&content(size)).as_bytes()
    );
    assert_eq!(pair.names(), ["file"]);
}

#[tokio::test]
async fn a_download_is_resumed_by_the_next_one() {
    let pair = Pair::with(|folder| folder.bytes_per_second(MIB as u64)).await;
    let size = 24 * MIB;
    fs::write(pair.served.join("file"), content(size)).unwrap();
    let target = pair.local.join("target");
    let (durable, mut is_durable) = watch::channel(0);
    let options = TransferOptions::new().progress(move |progress| {
        durable.send_replace(progress.durable);
    });
    let files = pair.files().with_options(options);
    let get = files.get("file", &target);
    tokio::select! {
        _ = get => panic!("it takes half a minute"),
        durable = within("bytes on disk", is_durable.wait_for(|durable| *durable > 0)) => {
            durable.unwrap();
        }
    }
    assert!(!target.exists());
    let server = serve(Folder::open(&pair.served).unwrap()).await;
    let files = FileClient::new(Client::connect(server.target()).await.unwrap());
    // The first transfer may still be ending.
    let report = within("the second get", async {
        loop {
            match files.get("file", &target).await {
                Err(status) if status.code() == Code::Aborted => tokio::task::yield_now().await,
                report => return report.unwrap(),
            }
        }
    })
    .await;
    assert!(
        report.transferred <= (size - MIB) as u64,
        "{}",
        report.transferred
    );
    assert!(fs::read(&target).unwrap() == content(size));
    assert_eq!(names(&pair.local), ["target"]);
}

#[tokio::test]
async fn a_torn_or_damaged_journal_costs_only_the_chunks_from_there_on() {
    for (damage, kept) in [(-7, 2), (7, 3), (-41, 1), (-140, 0)] {
        let pair = Pair::new().await;
        let (source, size) = (pair.local.join("source"), 5 * MIB);
        fs::write(&source, content(size)).unwrap();
        interrupted(&pair, &source, 3 * MIB).await;
        let journal = names(&pair.served)
            .into_iter()
            .find(|name| name.ends_with(".journal"));
        let journal = pair.served.join(journal.unwrap());
        let length = fs::metadata(&journal).unwrap().len();
        let file = OpenOptions::new().write(true).open(&journal).unwrap();
        file.set_len(length.saturating_add_signed(damage)).unwrap();
        let report = pair.files().put(&source, "file").await.unwrap();
        assert_eq!(report.transferred, (size - kept * MIB) as u64, "{damage}");
        assert!(fs::read(pair.served.join("file")).unwrap() == content(size));
    }
}

#[tokio::test]
async fn an_upload_of_a_changed_source_begins_again_and_says_so() {
    let pair = Pair::new().await;
    let source = pair.local.join("source");
    fs::write(&source, content(5 * MIB)).unwrap();
    interrupted(&pair, &source, 3 * MIB).await;
    let changed: Vec<u8> = content(5 * MIB).iter().map(|byte| !byte).collect();
    fs::write(&source, &changed).unwrap();
    let report = pair.files().put(&source, "file").await.unwrap();
    assert_eq!((report.restarted, report.transferred), (1, 5 * MIB as u64));
    assert!(fs::read(pair.served.join("file")).unwrap() == changed);
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_sent_is_not_committed() {
    let pair = Pair::with(|folder| folder.writable(true).bytes_per_second(2 * MIB as u64)).await;
    let source = pair.local.join("source");
    fs::write(&source, content(8 * MIB)).unwrap();
    let changed = source.clone();
    let options = TransferOptions::new().progress(move |progress| {
        if progress.phase == Phase::Transferring {
            let file = File::options().write(true).open(&changed).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
    });
    let files = pair.files().with_options(options);
    let status = within("the put", files.put(&source, "file"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("has changed"), "{status}");
    assert!(!pair.served.join("file").exists());
}

#[tokio::test]
async fn damage_on_the_disk_of_the_receiver_is_found_if_it_verifies() {
    let pair = Pair::new().await;
    let source = pair.local.join("source");
    fs::write(&source, content(5 * MIB)).unwrap();
    interrupted(&pair, &source, 3 * MIB).await;
    let part = names(&pair.served)
        .into_iter()
        .find(|name| name.ends_with(".part"))
        .unwrap();
    let mut damaged = fs::read(pair.served.join(&part)).unwrap();
    damaged[MIB + 5] ^= 1;
    fs::write(pair.served.join(&part), damaged).unwrap();
    let files = pair
        .files()
        .with_options(TransferOptions::new().verify(true));
    let status = files.put(&source, "file").await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(pair.names().is_empty());
    assert_eq!(
        files.put(&source, "file").await.unwrap().transferred,
        5 * MIB as u64
    );
    let target = pair.local.join("target");
    files.get("file", &target).await.unwrap();
    assert!(fs::read(target).unwrap() == content(5 * MIB));
}

#[tokio::test]
async fn old_unfinished_files_are_removed_unless_they_are_written() {
    let pair = Pair::new().await;
    let source = pair.local.join("source");
    fs::write(&source, content(5 * MIB)).unwrap();
    fs::create_dir(pair.served.join("below")).unwrap();
    interrupted(&pair, &source, 2 * MIB).await;
    let _written = open(&pair.raw(), "below/written", identity(&source)).await;
    let folder = Folder::open(&pair.served).unwrap();
    assert_eq!(folder.remove_stale_parts().await.unwrap(), 0);
    assert_eq!(pair.names().len(), 3);
    let folder = folder.part_lifetime(Duration::ZERO);
    assert_eq!(folder.remove_stale_parts().await.unwrap(), 1);
    assert_eq!(pair.names(), ["below"]);
    assert_eq!(names(&pair.served.join("below")).len(), 2);
}

#[tokio::test]
async fn pieces_that_are_not_what_was_hashed_are_refused() {
    let pair = Pair::new().await;
    let source = pair.local.join("source");
    fs::write(&source, content(3 * MIB)).unwrap();
    let good = pieces(&content(3 * MIB), 3 * MIB);
    const LAST_OF_CHUNK: usize = MIB / MAX_PIECE_BYTES - 1;
    let wrong = |change: fn(&mut Vec<Piece>)| {
        let mut pieces = good.clone();
        change(&mut pieces);
        pieces
    };
    let cases = [
        (
            wrong(|pieces| pieces[LAST_OF_CHUNK].chunk = Some([0; 32])),
            Code::DataLoss,
        ),
        (
            wrong(|pieces| pieces[LAST_OF_CHUNK].chunk = None),
            Code::DataLoss,
        ),
        (
            wrong(|pieces| pieces[0].bytes = vec![1; MAX_PIECE_BYTES].into()),
            Code::DataLoss,
        ),
        (
            wrong(|pieces| pieces[0].bytes = Vec::new().into()),
            Code::InvalidArgument,
        ),
        (
            wrong(|pieces| pieces[1].bytes = vec![0; MAX_PIECE_BYTES + 1].into()),
            Code::InvalidArgument,
        ),
        (wrong(|pieces| drop(pieces.remove(0))), Code::DataLoss),
        (
            wrong(|pieces| pieces.insert(1, pieces[0].clone())),
            Code::DataLoss,
        ),
        (wrong(|pieces| pieces.truncate(5)), Code::InvalidArgument),
        (
            wrong(|pieces| pieces.push(pieces[0].clone())),
            Code::InvalidArgument,
        ),
    ];
    for (number, (pieces, code)) in cases.into_iter().enumerate() {
        let path = format!("file{number}");
        let opened = open(&pair.raw(), &path, identity(&source)).await;
        let pieces = Streaming::iter(pieces);
        let files = pair.raw();
        let mut positions = files
            .write(&CallContext::new(), opened.transfer, pieces)
            .await
            .unwrap();
        let status = within("the refusal", async {
            loop {
                if let Err(status) = positions.next().await.expect("an error") {
                    return status;
                }
            }
        })
        .await;
        assert_eq!(status.code(), code, "{number}: {status}");
        assert!(!pair.served.join(path).exists());
    }
}
