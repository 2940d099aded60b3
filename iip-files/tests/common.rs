//! Folders, their servers and clients.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iip_files::service::FilesClient;
use iip_files::{FileClient, Folder};
use iip_rpc::{Client, Server};
use tempfile::TempDir;

/// Time after which a test gives up waiting.
pub(crate) const GUARD: Duration = Duration::from_secs(60);

pub(crate) const MIB: usize = 1 << 20;

/// Two folders, one of them served, and a client.
pub(crate) struct Pair {
    /// Is removed when it is dropped.
    _temp: TempDir,
    pub(crate) served: PathBuf,
    pub(crate) local: PathBuf,
    pub(crate) server: Server,
    pub(crate) client: Client,
}

impl Pair {
    /// A folder that can be written.
    pub(crate) async fn new() -> Self {
        Self::with(|folder| folder.writable(true)).await
    }

    pub(crate) async fn with(set: impl FnOnce(Folder) -> Folder) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (served, local) = (temp.path().join("served"), temp.path().join("local"));
        fs::create_dir(&served).unwrap();
        fs::create_dir(&local).unwrap();
        let server = serve(set(Folder::open(&served).unwrap())).await;
        let client = Client::connect(server.target()).await.unwrap();
        Self {
            _temp: temp,
            served,
            local,
            server,
            client,
        }
    }

    pub(crate) fn files(&self) -> FileClient {
        FileClient::new(self.client.clone())
    }

    /// The service, called by hand.
    pub(crate) fn raw(&self) -> FilesClient {
        FilesClient::new(self.client.clone())
    }

    /// The names in the served folder.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.served)
    }
}

pub(crate) async fn serve(folder: Folder) -> Server {
    let server = Server::builder().service(folder.into_service());
    server.bind("127.0.0.1:0").await.unwrap()
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

/// Bytes that differ from chunk to chunk.
pub(crate) fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (at ^ (at >> 9) ^ (at >> 18)) as u8)
        .collect()
}

/// Fails the test, naming `what`, if that takes too long.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(GUARD, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not happen within {GUARD:?}"),
    }
}
