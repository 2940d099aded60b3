//! Folders with their servers and clients.

use std::fs;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blake3::hazmat::HasherExt;
use iip_files::service::{
    Files, FilesClient, Identity, MAX_PIECE_BYTES, OpenRequest, Opened, Piece,
};
use iip_files::{FileClient, Folder};
use iip_rpc::{CallContext, Client, Server, Status, StreamSender, Streaming};
use tempfile::TempDir;

/// Time after which a test gives up waiting.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) const MIB: usize = 1 << 20;

/// The environment variable by which a test names the folder to the separate process that it
/// starts.
pub(crate) const ALONE: &str = "IIP_FILES_TEST_ALONE";

/// Two folders, one of them served, and a client.
pub(crate) struct Pair {
    /// The directory is removed when this is dropped.
    _temp: Option<TempDir>,
    pub(crate) served: PathBuf,
    pub(crate) local: PathBuf,
    pub(crate) server: Server,
    pub(crate) client: Client,
}

impl Pair {
    /// Creates a folder that clients can write.
    pub(crate) async fn new() -> Self {
        Self::with(|folder| folder.writable(true)).await
    }

    pub(crate) async fn with(set: impl FnOnce(Folder) -> Folder) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let pair = Self::within(temp.path(), set).await;
        Self {
            _temp: Some(temp),
            ..pair
        }
    }

    /// Uses a folder with its files; it is not removed.
    pub(crate) async fn within(temp: &Path, set: impl FnOnce(Folder) -> Folder) -> Self {
        let (served, local) = (temp.join("served"), temp.join("local"));
        fs::create_dir_all(&served).unwrap();
        fs::create_dir_all(&local).unwrap();
        let server = serve(set(Folder::open(&served).unwrap())).await;
        let client = Client::connect(server.target()).await.unwrap();
        Self {
            _temp: None,
            served,
            local,
            server,
            client,
        }
    }

    pub(crate) fn files(&self) -> FileClient {
        FileClient::new(self.client.clone())
    }

    /// Returns a client that calls the methods of the service directly.
    pub(crate) fn raw(&self) -> FilesClient {
        FilesClient::new(self.client.clone())
    }

    /// Returns the names in the served folder.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.served)
    }
}

pub(crate) async fn serve(folder: Folder) -> Server {
    serve_at((Ipv4Addr::LOCALHOST, 0).into(), folder).await
}

pub(crate) async fn serve_at(address: SocketAddr, folder: Folder) -> Server {
    let server = Server::builder().service(folder.into_service());
    server.bind(address).await.unwrap()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Returns the name of the unfinished file of this file.
pub(crate) fn part_name(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!(".{name}.{}.part", &hash[..16])
}

/// Returns bytes that differ from position to position.
pub(crate) fn content(size: usize) -> Vec<u8> {
    let mut bytes = vec![0x5A; size];
    for (index, block) in bytes.chunks_mut(512).enumerate() {
        let number = (index as u64).to_le_bytes();
        let length = block.len().min(number.len());
        block[..length].copy_from_slice(&number[..length]);
    }
    bytes
}

/// Waits for a future. If that takes too long, fails the test with the name `what`.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(GUARD, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {GUARD:?}"),
    }
}

/// Lets time pass, for timers only.
pub(crate) async fn passes(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Splits `bytes`, the beginning of a file of `size` bytes with chunks of 1 MiB, into pieces.
pub(crate) fn pieces(bytes: &[u8], size: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (index, chunk) in bytes.chunks(MIB).enumerate() {
        let is_complete = chunk.len() == MIB || index * MIB + chunk.len() == size;
        let value = if size <= MIB {
            *blake3::hash(chunk).as_bytes()
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset((index * MIB) as u64).update(chunk);
            hasher.finalize_non_root()
        };
        let count = chunk.len().div_ceil(MAX_PIECE_BYTES);
        for (at, piece) in chunk.chunks(MAX_PIECE_BYTES).enumerate() {
            let chunk = (is_complete && at + 1 == count).then_some(value);
            pieces.push(Piece {
                chunk,
                bytes: piece.to_vec().into(),
            });
        }
    }
    pieces
}

/// Opens an upload.
pub(crate) async fn open(
    files: &FilesClient,
    path: &str,
    size: usize,
    previous: Option<u64>,
) -> Result<Opened, Status> {
    let identity = Identity {
        size: size as u64,
        ..Identity::default()
    };
    files
        .open(OpenRequest {
            path: path.to_owned(),
            identity,
            previous,
        })
        .await
}

/// Writes the first 2 MiB of `content` to an upload, and waits until they are on disk. Returns the
/// streams, which keep the upload open.
pub(crate) async fn begun(
    files: &FilesClient,
    transfer: u64,
    content: &[u8],
) -> (StreamSender<Piece>, Streaming<u64>) {
    let (sender, stream) = Streaming::channel(1);
    let ctx = CallContext::new();
    let mut positions = files.write(&ctx, transfer, stream).await.unwrap();
    for piece in pieces(&content[..2 * MIB], content.len()) {
        sender.send(piece).await.unwrap();
    }
    within("bytes on disk", async {
        while positions.next().await.unwrap().unwrap() < 2 * MIB as u64 {}
    })
    .await;
    (sender, positions)
}
