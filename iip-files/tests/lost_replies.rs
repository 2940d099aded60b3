//! Calls whose requests or replies are lost with their connection.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use iip_files::{FileClient, Folder};
use iip_rpc::interceptor::{Completion, Next, ServerCall, ServerInterceptor};
use iip_rpc::{Client, Server, Status};

use crate::common::{MIB, Pair, content, names, within};

/// An interceptor that loses the first calls of some methods. It counts the calls of all methods.
#[derive(Clone, Default)]
struct Losses {
    counts: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    /// The methods, and if they run although their replies are lost.
    lost: &'static [(&'static str, bool)],
}

impl ServerInterceptor for Losses {
    async fn intercept(
        &self,
        call: ServerCall,
        next: Next<ServerCall>,
    ) -> Result<Completion, Status> {
        let name = call.method().name();
        let is_first = {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(name).or_default();
            *count += 1;
            *count == 1
        };
        match self.lost.iter().find(|(lost, _)| is_first && *lost == name) {
            Some(&(_, runs)) => {
                if runs {
                    drop(next.run(call).await);
                }
                Err(Status::unavailable("the connection was lost"))
            }
            None => Ok(next.run(call).await),
        }
    }
}

impl Losses {
    async fn serve(&self, folder: &Path) -> (Server, FileClient) {
        let folder = Folder::open(folder).unwrap().writable(true);
        let server = Server::builder()
            .interceptor(self.clone())
            .service(folder.into_service());
        let server = server.bind("127.0.0.1:0").await.unwrap();
        let files = FileClient::new(Client::connect(server.target()).await.unwrap());
        (server, files)
    }

    fn count(&self, method: &str) -> usize {
        self.counts.lock().unwrap()[method]
    }
}

#[tokio::test]
async fn a_file_whose_commit_lost_its_reply_is_not_sent_again() {
    let pair = Pair::new().await;
    let (source, size) = (pair.local.join("source"), 3 * MIB);
    fs::write(&source, content(size)).unwrap();
    for runs in [&[("commit", true)], &[("commit", false)]] {
        let losses = Losses {
            lost: runs,
            ..Losses::default()
        };
        let (_server, files) = losses.serve(&pair.served).await;
        let report = within("the put", files.put(&source, "file")).await.unwrap();
        assert_eq!(report.transferred, size as u64);
        assert_eq!((losses.count("commit"), losses.count("open")), (2, 1));
        assert!(fs::read(pair.served.join("file")).unwrap() == content(size));
        assert_eq!(pair.names(), ["file"]);
    }
}

#[tokio::test]
async fn the_first_calls_of_a_transfer_are_retried_too() {
    let pair = Pair::new().await;
    fs::create_dir(pair.served.join("it")).unwrap();
    fs::write(pair.served.join("it/file"), "x").unwrap();
    let losses = Losses {
        lost: &[("stat", false), ("list", false), ("read_small", true)],
        ..Losses::default()
    };
    let (_server, files) = losses.serve(&pair.served).await;
    let target = pair.local.join("it");
    within("the get", files.get("it", &target)).await.unwrap();
    assert_eq!(names(&target), ["file"]);
    assert_eq!(losses.count("list"), 2);
}
