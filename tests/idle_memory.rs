//! Memory of streams and connections that were busy and are idle now, with open calls.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use bytes::Bytes;
use iip_rpc::{Client, Server, Status, Stream, StreamSender, Streaming, service};
use tokio::sync::{Mutex, mpsc};

use crate::common::alone::alone;
use crate::common::calls::serve;
use crate::common::{GUARD, MIB, resident_bytes, spawn, within};

const LARGE: usize = 8 * MIB;

#[service]
trait Table {
    /// Sends a snapshot of `size` bytes first, then rare changes.
    async fn watch(&self, bytes: u64) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status>;
    /// Takes rows, and confirms each of them.
    async fn fill(
        &self,
        rows: Streaming<Bytes>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status>;
    async fn echo(&self, row: Bytes) -> Result<Bytes, Status>;
}

/// Keeps the streams of its watchers open.
#[derive(Default)]
struct Rows(Mutex<Vec<StreamSender<Bytes>>>);

impl Table for Rows {
    async fn watch(&self, bytes: u64) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status> {
        let (sender, stream) = Streaming::channel(1);
        let snapshot = Bytes::from(vec![1; usize::try_from(bytes).unwrap()]);
        let _ = sender.send(snapshot).await;
        self.0.lock().await.push(sender);
        Ok(stream)
    }

    async fn fill(
        &self,
        mut rows: Streaming<Bytes>,
    ) -> Result<impl Stream<Item = Result<u64, Status>>, Status> {
        let (sender, stream) = Streaming::channel(1);
        spawn(async move {
            while let Some(Ok(row)) = rows.next().await {
                let _ = sender.send(row.len() as u64).await;
            }
        });
        Ok(stream)
    }

    async fn echo(&self, row: Bytes) -> Result<Bytes, Status> {
        Ok(row)
    }
}

/// Waits until the process holds less than `limit` bytes more than `before`.
async fn holds_less(before: usize, limit: usize) {
    let begun = tokio::time::Instant::now();
    loop {
        let grown = resident_bytes().saturating_sub(before);
        if grown < limit {
            return;
        }
        assert!(begun.elapsed() < GUARD, "{} KiB are held", grown / 1024);
        // Memory is freed after an idle second.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn idle_streams_from_the_server_keep_nothing_of_their_largest_message() {
    let name = "idle_streams_from_the_server_keep_nothing_of_their_largest_message";
    alone(name, || async {
        let (_server, client) = serve(TableServer::new(Rows::default())).await;
        let table = TableClient::new(client);
        drop(table.watch(LARGE as u64).await.unwrap().next().await);
        let before = resident_bytes();
        let mut watches = Vec::new();
        for _ in 0..20 {
            let mut watch = table.watch(LARGE as u64).await.unwrap();
            let snapshot = within("a snapshot", watch.next()).await.unwrap();
            assert_eq!(snapshot.unwrap().len(), LARGE);
            watches.push(watch);
        }
        holds_less(before, 48 * MIB).await;
    });
}

#[test]
fn idle_streams_to_the_server_keep_nothing_of_their_largest_message() {
    let name = "idle_streams_to_the_server_keep_nothing_of_their_largest_message";
    alone(name, || async {
        let (_server, client) = serve(TableServer::new(Rows::default())).await;
        let table = TableClient::new(client);
        let before = resident_bytes();
        let mut fills = Vec::new();
        for _ in 0..20 {
            let (sender, rows) = Streaming::channel(1);
            let mut lengths = table.fill(rows).await.unwrap();
            sender.send(vec![1; LARGE].into()).await.unwrap();
            let length = within("the row", lengths.next()).await.unwrap();
            assert_eq!(length, Ok(LARGE as u64));
            fills.push((sender, lengths));
        }
        holds_less(before, 48 * MIB).await;
    });
}

#[test]
fn connections_with_idle_streams_free_their_buffers() {
    let name = "connections_with_idle_streams_free_their_buffers";
    alone(name, || async {
        const CONNECTIONS: usize = 150;
        let server = Server::builder()
            .service(TableServer::new(Rows::default()))
            .bind("127.0.0.1:0")
            .await
            .unwrap();
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            let table = TableClient::new(Client::connect(server.target()).await.unwrap());
            let mut watch = table.watch(1).await.unwrap();
            within("a snapshot", watch.next()).await.unwrap().unwrap();
            open.push((table, watch));
        }
        let before = resident_bytes();
        // All of them are busy at the same time, with bodies for which their buffers grow.
        let (busy, mut done) = mpsc::channel::<()>(1);
        for (table, _) in &open {
            let (table, busy) = (table.clone(), busy.clone());
            spawn(async move {
                let row = Bytes::from(vec![1; 15_000]);
                for _ in 0..40 {
                    assert_eq!(table.echo(row.clone()).await.unwrap(), row);
                }
                drop(busy);
            });
        }
        drop(busy);
        within("the work", done.recv()).await;
        holds_less(before, 10 * MIB).await;
        for (table, watch) in open {
            assert_eq!(table.echo("7".into()).await.unwrap(), "7");
            drop(watch);
        }
    });
}
