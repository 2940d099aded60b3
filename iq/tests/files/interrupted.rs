//! Transfers whose programs are killed before the end.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{Running, Serve, bytes, hash, same};
use crate::common::{GUARD, Home};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 96 * MIB;
const KILLS: u64 = 5;

/// A rate low enough that the programs are killed before the end.
const RATE: &str = "16M";

/// Maximum number of bytes that are sent again after a kill: those that were not on disk, and those
/// in flight.
const AGAIN: u64 = (64 + 16) * MIB;

/// A proxy to a server that may be replaced. It counts the bytes.
struct Proxy {
    addr: SocketAddr,
    server: Arc<Mutex<String>>,
    carried: Arc<AtomicU64>,
}

impl Proxy {
    async fn new(server: &Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            addr: listener.local_addr().unwrap(),
            server: Arc::new(Mutex::new(server.address.clone())),
            carried: Arc::default(),
        };
        let (server, carried) = (Arc::clone(&this.server), Arc::clone(&this.carried));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, carried) = (server.lock().unwrap().clone(), Arc::clone(&carried));
                tokio::spawn(async move {
                    // While there is no server, connections of clients are closed.
                    let Ok(server) = TcpStream::connect(&server).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        carry(from_client, to_server, &carried),
                        carry(from_server, to_client, &carried)
                    );
                });
            }
        });
        this
    }

    fn leads_to(&self, server: &Serve) {
        server.address.clone_into(&mut self.server.lock().unwrap());
    }

    fn uri(&self, path: &str) -> String {
        format!("{}/{path}", self.addr)
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &AtomicU64,
) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        carried.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// A file that only one side has.
struct Scene {
    home: Home,
    server: Serve,
    proxy: Proxy,
    data: Vec<u8>,
    /// The arguments of the client.
    args: Vec<String>,
    source: PathBuf,
    /// The path of the target.
    target: PathBuf,
}

impl Scene {
    async fn new(command: &str) -> Self {
        let home = Home::new();
        let server = Serve::start(&home, &["--write"]).await;
        let proxy = Proxy::new(&server).await;
        let data = bytes(SIZE as usize);
        let (served, local) = (server.folder.join("file"), home.0.join("local"));
        let (source, target) = match command {
            "put" => (&local, &served),
            _ => (&served, &local),
        };
        fs::write(source, &data).unwrap();
        let (local, uri) = (local.to_str().unwrap().to_owned(), proxy.uri("file"));
        let places = match command {
            "put" => [local, uri],
            _ => [uri, local],
        };
        let mut args = vec![
            command.to_owned(),
            "--limit-rate".to_owned(),
            RATE.to_owned(),
        ];
        args.extend(places);
        let (source, target) = (source.clone(), target.clone());
        Self {
            home,
            server,
            proxy,
            data,
            args,
            source,
            target,
        }
    }

    fn args(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }

    fn client(&self) -> Running {
        Running::start(&self.home, &self.args())
    }

    /// Kills the client, and starts it again.
    async fn survives_kills_of_the_client(self) {
        let mut durable = 0;
        for _ in 0..KILLS {
            let mut client = self.client();
            client.is_durable(durable).await;
            assert!(
                client.resumed_at.unwrap_or(0) >= durable,
                "{:?}",
                client.resumed_at
            );
            durable = client.durable;
            client.kill().await;
            assert!(!self.target.exists());
        }
        let last = self.client();
        self.ends_well(last, durable, 0..=0).await;
    }

    /// Kills the server, and starts it again, while the client continues.
    async fn survives_kills_of_the_server(mut self) {
        let mut client = self.client();
        let mut durable = 0;
        for _ in 0..KILLS {
            client.is_durable(durable).await;
            durable = client.durable;
            assert!(!self.target.exists());
            let next = Serve::start(&self.home, &["--write"]).await;
            std::mem::replace(&mut self.server, next).kill().await;
            self.proxy.leads_to(&self.server);
        }
        // The server may be killed again before the client has reconnected.
        self.ends_well(client, 0, 1..=KILLS).await;
    }

    async fn ends_well(self, mut client: Running, durable: u64, losses: RangeInclusive<u64>) {
        let done = client.result().await;
        let found = client.losses;
        assert!(losses.contains(&found), "{found} of {losses:?}");
        assert_eq!(done["blake3"], hash(&self.data));
        assert!(done["transferred"].as_u64().unwrap() <= SIZE + KILLS * AGAIN - durable);
        same(&self.target, &self.data);
        let carried = self.proxy.carried.load(Ordering::Relaxed);
        let limit = SIZE + KILLS * AGAIN;
        assert!((SIZE..=limit).contains(&carried), "{carried} of {limit}");
        // No unfinished file is left.
        let folder = self.target.parent().unwrap();
        let left = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left
            .filter(|name| name.as_encoded_bytes()[0] == b'.')
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn a_put_survives_five_kills_of_the_client() {
    Scene::new("put").await.survives_kills_of_the_client().await;
}

#[tokio::test]
async fn a_get_survives_five_kills_of_the_client() {
    Scene::new("get").await.survives_kills_of_the_client().await;
}

#[tokio::test]
async fn a_put_survives_five_kills_of_the_server() {
    Scene::new("put").await.survives_kills_of_the_server().await;
}

#[tokio::test]
async fn a_get_survives_five_kills_of_the_server() {
    Scene::new("get").await.survives_kills_of_the_server().await;
}

#[tokio::test]
async fn a_second_writer_is_refused_and_the_first_one_finishes() {
    let scene = Scene::new("put").await;
    let mut first = scene.client();
    first.transfers().await;
    let local = scene.home.0.join("local");
    let uri = scene.server.uri("file");
    let second = scene.home.iq(&["put", local.to_str().unwrap(), &uri]).await;
    let error = second.failed(74);
    assert!(error.contains("being written"), "{error}");
    let done = tokio::time::timeout(GUARD, first.result()).await.unwrap();
    assert_eq!(done["blake3"], hash(&scene.data));
    same(&scene.target, &scene.data);
}

#[tokio::test]
async fn a_transfer_starts_again_if_the_source_has_changed() {
    let scene = Scene::new("put").await;
    let mut client = scene.client();
    client.is_durable(0).await;
    client.kill().await;
    let other = bytes(3 << 20);
    let local = scene.home.write("local", &other);
    let ran = scene
        .home
        .iq(&["put", &local, &scene.server.uri("file")])
        .await;
    assert!(ran.err.contains("started again"), "{}", ran.err);
    same(&scene.target, &other);
}

#[tokio::test]
async fn a_source_that_has_vanished_is_named_and_what_has_arrived_stays() {
    for command in ["put", "get"] {
        let scene = Scene::new(command).await;
        let mut client = scene.client();
        client.is_durable(0).await;
        let durable = client.durable;
        client.kill().await;
        let aside = scene.home.0.join("aside");
        fs::rename(&scene.source, &aside).unwrap();
        let ran = scene.home.iq(&scene.args()).await;
        assert_ne!(ran.code, Some(0), "{command}: {}", ran.out);
        let name = scene.source.file_name().unwrap().to_str().unwrap();
        assert!(ran.err.contains(name), "{command}: {}", ran.err);
        assert!(!scene.target.exists(), "{command}");
        // Once the server is back, the transfer continues.
        fs::rename(&aside, &scene.source).unwrap();
        let mut client = scene.client();
        client.is_durable(durable).await;
        assert!(client.resumed_at >= Some(durable), "{command}");
        client.result().await;
        same(&scene.target, &scene.data);
    }
}
