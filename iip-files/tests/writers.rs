//! Several writers of a file, and limits.

use std::fs;
use std::time::Duration;

use iip_files::Folder;
use iip_files::service::{
    CommitRequest, Files, FilesClient, Identity, Modified, OpenRequest, Piece,
};
use iip_rpc::{CallContext, Client, Code, Status, Streaming};

use crate::common::{MIB, Pair, begun, content, open, pieces, serve, within};

/// Writes `content` to an upload. Returns the reply stream, which keeps the upload open.
async fn write(
    files: &FilesClient,
    transfer: u64,
    content: &[u8],
) -> Result<Streaming<u64>, Status> {
    let pieces = Streaming::iter(pieces(content, content.len()));
    let mut positions = files.write(&CallContext::new(), transfer, pieces).await?;
    while let Some(position) = positions.next().await {
        if position? == content.len() as u64 {
            break;
        }
    }
    Ok(positions)
}

#[tokio::test]
async fn a_second_writer_is_refused_unless_it_is_the_first_one_again() {
    let pair = Pair::new().await;
    let files = pair.raw();
    let first = open(&files, "file", 5, None).await.unwrap();
    let status = open(&files, "file", 5, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    let other = open(&files, "other", 5, None).await.unwrap();
    let status = open(&files, "file", 5, Some(other.transfer))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");

    let again = open(&files, "file", 5, Some(first.transfer)).await.unwrap();
    let status = write(&files, first.transfer, b"first")
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let _open = write(&files, again.transfer, b"again").await.unwrap();
    let commit = CommitRequest {
        transfer: again.transfer,
        hash: None,
        verify: false,
    };
    let hash = files.commit(commit.clone()).await.unwrap();
    assert_eq!(hash.as_bytes(), blake3::hash(b"again").as_bytes());
    // A client that did not get the reply repeats the commit.
    assert_eq!(files.commit(commit).await.unwrap(), hash);
    assert_eq!(fs::read(pair.served.join("file")).unwrap(), b"again");
}

#[tokio::test]
async fn a_writer_is_replaced_within_its_stream_by_its_next_attempt() {
    // The next attempt takes over the only place.
    let pair = Pair::with(|folder| folder.writable(true).max_open_transfers(1)).await;
    let files = pair.raw();
    let content = content(3 * MIB);
    let first = open(&files, "file", content.len(), None).await.unwrap();
    let (_sender, mut positions) = begun(&files, first.transfer, &content).await;
    let second = open(&files, "file", content.len(), Some(first.transfer));
    let second = within("the second", second).await.unwrap();
    assert_eq!(second.offset, 2 * MIB as u64);
    let status = within("the end of the first", positions.next())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
}

#[tokio::test]
async fn another_process_that_writes_the_file_is_noticed() {
    let pair = Pair::new().await;
    let _first = open(&pair.raw(), "file", 5, None).await.unwrap();
    // The second `Folder` shares only the files on disk with the first one.
    let server = serve(Folder::open(&pair.served).unwrap().writable(true)).await;
    let files = FilesClient::new(Client::connect(server.target()).await.unwrap());
    let status = open(&files, "file", 5, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("another process"), "{status}");
}

#[tokio::test]
async fn a_writer_that_has_gone_before_its_commit_is_replaced_at_once() {
    let pair = Pair::new().await;
    let client = Client::connect(pair.server.target()).await.unwrap();
    let files = FilesClient::new(client.clone());
    let first = open(&files, "file", 5, None).await.unwrap();
    let positions = write(&files, first.transfer, b"bytes").await.unwrap();
    let status = open(&pair.raw(), "file", 5, None).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    drop(positions);
    client.close(Duration::ZERO).await;
    let second = within("the second", async {
        loop {
            match open(&pair.raw(), "file", 5, None).await {
                Err(status) if status.code() == Code::Aborted => tokio::task::yield_now().await,
                second => return second.unwrap(),
            }
        }
    });
    assert_eq!(second.await.offset, 5);
}

#[tokio::test]
async fn a_file_that_is_not_complete_gets_no_name() {
    let pair = Pair::new().await;
    let files = pair.raw();
    let opened = open(&files, "file", 5, None).await.unwrap();
    let commit = CommitRequest {
        transfer: opened.transfer,
        hash: None,
        verify: false,
    };
    let status = files.commit(commit).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(!pair.served.join("file").exists());
}

#[tokio::test]
async fn a_hash_that_is_not_that_of_the_source_gives_no_name() {
    let pair = Pair::new().await;
    let files = pair.raw();
    let opened = open(&files, "file", 5, None).await.unwrap();
    let _open = write(&files, opened.transfer, b"bytes").await.unwrap();
    let hash = Some([7; 32].into());
    let commit = CommitRequest {
        transfer: opened.transfer,
        hash,
        verify: false,
    };
    let status = files.commit(commit).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(pair.names().is_empty());
}

#[tokio::test]
async fn limits_are_named_in_their_errors() {
    let pair = Pair::with(|folder| {
        folder
            .writable(true)
            .max_file_bytes(1000)
            .max_open_transfers(2)
    })
    .await;
    let files = pair.raw();
    let status = open(&files, "large", 1001, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("max_file_bytes"), "{status}");
    open(&files, "one", 1000, None).await.unwrap();
    open(&files, "two", 1000, None).await.unwrap();
    let status = open(&files, "three", 1000, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("max_open_transfers"), "{status}");
}

#[tokio::test]
async fn sizes_and_times_at_the_ends_of_their_ranges_are_no_special_case() {
    let pair = Pair::new().await;
    let files = pair.raw();
    for (path, seconds) in [("early", i64::MIN), ("late", i64::MAX)] {
        let modified = Modified {
            seconds,
            nanoseconds: u32::MAX,
        };
        let identity = Identity {
            size: u64::MAX,
            modified,
            inode: u64::MAX,
        };
        let request = OpenRequest {
            path: path.to_owned(),
            identity,
            previous: None,
        };
        let opened = files.open(request).await.unwrap();
        let piece = Piece {
            chunk: None,
            bytes: vec![0; 1000].into(),
        };
        let ctx = CallContext::new();
        let pieces = Streaming::iter([piece]);
        let mut positions = files.write(&ctx, opened.transfer, pieces).await.unwrap();
        let status = within("the end", positions.next())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let status = files.status(path).await.unwrap();
        assert_eq!(status.unfinished, Some((identity, 0)));
    }
}

#[tokio::test]
async fn silent_uploads_give_their_places_to_others() {
    let pair = Pair::with(|folder| {
        folder
            .writable(true)
            .silence(Duration::ZERO)
            .max_open_transfers(1)
    })
    .await;
    open(&pair.raw(), "one", 1000, None).await.unwrap();
    open(&pair.raw(), "two", 1000, None).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_is_replaced_gives_its_place_to_the_new_one() {
    let pair = Pair::with(|folder| folder.writable(true).max_open_transfers(1)).await;
    let files = pair.raw();
    let first = open(&files, "file", 1000, None).await.unwrap();
    let again = open(&files, "file", 1000, Some(first.transfer))
        .await
        .unwrap();
    // It is the only place still.
    let status = open(&files, "other", 1000, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    open(&files, "file", 1000, Some(again.transfer))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_folder_is_read_only_unless_it_is_made_writable() {
    let pair = Pair::with(|folder| folder).await;
    let source = pair.local.join("source");
    fs::write(&source, "x").unwrap();
    for local in [&source, &pair.local] {
        let status = pair.files().put(local, "file").await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("read-only"), "{status}");
    }
    let status = pair.raw().write_small(Vec::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(pair.names().is_empty());
}

#[tokio::test]
async fn files_that_do_not_exist_are_named() {
    let pair = Pair::new().await;
    let absent = pair.local.join("absent");
    let status = pair.files().put(&absent, "file").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(status.message().contains("absent"), "{status}");
    let status = pair.files().get("missing/file", &absent).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(status.message().contains("missing/file"), "{status}");
    fs::write(pair.served.join("file"), "x").unwrap();
    let below_a_file = pair.served.join("file/below");
    let status = pair.files().get("file", &below_a_file).await.unwrap_err();
    assert!(status.message().contains("served/file"), "{status}");
}

#[tokio::test]
async fn the_parents_of_a_downloaded_file_are_created() {
    let pair = Pair::new().await;
    fs::write(pair.served.join("file"), "x").unwrap();
    let target = pair.local.join("some/new/file");
    pair.files().get("missing", &target).await.unwrap_err();
    assert!(!pair.local.join("some").exists());
    pair.files().get("file", &target).await.unwrap();
    assert_eq!(fs::read(target).unwrap(), b"x");
}
