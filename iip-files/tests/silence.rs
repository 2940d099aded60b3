//! Clients that are silent or have gone, and the places of their transfers.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use iip_files::service::{Files, FilesClient, Piece, ReadRequest};
use iip_files::{Folder, go};
use iip_rpc::{CallContext, Client, Code, Server, Status, Streaming, service};

use crate::common::{MIB, Pair, begun, content, open, passes, pieces, within};

async fn read(files: &FilesClient, path: &str) -> Result<Streaming<Piece>, Status> {
    let identity = files.stat(path).await?.identity;
    let request = ReadRequest {
        path: path.to_owned(),
        identity,
        offset: 0,
    };
    files.read(&CallContext::new(), request).await
}

/// Lets time pass until a place is free for a read of this file.
async fn read_later(files: &FilesClient, path: &str) {
    // The transfer may not have begun to wait for its client when the first time has passed.
    for _ in 0..1000 {
        passes(Duration::from_secs(31)).await;
        match read(files, path).await {
            Err(status) if status.code() == Code::ResourceExhausted => {}
            stream => {
                let piece = stream.unwrap().next().await;
                return drop(piece.unwrap().unwrap());
            }
        }
    }
    panic!("no place became free");
}

/// Reads a stream up to its error.
async fn error_of<T>(stream: &mut Streaming<T>) -> Status {
    within("the end", async {
        loop {
            if let Err(status) = stream.next().await.expect("an error") {
                return status;
            }
        }
    })
    .await
}

async fn ends_unread<T>(pair: &Pair, mut stream: Streaming<T>) {
    let files = pair.raw();
    let status = read(&files, "file").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    read_later(&files, "file").await;
    let status = error_of(&mut stream).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("Folder::silence"), "{status}");
}

#[tokio::test]
async fn a_download_that_is_not_read_ends_and_frees_its_place() {
    let pair = Pair::with(|folder| folder.max_open_transfers(1)).await;
    fs::write(pair.served.join("file"), content(4 * MIB)).unwrap();
    let pieces = read(&pair.raw(), "file").await.unwrap();
    ends_unread(&pair, pieces).await;
}

#[tokio::test]
async fn a_listing_that_is_not_read_ends_and_frees_its_place() {
    let pair = Pair::with(|folder| folder.max_open_transfers(1)).await;
    fs::write(pair.served.join("file"), "x").unwrap();
    for number in 0..4000 {
        fs::write(pair.served.join(format!("{number:0100}")), "").unwrap();
    }
    let listed = pair.raw().list("").await.unwrap();
    ends_unread(&pair, listed).await;
}

#[tokio::test]
async fn a_small_file_that_is_queued_and_not_read_holds_its_place() {
    let pair = Pair::with(|folder| folder.max_open_transfers(1)).await;
    let files = pair.raw();
    fs::write(pair.served.join("file"), content(MIB / 2)).unwrap();
    let _unread = read(&files, "file").await.unwrap();
    for _ in 0..100 {
        let status = read(&files, "file").await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    read_later(&files, "file").await;
}

#[tokio::test]
async fn an_upload_without_pieces_ends_and_can_be_resumed() {
    let pair = Pair::with(|folder| folder.writable(true).max_open_transfers(1)).await;
    let files = pair.raw();
    let content = content(3 * MIB);
    let first = open(&files, "file", content.len(), None).await.unwrap();
    let (_sender, mut positions) = begun(&files, first.transfer, &content).await;
    let status = open(&files, "other", 5, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    passes(Duration::from_secs(31)).await;
    let status = error_of(&mut positions).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("Folder::silence"), "{status}");
    open(&files, "other", 5, None).await.unwrap();
    passes(Duration::from_secs(31)).await;
    let again = open(&files, "file", content.len(), None).await.unwrap();
    assert_eq!(again.offset, 2 * MIB as u64);
}

#[tokio::test]
async fn an_upload_that_is_complete_and_not_committed_frees_its_place() {
    let pair = Pair::with(|folder| folder.writable(true).max_open_transfers(1)).await;
    let files = pair.raw();
    let first = open(&files, "file", 5, None).await.unwrap();
    let stream = Streaming::iter(pieces(b"bytes", 5));
    let ctx = CallContext::new();
    let mut positions = files.write(&ctx, first.transfer, stream).await.unwrap();
    assert_eq!(
        within("the end", positions.next()).await.unwrap().unwrap(),
        5
    );
    let status = open(&files, "other", 5, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    passes(Duration::from_secs(31)).await;
    open(&files, "other", 5, None).await.unwrap();
}

#[tokio::test]
async fn a_client_that_has_gone_frees_the_places_of_its_uploads_at_once() {
    let set = |folder: Folder| folder.writable(true).max_open_transfers(2);
    let pair = Pair::with(|folder| set(folder).silence(Duration::from_secs(3600))).await;
    let client = Client::connect(pair.server.target()).await.unwrap();
    let files = FilesClient::new(client.clone());
    open(&files, "one", 5, None).await.unwrap();
    open(&files, "two", 5, None).await.unwrap();
    let status = open(&pair.raw(), "three", 5, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    client.close(Duration::ZERO).await;
    within("a free place", async {
        while open(&pair.raw(), "three", 5, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_transfer_that_waits_for_the_limit_of_its_folder_is_not_silent() {
    let pair = Pair::with(|folder| {
        let silence = Duration::from_millis(500);
        // A piece takes a second.
        folder
            .writable(true)
            .bytes_per_second(32 * 1024)
            .silence(silence)
    })
    .await;
    let (source, target) = (pair.local.join("source"), pair.local.join("target"));
    fs::write(&source, content(96 * 1024)).unwrap();
    within("a put", pair.files().put(&source, "file"))
        .await
        .unwrap();
    within("a get", pair.files().get("file", &target))
        .await
        .unwrap();
    assert!(fs::read(target).unwrap() == content(96 * 1024));
}

/// Go's path for uploads, as a client of Go calls it.
#[service(name = "test.Go")]
trait Go {
    #[rpc(path = "/upload_file", raw)]
    async fn upload(&self, body: Bytes) -> Result<Bytes, Status>;
}

/// A folder with one place.
struct WithGo {
    _temp: tempfile::TempDir,
    _server: Server,
    /// The client whose unfinished upload holds the place.
    go: Client,
    files: FilesClient,
}

async fn with_go_upload(silence: Duration) -> WithGo {
    let temp = tempfile::tempdir().unwrap();
    let folder = Folder::open(temp.path()).unwrap();
    let folder = folder.writable(true).max_open_transfers(1).silence(silence);
    let server = Server::builder()
        .service(go::service(folder.clone(), "/srv"))
        .service(folder.into_service());
    let server = server.bind("127.0.0.1:0").await.unwrap();
    let go = Client::connect(server.target()).await.unwrap();
    let json = br#"{"TaskId":1,"FilePath":"file","UploadStartPos":0,"Completed":false}"#;
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    let body = [&length[..], json, b"bytes"].concat();
    GoClient::new(go.clone()).upload(body.into()).await.unwrap();
    let files = FilesClient::new(Client::connect(server.target()).await.unwrap());
    let status = open(&files, "other", 5, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    WithGo {
        _temp: temp,
        _server: server,
        go,
        files,
    }
}

#[tokio::test]
async fn an_upload_of_a_go_client_that_is_silent_frees_its_place() {
    let served = with_go_upload(Duration::from_secs(30)).await;
    passes(Duration::from_secs(31)).await;
    open(&served.files, "other", 5, None).await.unwrap();
}

#[tokio::test]
async fn an_upload_of_a_go_client_that_has_gone_frees_its_place_at_once() {
    let served = with_go_upload(Duration::from_secs(3600)).await;
    served.go.close(Duration::ZERO).await;
    within("a free place", async {
        while open(&served.files, "other", 5, None).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
